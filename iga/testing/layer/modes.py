"""Checks of a layer in other modes: reduced precision, compiled, exported, transformed.

`reduced_precision`: autocast to bf16 and to fp16, and TF32 (simulated on a CPU), may round features, not geometry.

Outputs are finite in each. A traced layer's geometry is judged as in float32: dist_sq stays float32 and within its
budget. Outputs err by the mode's u where features are concerned, by float32's where geometry is:

    d · u_mode · S_features + p · u_float32 · (S_features + S_geometry)          docs/theory.md, section 13

d = 16 roundings in a row: four products (projection, logit, values, last projection), two operands and a result each,
and four between; the sums of these products are kept in float32. Coordinates as given, and 50 nm further, where a bf16
coordinate is off by 0.1 nm.

`transforms`: torch.compile, torch.export and torch.func see the same function as an eager call.

compile(fullgraph=True, backend="aot_eager") traces forward and backward without generating code; export runs on the
structure it was made from and on another; functional_call with vmap over samples stands for per-sample transforms. Each
may fuse or reorder, so outputs agree within twice the budget of one evaluation; each that does not run is named.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from iga import bounds
from iga._typing import Tensor
from iga.gaussian import GaussianRigid
from iga.testing.check import THOROUGH, check
from iga.testing.contract import Contract
from iga.testing.layer import accuracy
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import build, cast, kept, native, redrawn, stacked
from iga.testing.layer.guards import require_geometry, rolled
from iga.testing.layer.sensitivity import sensitivity, two_evaluations
from iga.testing.layer.subject import Observation, Subject
from iga.testing.layer.symmetry import moved
from iga.testing.modes import TF32_BITS, ShortProducts, quiet
from iga.testing.tally import Tally
from iga.testing.targets import one_line

__all__ = ["MODES", "reduced_precision", "transforms"]

DEPTH = 16
RESIDUES, FEW = 20, 8  # products round alike however many residues and points there are
FAR_EVERY = 4
SHIFT = (30.0, -32.0, 24.0)  # 50 nm

# u of each mode: bf16 keeps 8 bits of a number, fp16 11; TF32 cuts operands at 10 bits after the point, not rounds
MODES: dict[str, float] = {"bf16 autocast": 2.0**-8, "fp16 autocast": 2.0**-11, "TF32, simulated": 2.0**-10}


@check("layer", "of the budget", degenerate=True, profiles=THOROUGH, dtype=torch.float32)
def reduced_precision(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Outputs under each mode over their budgets, and for traced layers the geometry over its own."""
    if torch.float32 not in subject.dtypes:
        tally.void("float32 is not claimed: nothing is reduced")
        return
    u = bounds.unit_roundoff(torch.float32)
    still = torch.eye(3, dtype=torch.float64)
    choices = [p for p in contract.points if p <= FEW] or [contract.points[0]]
    for index, whole in enumerate(cases):
        points = choices[index % len(choices)]
        given = kept(whole, torch.arange(min(RESIDUES, whole.s.shape[-2])))
        layer = subject.random(points, seed + index)
        if index == 0:
            require_geometry(subject, layer, given, tally)
        far = moved(given, still, torch.tensor(SHIFT, dtype=torch.float64))
        for place, case in (("", given), (", 50 nm away", far))[: 2 if index % FAR_EVERY == 0 else 1]:
            rounding = sensitivity(subject, layer, case, seed, tally)
            exact = rounding.output
            for name, short in MODES.items():
                where = f"{given.label}{place}, P = {points}, {name}"
                with torch.no_grad(), _mode(name):
                    output = subject.output(layer, case).double()
                    trace = subject.trace(layer, case) if subject.traced else None
                allowed = rounding.budget(short, u_geometry=u, terms=DEPTH) + rounding.budget(u)
                could_fail = allowed < exact.abs().amax()
                tally.add((output - exact).abs() / allowed, 1.0, f"{where}: output", could_fail=could_fail)
                if trace is None:
                    continue
                if trace.dist_sq.dtype != torch.float32:
                    tally.fail(where, f"{name} reached the geometry: dist_sq is {trace.dist_sq.dtype}")
                else:
                    accuracy.judge_trace(Observation(subject, layer, case, trace, contract, where), tally)


@contextmanager
def _mode(name: str) -> Iterator[None]:
    if name == "TF32, simulated":
        switch = torch.backends.cuda.matmul
        before = switch.fp32_precision == "tf32"
        switch.allow_tf32 = True  # by the old name, which layers may read: torch refuses to mix old and new
        try:
            with ShortProducts(TF32_BITS, by_switch=True):
                yield
        finally:
            switch.allow_tf32 = before
    else:
        with torch.autocast("cpu", dtype=torch.bfloat16 if name.startswith("bf16") else torch.float16):
            yield


@check("layer", "of the budget", profiles=THOROUGH, seen_faults=("control flow",), every=1000)
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
