"""Ways of calling that serve whatever is judged: modes of recording, memory, history, threads, and ways back.

Each is a row of `COMMON`. What they need they make of the inputs themselves: other numbers of the same shapes are the
inputs `mirrored`, other shapes are the scene's `other`.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch

from iga._runtime import threads
from iga._typing import Tensor
from iga.testing.targets import TargetError
from iga.testing.ways import Answers, Inputs, Scene, Way
from iga.testing.ways_back import BACK, accumulated, in_thread, in_turn, mirrored, plainly, strided

__all__ = ["COMMON", "bad_call", "in_memory", "one_changed", "with_answers_of", "without_recording"]

ROUNDS = 3  # of two threads that call at once
OFTEN = 24  # calls of each in a round in which nothing is recorded: they cost little


def in_memory(lay: Callable[[Tensor], Tensor]) -> Callable[[Scene, Inputs], Answers]:
    """The run of a way that hands each input over as `lay` puts it into memory."""
    return lambda scene, inputs: scene.call({name: lay(x) for name, x in inputs.items()})


# --- recording --------------------------------------------------------------------------------------------------


def _unrecorded(scene: Scene, inputs: Inputs) -> Answers:
    with torch.no_grad():
        return scene.call({name: x.detach().requires_grad_(x.is_floating_point()) for name, x in inputs.items()})


def _inference(scene: Scene, inputs: Inputs) -> Answers:
    with torch.inference_mode():
        return {name: x.clone() for name, x in scene.call(inputs).items()}


def _inference_throughout(scene: Scene, inputs: Inputs) -> Answers:
    with torch.inference_mode():
        answers = scene.call({name: x.clone() for name, x in inputs.items()})
    return answers


def _inference_first(scene: Scene, inputs: Inputs) -> Answers:
    with torch.inference_mode():
        scene.call({name: x.clone() for name, x in inputs.items()})
    return scene.call(inputs)


def _no_grad_first(scene: Scene, inputs: Inputs) -> Answers:
    with torch.no_grad():
        scene.call(inputs)
    return scene.call(inputs)


def _autocast_first(scene: Scene, inputs: Inputs) -> Answers:
    """The first call may fail: autocast itself is asked elsewhere."""
    with suppress(TargetError), torch.autocast("cpu", dtype=torch.bfloat16):
        scene.call(inputs)
    return scene.call(inputs)


def _not_leaves(scene: Scene, inputs: Inputs) -> Answers:
    return scene.call({name: x * 1 for name, x in inputs.items()})


def _in_enabled(scene: Scene, inputs: Inputs) -> Answers:
    with torch.no_grad(), torch.enable_grad():
        return scene.call(inputs)


# --- memory -----------------------------------------------------------------------------------------------------


def _outermost(x: Tensor) -> Tensor:
    """The last dimension outermost in memory."""
    return x.movedim(-1, 0).contiguous().movedim(0, -1) if x.ndim > 1 else x


def _transposed(x: Tensor) -> Tensor:
    """The last two dimensions exchanged in memory: matrices by columns."""
    return x.mT.contiguous().mT if x.ndim > 1 else x


def _reversed_batch(x: Tensor) -> Tensor:
    """The first two dimensions exchanged in memory."""
    return x.transpose(0, 1).contiguous().transpose(0, 1) if x.ndim > 1 else x


def _exchanged_before_last(x: Tensor) -> Tensor:
    """The two dimensions before the last exchanged in memory: pairs of residues, keys outermost."""
    return x.transpose(-3, -2).contiguous().transpose(-3, -2) if x.ndim > 2 else x


def _offset(x: Tensor) -> Tensor:
    """Behind one other number in a larger tensor: at an address that is not aligned."""
    return torch.cat([x.new_ones(1), x.flatten(), x.new_ones(1)])[1:-1].view(x.shape)


def _negative_zeros(x: Tensor) -> Tensor:
    """Every 0 as −0."""
    x = x.clone()
    if x.is_floating_point():
        x.data[x.detach() == 0] = -0.0  # which autograd need not know of: the number is the same
    return x


# --- history ----------------------------------------------------------------------------------------------------


def bad_call(scene: Scene, inputs: Inputs) -> None:
    """A call with an operand of a shape that fits no other; whatever comes of it."""
    name = next(iter(inputs))
    bad = {**inputs, name: torch.ones(13, 7, 5, 11, dtype=inputs[name].dtype)}
    try:
        scene.call(bad)
    except Exception:  # it should raise; what counts is what the next call gives
        return


def with_answers_of(before: Callable[[Scene, Inputs], object]) -> Callable[[Scene, Inputs], Answers]:
    """The run of a plain call after `before`."""

    def run(scene: Scene, inputs: Inputs) -> Answers:
        before(scene, inputs)
        return scene.call(inputs)

    return run


def one_changed(scene: Scene, inputs: Inputs) -> Answers:
    """After a call that shares all tensors but one with it, of each in turn."""
    rounds = []
    for name, other in mirrored(inputs).items():
        scene.call({**inputs, name: other})
        rounds.append(scene.call(inputs))
    return {name: torch.stack([answers[name] for answers in rounds]) for name in rounds[0]}


def _other_recorded(scene: Scene, inputs: Inputs) -> None:
    leaves = {name: x.detach().clone().requires_grad_(x.is_floating_point()) for name, x in scene.other.items()}
    total = sum(answer.sum() for answer in scene.call(leaves).values())
    if isinstance(total, Tensor) and total.requires_grad:
        torch.autograd.grad(total, [x for x in leaves.values() if x.requires_grad], allow_unused=True)


def _held(scene: Scene, inputs: Inputs) -> Answers:
    """The answers are read, and led back, after three further calls, one of them with a backward pass."""
    answers = scene.call(inputs)
    scene.call(mirrored(inputs))
    _other_recorded(scene, inputs)
    bad_call(scene, inputs)
    return answers


def _changed_in_place(scene: Scene, inputs: Inputs) -> Answers:
    """The same tensors, first with other numbers."""
    held = mirrored(inputs)
    with torch.no_grad():
        scene.call(held)
    for name, x in inputs.items():
        held[name].copy_(x)
    return scene.call(held)


def _changed_unrecorded(write: Callable[[Tensor, Tensor], object]) -> Callable[[Scene, Inputs], Answers]:
    """The run of a way: the same tensors where nothing is recorded; each in turn has other numbers in the call before,
    and is written to by `write`."""

    def run(scene: Scene, inputs: Inputs) -> Answers:
        rounds = []
        with torch.no_grad():
            for name, other in mirrored(inputs).items():
                held = {key: x.detach().clone() for key, x in inputs.items()}
                write(held[name], other)
                scene.call(held)
                write(held[name], inputs[name])
                rounds.append(scene.call(held))
        return {name: torch.stack([answers[name] for answers in rounds]) for name in rounds[0]}

    return run


def _same_memory(scene: Scene, inputs: Inputs) -> Answers:
    """Other tensors in the memory of the first, which autograd knows nothing of."""
    held = mirrored(inputs)
    scene.call({name: x.data for name, x in held.items()})
    for name, x in inputs.items():
        held[name].data.copy_(x.detach())
    return scene.call({name: x.data for name, x in held.items()})


def _inputs_overwritten(scene: Scene, inputs: Inputs) -> Answers:
    """Its tensors are filled with something else before the answers are read."""
    held = {name: x.detach().clone() for name, x in inputs.items()}
    with torch.no_grad():
        answers = scene.call(held)
        for x in held.values():
            x.zero_()
    return answers


def _left_as_they_were(recording: Callable[[], Any]) -> Callable[[Scene, Inputs], Answers]:
    """The caller's own tensors are not changed."""

    def run(scene: Scene, inputs: Inputs) -> Answers:
        before = mirrored(inputs)  # other numbers: what earlier calls changed in these would not change again
        held = {name: x.clone() for name, x in before.items()}
        with recording():
            scene.call(held)
            answers = {name: x.clone() for name, x in scene.call(inputs).items()}
        for name, x in before.items():
            if not torch.equal(held[name], x):
                raise TargetError(f"it changed the {name} that it was given")
        return answers

    return run


# --- threads ----------------------------------------------------------------------------------------------------


def _threads(count: int) -> Callable[[Scene, Inputs], Answers]:
    def run(scene: Scene, inputs: Inputs) -> Answers:
        with threads(count):
            return scene.call(inputs)

    return run


@contextmanager
def restless() -> Iterator[None]:
    """The interpreter goes from one thread to the other as often as it can, so that a short call is interrupted too."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _two_at_once(scene: Scene, inputs: Inputs) -> Answers:
    other = [mirrored(inputs), scene.other]
    rounds: list[Answers] = []
    calls = 1 if torch.is_grad_enabled() else OFTEN
    with restless():
        for k in range(ROUNDS):
            theirs = other[k // 2]  # twice those of the same shapes: what is kept by shape is there at the second time
            once, _ = in_turn(lambda: scene.call(inputs), lambda t=theirs: scene.call(t))
            mine, _ = in_thread(
                lambda: [scene.call(inputs) for _ in range(calls)],
                lambda theirs=theirs: [scene.call(theirs) for _ in range(calls)],
            )
            rounds += [once, *mine]
    return {name: torch.stack([answers[name] for answers in rounds]) for name in rounds[0]}


def _in_a_thread(scene: Scene, inputs: Inputs) -> Answers:
    return in_thread(lambda: scene.call(inputs))[0]


def _checkpointed(reentrant: bool) -> Callable[[Scene, Inputs], Answers]:
    def run(scene: Scene, inputs: Inputs) -> Answers:
        from torch.utils.checkpoint import checkpoint

        names = list(inputs)
        order: list[str] = []

        def call(*tensors: Tensor) -> tuple[Tensor, ...]:
            try:
                answers = scene.call(dict(zip(names, tensors, strict=True)))
            except TargetError as error:  # torch ends a recomputation by an exception of its own
                raise error.__cause__ or error from None
            order[:] = list(answers)
            return tuple(answers.values())

        given: Any = checkpoint(call, *inputs.values(), use_reentrant=reentrant)
        return dict(zip(order, given, strict=True))

    return run


def without_recording(way: Way) -> Way:
    """The way while autograd records nothing, where caches and buffers are most often kept."""

    def run(scene: Scene, inputs: Inputs) -> Answers:
        with torch.no_grad():
            return way.run(scene, inputs)

    return replace(way, name=f"{way.name}, under no_grad", run=run, gradients=False, excused=(*way.excused, "no_grad"))


COMMON: tuple[Way, ...] = (
    Way(name="called again", claim="repeat", run=plainly),
    Way(name="under no_grad", claim="no_grad", run=_unrecorded, gradients=False),
    Way(name="under inference_mode", claim="inference_mode", run=_inference, gradients=False),
    Way(
        name="under inference_mode, inputs made there",
        claim="inference_mode",
        run=_inference_throughout,
        gradients=False,
    ),
    Way(name="after a call under inference_mode", claim="inference_mode", run=_inference_first),
    Way(name="after a call under no_grad", claim="no_grad", run=_no_grad_first),
    Way(name="after a call under autocast", claim="autocast", run=_autocast_first),
    Way(name="gradients switched on again", claim="no_grad", run=_in_enabled),
    Way(name="inputs that are no leaves", claim="gradients", run=_not_leaves),
    Way(name="every second number in memory", claim="strided", run=in_memory(strided)),
    Way(name="last dimension outermost in memory", claim="strided", run=in_memory(_outermost)),
    Way(name="last two dimensions exchanged in memory", claim="strided", run=in_memory(_transposed)),
    Way(name="first two dimensions exchanged in memory", claim="strided", run=in_memory(_reversed_batch)),
    Way(name="two dimensions before the last exchanged", claim="strided", run=in_memory(_exchanged_before_last)),
    Way(name="at an odd place in memory", claim="strided", run=in_memory(_offset)),
    Way(name="negative zeros", claim="negative_zero", run=in_memory(_negative_zeros)),
    Way(name="after another size", claim="repeat", run=with_answers_of(lambda scene, inputs: scene.call(scene.other))),
    Way(name="after another size, with gradients", claim="repeat", run=with_answers_of(_other_recorded)),
    Way(name="after a call that fails", claim="repeat", run=with_answers_of(bad_call)),
    Way(name="answers held while others are computed", claim="repeat", run=_held),
    Way(name="inputs changed in place between calls", claim="in_place", run=_changed_in_place),
    *(
        Way(name=f"inputs changed {how}, unrecorded", claim="in_place", run=_changed_unrecorded(write), gradients=False)
        for how, write in (("in place", Tensor.copy_), ("by .data", lambda x, other: x.data.copy_(other)))
    ),
    Way(name="other inputs in the same memory", claim="in_place", run=_same_memory, gradients=False),
    Way(name="inputs overwritten afterwards", claim="in_place", run=_inputs_overwritten, gradients=False),
    Way(
        name="inputs that are looked at afterwards, under no_grad",
        claim="no_grad",
        run=_left_as_they_were(torch.no_grad),
        gradients=False,
    ),
    Way(
        name="inputs that are looked at afterwards, under inference_mode",
        claim="inference_mode",
        run=_left_as_they_were(torch.inference_mode),
        gradients=False,
    ),
    Way(name="2 threads", claim="threads", run=_threads(2)),
    Way(name="3 threads", claim="threads", run=_threads(3)),
    Way(name="two threads at once", claim="concurrent_calls", run=_two_at_once),
    Way(name="in another thread", claim="concurrent_calls", run=_in_a_thread),
    *BACK,
    Way(name="checkpointed", claim="checkpoint", run=_checkpointed(False), excused=("gradients",)),
    Way(
        name="checkpointed, reentrant",
        claim="checkpoint",
        run=_checkpointed(True),
        back=accumulated(1),
        excused=("gradients",),
    ),
)
