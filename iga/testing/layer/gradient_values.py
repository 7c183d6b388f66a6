"""`gradient_values`: autograd against differences of the layer's own outputs in float64, and float32 against float64.

F is a random projection of the output; along a random direction in each input and each parameter in turn, autograd's
dF must meet the central difference within the difference's own error (`differences`), and F must not step as rounded
numbers do: that would be float32 inside a float64 call. Frames are turned, R e^[ω]×, so that a step stays on the
rotations. A derivative counts as able to fail where a hundredth of it exceeds the error. Then float32's gradients
against float64's, within p·u times what small errors of the inputs make of them (docs/theory.md, section 13). Natural
geometry, a handful of residues. At the kinks of a traced layer: `differences.kinks`.
"""

import copy
from collections.abc import Callable

import torch
from torch import nn

from iga import bounds, rotation
from iga._typing import Tensor
from iga.testing.check import SMOOTH, check
from iga.testing.contract import Contract
from iga.testing.layer import differences
from iga.testing.layer.cases import Case
from iga.testing.layer.differences import central, roughness
from iga.testing.layer.edits import cast, gradients, kept, leaves, native, rebuilt, skew
from iga.testing.layer.guards import require_geometry
from iga.testing.layer.sensitivity import FEATURES, GEOMETRY, POSITION, chain, shaken
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally

__all__ = ["gradient_values", "noise_of"]

RESIDUES = 10
STEP = 2.0**-16  # of each input's own size: truncation 2⁻³² of the third derivative, rounding 40·2⁻³⁷·p of the value
SMALL_STEP = 2.0**-26  # so small that a float32 in between steps, or stands still
PERCENT = 0.01


@check("layer", "of the budget", dtype=torch.float64, seen_faults=SMOOTH, requires=("gradients",))
def gradient_values(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """|autograd − difference| and |float32 − float64|, each over its own bound: at most 1."""
    for index, given in enumerate(cases):
        points = contract.points[(index + 1) % len(contract.points)]
        residues = torch.arange(min(RESIDUES, given.s.shape[-2]))
        small = kept(given, residues)
        layer = subject.random(points, seed + index)
        require_geometry(subject, layer.to(native(subject)), cast(small, native(subject)), tally)
        where = f"{given.label}, {len(residues)} residues, P = {points}"
        if torch.float64 not in subject.dtypes:
            tally.void("float64 is not claimed: differences of float32 outputs judge no gradient")
            return
        double, case = layer.double(), cast(small, torch.float64)
        kappa = contract.sigma_max / contract.sigma_min
        _differences(subject, double, case, kappa, seed + index, where, tally)
        if torch.float32 in subject.dtypes:
            _float32(subject, double, small, chain(subject, points, len(residues)), seed + index, where, tally)
        if subject.traced:
            terms = chain(subject, points, len(residues))
            differences.judge_kinks(subject, double, case, terms, seed + index, where, tally)


def _differences(
    subject: Subject, layer: nn.Module, case: Case, kappa: float, seed: int, where: str, tally: Tally
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def normal(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=torch.float64)

    weights = normal(case.s)
    leaf, inputs = leaves(case)
    parameters = {name: x for name, x in layer.named_parameters() if x.requires_grad}
    output = subject.output(layer, leaf)
    _judge_value(output.detach(), subject, layer, case, kappa, where, tally)
    noise = noise_of(output, weights, subject, layer, case)
    found = gradients((output * weights).sum(), inputs | parameters)
    for name, x in (inputs | parameters).items():
        if name == "z" and not subject.pair_features:
            continue
        x = x.detach()
        if name == "rotations":
            turn = normal(case.rigid.trans)
            direction = rotation.multiply(x, skew(turn))
            size = 1.0
            value = _along(subject, layer, case, weights, lambda e, t=turn: {"rotations": _turned(case, t * e)})
        else:
            direction, size = normal(x), float(x.square().mean().sqrt().clamp(min=0.1))
            if name in inputs:
                value = _along(subject, layer, case, weights, lambda e, n=name, d=direction, x=x: {n: x + e * d})
            else:
                value = _along_parameter(subject, layer, case, weights, parameters[name], direction)
        with torch.no_grad():
            expected, error = central(value, STEP * size, noise)
            if name in inputs:
                rough, limit = roughness(value, SMALL_STEP * size, STEP * size, noise)
                tally.add(rough / limit, 1.0, f"{where}: float64 digits along {name}", could_fail=expected != 0)
                if bool(rough > limit):
                    tally.note("float32 inside a float64 call; if it is meant, claim @target(dtypes=(torch.float32,))")
        gradient = found[name]
        actual = torch.zeros(()) if gradient is None else (gradient * direction).sum()
        could_fail = PERCENT * expected.abs() > error
        tally.add((actual - expected).abs() / error, 1.0, f"{where}: gradient of {name}", could_fail=could_fail)


def _judge_value(
    output: Tensor, subject: Subject, layer: nn.Module, case: Case, kappa: float, where: str, tally: Tally
) -> None:
    """The float64 output while gradients are recorded, over that without: two evaluations, each within c κ u (13.7)."""
    with torch.no_grad():
        plain = subject.output(layer, case)
    terms = chain(subject, getattr(layer, "no_qk_points", 1), case.s.shape[-2])
    limit = 2 * kappa * terms * bounds.unit_roundoff(torch.float64) * (plain.abs() + plain.abs().amax())
    limit = limit.clamp(min=torch.finfo(torch.float64).tiny)
    tally.add((output - plain).abs() / limit, 1.0, f"{where}: float64 value while gradients are recorded")


def noise_of(output: Tensor, weights: Tensor, subject: Subject, layer: nn.Module, case: Case) -> Tensor:
    """p·u of the sum of absolute values: what float64 rounds in F."""
    points = getattr(layer, "no_qk_points", 1)
    terms = chain(subject, points, case.s.shape[-2]) + weights.numel()
    size = (output.detach().abs() * weights.abs()).sum() + weights.abs().sum()
    return terms * bounds.unit_roundoff(torch.float64) * size


def _along(
    subject: Subject, layer: nn.Module, case: Case, weights: Tensor, parts: Callable[[float], dict[str, Tensor]]
) -> Callable[[float], Tensor]:
    return lambda e: (subject.output(layer, rebuilt(case, parts(e))) * weights).sum()


def _along_parameter(
    subject: Subject, layer: nn.Module, case: Case, weights: Tensor, parameter: Tensor, direction: Tensor
) -> Callable[[float], Tensor]:
    start = parameter.detach().clone()

    def value(e: float) -> Tensor:
        parameter.copy_(start + e * direction)
        try:
            return (subject.output(layer, case) * weights).sum()
        finally:
            parameter.copy_(start)

    return value


def _turned(case: Case, turn: Tensor) -> Tensor:
    return rotation.multiply(case.rigid.rot, rotation.exp(turn))


def _float32(subject: Subject, layer: nn.Module, given: Case, terms: int, seed: int, where: str, tally: Tally) -> None:
    """Each gradient's largest error over p·u·(largest change of it when everything errs by u), p for both ways."""
    u, n = bounds.unit_roundoff(torch.float32), given.s.shape[-2]
    double = cast(given, torch.float64)

    def all_gradients(layer: nn.Module, case: Case) -> dict[str, Tensor | None]:
        leaf, inputs = leaves(case)
        return gradients(subject.output(layer, leaf).sum(), inputs | dict(layer.named_parameters()))

    exact = all_gradients(layer, double)
    actual = all_gradients(copy.deepcopy(layer).float(), given)
    near = [
        all_gradients(*shaken(layer, double, u, what, seed + index))
        for index in range(2)
        for what in (FEATURES, GEOMETRY, POSITION)
    ]
    largest = max((float(g.abs().amax()) for g in exact.values() if g is not None), default=0.0)
    for name, gradient in exact.items():
        # A gradient that cancels altogether (a bias that softmax does not see) leaves only the rounding of its terms.
        if gradient is None or actual[name] is None or gradient.abs().amax() <= u * largest:
            continue
        change = torch.stack([_difference(other[name], gradient) for other in near]).amax() / u
        # backward repeats the forward sums, and a parameter's gradient adds up over pairs of residues
        budget = (2 * terms + n * n) * u * (change + gradient.abs().amax())
        error = _difference(actual[name], gradient)
        could_fail = budget < gradient.abs().amax()
        tally.add(error / budget.clamp(min=1e-300), 1.0, f"{where}: float32 gradient of {name}", could_fail=could_fail)


def _difference(value: Tensor | None, reference: Tensor) -> Tensor:
    return reference.abs().amax() if value is None else (value.double() - reference).abs().amax()
