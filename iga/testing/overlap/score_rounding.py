"""Scores of degenerate pairs by every implementation that runs here, against float64 and the proven budgets.

`python -m iga.testing.overlap.score_rounding` draws pairs (`iga.search.pairs`), gives each to the kernels as a batch
entry of two residues, alone and with a twin (the CPU kernels take points in pairs), and prints the largest error over
its budget (docs/theory.md, 8.3), per implementation, score and band of κ. `--compositions n` sends every frame
through n products in float32 before: by `iga.rotation.compose`, whose budgets are those of rounded rotations, or, with
`--plain`, by products alone, and the budgets take the drift that those leave. Exit code 1 if one is exceeded.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from iga import bounds
from iga._typing import Float, Tensor
from iga.kernels.engine import Geometry, Score
from iga.kernels.ops import engine_for
from iga.overlap import gaussian_overlap, gaussian_score, student_t_score
from iga.rotation import compose, multiply, random, transpose
from iga.search.pairs import Domain, Pairs, decode, degenerate_pairs
from iga.testing.judges.overlap import condition, drift, overlap_reference

__all__ = ["BANDS", "SCORES", "Worst", "composed", "errors", "scores", "search", "table"]

SCORES = (
    Score("gaussian", 1.0, float("-inf")),
    Score("student_t", 4.0, float("-inf")),
    Score("student_t", 40.0, -12.0),
)
BANDS = ((1.0, 10.0), (10.0, 1000.0), (1000.0, float("inf")))
CHUNK = 5000
EAGER = 100_000_000  # products beyond which compiling them, a quarter of a minute, is repaid


def scores(implementation: str, pairs: Pairs, score: Score, points: int = 1) -> Float[Tensor, " n"]:
    """The scores [n] of pairs [n, ·], summed over `points` equal points, as "reference", "cpu" or "fused" has them."""
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = pairs
    if implementation == "reference":
        overlap = gaussian_overlap(*pairs)
        clamp = None if score.log_det_min == float("-inf") else score.log_det_min
        if score.kind == "gaussian":
            return points * gaussian_score(*overlap, log_det_min=clamp)
        return points * student_t_score(*overlap, dof=score.dof, log_det_min=clamp)
    count = len(q_rot)
    mean, sigma = (
        torch.stack(both, dim=1)[:, None, None].expand(-1, 1, points, -1, -1).contiguous()
        for both in ((q_mean, k_mean), (q_sigma, k_sigma))
    )
    mask = torch.ones(count, 2, dtype=torch.bool, device=q_rot.device)
    geometry = Geometry(torch.stack((q_rot, k_rot), dim=1), mask, mean, sigma, mean.clone(), sigma.clone())
    return engine_for(implementation)(geometry, score).sums(0, 1)[0][:, 0, 0, 1]


def errors(
    implementation: str, pairs: Pairs, score: Score, points: int = 1
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """(|error|, proven budget) of each pair's score, float64; against the matrices as given, with the drift that they
    have where that is more than rounding explains."""
    dtype = pairs[0].dtype
    u, kappa = bounds.unit_roundoff(dtype), condition(pairs[2], pairs[5])
    dist_sq, log_det = overlap_reference(*pairs)
    clamped = log_det.clamp(min=score.log_det_min)
    off = (torch.maximum(drift(pairs[0]), drift(pairs[3])) / u).clamp(min=bounds.ROUNDED_DRIFT)
    given = {"drift": off, "roundings": bounds.IMPLEMENTATIONS[implementation]}
    if score.kind == "gaussian":
        expected = -0.5 * (dist_sq + clamped)
        budget = bounds.gaussian_score_budget(dist_sq, log_det, kappa, dtype, **given)
    else:
        expected = -0.5 * ((score.dof + 3) * torch.log1p(dist_sq / score.dof) + clamped)
        budget = bounds.student_t_score_budget(dist_sq, log_det, kappa, dtype, dof=score.dof, **given)
    summed = bounds.point_sum_budget(points, dtype) * expected.abs() if points > 1 else 0.0
    error = (scores(implementation, pairs, score, points).double() - points * expected).abs()
    return error, points * (budget + summed)


def composed(
    rot: Float[Tensor, "n 3 3"],
    compositions: int,
    generator: torch.Generator,
    product: Callable[[Tensor, Tensor], Tensor] = compose,
) -> Float[Tensor, "n 3 3"]:
    """`rot` after so many products with rotations in its own dtype, away and back: what is left is their rounding."""
    away = [random(generator=generator, dtype=rot.dtype) for _ in range(compositions // 2)]
    for turn in [*away, *(transpose(turn) for turn in reversed(away))]:
        rot = product(rot, turn)
    return rot


@dataclass(frozen=True)
class Worst:
    """The largest error over budget of one implementation, score, number of points and band of κ, and the largest
    drift, in u, of the frames; `over` counts the pairs beyond their budget."""

    implementation: str
    score: str
    points: int
    band: str
    share: float
    drift: float
    over: int


def search(
    implementations: tuple[str, ...],
    pairs: int,
    *,
    compositions: int = 0,
    plain: bool = False,
    seed: int = 0,
    chunk: int = CHUNK,
) -> list[Worst]:
    """The worst of `pairs` degenerate pairs in float32, for every implementation, score and band."""
    product = multiply if plain else compose
    if pairs * compositions > EAGER:
        product = torch.compile(product, dynamic=False)
    worst: dict[tuple[str, str, int, str], Worst] = {}
    for given in _drawn(pairs, compositions, product, seed, chunk):
        kappa = condition(given[2], given[5])
        off = float(torch.maximum(drift(given[0]), drift(given[3])).amax()) / bounds.unit_roundoff(given[0].dtype)
        for implementation in implementations:
            for score in SCORES:
                for points in (1, 2):
                    error, budget = errors(implementation, given, score, points)
                    share = torch.where(error.isfinite(), error / budget, torch.inf)
                    for low, high in BANDS:
                        inside = share[(kappa >= low) & (kappa < high)]
                        if not len(inside):
                            continue
                        named = score.kind if score.kind == "gaussian" else f"{score.kind}, ν = {score.dof:g}"
                        key = (implementation, named, points, f"{low:g}–{high:g}")
                        before = worst.get(key, Worst(*key, 0.0, 0.0, 0))
                        worst[key] = Worst(
                            *key,
                            max(before.share, float(inside.amax())),
                            max(before.drift, off),
                            before.over + int((inside > 1).sum()),
                        )
    return list(worst.values())


def _drawn(
    pairs: int, compositions: int, product: Callable[[Tensor, Tensor], Tensor], seed: int, chunk: int
) -> Iterator[Pairs]:
    generator, domain = torch.Generator().manual_seed(seed), Domain()
    for first in range(0, pairs, chunk):
        q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = decode(
            degenerate_pairs(min(chunk, pairs - first), generator, domain), domain
        )
        q_rot, k_rot = (composed(rot, compositions, generator, product) for rot in (q_rot, k_rot))
        yield q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma


def table(rows: list[Worst]) -> str:
    """The rows as a Markdown table."""
    lines = ["| implementation | score | points | κ | error over budget | drift | over |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        figures = f"{row.share:.3f} | {row.drift:.1f} u | {row.over}"
        lines.append(f"| {row.implementation} | {row.score} | {row.points} | {row.band} | {figures} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Search, print the table; 1 if a budget is exceeded, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m iga.testing.overlap.score_rounding", description="Scores of each implementation, judged."
    )
    parser.add_argument("--pairs", type=int, default=1_000_000, help="degenerate pairs to draw")
    parser.add_argument("--compositions", type=int, default=0, help="products that each frame goes through before")
    parser.add_argument("--plain", action="store_true", help="compose by products alone, as other packages do")
    parser.add_argument("--implementation", action="append", choices=tuple(bounds.IMPLEMENTATIONS))
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    if chosen.pairs < 1 or chosen.compositions < 0:
        parser.error("--pairs must be at least 1, and --compositions at least 0")
    implementations = tuple(chosen.implementation or ("reference", "cpu"))
    rows = search(implementations, chosen.pairs, compositions=chosen.compositions, plain=chosen.plain, seed=chosen.seed)
    sys.stdout.write(table(rows) + "\n")
    return 1 if any(row.over for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
