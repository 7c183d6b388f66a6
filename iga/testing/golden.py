"""Golden vectors: pairs of Gaussians with certified enclosures of dist_sq, log_det and their gradients.

For implementations of the overlap in any language: `golden_vectors.json` (schema in it and in docs/golden.md) holds
exact inputs and, for each value, two float64 between which the exact one lies. They are made by

    python -m iga.testing.golden --found benches/results/accuracy_float32.json --output FILE

from ball arithmetic (`iga.testing.judges.rigorous`), which shares no code with `iga.overlap`. `--check FILE` computes
every enclosure of a file anew from its inputs. `judge_golden` holds an overlap function of torch tensors, and its
gradients, to the packaged vectors, within the budgets of `iga.bounds`. nm; references: docs/theory.md, sections 6, 9.3
and 11.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from iga import bounds
from iga._files import write_text
from iga._typing import Tensor
from iga.testing.golden_pairs import DEFAULT_COUNT, Drawn, draw
from iga.testing.judges.overlap import condition
from iga.testing.tally import Tally

__all__ = ["GoldenPair", "check_document", "document", "judge_golden", "load_golden"]

SCHEMA = 1
ARGUMENTS = ("q_rot", "q_mean", "q_sigma", "k_rot", "k_mean", "k_sigma")
OF_DIST_SQ = ("q_omega", "q_mean", "q_log_sigma", "k_omega", "k_log_sigma")
OF_LOG_DET = ("q_omega", "q_log_sigma", "k_omega", "k_log_sigma")
_ABOUT = {
    "what": "overlaps of two Gaussians: exact inputs, and certified enclosures of dist_sq, log_det and their gradients",
    "definition": "delta = q_mean - k_mean; S = q_rot diag(q_sigma^2) q_rot^T + k_rot diag(k_sigma^2) k_rot^T; "
    "dist_sq = delta^T S^-1 delta; log_det = ln det S; with the matrices exactly as given, which are rotations up to "
    "rounding",
    "units": "nm: means and sigma in nm, S in nm^2, dist_sq without unit",
    "inputs": "hexadecimal floating point (C99 %a, Python float.fromhex), exact in the pair's dtype; "
    "*_rot: 9 numbers by rows, local to global, columns are the axes; *_mean, *_sigma: 3 numbers",
    "enclosures": "[lower, upper]: the exact value lies between them; each number is a float64 in shortest form, so "
    "read it as float64; [0.0, 0.0] is exactly 0",
    "d_dist_sq, d_log_det": "enclosures of gradients, 3 components each: *_mean: d/d mean, per nm; *_log_sigma: "
    "d/d ln sigma = sigma * d/d sigma, means held fixed; *_omega: d/d omega of R -> R exp([omega]x), which is "
    "(m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]) with m = R^T (d/dR). Left out, as they follow: "
    "d dist_sq/d k_mean = -(d dist_sq/d q_mean), and d log_det/d mean = 0",
    "kappa": "largest over smallest sigma of the pair: rounding costs a few kappa * 2^-24 in float32",
    "dtype": "of the pair: its matrices are rotations to the rounding of this dtype, so judge float32 arithmetic by "
    "the float32 pairs and float64 by the float64 ones",
}

Overlap = Callable[..., tuple[Tensor, Tensor]]
Bounds = tuple[float, float]


@dataclass(frozen=True)
class GoldenPair:
    """One pair: `inputs` by name (exact numbers), and (lower, upper) of the values and of each gradient's components.

    `dtype` is "float32" or "float64": it holds the inputs, and to its rounding the matrices are rotations. Gradients
    are named as in the file.
    """

    name: str
    dtype: str
    inputs: dict[str, tuple[float, ...]]
    dist_sq: Bounds
    log_det: Bounds
    of_dist_sq: dict[str, tuple[Bounds, ...]]
    of_log_det: dict[str, tuple[Bounds, ...]]


def load_golden(path: Path | None = None) -> list[GoldenPair]:
    """The packaged vectors, or those of a file. Raises ValueError if it is none of schema 1, OSError if unreadable."""
    if path is None:
        text = resources.files("iga.testing").joinpath("golden_vectors.json").read_text(encoding="utf-8")
    else:
        text = path.read_text(encoding="utf-8")
    name = "golden_vectors.json" if path is None else str(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} must be JSON made by python -m iga.testing.golden: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"{name} must have schema {SCHEMA}; make it with python -m iga.testing.golden --output FILE")
    try:
        return [_read(row) for row in content["pairs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name} has a pair that is not of schema {SCHEMA}: {error!r}") from error


def document(pairs: list[Drawn], *, command: str) -> str:
    """The JSON text of the pairs with their enclosures, one pair a line."""
    counts: dict[str, int] = {}
    lines = []
    for pair in pairs:
        counts[pair.kind] = counts.get(pair.kind, 0) + 1
        lines.append(_json(_row(f"{pair.kind} {counts[pair.kind]}", pair.dtype, pair.numbers)))
    about = {"schema": SCHEMA, **_ABOUT, "command": command}
    head = "".join(f"{json.dumps(key)}:{_json(value)},\n" for key, value in about.items())
    return "{" + head + '"pairs":[\n' + ",\n".join(lines) + "\n]}\n"


def check_document(path: Path) -> list[str]:
    """What is wrong with a file, one line each: enclosures that miss the exact value, or are not tight."""
    from iga.testing.judges.rigorous import outward

    wrong = []
    for pair in load_golden(path):
        exact = _enclosed([pair.inputs[name] for name in ARGUMENTS])
        stated = {"dist_sq": (pair.dist_sq,), "log_det": (pair.log_det,)}
        stated |= {f"d_dist_sq/{name}": pair.of_dist_sq[name] for name in OF_DIST_SQ}
        stated |= {f"d_log_det/{name}": pair.of_log_det[name] for name in OF_LOG_DET}
        for name, found in stated.items():
            for component, (ball, (lower, upper)) in enumerate(zip(exact[name], found, strict=True)):
                low, high = outward(ball)
                # a file may have come from other bits: one more step outwards is as good
                tight = math.nextafter(low, -math.inf) <= lower and upper <= math.nextafter(high, math.inf)
                if not (lower <= high and low <= upper):
                    wrong.append(f"{pair.name}: {name}[{component}] is in [{low!r}, {high!r}], not [{lower}, {upper}]")
                elif not ((lower <= low and high <= upper) and tight):
                    wrong.append(f"{pair.name}: {name}[{component}] should be [{low!r}, {high!r}]: [{lower}, {upper}]")
    return wrong


def judge_golden(f: Overlap, dtype: torch.dtype, *, pairs: list[GoldenPair] | None = None) -> list[Tally]:
    """An overlap function and its gradients against the vectors: one Tally a quantity, `finding()` gives its verdict.

    f      called as f(q_rot [n, 3, 3], q_mean [n, 3], q_sigma [n, 3], k_rot, k_mean, k_sigma), all of `dtype`, gives
           (dist_sq [n], log_det [n]); its gradients by torch.autograd
    dtype  float32 or float64; the vectors of that dtype are taken, as float32 matrices are no rotations in float64

    Values are distances to the enclosure in units of κu and of the quantity's size (dist_sq; √2 √dist_sq/σ_min for
    ∂/∂μ; κ dist_sq and κ for ∂/∂ω; 1), limits the budgets of docs/theory.md, 6.3, 6.4, 9.3 and 11.5. Where the budget
    is above the size itself the example counts as unable to fail. Raises ValueError for another dtype, if there are no
    vectors of it, or if f does not return two tensors [n].
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    rows = [pair for pair in (load_golden() if pairs is None else pairs) if f"torch.{pair.dtype}" == str(dtype)]
    if not rows:
        raise ValueError(f"pairs must hold some of {dtype}; the packaged ones hold float32 and float64")
    count = len(rows)
    columns = [torch.tensor([pair.inputs[name] for pair in rows], dtype=torch.float64).to(dtype) for name in ARGUMENTS]
    inputs = [x.reshape(count, 3, 3) if k in (0, 3) else x for k, x in enumerate(columns)]
    leaves = [x.requires_grad_() for x in inputs]
    outputs = f(*leaves)
    two = isinstance(outputs, (tuple, list)) and len(outputs) == 2
    if not two or not all(isinstance(x, Tensor) and x.shape == (count,) for x in outputs):
        raise ValueError(f"f must return (dist_sq, log_det), two tensors of shape [{count}] for {count} pairs")
    gradients = [_gradients(x, leaves) for x in outputs]

    u, kappa = bounds.unit_roundoff(dtype), condition(columns[2], columns[5])
    unit = kappa * u
    shortest = torch.minimum(columns[2].amin(-1), columns[5].amin(-1)).double()
    true_dist_sq = torch.tensor([0.5 * sum(pair.dist_sq) for pair in rows], dtype=torch.float64)
    true_log_det = torch.tensor([0.5 * sum(pair.log_det) for pair in rows], dtype=torch.float64)
    one = torch.ones_like(kappa)
    tallies = []

    def judged(
        name: str, tensors: list[tuple[Tensor, str]], of: str, size: Tensor, limit: Tensor, *, vector: bool = False
    ) -> None:
        tally = Tally(f"golden {name}", "κu")
        for found, key in tensors:
            error = _beyond(found, _stated(rows, of, key))
            error = error.norm(dim=-1) if vector else error.amax(-1)
            error = torch.where(error == 0, 0.0, error / (size * unit))  # 0/0: exactly 0 where it has to be
            able = (limit < size) | (size == 0)
            budget = torch.where(size == 0, 0.0, limit / (size * unit))
            label = f"{key} of " if key else ""
            tally.add(error, budget, lambda index, label=label: f"{label}{rows[index[0]].name}", could_fail=able)
        tallies.append(tally)

    budget = bounds.dist_sq_budget(kappa, dtype, roundings=bounds.REFERENCE) * true_dist_sq
    judged("dist_sq", [(outputs[0][:, None], "")], "dist_sq", true_dist_sq, budget)
    budget = bounds.log_det_budget(kappa, dtype, magnitude=true_log_det.abs(), roundings=bounds.REFERENCE)
    judged("log_det", [(outputs[1][:, None], "")], "log_det", one, budget)
    for of, gradient in zip(("of_dist_sq", "of_log_det"), gradients, strict=True):
        if gradient is None:
            for name in ("mean", "log σ", "ω"):
                tally = Tally(f"golden ∂{of[3:]}/∂{name}", "κu")
                tally.fail("all pairs", "no gradient reaches the inputs")
                tallies.append(tally)
            continue
        omega = [(_tangent(inputs[k], gradient[k]), f"{side}_omega") for k, side in ((0, "q"), (3, "k"))]
        scale = [(columns[k].double() * gradient[k], f"{side}_log_sigma") for k, side in ((2, "q"), (5, "k"))]
        mean = [(gradient[1], "q_mean"), (gradient[4], "k_mean")]
        if of == "of_dist_sq":
            size = math.sqrt(2.0) * true_dist_sq.sqrt() / shortest
            budget = bounds.dist_sq_gradient_budget(true_dist_sq, kappa, shortest, dtype)
            judged("∂dist_sq/∂mean", mean, of, size, budget, vector=True)
            budget = bounds.log_scale_gradient_budget(true_dist_sq, kappa, dtype)
            judged("∂dist_sq/∂log σ", scale, of, true_dist_sq, budget)
            budget = bounds.torque_budget(true_dist_sq, kappa, dtype)
            judged("∂dist_sq/∂ω", omega, of, kappa * true_dist_sq, budget)
        else:
            budget = bounds.log_det_gradient_budget(kappa, dtype)
            judged("∂log_det/∂mean", mean, of, one / shortest, budget / shortest, vector=True)
            judged("∂log_det/∂log σ", scale, of, one, budget)
            judged("∂log_det/∂ω", omega, of, kappa, log_det_torque_budget(kappa, dtype))
    return tallies


def log_det_torque_budget(kappa: Tensor, dtype: torch.dtype) -> Tensor:
    """|Δ ∂log_det/∂ω_a| ≤ 150 (κ + κ²) u, along the tangent, first order. docs/theory.md, 11.5."""
    return 150.0 * (kappa + kappa * kappa) * bounds.unit_roundoff(dtype)


def main(arguments: list[str] | None = None) -> int:
    """Make a file of vectors, or check one: 0; 1 if an enclosure is wrong; 2 with one line for misuse."""
    parser = argparse.ArgumentParser(prog="python -m iga.testing.golden", description="Golden vectors of the overlap.")
    parser.add_argument("--output", type=Path, help="write the vectors here; default: standard output")
    parser.add_argument("--check", type=Path, help="compute the enclosures of this file anew and compare")
    parser.add_argument("--count", type=int, default=DEFAULT_COUNT, help="pairs to draw, about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--found", type=Path, help="JSON of python -m iga.testing.overlap.worst_rounding, whose worst pairs are added"
    )
    try:
        chosen = parser.parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        if chosen.check is not None:
            return _check(chosen.check)
        found = f" --found {chosen.found.as_posix()}" if chosen.found is not None else ""
        command = f"python -m iga.testing.golden --count {chosen.count} --seed {chosen.seed}{found}"
        text = document(draw(chosen.count, chosen.seed, chosen.found), command=command)
        if chosen.output is None:
            sys.stdout.write(text)
        else:
            write_text(chosen.output, text)
    except (OSError, ValueError, ImportError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    return 0


def _check(path: Path) -> int:
    count = len(load_golden(path))
    wrong = check_document(path)
    for line in wrong:
        sys.stdout.write(line + "\n")
    sys.stdout.write(f"{path}: {len(wrong)} of the enclosures of {count} pairs are wrong\n")
    return 1 if wrong or not count else 0


def _enclosed(numbers: Any) -> dict[str, tuple[Any, ...]]:
    """The balls of one pair under the file's names."""
    from iga.testing.judges.rigorous import enclosure

    found = enclosure(numbers)
    balls = {"dist_sq": (found.dist_sq,), "log_det": (found.log_det,)}
    balls |= {f"d_dist_sq/{name}": getattr(found.of_dist_sq, name) for name in OF_DIST_SQ}
    return balls | {f"d_log_det/{name}": getattr(found.of_log_det, name) for name in OF_LOG_DET}


def _row(name: str, dtype: str, numbers: Any) -> dict[str, Any]:
    from iga.testing.judges.rigorous import outward

    balls = {key: [list(outward(ball)) for ball in value] for key, value in _enclosed(numbers).items()}
    row: dict[str, Any] = {"name": name, "dtype": dtype}
    row |= {key: [_hex(x) for x in numbers[k]] for k, key in enumerate(ARGUMENTS)}
    row |= {"dist_sq": balls["dist_sq"][0], "log_det": balls["log_det"][0]}
    for of, names in (("d_dist_sq", OF_DIST_SQ), ("d_log_det", OF_LOG_DET)):
        row[of] = {key: balls[f"{of}/{key}"] for key in names}
    return row


def _read(row: Any) -> GoldenPair:
    inputs = {name: tuple(float.fromhex(x) for x in row[name]) for name in ARGUMENTS}
    of_dist_sq = {name: _bounds(row["d_dist_sq"][name]) for name in OF_DIST_SQ}
    of_log_det = {name: _bounds(row["d_log_det"][name]) for name in OF_LOG_DET}
    of_dist_sq["k_mean"] = tuple((-upper, -lower) for lower, upper in of_dist_sq["q_mean"])
    of_log_det["q_mean"] = of_log_det["k_mean"] = ((0.0, 0.0),) * 3
    values = _bounds([row["dist_sq"], row["log_det"]])
    return GoldenPair(row["name"], row["dtype"], inputs, values[0], values[1], of_dist_sq, of_log_det)


def _bounds(rows: Any) -> tuple[Bounds, ...]:
    return tuple((float(lower), float(upper)) for lower, upper in rows)


def _hex(x: float) -> str:
    """float.hex without its trailing zeros."""
    mantissa, exponent = float(x).hex().split("p")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}p{exponent}"


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _stated(rows: list[GoldenPair], of: str, key: str) -> Tensor:
    """[n, components, 2]"""
    stated = [getattr(pair, of)[key] if key else (getattr(pair, of),) for pair in rows]
    return torch.tensor(stated, dtype=torch.float64)


def _beyond(found: Tensor, stated: Tensor) -> Tensor:
    """How far each number lies outside its enclosure; NaN stays."""
    value = found.detach().double()
    return torch.maximum(stated[..., 0] - value, value - stated[..., 1]).clamp(min=0.0)


def _gradients(output: Tensor, leaves: list[Tensor]) -> list[Tensor] | None:
    if not output.requires_grad:
        return None
    found = torch.autograd.grad(output.sum(), leaves, retain_graph=True, materialize_grads=True)
    return [x.detach().double() for x in found]


def _tangent(rot: Tensor, gradient: Tensor) -> Tensor:
    """∂/∂ω of R exp([ω]×) from ∂/∂R: the skew part of Rᵀ∂R. docs/theory.md, 9.3."""
    m = (rot.detach().double()[:, :, :, None] * gradient[:, :, None, :]).sum(-3)
    return torch.stack([m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]], dim=-1)


if __name__ == "__main__":
    sys.exit(main())
