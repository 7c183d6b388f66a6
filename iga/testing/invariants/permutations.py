"""`permutations`: residues in another order give the same outputs in that order; points in another order, the same.

Sums change their order, so the outputs may differ by rounding: twice the budget of one evaluation. Points are permuted
within each head, in the parameters of a traced layer that names them as InvariantGaussianAttention does: its
linear_{q,k}_{offsets,scales} have rows [h, P, 3].
"""

import copy
from dataclasses import replace

import torch
from torch import nn

from iga._typing import Tensor
from iga.testing.cases import Case
from iga.testing.contract import Contract
from iga.testing.invariants.alive import require_geometry
from iga.testing.invariants.inputs import build, cast, kept, masked, native
from iga.testing.invariants.sensitivity import two_evaluations
from iga.testing.subject import Subject
from iga.testing.tally import Tally

__all__ = ["permutations"]

POINT_ROWS = ("linear_q_offsets", "linear_k_offsets", "linear_q_scales", "linear_k_scales")


def permutations(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Differences of the valid outputs, each over its own budget, under a reversal and a random order."""
    several = [p for p in contract.points if p > 1] or list(contract.points)
    for index, given in enumerate(cases):
        points = several[index % len(several)]
        generator = torch.Generator().manual_seed(seed + index)
        layer, case = build(subject, points, seed + index), masked(cast(given, native(subject)), seed + index)
        require_geometry(subject, layer, replace(case, mask=torch.ones_like(case.mask)), tally)
        n = case.s.shape[-2]
        with torch.no_grad():
            plain = subject.output(layer, case).double()
            allowed = two_evaluations(subject, layer, case, seed, tally)
            valid, size = case.mask, plain[case.mask].abs().amax()

            def judge(output: Tensor, name: str, at: Tensor = valid, plain: Tensor = plain) -> None:
                where = f"{given.label}, P = {points}, {name}"  # noqa: B023 - called within the turn of the loop
                ratio = (output.double() - plain)[at].abs() / allowed[at]  # noqa: B023
                tally.add(ratio, 1.0, where, could_fail=allowed[at] < size)  # noqa: B023

            for name, order in (
                ("residues reversed", torch.arange(n).flip(0)),
                ("residues shuffled", torch.randperm(n, generator=generator)),
            ):
                judge(subject.output(layer, kept(case, order))[:, order.argsort()], name)
            if points > 1 and (shuffled := _points_shuffled(layer, subject, points, generator)) is not None:
                judge(subject.output(shuffled, case), "points shuffled")


def _points_shuffled(layer: nn.Module, subject: Subject, points: int, generator: torch.Generator) -> nn.Module | None:
    """The layer with the points of each head in another order; None if it does not have them where ours does."""
    heads = subject.profile.no_heads
    parameters = dict(layer.named_parameters())
    names = [f"{name}.{part}" for name in POINT_ROWS for part in ("weight", "bias")]
    if not subject.traced or any(
        name not in parameters or parameters[name].shape[0] != heads * points * 3 for name in names
    ):
        return None
    rows = torch.arange(heads * points * 3).reshape(heads, points, 3)
    order = torch.stack([rows[h, torch.randperm(points, generator=generator)] for h in range(heads)]).flatten()
    other = copy.deepcopy(layer)
    for name, parameter in other.named_parameters():
        if name in names:
            parameter.copy_(parameters[name][order])
    return other
