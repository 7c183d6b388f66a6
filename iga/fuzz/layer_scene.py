"""A call of a layer that is searched: the layer built at its sizes, its inputs, its output, and what outputs may be
off by.

Two evaluations of one function differ by at most twice the budget of one, which is measured (`sensitivity`): first from
below, by a fifth of the work; where that does not allow a difference, in full.

Calls that are searched have residues hundreds of nm from all others, which attend to nobody but themselves. Origins may
then err as they like and change nothing, since a value point moves with its own residue; but the sum of value points is
rounded where they stand, and the own origin taken off after that:

    budget += (n + 16) · u · reach · S_points

S_points is the change of the output per nm of a value point. It is measured on a few of the residues, twice each at one
place and as wide as may be: half of what is attended to then moves while the rest stands, and no logit changes.

A residue's query and key points are rounded where they stand too, each for itself: where scales are narrow its logit
with itself moves, which no shift of its origin shows. S_apart is the change of each residue's output per nm between a
residue and its copy, measured on all residues twice each, as they are. Each of the two points is rounded at most four
times there, as it is centred, turned in another frame, added to its origin and handed on:

    budget += 8 · u · reach · S_apart
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import nn

from iga import bounds
from iga._typing import Tensor
from iga.frame import Frame
from iga.fuzz.layer_genome import LayerGenome, case_of
from iga.gaussian import GaussianRigid
from iga.testing.contract import Contract
from iga.testing.layer.cases import LOG_SCALE_ROOM, Case
from iga.testing.layer.edits import cast
from iga.testing.layer.sensitivity import COARSE, PROBES, STEP, Sensitivity, keeps_float64, sensitivity
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally

__all__ = ["ROUNDED", "LayerScene", "reshaped", "sample_of", "sized"]

FEW = 3  # residues that show what a value point does
ROUNDED = 8  # times that a query point and a key point are rounded at their distance from the origin


def sized(subject: Subject, sizes: Mapping[str, int]) -> Subject:
    """The subject at other sizes than its profile's; P is asked for where a layer is built."""
    own = {name: size for name, size in sizes.items() if name != "no_qk_points"}
    return replace(subject, profile=replace(subject.profile, **own))


def sample_of(case: Case, index: int) -> Case:
    """One sample of flat ones, [1, n]."""
    at = slice(index, index + 1)
    return replace(case, s=case.s[at], z=case.z[at], rigid=case.rigid[at], mask=case.mask[at])


def reshaped(case: Case, shape: tuple[int, ...]) -> Case:
    """Flat samples in other leading dimensions."""

    def put(x: Tensor) -> Tensor:
        return x.reshape(*shape, *x.shape[1:])

    r = case.rigid
    rigid = GaussianRigid(Frame(put(r.rot), put(r.trans)), put(r.local_mean), put(r.log_scale))
    return replace(case, s=put(case.s), z=put(case.z), rigid=rigid, mask=put(case.mask))


@dataclass(eq=False)
class LayerScene:
    """`subject` has the genome's sizes once it is here. `heard` is told of what a measurement notes.

    thorough  budgets are measured in full at once, so that values over limits of two calls compare
    """

    subject: Subject
    genome: LayerGenome
    contract: Contract
    heard: Tally = field(default_factory=lambda: Tally("", ""))
    thorough: bool = False

    def __post_init__(self) -> None:
        self.subject = sized(self.subject, self.genome.sizes)

    @cached_property
    def layer(self) -> nn.Module:
        return self.built()

    def built(self, points: int | None = None) -> nn.Module:
        """The layer anew, or with another number of points, in the genome's dtype."""
        genome = self.genome
        made = self.subject.random(genome.points if points is None else points, genome.seed, gain=genome.gain)
        return made.to(genome.dtype)

    @cached_property
    def case(self) -> Case:
        """The inputs, samples flat."""
        return case_of(self.genome)

    @property
    def valid(self) -> Tensor:
        """[b, n]"""
        return self.case.mask

    @property
    def generator(self) -> torch.Generator:
        """What a relation draws comes from the genome's own choice."""
        return torch.Generator().manual_seed(self.genome.choice)

    def output(self, case: Case, *, shape: tuple[int, ...] | None = None, layer: nn.Module | None = None) -> Tensor:
        """The layer's output on flat samples, [b, n, c_s], called in other leading dimensions if asked."""
        given = case if shape is None or shape == (len(case.s),) else reshaped(case, shape)
        with torch.no_grad():
            found = self.subject.output(self.layer if layer is None else layer, given)
        return found.reshape(case.s.shape)

    @cached_property
    def plain(self) -> Tensor:
        """The output of the call as it is."""
        return self.output(self.case, shape=self.genome.shape)

    @cached_property
    def least(self) -> Sensitivity:
        """The budget from below."""
        return sensitivity(self.subject, self.layer, self.case, self.genome.choice, self.heard, least=True)

    @cached_property
    def whole(self) -> Sensitivity:
        return sensitivity(self.subject, self.layer, self.case, self.genome.choice, self.heard)

    @cached_property
    def lever(self) -> float:
        """S_points, per nm."""
        genome = self.genome
        index = genome.mask[0].nonzero().flatten()[:FEW].repeat(2)
        if not len(index):
            return 0.0
        few = genome.picked(torch.tensor([0])).kept(index)
        wide = torch.full_like(few.log_scale, math.log(self.contract.sigma_max) - LOG_SCALE_ROOM)
        still = torch.zeros_like(few.trans)
        few = replace(few, trans=still, local_mean=still, log_scale=wide)
        double = torch.float64 in self.subject.dtypes
        step = STEP if double else COARSE
        few = replace(few, dtype=torch.float64 if double else genome.dtype)
        layer = copy.deepcopy(self.layer).to(few.dtype)
        away = torch.zeros_like(still)
        away[:, : len(index) // 2] = step  # along all three axes: √3 nm a nm
        there = self.output(case_of(replace(few, trans=away)), layer=layer)
        change = (there - self.output(case_of(few), layer=layer)).abs().amax()
        return 2.0 * float(change) / step

    @cached_property
    def apart(self) -> Tensor:
        """S_apart, per nm, [b, n, 1]: twice what it changes that half of what is attended to moves, since all may."""
        twice = self.genome.kept(torch.arange(self.genome.residues).repeat(2))
        double = torch.float64 in self.subject.dtypes
        step = STEP if double else COARSE
        twice = replace(twice, dtype=torch.float64 if double else self.genome.dtype)
        layer = copy.deepcopy(self.layer).to(twice.dtype)
        plain = self.output(case_of(twice), layer=layer)
        most, generator = torch.zeros_like(plain), self.generator
        for _ in range(PROBES):
            signs = torch.randint(0, 2, twice.trans.shape, generator=generator).to(twice.trans) * 2 - 1
            moved = replace(twice, trans=twice.trans + step * signs)
            most = torch.maximum(most, (self.output(case_of(moved), layer=layer) - plain).abs())
        worst = most.double().amax(dim=-1, keepdim=True).unflatten(-2, (2, -1)).amax(dim=-3)
        return 2.0 * worst / step

    @cached_property
    def kappa(self) -> float:
        """Largest over smallest σ of the widest pair, with what a layer may add to log scales, as far as is claimed."""
        low, high = math.log(self.contract.sigma_min), math.log(self.contract.sigma_max)
        given = self.genome.log_scale[self.genome.mask].clamp(low, high)
        span = float(given.max() - given.min()) if given.numel() else 0.0
        return math.exp(min(span + 2 * LOG_SCALE_ROOM, high - low))

    @cached_property
    def u(self) -> float:
        """The unit roundoff that the layer keeps: float32's of one that rounds to it inside a float64 call, κ u of one
        that does not, since a right form may lose κ² of float64 (docs/theory.md, 13.2)."""
        if self.genome.dtype == torch.float64:
            double = cast(self.case, torch.float64)
            if keeps_float64(self.subject, self.layer, double, self.genome.choice):
                return self.kappa * bounds.unit_roundoff(torch.float64)
        return bounds.unit_roundoff(torch.float32)

    def judge(
        self,
        tally: Tally,
        difference: Tensor,
        where: str,
        *,
        at: Tensor | None = None,
        evaluations: float = 2.0,
        farther: float = 0.0,
    ) -> None:
        """Hand a difference of outputs, [b, n, c], at valid residues or `at`, to the tally with what it may be.

        farther  nm that the second of the evaluations is further from the origin
        """
        at = self.valid if at is None else at
        if not bool(at.any()):
            return
        difference = difference.double().abs()
        least = evaluations * self.least.budget(bounds.unit_roundoff(self.genome.dtype))
        limit = least
        if self.thorough or not bool((difference <= least)[at].all()):
            found = self.whole
            places = self.u * (found.places * self.lever + ROUNDED * self.apart)
            near = found.budget(self.u) + places * found.reach
            far = found.budget(self.u, reach=found.reach + farther) + places * (found.reach + farther)
            limit = (evaluations - 1.0) * near + far
        rows = at.nonzero()

        def named(index: tuple[int, ...]) -> str:
            sample, residue = rows[index[0]].tolist()
            return f"{where}, sample {sample}, residue {residue}, channel {index[1]}"

        able = limit[at] < self.least.output[at].abs().amax()
        tally.add(difference[at], limit[at], named, could_fail=able)
