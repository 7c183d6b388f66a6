"""`determinism`: a layer in eval mode is a function. Everything here is exact, to the last bit.

The same call twice; with calls on other inputs of the same shape in between, and beside a fresh copy that has seen
nothing else (a stale cache); with other numbers in the same tensors; under other states of the global generator, which
has to be where it was; and neither inputs nor parameters nor buffers are changed by a call.
"""

from dataclasses import replace

import torch
from torch import nn

from iga._typing import Tensor
from iga.testing.cases import Case
from iga.testing.contract import Contract
from iga.testing.invariants.alive import require_geometry, rolled
from iga.testing.invariants.inputs import build, cast, native, rebuilt, redrawn, tensors
from iga.testing.subject import Subject
from iga.testing.tally import Tally

__all__ = ["determinism"]


def determinism(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Absolute differences, all of which have to be 0."""
    for index, given in enumerate(cases):
        points = contract.points[(index + 1) % len(contract.points)]
        where = f"{given.label}, P = {points}"
        case = cast(given, native(subject))
        other = redrawn(rolled(case), seed + 1)
        layer = build(subject, points, seed + index)
        require_geometry(subject, layer, case, tally)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            state, before = torch.get_rng_state(), _copies(case, layer)
            first = subject.output(layer, case)
            tally.add((first - subject.output(layer, case)).abs(), 0.0, f"{where}: repeated")
            drawn = float(not torch.equal(state, torch.get_rng_state()))
            tally.add(drawn, 0.0, f"{where}: draws from the global generator")
            for name, value in _copies(case, layer).items():
                tally.add((value != before[name]).double().sum(), 0.0, f"{where}: {name} changed in place")

            torch.manual_seed(seed + 1)
            second = subject.output(layer, other)
            fresh = subject.output(build(subject, points, seed + index), other)
            tally.add((second - fresh).abs(), 0.0, f"{where}: after another call, against a fresh layer")
            tally.add((subject.output(layer, case) - first).abs(), 0.0, f"{where}: after another call, repeated")

            parts = {name: x.clone() for name, x in tensors(case).items()}
            same_tensors = rebuilt(case, parts)
            subject.output(layer, same_tensors)
            for name, x in tensors(other).items():
                parts[name].copy_(x)
            output = subject.output(layer, replace(same_tensors))
            tally.add((output - fresh).abs(), 0.0, f"{where}: other numbers in the same tensors")


def _copies(case: Case, layer: nn.Module) -> dict[str, Tensor]:
    """Everything that a call may read, copied."""
    held = {name: value for name, value in layer.state_dict().items() if isinstance(value, Tensor)}
    return {name: value.clone() for name, value in (tensors(case) | {"mask": case.mask} | held).items()}
