"""`transforms`: torch.compile, torch.export and torch.func see the same function as an eager call.

compile(fullgraph=True, backend="aot_eager") traces forward and backward without generating code; export runs on the
structure it was made from and on another; functional_call with vmap over samples stands for per-sample transforms. Each
may fuse or reorder, so outputs agree within twice the budget of one evaluation; each that does not run is named.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from iga._typing import Tensor
from iga.gaussian import GaussianRigid
from iga.testing.cases import Case
from iga.testing.contract import Contract
from iga.testing.invariants.alive import require_geometry, rolled
from iga.testing.invariants.inputs import build, cast, native, redrawn, stacked
from iga.testing.invariants.sensitivity import two_evaluations
from iga.testing.quiet import quiet
from iga.testing.subject import Subject
from iga.testing.tally import Tally
from iga.testing.targets import one_line

__all__ = ["transforms"]


def transforms(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Differences of the outputs, each over its own budget, on the first structure."""
    given = cases[0]
    points = contract.points[min(1, len(contract.points) - 1)]
    layer, case = build(subject, points, seed), cast(given, native(subject))
    require_geometry(subject, layer, case, tally)
    other = redrawn(rolled(case), seed + 1)
    with torch.no_grad():
        expected = [subject.output(layer, one)[0].double() for one in (case, other)]
        allowed = [two_evaluations(subject, layer, one, seed, tally)[0] for one in (case, other)]
    for name, transformed in TRANSFORMS.items():
        where = f"{given.label}, P = {points}, {name}"
        try:
            with torch.no_grad(), quiet():
                outputs = transformed(subject, layer, case, other)
        except Exception as error:  # whatever a tracer raises about a layer is a finding about that layer
            tally.fail(where, f"{name}: {one_line(error)}")
            continue
        for output, eager, limit in zip(outputs, expected, allowed, strict=True):
            if output.shape != eager.shape:
                tally.fail(where, f"{name}: shape {list(output.shape)} for {list(eager.shape)}")
                continue
            could_fail = limit < eager.abs().amax()
            tally.add((output.double() - eager).abs() / limit, 1.0, where, could_fail=could_fail)


def _compiled(subject: Subject, layer: nn.Module, case: Case, other: Case) -> list[Tensor]:
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    try:
        return [compiled(*subject.call(one), **subject.inputs(one))[0] for one in (case, other)]
    finally:
        torch.compiler.reset()


def _exported(subject: Subject, layer: nn.Module, case: Case, other: Case) -> list[Tensor]:
    module = torch.export.export(layer, subject.call(case), subject.inputs(case)).module()
    return [module(*subject.call(one), **subject.inputs(one))[0] for one in (case, other)]


def _mapped(subject: Subject, layer: nn.Module, case: Case, other: Case) -> list[Tensor]:
    parameters = dict(layer.named_parameters()) | dict(layer.named_buffers())
    both = stacked([case, other])
    s, z, rigid, mask = subject.call(both)

    def one(s: Tensor, z: Any, rigid: GaussianRigid, mask: Tensor, options: dict[str, Tensor]) -> Tensor:
        arguments = (s[None], None if z is None else z[None], rigid[None], mask[None])
        named = {name: value[None] for name, value in options.items()}
        return torch.func.functional_call(layer, parameters, arguments, named)[0]

    dims = (0, None if z is None else 0, 0, 0, 0)
    return list(torch.func.vmap(one, in_dims=dims)(s, z, rigid, mask, subject.inputs(both)))


TRANSFORMS: dict[str, Callable[[Subject, nn.Module, Case, Case], list[Tensor]]] = {
    "torch.compile": _compiled,
    "torch.export": _exported,
    "torch.func.vmap": _mapped,
}
