"""`diagnostics_agree`: the numbers that training logs are those of their definitions, masks and empty rows included.

The functions of a DiagnosticsLibrary, by default those of `iga.diagnostics`, are given constructed traces in float32
and float64, and compared with loops over rows and pairs in NumPy's float64. Among the rows are one-hot, uniform and
saturated ones, some exactly at a threshold; what lies behind the mask is NaN, or would change the number. A value is a
difference over its budget, u of the dtype times the length of the sum (docs/theory.md, section 12); counts, maxima and
minima have no rounding, so that their budget is 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from iga import diagnostics
from iga._typing import Tensor
from iga.frame import Frame
from iga.functional import PointGaussians, Trace
from iga.gaussian import GaussianRigid
from iga.testing.check import check
from iga.testing.library.laws import Comparison
from iga.testing.tally import Tally

__all__ = ["DIAGNOSTICS", "DiagnosticsLibrary", "diagnostics_agree"]

SAMPLES, HEADS, POINTS, RESIDUES = 3, 2, 2, 6
THRESHOLD = 0.75  # a number of every dtype, so that a row can lie on it
SATURATED = 0.9  # what wmax_sat_frac means, stated apart from the code under judgement
STATISTICS = {"mean": np.mean, "std": np.std, "min": np.min, "max": np.max}
PAIRWISE = ("scalar", "geo_raw", "geo_scaled", "dist_sq", "log_det")


@dataclass(frozen=True)
class DiagnosticsLibrary:
    """The functions under judgement, with the signatures of `iga.diagnostics`."""

    geo_scaled_absmax: Callable[[Trace], Tensor] = diagnostics.geo_scaled_absmax
    log_det_min: Callable[[Trace], Tensor] = diagnostics.log_det_min
    largest_weights: Callable[[Trace], Tensor] = diagnostics.largest_weights
    saturated_share: Callable[..., Tensor] = diagnostics.saturated_share
    row_entropy: Callable[[Trace], Tensor] = diagnostics.row_entropy
    row_spread: Callable[[Trace], Tensor] = diagnostics.row_spread
    layer_metrics: Callable[..., dict[str, float]] = diagnostics.layer_metrics
    global_metrics: Callable[..., dict[str, float]] = diagnostics.global_metrics


DIAGNOSTICS = DiagnosticsLibrary()


@check("diagnostics", "of the budget")
def diagnostics_agree(library: DiagnosticsLibrary, seed: int, tally: Tally) -> None:
    """Every function on traces from `seed`, in float32 and float64; each difference over its budget, at most 1."""
    for dtype in (torch.float32, torch.float64):
        rng, compare = np.random.default_rng(seed), Comparison(tally, dtype)
        views = {what: _View(_trace(rng, mask, compare)) for what, mask in _masks(rng).items()}
        steps: list[tuple[Callable[..., None], Any, str]] = [
            (step, view, what) for what, view in views.items() for step in (_rows, _extremes, _layer)
        ]
        steps.append((_pooled, list(views.values()), "all layers"))
        steps.append((_pooled, [views["no key"]], "layers without a key"))
        for step, seen, what in steps:
            try:
                step(library, seen, compare, what)
            except (ValueError, RuntimeError) as error:  # every trace is a valid one
                tally.fail(f"{what}, {compare.name}", f"{what}: {error}"[:200])
        compare.flush()


def _masks(rng: np.random.Generator) -> dict[str, np.ndarray]:
    full = np.ones((SAMPLES, RESIDUES), dtype=bool)
    some = rng.random((SAMPLES, RESIDUES)) < 0.6
    some[:, :2] = True  # the rows that are known
    some[0, -2:] = False
    single, none = np.zeros_like(full), np.zeros_like(full)
    single[:, 1] = True
    some_none = some.copy()
    some_none[1] = False
    return {"all valid": full, "masked": some, "a sample without keys": some_none, "one key": single, "no key": none}


def _trace(rng: np.random.Generator, mask: np.ndarray, compare: Comparison) -> Trace:
    """Values with NaN, or more than any valid one, wherever query or key is masked."""
    pairs = mask[:, None, :, None] & mask[:, None, None, :]
    shape = (SAMPLES, HEADS, RESIDUES, RESIDUES)

    def field(values: np.ndarray, decoy: float) -> Tensor:
        there = pairs if values.ndim == 4 else pairs[:, :, None]
        behind = np.where(rng.random(values.shape) < 0.5, decoy, np.nan)
        return compare.tensor(np.where(there, values, behind))

    weights = _weights(rng, mask)
    points = (SAMPLES, HEADS, POINTS, RESIDUES, RESIDUES)
    logits = field(rng.normal(0.0, 3.0, shape), 0.0)
    frame = Frame.identity(SAMPLES, RESIDUES, dtype=compare.dtype)
    zero = torch.zeros(SAMPLES, RESIDUES, 3, dtype=compare.dtype)
    local = torch.zeros(SAMPLES, HEADS, POINTS, RESIDUES, 3, dtype=compare.dtype)
    gaussians = PointGaussians(frame.rot, local, local + 1)
    return Trace(
        rigid=GaussianRigid(frame, zero, zero),
        query=gaussians,
        key=gaussians,
        raw_query=(local, local),
        raw_key=(local, local),
        dist_sq=field(rng.exponential(5.0, points), 1e6),
        log_det=field(rng.normal(-8.0, 3.0, points), -1e3),
        score=field(rng.normal(0.0, 1.0, points), 0.0),
        geo_raw=field(rng.normal(-3.0, 2.0, shape), 1e6),
        # Negative on the whole: the largest absolute value is that of a low one.
        geo_scaled=field(rng.normal(-4.0, 2.0, shape), -1e6),
        scalar=field(rng.normal(0.0, 1.0, shape), -1e6),
        pair_bias=None,
        logits=logits,
        weights=compare.tensor(weights),
        geo_weight=compare.tensor(rng.uniform(0.1, 2.0, (1, HEADS, 1, 1))),
        geo_bias=compare.tensor(rng.normal(0.0, 1.0, HEADS)),
        mask=torch.from_numpy(mask),
        values=(local, local, None),
        features=zero,
    )


def _weights(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """[b, h, q, k]: softmax over the valid keys, 0 elsewhere; head 0 has one-hot and uniform rows, and rows on the
    threshold; a masked query's row is one-hot, on a masked key too, which no statistic may see."""
    weights = np.zeros((len(mask), HEADS, RESIDUES, RESIDUES))
    for b, h, q in np.ndindex(weights.shape[:3]):
        keys = np.flatnonzero(mask[b])
        row = weights[b, h, q]
        if not mask[b, q]:
            row[q] = 1.0
        elif h == 0 and q == 0:
            row[keys[0]] = 1.0
        elif h == 0 and q == 1:
            row[keys] = 1.0 / len(keys)
        elif h == 1 and q == 0 and len(keys) > 1:
            row[keys[0]], row[keys[1:]] = THRESHOLD, (1 - THRESHOLD) / (len(keys) - 1)
        else:
            logit = rng.normal(0.0, 2.0, len(keys))
            # One row in three is saturated.
            logit[0] += 8.0 * (rng.random() < 1 / 3)
            row[keys] = np.exp(logit - logit.max()) / np.exp(logit - logit.max()).sum()
    return weights


class _View:
    """A trace, and what it holds at valid rows and pairs in NumPy's float64, in the order of the indices."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.mask = trace.mask.numpy()

    def rows(self, name: str) -> list[np.ndarray]:
        """The valid keys' values of each valid query row: one array a (sample, head, query)."""
        values = getattr(self.trace, name).double().numpy()
        index = np.ndindex(values.shape[:3])
        return [values[b, h, q][self.mask[b]] for b, h, q in index if self.mask[b, q]]

    def pairs(self, name: str) -> np.ndarray:
        """The values of all valid pairs, heads and points, flat."""
        values = getattr(self.trace, name).double().numpy()
        found = [values[b][..., m, :][..., m].ravel() for b, m in enumerate(self.mask)]
        return np.concatenate(found)


def _entropy(row: np.ndarray) -> float:
    held = row[row > 0]
    return float(-(held * np.log(held)).sum())


def _rows(library: DiagnosticsLibrary, view: _View, compare: Comparison, what: str) -> None:
    """w_max exactly; entropies of N terms within (N + 2)u; the spread of N logits within its two sums."""
    rows, n = view.rows("weights"), RESIDUES
    largest = np.array([row.max() for row in rows])
    compare.near(
        library.largest_weights(view.trace), largest, np.zeros(len(rows)), f"largest weights, {what}", scale=1.0
    )
    entropy = np.array([_entropy(row) for row in rows])
    limit = compare.budget(n + 2, entropy, judge=n + 2)
    compare.near(library.row_entropy(view.trace), entropy, limit, f"entropy, {what}", scale=1.0)
    logits = view.rows("geo_scaled")
    spread = np.array([np.sqrt(((row - row.mean()) ** 2).mean()) for row in logits])
    size = np.array([n * abs(row).mean() for row in logits]) + (n / 2 + 3.5) * spread
    compare.near(library.row_spread(view.trace), spread, compare.budget(1, size, judge=1), f"spread, {what}", scale=1.0)
    for threshold in (None, THRESHOLD):
        bar = SATURATED if threshold is None else threshold
        share = np.array((largest > bar).mean() if len(rows) else 0.0)
        options = {} if threshold is None else {"threshold": threshold}
        found = library.saturated_share(view.trace, **options)
        compare.near(found, share, compare.budget(2, share, judge=1), f"share above {bar}, {what}", scale=1.0)


def _extremes(library: DiagnosticsLibrary, view: _View, compare: Comparison, what: str) -> None:
    """Maxima and minima are values: no budget. Without pairs 0, and +inf for the lowest log_det."""
    scaled, log_det = view.pairs("geo_scaled"), view.pairs("log_det")
    most = np.array(abs(scaled).max() if len(scaled) else 0.0)
    compare.near(library.geo_scaled_absmax(view.trace), most, np.zeros(()), f"|logit|, {what}", scale=1.0)
    found = library.log_det_min(view.trace)
    if len(log_det):
        compare.near(found, np.array(log_det.min()), np.zeros(()), f"lowest log_det, {what}", scale=1.0)
    else:
        empty = isinstance(found, torch.Tensor) and found.shape == () and float(found) == np.inf
        compare.judge(np.array(float(not empty)), np.zeros(()), f"lowest log_det, {what}")


def _layer(library: DiagnosticsLibrary, view: _View, compare: Comparison, what: str) -> None:
    expected: dict[str, tuple[float, float]] = {}
    for name in PAIRWISE:
        values = view.pairs(name) if view.mask.any() else np.zeros(1)
        # Means and one-pass variances of M values err by M u of their root mean square, twice.
        rounding = 2 * len(values) * float(np.sqrt((values**2).mean()))
        for statistic, function in STATISTICS.items():
            exact = statistic in ("min", "max")
            expected[f"{name}_{statistic}"] = (float(function(values)), 0.0 if exact else rounding)
    largest = [row.max() for row in view.rows("weights")] or [0.0]
    entropy = [_entropy(row) for row in view.rows("weights")] or [0.0]
    expected["wmax_mean"] = (float(np.mean(largest)), len(largest))
    expected["row_entropy_mean"] = (float(np.mean(entropy)), (len(entropy) + RESIDUES + 2) * float(np.mean(entropy)))
    expected["row_entropy_min"] = (float(np.min(entropy)), (RESIDUES + 2) * np.min(entropy))
    weight, bias = (x.double().numpy() for x in (view.trace.geo_weight, view.trace.geo_bias))
    expected["geo_a"] = (float(weight.mean()), HEADS * abs(weight).mean())
    expected["geo_b"] = (float(bias.mean()), HEADS * abs(bias).mean())
    _agree(library.layer_metrics(view.trace, "l/"), {f"l/{k}": v for k, v in expected.items()}, compare, what)


def _pooled(library: DiagnosticsLibrary, views: list[_View], compare: Comparison, what: str) -> None:
    """Over all layers: the largest, the share of all rows together, the lowest."""
    scaled = np.concatenate([view.pairs("geo_scaled") for view in views])
    log_det = np.concatenate([view.pairs("log_det") for view in views])
    rows = [row.max() for view in views for row in view.rows("weights")]
    expected = {
        "g/geo_scaled_absmax": (float(abs(scaled).max(initial=0.0)), 0.0),
        "g/wmax_sat_frac": (float((np.array(rows) > SATURATED).mean()) if rows else 0.0, 2.0),
        "g/log_det_min": (float(log_det.min(initial=np.inf)), 0.0),
    }
    _agree(library.global_metrics([view.trace for view in views], "g/"), expected, compare, what)


def _agree(found: Any, expected: dict[str, tuple[float, float]], compare: Comparison, what: str) -> None:
    """Entry by entry: (value, budget in u). An infinite value has to be met as it is; names have to be those."""
    if not isinstance(found, dict) or set(found) != set(expected):
        compare.tally.fail(f"{what}, {compare.name}", f"{what}: the names are not those expected")
        return
    for name, (value, units) in expected.items():
        error = 0.0 if found[name] == value else abs(found[name] - value)
        compare.judge(np.array(error), compare.budget(1, units, judge=1), f"{name}, {what}")
