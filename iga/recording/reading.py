"""The numbers of one call that limits are about, from what the layer showed; and, where asked, the place of each.

A layer that offers a trace is read by the metrics of `iga.diagnostics`; any other by the taps that it shows
(`iga.taps`), and its softmax where no tap shows the weights. Of taps, pairs whose shown logit is −∞ are masked; a layer
that masks with a large number shows no mask, and all its pairs count.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from iga._typing import Bool, Float, Int, Tensor
from iga.diagnostics import SATURATION, Summary, layer_metrics, row_spreads, spread, summary, to_floats
from iga.functional import Trace

__all__ = ["Reading", "Rows", "Seen", "of_trace", "reading", "rows_of"]

# Taps in the order in which a layer computes them, with the name that their statistics have in logs.
GEOMETRY = ("sigma", "mean", "dist_sq", "log_det", "score", "geometry_logit", "logits", "weights", "values")
LOGGED = {"dist_sq": "dist_sq", "log_det": "log_det", "geometry_logit": "geo_scaled"}


@dataclass(frozen=True, eq=False)
class Rows:
    """What the rows of an attention hold. `lead`: the dimensions that stand before queries and keys, [l] as one.

    largest, entropy [l, q]   the largest weight, and −Σ w ln w in nats
    key [l, q]                the key of the largest weight
    valid [l, q]              a row of a residue that is not masked
    others [l, q]             a valid row of two keys or more, so that it need not be saturated
    bad [l]                   whether a logit is NaN or +∞, or a weight of a valid row is not finite
    """

    lead: tuple[int, ...]
    largest: Float[Tensor, "l q"]
    entropy: Float[Tensor, "l q"]
    key: Int[Tensor, "l q"]
    valid: Bool[Tensor, "l q"]
    others: Bool[Tensor, "l q"]
    bad: Bool[Tensor, " l"]


@dataclass(eq=False)
class Seen:
    """One call of a layer: tensors by tap in `iga._tap_order`, rows of its attentions, and the tensors that it gave.

    pairs    bool [b, 1, q, k], valid pairs; None: all of them
    trace    of a layer that offers one
    """

    tensors: dict[str, list[Tensor]] = field(default_factory=dict)
    rows: list[Rows] = field(default_factory=list)
    outputs: Sequence[Tensor] = ()
    pairs: Tensor | None = None
    trace: Trace | None = None


@dataclass(frozen=True, eq=False)
class Reading:
    """metrics: by name, without prefix; pool: for those over all layers; values: kind of limit → what it is about.

    not_finite  names of what holds numbers that are not finite
    """

    metrics: dict[str, float]
    pool: Summary
    values: dict[str, float]
    not_finite: tuple[str, ...]


def rows_of(logits: Float[Tensor, "l q k"] | None, weights: Float[Tensor, "l q k"], lead: tuple[int, ...]) -> Rows:
    """The rows of an attention. A key whose logit is −∞ is masked; a row without keys is of a masked residue."""
    weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
    finite = weights.isfinite().all(dim=-1)
    if logits is None:
        valid, others = torch.ones_like(finite), torch.full_like(finite, weights.shape[-1] > 1)
        bad = torch.zeros_like(finite)
    else:
        keys = (logits != -torch.inf).sum(dim=-1)
        valid, others = keys > 0, keys > 1
        bad = (logits.isnan() | (logits == torch.inf)).any(dim=-1)
    largest, key = weights.max(dim=-1)
    entropy = torch.special.entr(weights).sum(dim=-1)
    return Rows(lead, largest, entropy, key, valid, others, (bad | ~finite & valid).any(dim=-1))


def of_trace(trace: Trace, outputs: Sequence[Tensor]) -> Seen:
    """What a layer's trace shows, its leading dimensions as one."""

    def flat(x: Tensor, ends: int) -> Tensor:
        return x.reshape(-1, *x.shape[x.ndim - ends :])

    tensors: dict[str, list[Tensor]] = {
        name: [flat(getattr(one, name), 4) for one in (trace.query, trace.key)] for name in ("sigma", "mean")
    }
    tensors |= {name: [flat(getattr(trace, name), 4)] for name in ("dist_sq", "log_det", "score")}
    named = {"geometry_logit": trace.geo_scaled, "logits": trace.logits, "weights": trace.weights}
    tensors |= {name: [flat(x, 3)] for name, x in named.items()}
    valid = trace.mask[..., None, :].expand(trace.weights.shape[:-1])  # [*b, h, q]
    others = valid & (trace.mask.sum(dim=-1) > 1)[..., None, None]
    largest, key = trace.weights.max(dim=-1)
    entropy = torch.special.entr(trace.weights).sum(dim=-1)
    bad = (~(trace.weights.isfinite().all(dim=-1)) & valid).any(dim=-1)
    lead = (math.prod(trace.weights.shape[:-3]), trace.weights.shape[-3])
    parts = (x.reshape(-1, x.shape[-1]) for x in (largest, entropy, key, valid, others))
    rows = Rows(lead, *parts, bad=bad.flatten())
    return Seen(tensors, [rows], outputs, flat(trace.pair_mask[..., None, :, :], 3), trace)


def reading(seen: Seen) -> Reading:
    """All the numbers, with few transfers to the host."""
    if seen.trace is not None:
        metrics, pool = layer_metrics(seen.trace), summary(seen.trace)
    else:
        metrics, pool = _metrics(seen)
    row = {"saturated": [], "entropy": []}
    for one in seen.rows:
        row["saturated"].append(one.largest[one.others] > SATURATION)
        row["entropy"].append(one.entropy[one.others])
    values = {kind: torch.cat([part.double() for part in parts]) for kind, parts in row.items() if parts}
    scalars = {kind: part.mean() for kind, part in values.items() if part.numel()}
    bad = {f"bad {name}": x.double() for name, x in _not_finite(seen)}
    found = to_floats(scalars | bad) if scalars or bad else {}
    log_det, absmax = metrics.get("log_det_min"), _absmax(metrics)
    if log_det is not None and pool[2] is not None and float(pool[2]) != math.inf:  # of no pair at all
        found["log_det"] = log_det
    if absmax is not None:
        found["geometry_logit"] = absmax
    names = [name.removeprefix("bad ") for name, value in found.items() if name.startswith("bad ") and value]
    names += [name for name in LOGGED.values() if name not in names and not _finite(metrics, name)]
    known = {"non_finite": float(len(names))} | {k: v for k, v in found.items() if not k.startswith("bad ")}
    return Reading(metrics, pool, known, tuple(names))


def _finite(metrics: dict[str, float], name: str) -> bool:
    """Whether the extremes are; a mean may overflow where no number does."""
    return all(math.isfinite(metrics.get(f"{name}_{end}", 0.0)) for end in ("min", "max"))


def _absmax(metrics: dict[str, float]) -> float | None:
    if "geo_scaled_min" not in metrics:
        return None
    return max(abs(metrics["geo_scaled_min"]), abs(metrics["geo_scaled_max"]))


def _metrics(seen: Seen) -> tuple[dict[str, float], Summary]:
    """Those of `layer_metrics` that taps and softmax give."""
    found: dict[str, Tensor] = {}
    for tap, name in LOGGED.items():
        if tap in seen.tensors:
            found |= spread(name, torch.cat([valid_pairs(x, seen.pairs) for x in seen.tensors[tap]]))
    saturated = None
    if seen.rows:
        largest = torch.cat([one.largest[one.valid].double() for one in seen.rows])
        found |= row_spreads(largest, torch.cat([one.entropy[one.valid].double() for one in seen.rows]))
        saturated = largest > SATURATION
    absmax = None
    if "geo_scaled_min" in found:
        absmax = torch.maximum(found["geo_scaled_min"].abs(), found["geo_scaled_max"].abs())
    return to_floats(found) if found else {}, (absmax, saturated, found.get("log_det_min"))


def valid_pairs(x: Tensor, pairs: Tensor | None) -> Float[Tensor, " m"]:
    """The values of [b, h, q, k] or [b, h, p, q, k] at valid pairs."""
    mask = fitting(x, pairs)
    return x.detach().flatten() if mask is None else x.detach().masked_select(mask)


def fitting(x: Tensor, pairs: Tensor | None) -> Tensor | None:
    """`pairs` in the shape of `x`; None where every pair is valid, or the two are of different attentions."""
    if pairs is None:
        return None
    mask = pairs if x.ndim == pairs.ndim else pairs.unsqueeze(-3)
    try:
        return mask.expand(x.shape)
    except RuntimeError:
        return None


def _not_finite(seen: Seen) -> Iterator[tuple[str, Tensor]]:
    """(name, whether it holds a number that is not finite), a scalar each; those of which metrics know are left out."""
    for name, tensors in seen.tensors.items():
        if name not in LOGGED and name not in ("logits", "weights") and seen.trace is None:
            pairs = seen.pairs if name == "score" else None
            yield name, torch.stack([~valid_pairs(x, pairs).isfinite().all() for x in tensors]).any()
    if seen.rows:
        yield "softmax", torch.cat([one.bad for one in seen.rows]).any()
    # Of several outputs the first is the update; others may be masks, or logits with −∞.
    given = [x for x in seen.outputs if x.is_floating_point() or x.is_complex()][:1]
    if given:
        yield "output", ~given[0].detach().isfinite().all()
