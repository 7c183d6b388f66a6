"""Ways of calling: rows of a table, each a detour to the answers that a plain call gives.

A way is a function of a `Scene` and inputs. It calls the accused in its own manner, in a batch of seven, say, or from
two threads, and gives back what a plain call of the same inputs gives. It is written with differentiable operations
between the inputs and the call, so that one driver compares values and gradients, each within one budget. How a way
ends is told apart: a *value* or a *gradient* is off, or the accused lacks the *capability*: it raised, and no claim
said that it would.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from iga._typing import Tensor
from iga.testing.check import THOROUGH
from iga.testing.contract import PROFILES
from iga.testing.tally import Tally
from iga.testing.targets import one_line

__all__ = ["ALL", "THOROUGH", "Answers", "Inputs", "Plain", "Scene", "Way", "judge_ways", "plain_call"]

ALL = tuple(PROFILES)
Inputs = Mapping[str, Tensor]  # by the names that reports give them
Answers = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Scene:
    """The accused with what a way may need of it.

    call     call(inputs) → answers, by name; raises TargetError for what is not an answer
    other    other inputs, of another size; what is called in between
    accused  the layer (a Module) or the overlap function itself
    details  what the ways of this kind of accused know of: a layer's Subject and Case, say
    held     tensors that want gradients and are the accused's own: a layer's parameters, by name
    """

    call: Callable[[Inputs], Answers]
    other: Inputs
    accused: Any
    details: Any = None
    held: Inputs = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of calling.

    name       for reports
    claim      the name by which `Claims.unsupported` excuses it
    run        run(scene, inputs) → the answers that a plain call of the inputs gives
    gradients  whether gradients come back through it; the names of those that want one, of inputs and of what is
               held, if not all
    exact      whether its values have to be those of the plain call to the bit
    profiles   those that run it
    """

    name: str
    claim: str
    run: Callable[[Scene, Inputs], Answers]
    gradients: bool | tuple[str, ...] = True
    exact: bool = False
    profiles: tuple[str, ...] = ALL


@dataclass(frozen=True, eq=False)
class Plain:
    """The plain call, and how far from it each number of another way may be.

    answers, slopes  values by answer, gradients by input and by what the accused holds: of Σ answers · weights
    limits, bends    absolute budgets of the two, which broadcast against them
    keep             answer → where it is judged (bool); all of it where absent
    """

    inputs: Inputs
    answers: Answers
    weights: Answers
    slopes: dict[str, Tensor]
    limits: Answers
    bends: dict[str, Tensor]
    keep: dict[str, Tensor] = field(default_factory=dict)


def plain_call(
    scene: Scene, inputs: Inputs, weights: Answers, names: Iterable[str]
) -> tuple[Answers, dict[str, Tensor]]:
    """Answers of a plain call, detached, and the gradients of Σ answers · weights by `names` (inputs, held)."""
    leaves = _leaves(inputs, tuple(names))
    answers = scene.call(leaves)
    found = _slopes(answers, weights, {**leaves, **scene.held}, tuple(names))
    return {name: x.detach() for name, x in answers.items()}, found


def judge_ways(
    ways: Iterable[Way], scene: Scene, plain: Plain, profile: str, unsupported: Iterable[str], where: str, tally: Tally
) -> None:
    """Each way of the profile against the plain call: |difference| over its budget, values and then gradients."""
    excused = set(unsupported)
    for way in ways:
        if profile in PROFILES and profile not in way.profiles:
            continue
        if way.claim in excused:
            tally.not_supported(way.claim)
            continue
        try:
            _judge(way, scene, plain, f"{where}, {way.name}", tally, gradients="gradients" not in excused)
        except Exception as error:  # whatever somebody else's code raises in this way is a finding about it
            claim = f'; if that is known, claim it: @target(unsupported=("{way.claim}",))'
            tally.fail(f"{where}, {way.name}", f"{way.name}: capability: it raised {one_line(error)}{claim}")


def _judge(way: Way, scene: Scene, plain: Plain, where: str, tally: Tally, *, gradients: bool) -> None:
    names: tuple[str, ...] = ()
    if gradients and way.gradients:
        names = tuple(plain.slopes) if way.gradients is True else way.gradients
    leaves = _leaves(plain.inputs, names)
    answers = way.run(scene, leaves)
    for name, expected in plain.answers.items():
        value, limit = answers[name], torch.zeros(()) if way.exact else plain.limits[name]
        if value.shape != expected.shape:
            tally.fail(where, f"{way.name}: value: shape {list(value.shape)} of {name} for {list(expected.shape)}")
            return
        keep = plain.keep.get(name, torch.ones((), dtype=torch.bool)).expand(expected.shape)
        _compare(
            value.detach()[keep], expected[keep], limit.expand(expected.shape)[keep], f"{where}: value of {name}", tally
        )
    if names:
        slopes = _slopes(answers, plain.weights, {**leaves, **scene.held}, names)
        for name in names:
            limit = plain.bends[name].expand(plain.slopes[name].shape)
            _compare(slopes[name], plain.slopes[name], limit, f"{where}: gradient of {name}", tally)


def _compare(value: Tensor, expected: Tensor, limit: Tensor, where: str, tally: Tally) -> None:
    error, limit = (value.double() - expected.double()).abs(), limit.double()
    if not error.numel():
        return
    ratio = torch.where((error == 0) & (limit == 0), 0.0, error / limit)
    # With a budget as large as what is compared no difference could show. A comparison to the bit always could.
    able = (limit <= 0.5 * expected.double().abs().amax()) | (limit == 0)
    tally.add(ratio, 1.0, where, could_fail=able)


def _leaves(inputs: Inputs, names: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: x.detach().clone().requires_grad_(name in names) for name, x in inputs.items()}


def _slopes(answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Gradients of Σ answers · weights by the `names` of `leaves`; zeros where nothing leads to an answer."""
    total = sum((answers[name].double() * weights[name]).sum() for name in weights)
    chosen = [leaves[name] for name in names]
    if not chosen:
        return {}
    if not isinstance(total, Tensor) or not total.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in zip(names, chosen, strict=True)}
    found = torch.autograd.grad(total, chosen, allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if slope is None else slope.detach()
        for name, leaf, slope in zip(names, chosen, found, strict=True)
    }
