"""`score_slopes`: how fast a Student-t score may change, searched for on pairs where it changes fastest.

By autograd, of single pairs of a trace, against docs/theory.md, 9.4, with σ_min the smallest σ of the pair itself:

    |∂score/∂μ| ≤ (ν+3)/(2√(2ν) σ_min)        means that move with σ: Σ_six |∂score/∂log σ_k|
    |∂score/∂ω_a|, means fixed, by κ

Each residue is in one pair only, so that one backward pass has the derivatives of all pairs. Half of the pairs start
where a bound is attained or nearly so, half anywhere, and each climbs by mutation towards one of the three bounds.
The climb is in float64 where that is claimed; where it ended is judged in float32 too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from iga import bounds, rotation
from iga._typing import Float, Tensor
from iga.frame import Frame
from iga.functional import Trace
from iga.gaussian import GaussianRigid
from iga.search.climb import climb
from iga.testing.check import TRACE, check
from iga.testing.contract import Contract
from iga.testing.layer import budgets
from iga.testing.layer.cases import LOG_SCALE_ROOM, Case
from iga.testing.layer.edits import cast, kept, leaves
from iga.testing.layer.slopes import torque
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally

__all__ = ["score_slopes"]

KINDS = ("mean", "log σ", "turn")
RESIDUES = 18
FEW = 2  # points: a pair looks at one of them
STEPS = 12
GAIN = 8.0  # of the parameters: offsets of u_max, which the bound by log σ needs
# genes of a pair: turns of the query's and of the key's frame, their log scales, the query's origin less the key's
TURNS, SCALES, APART = slice(0, 6), slice(6, 12), slice(12, 15)
GENES = 15


@check("layer", "of the bound", needs=TRACE, score="student_t", requires=("gradients",))
def score_slopes(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Each derivative of a pair's score over its bound and what rounding may add to it."""
    points = min(contract.points, key=lambda p: (p > FEW, -p if p <= FEW else p))
    layer = subject.random(points, seed, gain=GAIN)
    generator = torch.Generator().manual_seed(seed)
    case = kept(cases[0], torch.arange(min(RESIDUES, cases[0].s.shape[-2] // 2 * 2)))
    wide = torch.float64 if torch.float64 in subject.dtypes else torch.float32
    pairs = _Pairs(subject, layer.to(wide), cast(case, wide), contract, f"{case.label}, P = {points}", tally)
    genome = _started(pairs, generator)

    def height(genome: Tensor) -> Tensor:
        shares = pairs.judged(genome)
        return shares.gather(1, (torch.arange(len(shares)) % len(KINDS))[:, None])[:, 0]

    best, _ = climb(height, _mutation(generator), genome, STEPS)
    if wide != torch.float32:
        replace(pairs, layer=layer.float(), case=cast(case, torch.float32)).judged(best)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Residue i of the first half against residue i of the second, at one head and point of each pair."""

    subject: Subject
    layer: nn.Module
    case: Case
    contract: Contract
    where: str
    tally: Tally

    @property
    def count(self) -> int:
        return self.case.s.shape[-2] // 2

    def traced(self, genome: Float[Tensor, "n genes"]) -> tuple[Trace, Tensor]:
        """The trace of the pairs that the genomes describe, and their rotations, which want gradients."""
        rigid, n = self.case.rigid, self.count
        turns, scales = (genome[:, part].reshape(n, 2, 3).transpose(0, 1).reshape(1, -1, 3) for part in (TURNS, SCALES))
        origins = torch.cat([genome[:, APART], torch.zeros(n, 3, dtype=genome.dtype)])[None]
        frame = Frame(rotation.exp(turns).to(rigid.dtype), origins.to(rigid.dtype))
        case, leaf = leaves(replace(self.case, rigid=GaussianRigid(frame, rigid.local_mean, scales.to(rigid.dtype))))
        return self.subject.trace(self.layer, case), leaf["rotations"]

    def of(self, gaussians: Tensor, side: int) -> Tensor:
        """Of [1, h, p, n, ·], what belongs to each pair: its residue at its head and point."""
        index = torch.arange(self.count)
        heads, points = gaussians.shape[1:3]
        return gaussians[0, index % heads, index // heads % points, index + side * self.count].detach().double()

    def judged(self, genome: Float[Tensor, "n genes"]) -> Float[Tensor, "n 3"]:
        """Each pair's derivatives over their bounds, one of `KINDS` a column; all are handed to the tally."""
        trace, rot = self.traced(genome)
        if not trace.score.requires_grad:
            self.tally.fail(self.where, "the trace's score carries no gradient")
            return torch.zeros(self.count, len(KINDS), dtype=torch.float64)
        values, place, swing = self._derivatives(trace, rot)
        if not bool(trace.score.detach()[place].isfinite().all()):
            self.tally.fail(self.where, "a score is not finite")
        most, rounding = self._limits(trace, place, swing)
        shares = values / (most + rounding)  # of two equal spheres the bound by a turn is 0
        able = (values > 0) & (rounding < most)
        for column, kind in enumerate(KINDS):
            named = self._named(genome, kind, str(trace.score.dtype).removeprefix("torch."))
            self.tally.add(shares[:, column], 1.0, named, could_fail=able[:, column])
            self.tally.highest(f"steepest by {kind}, of the bound,", shares[:, column])
        return shares.nan_to_num(nan=torch.inf)

    def _derivatives(self, trace: Trace, rot: Tensor) -> tuple[Tensor, tuple, Tensor]:
        """(each pair's derivatives, one of `KINDS` a column; its place in the score; (|x| + 2|t|) |∂score/∂μ|)."""
        sides, index = (trace.query, trace.key), torch.arange(self.count)
        heads, points = trace.score.shape[1:3]
        place = (0, index % heads, index // heads % points, index, index + self.count)
        inputs = (*(x.mean for x in sides), *(x.sigma for x in sides), rot)
        found = torch.autograd.grad(trace.score[place].sum(), inputs, allow_unused=True)
        grads = [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]
        by_mean = torch.stack([self.of(g, side) for side, g in enumerate(grads[:2])])
        by_scale = torch.stack(
            [self.of(g * x.sigma, side) for side, (g, x) in enumerate(zip(grads[2:4], sides, strict=True))]
        )
        turned = torque(rot.detach().double(), grads[4].double())[0].unflatten(0, (2, self.count))
        # the means turn along, and have ω · (x × Rᵀg) of it, x the mean in the frame
        frame, origin = trace.rigid.rot.detach().double()[0], trace.rigid.trans.detach().double()[0]
        into, origin = frame.mT.unflatten(0, (2, self.count)), origin.unflatten(0, (2, self.count))
        arm = torch.stack([self.of(x.mean, side) for side, x in enumerate(sides)]) - origin
        local, pull = ((into @ x[..., None])[..., 0] for x in (arm, by_mean))
        fixed = turned - torch.linalg.cross(local, pull)
        steepest = by_mean.norm(dim=-1)
        values = (steepest.amax(0), by_scale.abs().sum(dim=(0, -1)), fixed.abs().amax(dim=(0, -1)))
        swing = ((arm.norm(dim=-1) + 2 * origin.norm(dim=-1)) * steepest).amax(0)
        return torch.stack(values, dim=-1), place, swing

    def _limits(self, trace: Trace, place: tuple, swing: Tensor) -> tuple[Tensor, Tensor]:
        """(bounds, what rounding may add to each), one of `KINDS` a column. docs/theory.md, 9.4."""
        dtype = trace.score.dtype
        config, u = self.subject.iga_config, bounds.unit_roundoff(dtype)
        dof, offset = config.dof, config.offset_max
        dist_sq = trace.dist_sq.detach().double()[place]
        sigma = torch.cat([self.of(trace.query.sigma, 0), self.of(trace.key.sigma, 1)], dim=-1)
        least = sigma.amin(dim=-1)
        kappa = sigma.amax(dim=-1) / least
        most = torch.stack(
            [
                bounds.student_t_gradient_bound(least, dof=dof),
                torch.full_like(least, bounds.student_t_log_scale_gradient_bound(offset, dof=dof, mean_moves=True)),
                bounds.student_t_torque_bound(kappa, dof=dof),
            ],
            dim=-1,
        )
        frame = Frame(trace.rigid.rot.detach(), trace.rigid.trans.detach())
        off = budgets.drift(replace(trace.rigid, frame=frame), dtype)
        half_c = 0.5 * (dof + 3.0) / (dof + dist_sq)
        by_mean = half_c * bounds.dist_sq_gradient_budget(dist_sq, kappa, least, dtype, drift=off)
        by_scale = half_c * bounds.log_scale_gradient_budget(dist_sq, kappa, dtype, drift=off)
        by_scale = 6 * (by_scale + 0.5 * bounds.log_det_gradient_budget(kappa, dtype, drift=off))
        by_turn = half_c * bounds.torque_budget(dist_sq, kappa, dtype, drift=off) + 75 * (kappa + kappa**2) * u
        first = torch.stack([by_mean, by_scale + offset * sigma.sum(-1) * by_mean, by_turn + 40 * u * swing], dim=-1)
        relative = bounds.dist_sq_budget(kappa, dtype, drift=off) + 8 * u
        return most, first + relative[:, None] * most

    def _named(self, genome: Tensor, kind: str, dtype: str) -> Callable[[tuple[int, ...]], str]:
        def where(index: tuple[int, ...]) -> str:
            apart = float(genome[index[0], APART].norm())
            return f"{self.where}, {dtype}: ∂score by {kind} of pair {index[0]}, origins {apart:.3g} nm apart"

        return where


def _started(pairs: _Pairs, generator: torch.Generator) -> Float[Tensor, "n genes"]:
    """Genomes of every second three pairs where their kind's bound is near, of the others anywhere."""
    n, low, high = pairs.count, pairs.contract.sigma_min, pairs.contract.sigma_max * math.exp(-LOG_SCALE_ROOM)
    dof = pairs.subject.iga_config.dof

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    kind, near = torch.arange(n) % len(KINDS), (torch.arange(n) // len(KINDS) % 2 == 0)[:, None]
    genome = torch.zeros(n, GENES, dtype=torch.float64)
    genome[:, TURNS] = 3.0 * (2.0 * draw(n, 6) - 1.0)
    genome[:, SCALES] = math.log(low) + math.log(high / low) * draw(n, 6)
    collapsed = torch.full((n, 6), math.log(low) - 8.0, dtype=torch.float64)
    collapsed[kind == KINDS.index("turn"), 0] = math.log(high)  # a needle against a sphere
    genome[:, SCALES] = torch.where(near, collapsed, genome[:, SCALES])
    # Offsets and scales are the layer's own: with all origins in one place it shows them.
    trace, rot = pairs.traced(genome)
    sigma, other = pairs.of(trace.query.sigma, 0), pairs.of(trace.key.sigma, 1)
    least = torch.minimum(sigma, other).amin(dim=-1)
    beta = math.sqrt(6.0) * max(pairs.subject.iga_config.offset_max, 1e-6)
    by_scale = (dof + math.sqrt(dof * dof + beta * beta * dof)) / beta
    far = torch.where(kind == KINDS.index("log σ"), by_scale, math.sqrt(dof))  # √dist_sq of two spheres
    round_about = math.sqrt(2.0) * (far * least)[:, None] * torch.nn.functional.normalize(draw(n, 3) - 0.5, dim=-1)
    # 9.1, θ = 1: p = √2 s, and dist_sq ≫ ν
    slanted = 10.0 * math.sqrt(dof) * torch.stack([sigma[:, 0] / 2**0.5, least, torch.zeros_like(least)], dim=-1)
    slanted = (rot.detach().double()[0, :n] @ slanted[..., None])[..., 0]
    anywhere = (draw(n, 3) - 0.5) * (10 * far * sigma.amax(dim=-1) ** draw(n) * least ** (1 - draw(n)))[:, None]
    wanted = torch.where((kind == KINDS.index("turn"))[:, None], slanted, round_about)
    genome[:, APART] = torch.where(near, wanted, anywhere) - (
        pairs.of(trace.query.mean, 0) - pairs.of(trace.key.mean, 1)
    )
    return genome


def _mutation(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """About a third of the genes moved by normals of any size: turns and log scales up to 1, lengths up to 3 nm."""

    def mutate(genome: Tensor) -> Tensor:
        size = 10.0 ** (-3.0 * torch.rand(len(genome), 1, generator=generator, dtype=torch.float64))
        step = size * torch.randn(genome.shape, generator=generator, dtype=torch.float64)
        step[:, APART] *= 3.0 * size
        chosen = torch.rand(genome.shape, generator=generator) < 1 / 3
        return genome + torch.where(chosen, step, 0.0)

    return mutate
