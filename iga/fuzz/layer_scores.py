"""The kernels' scores of a call's pairs: Σ_p score as the layer's implementation forms it, against float64.

    |Σ_p score_p − Σ_p score_p(float64)|  ≤  Σ_p b_p + (P + 1) u Σ_p |score_p|            docs/theory.md, 8.3 and 8.4

b_p is the proven budget of one score. Only the geometry is asked for, so a call may have hundreds of residues: millions
of pair-points a second. What is right is the closed form in float64, a slower code of this package; of a small call the
QR judge, which shares nothing with it: so what was made small is judged by that.

    μ = t + R (m + u ⊙ σ)        σ = floor(exp(log s + d))        u, d: numbers counted by residue, head and point
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from iga import bounds
from iga._typing import Tensor
from iga.frame import Frame
from iga.functional import PointGaussians, point_gaussians
from iga.fuzz.layer_genome import GEOMETRY, LayerGenome
from iga.fuzz.layer_relations import Relation
from iga.fuzz.layer_scene import LayerScene
from iga.gaussian import GaussianRigid
from iga.kernels.choice import choose
from iga.kernels.engine import Geometry, Score
from iga.kernels.ops import engine_for
from iga.overlap import gaussian_overlap
from iga.presets import IGAConfig
from iga.search.counted import unit_numbers
from iga.testing.judges.overlap import condition, overlap_reference
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally

__all__ = ["KERNEL_SCORES", "asks_kernels"]

ROWS = 1 << 16  # pair-points judged at once: of 2¹⁴ to 2¹⁸ the fastest, by what a cache holds in float64
SMALL = 4096  # pair-points up to which the QR judge says what is right
CPU = torch.device("cpu")


def asks_kernels(subject: Subject) -> bool:
    """Whether the subject is a layer of this package's that a kernel computes."""
    return not subject.foreign and subject.config is not None and _implementation(subject) != "reference"


def _implementation(subject: Subject) -> str:
    assert subject.config is not None
    return choose(subject.implementation or "auto", CPU, torch.float32, subject.config)


def kernel_scores(scene: LayerScene, tally: Tally) -> None:
    """The scores of all pairs of each sample, in float32."""
    subject, config = scene.subject, scene.subject.config
    assert config is not None
    query, key = _gaussians(scene.genome, config)
    mask = torch.ones(query.rot.shape[:2], dtype=torch.bool)
    least = float("-inf") if config.log_det_min is None else config.log_det_min
    score = Score(config.score, config.dof, least)
    geometry = Geometry(query.rot, mask, query.mean, query.sigma, key.mean, key.sigma)
    engine = engine_for(_implementation(subject))(geometry, score)
    for rows in _blocks(scene.genome):
        found = engine.sums(rows.start, rows.stop)[0].double()
        right = _judged(geometry, rows, score)
        tally.add((found - right.sums).abs(), right.budget, _Pair(rows.start))


KERNEL_SCORES = Relation("kernel_scores", "of the score", kernel_scores)


@dataclass(frozen=True)
class _Pair:
    """The name of a pair by its place in a block that begins at row `start`."""

    start: int

    def __call__(self, index: tuple[int, ...]) -> str:
        b, h, q, k = index
        return f"Σ_p score of query {self.start + q} and key {k}, head {h}, sample {b}"


@dataclass(frozen=True, eq=False)
class _Right:
    """Σ_p score and what it may be off by, [b, h, rows, n], in float64."""

    sums: Tensor
    budget: Tensor


def _judged(g: Geometry, rows: slice, score: Score) -> _Right:
    pair = (
        g.rot[:, None, None, rows, None],
        g.q_mean[..., rows, None, :],
        g.q_sigma[..., rows, None, :],
        g.rot[:, None, None, None],
        g.k_mean[..., None, :, :],
        g.k_sigma[..., None, :, :],
    )
    kappa = condition(pair[2], pair[5])
    small = kappa.numel() <= SMALL
    dist_sq, log_det = (overlap_reference if small else gaussian_overlap)(*(x.double() for x in pair))
    clamped, u32 = log_det.clamp(min=score.log_det_min), torch.float32
    if score.kind == "student_t":
        each = -0.5 * ((score.dof + 3) * torch.log1p(dist_sq / score.dof) + clamped)
        budget = bounds.student_t_score_budget(dist_sq, log_det, kappa, u32, dof=score.dof)
    else:
        each = -0.5 * (dist_sq + clamped)
        budget = bounds.gaussian_score_budget(dist_sq, log_det, kappa, u32)
    assert isinstance(budget, Tensor)
    rounding = bounds.point_sum_budget(each.shape[2], u32)
    return _Right(each.sum(2), budget.sum(2) + rounding * each.abs().sum(2))


def _gaussians(genome: LayerGenome, config: IGAConfig) -> tuple[PointGaussians, PointGaussians]:
    """Queries' and keys', float32: each residue's own, moved and scaled by the layer's formulas."""
    parts = [getattr(genome, name).double() for name in GEOMETRY]
    rigid = GaussianRigid(Frame(parts[0], parts[1]), parts[2], parts[3])
    head, point = torch.arange(genome.sizes["no_heads"]), torch.arange(genome.points)
    at = (
        genome.samples[:, None, None, None, None], head[:, None, None, None],
        point[:, None, None], genome.ids[:, None], torch.arange(3),
    )  # fmt: skip
    found = []
    for side in (0, 1):
        offset, scale = (unit_numbers(4 * genome.choice + 2 * side + k, *at) for k in (0, 1))
        one = point_gaussians(rigid, offset, scale, config)
        found.append(PointGaussians(one.rot.float(), one.mean.float().contiguous(), one.sigma.float().contiguous()))
    return found[0], found[1]


def _blocks(genome: LayerGenome) -> Iterator[slice]:
    """Rows of queries, so many at once as ROWS allows."""
    n = genome.residues
    step = max(1, ROWS * n // max(genome.pair_points, 1))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))
