"""Ways of calling: rows of a table, each a detour to the answers that a plain call gives.

A way is a function of a `Scene` and inputs. It calls the accused in its own manner, in a batch of seven, say, or from
two threads, and gives back what a plain call of the same inputs gives. It is written with differentiable operations
between the inputs and the call, so that one driver compares values and gradients, each within one budget. How a way
ends is told apart: a *value* or a *gradient* is off, or the accused lacks the *capability*: it raised, and no claim
said that it would.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from iga._typing import Tensor
from iga.testing.check import THOROUGH
from iga.testing.contract import PROFILES
from iga.testing.tally import Tally
from iga.testing.targets import TargetError, one_line

__all__ = [
    "ALL",
    "THOROUGH",
    "Answers",
    "Back",
    "Inputs",
    "Plain",
    "Refused",
    "Scene",
    "Way",
    "judge_ways",
    "may_refuse",
    "named",
    "plain_call",
    "slopes",
    "weighted",
]

ALL = tuple(PROFILES)
NOTES = 8  # ways that the note of a finding names
Inputs = Mapping[str, Tensor]  # by the names that reports give them
Answers = dict[str, Tensor]


class Refused(Exception):
    """The accused declines this way of calling with an error of the right kind: as good as an answer."""


@contextmanager
def may_refuse() -> Iterator[None]:
    """Calls that the accused may answer with an exception of its own: raises Refused then.

    An answer that is none, of a wrong shape say, stays what it is.
    """
    try:
        yield
    except TargetError as error:
        if error.__cause__ is None:
            raise
        raise Refused from error


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


def slopes(answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Gradients of Σ answers · weights by the `names` of `leaves`; zeros where nothing leads to an answer.

    Where a way gives several answers for one, in leading dimensions, theirs is the mean.
    """
    total = weighted(answers, weights)
    chosen = [leaves[name] for name in names]
    if not chosen:
        return {}
    if not total.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in zip(names, chosen, strict=True)}
    return named(names, chosen, torch.autograd.grad(total, chosen, allow_unused=True))


Back = Callable[[Scene, Answers, Answers, Inputs, tuple[str, ...]], dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of calling.

    name       for reports
    claim      the name by which `Claims.unsupported` excuses it
    run        run(scene, inputs) → the answers that a plain call of the inputs gives; further leading dimensions hold
               several of them
    gradients  whether gradients come back through it; the names of those that want one, of inputs and of what is
               held, if not all
    exact      whether its values have to be those of the plain call to the bit
    profiles   those that run it
    copies     so many copies of the inputs, each a leaf of its own, come stacked along a new first dimension, and as
               many of the answers are expected; 0: the inputs as they are
    back       back(scene, answers, weights, leaves, names) → gradients of Σ answers · weights, as `slopes` gives them;
               None: by `slopes`
    excused    further names in `Claims.unsupported` that excuse it
    """

    name: str
    claim: str
    run: Callable[[Scene, Inputs], Answers]
    gradients: bool | tuple[str, ...] = True
    exact: bool = False
    profiles: tuple[str, ...] = ALL
    copies: int = 0
    back: Back | None = None
    excused: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Plain:
    """The plain call, and how far from it each number of another way may be.

    answers, slopes  values by answer, gradients by input and by what the accused holds: of Σ answers · weights
    limits, bends    absolute budgets of the two, which broadcast against them
    keep             answer → where it is judged (bool); all of it where absent
    read             input → what of its gradient is compared, such as the part along rotations; all where absent
    """

    inputs: Inputs
    answers: Answers
    weights: Answers
    slopes: dict[str, Tensor]
    limits: Answers
    bends: dict[str, Tensor]
    keep: dict[str, Tensor] = field(default_factory=dict)
    read: dict[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)


def plain_call(
    scene: Scene, inputs: Inputs, weights: Answers, names: Iterable[str]
) -> tuple[Answers, dict[str, Tensor]]:
    """Answers of a plain call, detached, and the gradients of Σ answers · weights by `names` (inputs, held)."""
    leaves = _leaves(inputs, tuple(names))
    answers = scene.call(leaves)
    found = slopes(answers, weights, {**leaves, **scene.held}, tuple(names))
    return {name: x.detach() for name, x in answers.items()}, found


def judge_ways(
    ways: Iterable[Way], scene: Scene, plain: Plain, profile: str, unsupported: Iterable[str], where: str, tally: Tally
) -> None:
    """Each way of the profile against the plain call: |difference| over its budget, values and then gradients.

    A profile of a name that is not in `PROFILES` runs what the fast one does.
    """
    lacking = set(unsupported)
    for way in ways:
        if (profile if profile in PROFILES else "fast") not in way.profiles:
            continue
        if profile not in PROFILES and tally.broken:  # a planted fault is seen: what else sees it does not count
            return
        claimed = [name for name in (way.claim, *way.excused) if name in lacking]
        if claimed:
            tally.not_supported(claimed[0])
            continue
        here = f"{where}, {way.name}"
        try:
            _judge(way, scene, plain, here, tally, gradients="gradients" not in lacking)
        except Refused:
            continue
        except Exception as error:  # whatever somebody else's code raises in this way is a finding about it
            if isinstance(error, TargetError) and error.__cause__ is None:  # it answered, and not as it should
                _fail(way, "value", str(error), here, tally)
                continue
            said = str(error) if isinstance(error, TargetError) else f"it raised {one_line(error)}"
            claim = f'if that is known, claim it: @target(unsupported=("{way.claim}",))'
            _fail(way, "capability", f"{said}; {claim}", here, tally)


def weighted(answers: Answers, weights: Answers) -> Tensor:
    """Σ answers · weights, float64; of several answers for one the mean."""
    total = torch.zeros((), dtype=torch.float64)
    for name, weight in weights.items():
        several = answers[name].shape.numel() / max(weight.shape.numel(), 1)
        total = total + (answers[name].double() * weight).sum() / max(several, 1.0)
    return total


def named(names: tuple[str, ...], leaves: list[Tensor], found: Iterable[Tensor | None]) -> dict[str, Tensor]:
    """What autograd found, by name, zeros for None."""
    return {
        name: torch.zeros_like(leaf) if slope is None else slope.detach()
        for name, leaf, slope in zip(names, leaves, found, strict=True)
    }


def _judge(way: Way, scene: Scene, plain: Plain, where: str, tally: Tally, *, gradients: bool) -> None:
    names: tuple[str, ...] = ()
    if gradients and way.gradients:
        names = tuple(plain.slopes) if way.gradients is True else way.gradients
    leaves = _leaves(plain.inputs, names, way.copies)
    weights = plain.weights
    if way.copies:  # each copy's answer counts once, so that each leaf's gradient is that of the plain call
        weights = {name: weight.expand(way.copies, *weight.shape) for name, weight in weights.items()}
    answers = way.run(scene, leaves)
    for name, x in leaves.items():
        if not torch.equal(x.detach(), plain.inputs[name].detach().expand(x.shape)):
            raise TargetError(f"it changed the {name} that it was given")
    for name, expected in plain.answers.items():
        value = answers[name].detach()
        surplus = value.ndim - expected.ndim
        if surplus < 0 or value.shape[surplus:] != expected.shape or (way.copies and value.shape[:1] != (way.copies,)):
            _fail(way, "value", f"shape {list(value.shape)} of {name} for {list(expected.shape)}", where, tally)
            return
        if value.dtype != expected.dtype:
            _fail(way, "value", f"{name} is {value.dtype}, of a plain call {expected.dtype}", where, tally)
            return
        limit = torch.zeros(()) if way.exact else plain.limits[name]
        keep = plain.keep.get(name, torch.ones((), dtype=torch.bool)).expand(expected.shape)
        judged = (value[..., keep], expected[keep], limit.expand(expected.shape)[keep])
        _compare(way, "value", name, judged, where, tally)
    if names:
        everything = {**leaves, **scene.held}
        if way.back is not None:
            found = way.back(scene, answers, weights, everything, names)
        else:
            found = slopes(answers, weights, everything, names)
        for name in names:
            slope, expected = (plain.read.get(name, _whole)(x) for x in (found[name], plain.slopes[name]))
            limit = plain.bends[name].expand(expected.shape)
            _compare(way, "gradient", name, (slope, expected, limit), where, tally)


def _compare(way: Way, what: str, name: str, judged: tuple[Tensor, Tensor, Tensor], where: str, tally: Tally) -> None:
    value, expected, limit = (x.detach().double() for x in judged)
    error = (value - expected).abs()
    if not error.numel():
        return
    ratio = torch.where((error == 0) & (limit == 0), 0.0, error / limit)
    # With a budget as large as what is compared no difference could show. A comparison to the bit always could.
    able = (limit <= 0.5 * expected.abs().amax()) | (limit == 0)
    broken = tally.broken
    tally.add(
        ratio,
        1.0,
        f"{where}: {what} of {name}",
        could_fail=able,
        says=(value.expand_as(ratio), expected.expand_as(ratio)),
    )
    if tally.broken > broken and len(tally.notes) < NOTES:
        tally.note(f"{what} of {name}: {way.name}")


def _fail(way: Way, what: str, said: str, where: str, tally: Tally) -> None:
    if len(tally.notes) < NOTES:
        tally.fail(where, f"{what}: {way.name}: {said}")
    else:
        tally.fail(where, tally.notes[-1])


def _whole(x: Tensor) -> Tensor:
    return x


def _leaves(inputs: Inputs, names: tuple[str, ...], copies: int = 0) -> dict[str, Tensor]:
    def leaf(x: Tensor) -> Tensor:
        x = x.detach()
        return x.expand(copies, *x.shape).clone(memory_format=torch.contiguous_format) if copies else x.clone()

    return {name: leaf(x).requires_grad_(name in names) for name, x in inputs.items()}
