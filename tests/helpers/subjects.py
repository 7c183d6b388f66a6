"""Layers as the suite sees them: somebody else's, right or tampered with, and one check of one of them."""

import copy
import functools
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from iga.structure.synthetic import synthetic_structures
from iga.testing.check import Check
from iga.testing.checks import checks_of
from iga.testing.contract import PROFILES, Contract
from iga.testing.layer.cases import Case, make_case, perturbed_case
from iga.testing.layer.subject import Subject
from iga.testing.result import Finding
from iga.testing.state.watch import Watch, watching
from iga.testing.tally import Tally
from iga.testing.targets import TargetError

SMALL = replace(PROFILES["fast"], focus=1, focus_residues=14, c_s=16, c_z=4, c_hidden=4, no_heads=2, no_v_points=2)
CONTRACT = Contract(points=(1, 4))
DEGENERATE = ("collapsed and coincident", "needles in nearly shared frames")


class Plain(nn.Module):
    """Point attention in plain torch, one head: what somebody else might bring. It shows nothing but its output."""

    def __init__(self, *, c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(c_s, c_hidden), nn.Linear(c_s, c_hidden)
        self.points, self.bias = nn.Linear(c_s, 3), nn.Linear(c_z, 1)
        self.weight = nn.Parameter(torch.zeros(1))
        self.out = nn.Linear(c_s + 3, c_s)

    def forward(self, s, z, r, mask):
        rot, trans, mask = r.frame.rot, r.frame.trans, mask.bool()
        s = torch.where(mask[..., None], s, 0.0)
        z = torch.where((mask[..., :, None] & mask[..., None, :])[..., None], z, 0.0)
        rot, trans = torch.where(mask[..., None, None], rot, 0.0), torch.where(mask[..., None], trans, 0.0)
        places = (rot * self.points(s)[..., None, :]).sum(-1) + trans
        squares = (places[..., :, None, :] - places[..., None, :, :]).square().sum(-1)
        logits = self.query(s) @ self.key(s).mT / 2 + self.bias(z)[..., 0] - self.weight.exp() * squares
        weights = torch.where(mask[..., None, :], logits, -1e30).softmax(-1)
        weights = torch.where(mask[..., None, :], weights, 0.0)
        # not through a product, which autocast would shorten
        seen = (weights.to(places.dtype)[..., None] * (places[..., None, :, :] - places[..., :, None, :])).sum(-2)
        local = (rot * seen[..., :, None]).sum(-2)
        return self.out(torch.cat([weights.to(s.dtype) @ s, local], dim=-1))


def foreign(layer: type[nn.Module] = Plain, **options) -> Subject:
    return Subject("foreign", None, SMALL, lambda **sizes: layer(**sizes), foreign=True, **options)


def tampered(before: Callable | None = None, after: Callable | None = None) -> Subject:
    """`Plain` with its inputs or its output changed: before(layer, s, z, r, mask), after(layer, output, s, r, mask)."""

    class Faulty(Plain):
        def forward(self, s, z, r, mask):
            if before is not None:
                s, z, r, mask = before(self, s, z, r, mask)
            output = super().forward(s, z, r, mask)
            return output if after is None else after(self, output, s, r, mask)

    return foreign(Faulty)


@functools.cache
def cases(degenerate: bool = False, seed: int = 0) -> list[Case]:
    structure = synthetic_structures(1, seed=seed)[0]
    case = make_case(structure, SMALL, residues=SMALL.focus_residues, seed=seed)
    return [case, *(perturbed_case(case, label, CONTRACT, seed=seed) for label in DEGENERATE if degenerate)]


def judged(check: Check | str, subject: Subject, seed: int = 0) -> Finding:
    """What the check of a layer finds on the cases."""
    check = checks_of("layer")[check] if isinstance(check, str) else check
    tally = Tally(check.name, check.unit)
    try:
        # a deep copy: some faults write into their inputs
        with watching(Watch()):
            check(subject, copy.deepcopy(cases(check.degenerate, seed)), CONTRACT, seed, tally)
    except TargetError as error:
        tally.fail(subject.name, str(error))
    return tally.finding()
