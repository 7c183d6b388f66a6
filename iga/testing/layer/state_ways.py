"""Ways of calling a layer that differ in its state: its mode, what wants gradients, copies, changed parameters."""

import copy
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from iga._typing import Tensor
from iga.testing.common_ways import restless, without_recording
from iga.testing.layer.batch_ways import among
from iga.testing.layer.bridge import bridged, fresh
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import cast, native
from iga.testing.layer.scene import Situation, situation_of
from iga.testing.targets import TargetError
from iga.testing.ways import Answers, Back, Inputs, Scene, Way, may_refuse
from iga.testing.ways_back import backward, in_thread, in_turn, mirrored

__all__ = ["COPIES", "MODES", "PARAMETERS", "TWO_AT_ONCE", "moved", "wanting"]

ROUNDS, OFTEN = 3, 8  # of two threads that call at once; calls of each in a round in which nothing is recorded

TWO_AT_ONCE = "two threads at once"
Run = Callable[[Scene, Inputs], Answers]


def _training(run: Run) -> Run:
    def called(scene: Scene, inputs: Inputs) -> Answers:
        layer = situation_of(scene).layer
        layer.train()
        try:
            return run(scene, inputs)
        finally:
            layer.eval()

    return called


# --- what wants gradients -------------------------------------------------------------------------------------------


@contextmanager
def _only(scene: Scene, wanted: Sequence[str]) -> Iterator[None]:
    """Parameters but for `wanted` (names as in `Scene.held`) are frozen."""
    frozen = [x for name, x in scene.held.items() if name not in wanted]
    for x in frozen:
        x.requires_grad_(False)
    try:
        yield
    finally:
        for x in frozen:
            x.requires_grad_(True)


def _with_frozen(wanted: Sequence[str]) -> Run:
    def run(scene: Scene, inputs: Inputs) -> Answers:
        with _only(scene, wanted):
            return scene.call(inputs)

    return run


def _back_frozen(wanted: Sequence[str]) -> Back:
    """They are frozen on the way back too: a layer that checkpoints itself computes again there."""

    def back(scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]) -> Answers:
        with _only(scene, wanted):
            return backward(answers, weights, leaves, names)

    return back


def wanting(scene: Scene, inputs: Sequence[str]) -> list[Way]:
    """Each input alone, all but one, those of r; the parameters alone, all, half and all but the biases frozen."""
    held = tuple(scene.held)
    half = len(held) // 2
    biases = tuple(name for name in held if name.endswith("bias"))
    r = tuple(name for name in inputs if name not in ("s", "z"))
    rows: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
        *((f"only {name} wants a gradient", (name,), ()) for name in inputs),
        *((f"all but {name} want a gradient", tuple(x for x in inputs if x != name), held) for name in inputs),
        ("only r wants a gradient", r, ()),
        ("parameters are frozen", tuple(inputs), ()),
        ("only parameters want a gradient", (), held),
        ("the first half of the parameters is frozen", tuple(inputs), held[half:]),
        ("the second half of the parameters is frozen", (), held[:half]),
        ("only biases want a gradient", (), biases),
    ]
    return [
        Way(
            name=name,
            claim="partial_gradients",
            run=_with_frozen(parameters),
            back=_back_frozen(parameters),
            gradients=(*wants, *parameters),
        )
        for name, wants, parameters in rows
        if wants or parameters
    ]


# --- copies ---------------------------------------------------------------------------------------------------------


def moved(layer: nn.Module) -> nn.Module:
    """The layer with every parameter another, in place."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(1.25).add_(0.125)
    return layer


def _another(here: Situation) -> nn.Module:
    """Another instance, of other parameters, that was never called."""
    return here.subject.random(here.points, here.seed + 1).to(native(here.subject))


def _loaded(here: Situation, state: dict[str, Tensor]) -> nn.Module:
    """A fresh layer, all of its parameters moved, that loads the state."""
    other = moved(_another(here))
    other.load_state_dict(state)
    return other


def _state(here: Situation) -> nn.Module:
    saved = io.BytesIO()
    torch.save(here.layer.state_dict(), saved)
    saved.seek(0)
    return _loaded(here, torch.load(saved, weights_only=True))


def _plain_state(here: Situation) -> nn.Module:
    """As a file of safetensors gives it: tensors by name, and none of torch's metadata."""
    return _loaded(here, {name: x.clone() for name, x in here.layer.state_dict().items()})


def _state_of_a_model(here: Situation) -> nn.Module:
    """The state of a model in which the layer is one of two."""
    state = nn.ModuleDict({"first": nn.Linear(1, 1), "attention": here.layer}).state_dict()
    other = moved(_another(here))
    nn.ModuleDict({"first": nn.Linear(1, 1), "attention": other}).load_state_dict(state)
    return other


def _pickled(here: Situation) -> nn.Module:
    if any("<locals>" in type(module).__qualname__ for module in here.layer.modules()):
        return here.layer  # a class made within a function has no name to be found by
    saved = io.BytesIO()
    torch.save(here.layer, saved)
    saved.seek(0)
    return torch.load(saved, weights_only=False)


def _first_called(where: Callable[[], AbstractContextManager[Any]]) -> Callable[[Situation], nn.Module]:
    """A layer of its own, whose first call is made there: what it makes then, and keeps, is of that mode."""

    def make(here: Situation) -> nn.Module:
        other = _another(here)
        other.load_state_dict(here.layer.state_dict())
        with where():
            here.output(here.case, other)
        return other

    return make


def _there_and_back(here: Situation) -> nn.Module:
    dtype = native(here.subject)
    other = torch.float64 if dtype == torch.float32 else torch.float32
    return copy.deepcopy(here.layer).to(other).to(dtype) if other == torch.float64 else copy.deepcopy(here.layer)


def _first_called_in_another_dtype(here: Situation) -> nn.Module:
    """A layer of its own, whose first call is in the other dtype: what it makes then, and keeps, is of that one."""
    other, dtype = _another(here), native(here.subject)
    other.load_state_dict(here.layer.state_dict())
    for first in here.subject.dtypes:
        if first != dtype:
            here.output(cast(here.case, first), other.to(first))
    return other.to(dtype)


def _float64_after_float32(scene: Scene, inputs: Inputs) -> Answers:
    """The float64 answer of a layer that was called in float32 before, against one that was not: the difference is
    added, times 2²⁴, the ratio of their roundings but for 2⁵."""
    here = situation_of(scene)
    both = [_another(here), _another(here)]
    answers = scene.call(inputs)
    if set(here.subject.dtypes) >= {torch.float32, torch.float64}:
        with torch.no_grad():
            here.output(cast(here.case, torch.float32), both[0].float())
            one, other = (here.output(cast(here.case, torch.float64), layer.double()) for layer in both)
        output = answers["output"]
        answers = {"output": output + (2.0**24 * (one - other)).to(output.dtype)}
    return answers


def _original_of_a_moved_copy(here: Situation) -> nn.Module:
    """The layer itself, while a copy of it has other parameters."""
    here.output(here.case, moved(copy.deepcopy(here.layer)))
    return here.layer


def _copy_of_a_moved_original(here: Situation) -> nn.Module:
    first = copy.deepcopy(here.layer)
    second = copy.deepcopy(first)
    here.output(here.case, moved(first))
    return second


def _by(make: Callable[[Situation], nn.Module]) -> Run:
    """The call of what `make` makes of the layer; the gradients of its parameters are those of the layer's."""

    def run(scene: Scene, inputs: Inputs) -> Answers:
        here = situation_of(scene)
        other = make(here)
        if other is here.layer:
            return scene.call(inputs)
        return {"output": _handed(scene, inputs, other)}

    return run


def _handed(scene: Scene, inputs: Inputs, other: nn.Module, call: Callable[[Inputs], Tensor] | None = None) -> Tensor:
    """What `other` gives, by `call` if it is not a plain one; gradients by its parameters are handed to the layer's."""
    here, own = situation_of(scene), fresh(dict(inputs))
    output = here.output(here.case_of(own), other) if call is None else call(own)
    parameters = dict(other.named_parameters())
    theirs = [parameters[name.removeprefix("parameter ")] for name in scene.held]
    leaves = [x for x in (*own.values(), *theirs) if x.requires_grad]
    whose = [
        x for x, y in zip((*inputs.values(), *scene.held.values()), (*own.values(), *theirs), strict=True)
        if y.requires_grad
    ]  # fmt: skip

    def back(gradient: Tensor) -> Sequence[Tensor | None]:
        if not output.requires_grad:
            return [None] * len(leaves)
        return torch.autograd.grad(output, leaves, gradient, allow_unused=True)

    return bridged(output, back, whose)


def _two_at_once(scene: Scene, inputs: Inputs) -> Answers:
    """A copy, called by two threads at once, with other inputs, and the opposite mask, by the second one.

    A layer that swaps its parameters while it runs (functional_call) may raise, and keeps what it swapped: it declines,
    unless it has answered before, beside a call of its own size. Those answers are judged.
    """
    here = situation_of(scene)
    other = copy.deepcopy(here.layer)
    beside = [_hidden(here.case_of(one)) for one in (mirrored(inputs), scene.other)]

    calls = 1 if torch.is_grad_enabled() else OFTEN

    def call(own: Inputs) -> Tensor:
        case, rounds = here.case_of(own), []
        try:
            with restless():
                for k in range(ROUNDS):
                    theirs = beside[k // 2]  # twice that of the same shapes, as of pairs
                    rounds += in_turn(
                        lambda: here.output(case, other), lambda theirs=theirs: here.output(theirs, other)
                    )[:1]
                    rounds += in_thread(
                        lambda: [here.output(case, other) for _ in range(calls)],
                        lambda theirs=theirs: [here.output(theirs, other) for _ in range(calls)],
                    )[0]
        except TargetError as error:
            if not rounds or error.__cause__ is None:
                raise
        return torch.stack(rounds)

    with may_refuse():
        return {"output": _handed(scene, inputs, other, call)}


def _hidden(case: Case) -> Case:
    """Of the residues those that were masked are valid, and of the others every third."""
    every_third = torch.arange(case.mask.shape[-1]) % 3 == 1
    return replace(case, mask=~case.mask | every_third)


def _beside_another(scene: Scene, inputs: Inputs) -> Answers:
    """What another instance gives with and without recording, which has to be the same: the difference is added."""
    here = situation_of(scene)
    here.output(here.case)
    other = _another(here)
    case = here.case_of({name: x.detach() for name, x in inputs.items()})
    with torch.no_grad():
        here.output(case)
        unrecorded = here.output(case, other)
    with torch.enable_grad():
        recorded = here.output(case, other).detach()
    return {"output": scene.call(inputs)["output"] + (unrecorded - recorded)}


# --- parameters that were others ------------------------------------------------------------------------------------


def _after(change: Callable[[nn.Module, dict[str, Tensor]], None], *, recorded: bool) -> Run:
    """Another instance, whose first call was with other parameters, and which got those of the layer since.

    A copy would do no good: it takes along what the layer kept of its own first call.
    """

    def run(scene: Scene, inputs: Inputs) -> Answers:
        here = situation_of(scene)
        other = _another(here)
        other.load_state_dict(here.layer.state_dict())
        moved(other)
        with torch.set_grad_enabled(recorded):
            here.output(here.case_of(fresh(dict(inputs))), other)
            change(other, {name: x.detach() for name, x in here.layer.named_parameters()})
            if not recorded:
                return {"output": here.output(here.case_of(inputs), other)}
        return {"output": _handed(scene, inputs, other)}

    return run


def _in_place(layer: nn.Module, values: dict[str, Tensor]) -> None:
    """As an optimiser does."""
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.copy_(values[name])


def _behind_autograd(layer: nn.Module, values: dict[str, Tensor]) -> None:
    """As averages of weights do: `.data`, of which no version counter knows."""
    for name, parameter in layer.named_parameters():
        parameter.data.copy_(values[name])


def _load(layer: nn.Module, values: dict[str, Tensor]) -> None:
    layer.load_state_dict({**layer.state_dict(), **values})


def _assign(layer: nn.Module, values: dict[str, Tensor]) -> None:
    """The tensors themselves become the parameters, as of a layer that was made on "meta"."""
    tied = len(values) < sum(1 for _ in layer.named_parameters(remove_duplicate=False))  # assigning would part them
    state = {name: x.clone() for name, x in {**layer.state_dict(), **values}.items()}
    layer.load_state_dict(state, assign=not tied)


AT_ONCE = Way(name=TWO_AT_ONCE, claim="concurrent_calls", run=_two_at_once)
MODES: tuple[Way, ...] = (
    Way(name="train()", claim="train_mode", run=_training(lambda scene, inputs: scene.call(inputs))),
    # beside samples with other masks
    Way(name="train(), sample 3 of 4", claim="train_mode", run=_training(among(4, 2)), excused=("batch_size",)),
)
COPIES: tuple[Way, ...] = (
    Way(name="a deep copy", claim="deepcopy", run=_by(lambda here: copy.deepcopy(here.layer))),
    Way(name="while a copy has other parameters", claim="deepcopy", run=_by(_original_of_a_moved_copy)),
    Way(name="a copy of what has other parameters since", claim="deepcopy", run=_by(_copy_of_a_moved_original)),
    Way(name="another instance, unrecorded", claim="no_grad", run=_beside_another, gradients=False),
    Way(name="state_dict, saved and loaded", claim="state_dict", run=_by(_state), exact=True),
    Way(name="its state as a plain dict", claim="state_dict", run=_by(_plain_state), exact=True),
    Way(name="its state in that of a model", claim="state_dict", run=_by(_state_of_a_model), exact=True),
    Way(name="the module, saved and loaded", claim="pickle", run=_by(_pickled)),
    *(
        Way(name=f"first called under {name}", claim=name, run=_by(_first_called(where)))
        for name, where in (
            ("autocast", lambda: torch.autocast("cpu", dtype=torch.bfloat16)),
            ("inference_mode", torch.inference_mode),
            ("no_grad", torch.no_grad),
        )
    ),
    Way(name="to another dtype and back", claim="to_dtype", run=_by(_there_and_back)),
    Way(name="first called in another dtype", claim="to_dtype", run=_by(_first_called_in_another_dtype)),
    Way(name="float64 after float32", claim="to_dtype", run=_float64_after_float32, gradients=False),
    AT_ONCE,
    without_recording(AT_ONCE),
)
PARAMETERS: tuple[Way, ...] = tuple(
    Way(
        name=f"after parameters changed {how}{'' if recorded else ', no_grad'}",
        claim="changed_parameters",
        run=_after(change, recorded=recorded),
        gradients=recorded,
    )
    for how, change in (
        ("in place", _in_place),
        ("by .data", _behind_autograd),
        ("by load_state_dict", _load),
        ("by assign=True", _assign),
    )
    for recorded in (True, False)
)
