"""The right values of one pair of Gaussians in exact rational arithmetic, beside what a function says.

This file is copied whole into every counterexample of an overlap function: it needs torch and Python alone. Every
number of the inputs is taken as the exact binary number that it is; Σ = R_i diag(σ_i²) R_iᵀ + R_j diag(σ_j²) R_jᵀ, its
cofactors and its determinant are fractions, and one logarithm is taken to 60 digits.
"""

import importlib
import importlib.util
import math
import sys
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import torch

NAMES = ("q_rot", "q_mean", "q_sigma", "k_rot", "k_mean", "k_sigma")
Matrix = list[list[Fraction]]


def tensor(of: dict[str, Any]) -> torch.Tensor:
    """The tensor that was written as {dtype, shape, values}, each value by float.hex."""
    values = [float.fromhex(x) for x in of["values"]]
    return torch.tensor(values, dtype=torch.float64).reshape(of["shape"]).to(getattr(torch, of["dtype"]))


def load(place: str, beside: Path) -> Any:
    """What stands at "file.py:name" (from here, or beside this script) or "package.module:name"."""
    where, _, name = place.rpartition(":")
    if where.endswith(".py"):
        file = next((f for f in (Path(where), beside / where, beside / Path(where).name) if f.is_file()), None)
        if file is None:
            sys.exit(
                f"{where} is not there: give the function's place, {Path(sys.argv[0]).name} path/to/file.py:{name}"
            )
        spec = importlib.util.spec_from_file_location("accused", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["accused"] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return getattr(found, "function", found)  # a target that states its claims holds the function


@cache
def exact(pair: tuple[tuple[float, ...], ...]) -> tuple[Fraction, Decimal, dict[str, list[Fraction]]]:
    """(dist_sq, log_det, derivatives of both by means, log scales and turns) of one pair of lists of numbers."""
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = ([Fraction(x) for x in part] for part in pair)
    given = ((q_rot, q_sigma), (k_rot, k_sigma))
    ends = [([rot[3 * a : 3 * a + 3] for a in range(3)], sigma) for rot, sigma in given]
    total = [
        [_sum(r[a][k] * r[b][k] * s[k] ** 2 for r, s in ends for k in range(3)) for b in range(3)] for a in range(3)
    ]
    adjugate = [[_cofactor(total, a, b) for b in range(3)] for a in range(3)]
    det = _sum(total[0][b] * adjugate[0][b] for b in range(3))
    inverse = [[adjugate[a][b] / det for b in range(3)] for a in range(3)]
    delta = [x - y for x, y in zip(q_mean, k_mean, strict=True)]
    y = [_sum(inverse[a][b] * delta[b] for b in range(3)) for a in range(3)]
    dist_sq = _sum(delta[a] * y[a] for a in range(3))
    with localcontext() as context:
        context.prec = 60
        log_det = Decimal(det.numerator).ln() - Decimal(det.denominator).ln()
    slopes: dict[str, list[Fraction]] = {"dist_sq by mean": [2 * x for x in y] + [-2 * x for x in y]}
    slopes["log_det by mean"] = [Fraction(0)] * 6
    for name in ("dist_sq", "log_det"):
        scales, turns = [], []
        for rot, sigma in ends:
            # the derivative by Σ, as a form: −y yᵀ of dist_sq, Σ⁻¹ of log_det; in the end's own frame
            form = [[-y[a] * y[b] if name == "dist_sq" else inverse[a][b] for b in range(3)] for a in range(3)]
            own = _times(_transposed(rot), _times(form, rot))
            scales += [2 * sigma[k] ** 2 * own[k][k] for k in range(3)]
            # R → R exp([ω]×): twice the skew part of 2 own diag(σ²)
            m = [[2 * own[a][b] * sigma[b] ** 2 for b in range(3)] for a in range(3)]
            turns += [m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]]
        slopes[f"{name} by log sigma"], slopes[f"{name} by rotation"] = scales, turns
    return dist_sq, log_det, slopes


def _sum(values: Any) -> Fraction:
    return sum(values, Fraction(0))


def _cofactor(m: Matrix, a: int, b: int) -> Fraction:
    i, j, k, n = (a + 1) % 3, (a + 2) % 3, (b + 1) % 3, (b + 2) % 3
    return m[i][k] * m[j][n] - m[i][n] * m[j][k]


def _transposed(m: Matrix) -> Matrix:
    return [list(column) for column in zip(*m, strict=True)]


def _times(a: Matrix, b: Matrix) -> Matrix:
    return [[_sum(a[i][k] * b[k][j] for k in range(3)) for j in range(3)] for i in range(3)]


def said(function: Any, pairs: list[torch.Tensor], gradients: bool, autocast: bool) -> dict[str, torch.Tensor]:
    """What the function says of pairs [n, …]: values [n], and with `gradients` its derivatives [n, 6]."""
    leaves = [x.clone().requires_grad_(gradients) for x in pairs]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        dist_sq, log_det = function(*leaves)
    found = {"dist_sq": dist_sq.detach().double(), "log_det": log_det.detach().double()}
    for name, value in (("dist_sq", dist_sq), ("log_det", log_det)) if gradients else ():
        grads: Any = [None] * 6
        if value.requires_grad:
            grads = torch.autograd.grad(value.sum(), leaves, retain_graph=True, allow_unused=True)
        q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = (
            (torch.zeros_like(x) if g is None else g).double() for g, x in zip(grads, leaves, strict=True)
        )
        found[f"{name} by mean"] = torch.cat([q_mean, k_mean], dim=-1)
        by_sigma = [g * leaves[place].detach().double() for g, place in ((q_sigma, 2), (k_sigma, 5))]
        found[f"{name} by log sigma"] = torch.cat(by_sigma, dim=-1)
        turns = []
        for g, place in ((q_rot, 0), (k_rot, 3)):
            m = leaves[place].detach().double().mT @ g
            turns.append(torch.stack([m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]], -1))
        found[f"{name} by rotation"] = torch.cat(turns, dim=-1)
    return found


def compare(function: Any, case: dict[str, Any]) -> bool:
    """Print what the function says beside what is right; whether it is wrong by more than the case allows."""
    wrong = False
    for label, inputs in case["pairs"].items():
        given = [tensor(inputs[name]) for name in NAMES]
        single = given[1].ndim == 1
        pairs = [x[None] if single else x for x in given]
        print(f"{label}: " + ("one pair" if single else f"{len(pairs[0])} pairs"))
        if single:
            for name, x in zip(NAMES, given, strict=True):
                print(f"  {name:8s} {x.double().flatten().tolist()}")
        try:
            found = said(function, pairs, case["gradients"], case["autocast"])
        except Exception as error:
            print(f"  it raised {type(error).__name__}: {error}")
            wrong = True
            continue
        numbers = list(zip(*([tuple(row) for row in x.double().flatten(1).tolist()] for x in pairs), strict=True))
        right = [exact(row) for row in numbers]
        for name, values in found.items():
            size = case["allowed"][label][name]
            wrong |= _row(name, values, right, [size] * len(right) if isinstance(size, float) else size)
    print("WRONG" if wrong else "right")
    return wrong


def _row(name: str, values: torch.Tensor, right: list[Any], allowed: list[float]) -> bool:
    """One line of the worst pair; whether it is wrong."""
    place = {"dist_sq": 0, "log_det": 1}.get(name)
    worst, line, wrong = -1.0, "", False
    for k, (row, limit) in enumerate(zip(right, allowed, strict=True)):
        expected = [row[place]] if place is not None else row[2][name]
        got = values[k].flatten().tolist()
        off = _distance(got, expected)
        bad = not off <= limit
        share = off / limit if limit else (math.inf if off else 0.0)
        if share > worst or not line:
            worst, of = share, f" of pair {k}" if len(right) > 1 else ""
            words = f"it says {_text(got)}, right is {_text([float(e) for e in expected])}"
            line = f"  {name}{of}: {words}; off by {off:.3g}, allowed {limit:.3g}"
        wrong |= bad
    print(line + ("   <- wrong" if wrong else ""))
    return wrong


def _distance(got: list[float], expected: list[Any]) -> float:
    """The length of the difference; infinite where a number is not finite."""
    if not all(math.isfinite(x) for x in got):
        return math.inf
    return math.hypot(*(float(abs(Fraction(g) - Fraction(e))) for g, e in zip(got, expected, strict=True)))


def _text(values: list[float]) -> str:
    shown = ", ".join(f"{x:.9g}" for x in values)
    return shown if len(values) == 1 else f"({shown})"


def main(case: dict[str, Any], arguments: list[str]) -> int:
    """1 while the function is wrong on the case, 0 once it is right."""
    place = arguments[0] if arguments else case["target"]
    print(f"{place}, {case['check']}: {case['where']}")
    torch.set_num_threads(1)
    return int(compare(load(place, Path(__file__).resolve().parent), case))
