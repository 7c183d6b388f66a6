"""Ways back: how the gradients of a call may be asked for, and what of it may not matter.

Each row of `BACK` calls as a plain call does, and leads back in its own manner: twice, one answer at a time, from
gradients with gaps between them, from another thread.
"""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from iga._typing import Tensor
from iga.testing.targets import TargetError
from iga.testing.ways import Answers, Back, Inputs, Refused, Scene, Way, named, weighted

__all__ = ["AFTERWARDS", "BACK", "accumulated", "backward", "in_thread", "in_turn", "mirrored", "plainly", "strided"]

PATIENCE, MOMENT = 0.2, 1e-3  # seconds: far more than a line takes; some, where the last one was waited for in vain


def plainly(scene: Scene, inputs: Inputs) -> Answers:
    return scene.call(inputs)


class _InTurn:
    """Two threads that go on in turn, each by one line of the accused's at a time, whatever else the machine does.

    One whose turn does not come back within PATIENCE goes on all the same: the other waits for a lock of its, and as
    long as it does so it is awaited a moment only.
    """

    def __init__(self) -> None:
        self._turn, self._left, self._patience = 0, {0, 1}, PATIENCE
        self._changed = threading.Condition()

    def _give(self, mine: int) -> None:
        with self._changed:
            self._turn = 1 - mine
            self._changed.notify_all()
            came = self._changed.wait_for(lambda: self._turn == mine or 1 - mine not in self._left, self._patience)
            self._patience = PATIENCE if came else MOMENT

    def of(self, mine: int, work: Callable[[], Any]) -> Callable[[], Any]:
        """The work of thread `mine`, 0 or 1."""

        def step(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
            if not _is_accused(frame.f_code.co_filename):
                return None
            if event == "line":
                self._give(mine)
            return step

        def run() -> Any:
            sys.settrace(step)
            try:
                return work()
            finally:
                sys.settrace(None)
                with self._changed:
                    self._left.discard(mine)
                    self._changed.notify_all()

        return run


def in_turn(first: Callable[[], Any], second: Callable[[], Any]) -> list[Any]:
    """As `in_thread`: outside of torch and this suite the two threads go on in turn, line by line."""
    turns = _InTurn()
    return in_thread(turns.of(0, first), turns.of(1, second))


def in_thread(*work: Callable[[], Any]) -> list[Any]:
    """What each function gives, each in a thread of its own, all at once; an exception is raised here.

    Whether autograd records is a thread's own: they record where the caller does.
    """
    recording = torch.is_grad_enabled()
    given: list[Any] = [None] * len(work)
    raised: list[BaseException] = []
    start = threading.Barrier(len(work))

    def run(k: int) -> None:
        try:
            start.wait()
            with torch.set_grad_enabled(recording):
                given[k] = work[k]()
        except BaseException as error:  # of another thread: raised below, in the caller's
            raised.append(error)

    workers = [threading.Thread(target=run, args=(k,)) for k in range(len(work))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if raised:
        raise raised[0]
    return given


def backward(answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...], **options: Any) -> Any:
    """`slopes` with options for torch.autograd.grad; zeros where nothing leads to an answer."""
    chosen, total = [leaves[name] for name in names], weighted(answers, weights)
    found = torch.autograd.grad(total, chosen, allow_unused=True, **options) if total.requires_grad else None
    return named(names, chosen, found or [None] * len(chosen))


def strided(x: Tensor) -> Tensor:
    """Every second number of a larger tensor."""
    if not x.ndim:
        return x
    return torch.stack([x, torch.zeros_like(x)], dim=-1).flatten(-2)[..., ::2]


def mirrored(inputs: Inputs) -> dict[str, Tensor]:
    """Other inputs of the same shapes and dtypes: the first dimension that has two or more, the other way round."""

    def other(x: Tensor) -> Tensor:
        dims = [dim for dim, count in enumerate(x.shape) if count > 1]
        return x.detach().flip(dims[:1]).clone()

    return {name: other(x) for name, x in inputs.items()}


# What autograd says of numbers that it kept and that were written to: of a view of many, of unbind say, in other words.
REFUSED = ("modified by an inplace operation", "has been modified inplace")
# By the names that code has of its files: in a script that stands alone those of this suite are no paths. Functions may
# be wrapped by somebody, a lambda is not.
_STANDARD = str(Path(threading.__file__).parent)
_NOT_ACCUSED = (
    *(str(Path(torch.__file__).parents[1] / name) for name in ("torch", "numpy")),
    (lambda: None).__code__.co_filename.rpartition("ways_back")[0],
)


def _is_accused(file: str) -> bool:
    """True for a file whose code may be the accused's: not this suite's, torch's, numpy's or the standard library's."""
    standard = file.startswith(_STANDARD) and "site-packages" not in file
    return not standard and not file.startswith(_NOT_ACCUSED)


def _parameters(scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]) -> Answers:
    inputs = {name: x.detach().clone() for name, x in leaves.items() if name not in scene.held}
    inputs = {name: torch.nn.Parameter(x) if name in names else x for name, x in inputs.items()}
    return backward(scene.call(inputs), weights, {**leaves, **inputs}, names)


def _back_in_a_thread(
    scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]
) -> Answers:
    return in_thread(lambda: backward(answers, weights, leaves, names))[0]


def _back_twice(scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]) -> Answers:
    backward(answers, weights, leaves, names, retain_graph=True)
    return backward(answers, weights, leaves, names)


def _back_one_by_one(
    scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]
) -> Answers:
    """Each answer led back alone, the last of them first."""
    found = {name: torch.zeros_like(leaves[name]) for name in names}
    for name in reversed(list(weights)):
        part = backward({name: answers[name]}, {name: weights[name]}, leaves, names, retain_graph=True)
        found = {key: found[key] + part[key] for key in found}
    return found


def _back_one_input(
    scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]
) -> Answers:
    """The gradient by each input asked for alone."""
    found = {}
    for name in names:
        found |= backward(answers, weights, leaves, (name,), retain_graph=True)
    return found


def _handed(answers: Answers, weights: Answers) -> tuple[list[Tensor], list[Tensor]]:
    """(the answers that record, and the gradients of Σ answers · weights by them)."""
    out = [name for name in weights if answers[name].requires_grad]
    several = {name: max(answers[name].numel() / max(weights[name].numel(), 1), 1.0) for name in out}
    given = [(weights[name] / several[name]).to(answers[name]).expand_as(answers[name]) for name in out]
    return [answers[name] for name in out], given


def _back_untouched(
    scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]
) -> Answers:
    """Gradients of the answers that somebody holds: afterwards they are what they were."""
    chosen, (out, given) = [leaves[name] for name in names], _handed(answers, weights)
    if not out:
        return named(names, chosen, [None] * len(chosen))
    given = [x.clone(memory_format=torch.contiguous_format) for x in given]
    held = [x.clone() for x in given]
    before = [x.grad for x in chosen]
    try:
        for x in chosen:
            x.grad = torch.ones_like(x)
        found = torch.autograd.grad(out, chosen, given, allow_unused=True)
        kept = all(x.grad is not None and bool((x.grad == 1).all()) for x in chosen)
    finally:
        for x, grad in zip(chosen, before, strict=True):
            x.grad = grad
    if not all(torch.equal(x, old) for x, old in zip(given, held, strict=True)):
        raise TargetError("led back, it wrote to the gradient that was handed in, which is the caller's")
    if not kept:
        raise TargetError("led back by torch.autograd.grad, it wrote to .grad, which is the caller's")
    return named(names, chosen, found)


def _back_after_answers(
    scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]
) -> Answers:
    """The caller has written to the answers by then, as `out += s` does: right all the same, or refused."""
    total, chosen = weighted(answers, weights), [leaves[name] for name in names]
    try:
        with torch.no_grad():
            for x in answers.values():
                x.add_(1.0)
    except RuntimeError as error:  # torch's own: an expanded answer, say, that nobody can write to
        raise Refused from error
    try:
        found = torch.autograd.grad(total, chosen, allow_unused=True) if total.requires_grad else [None] * len(chosen)
    except RuntimeError as error:
        if any(words in str(error) for words in REFUSED):
            raise Refused from error
        raise
    return named(names, chosen, found)


def _back_strided(scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]) -> Answers:
    """Gradients of the answers that are views with gaps."""
    chosen, (out, given) = [leaves[name] for name in names], _handed(answers, weights)
    if not out:
        return named(names, chosen, [None] * len(chosen))
    return named(names, chosen, torch.autograd.grad(out, chosen, [strided(x) for x in given], allow_unused=True))


def accumulated(times: int) -> Back:
    """So many calls of backward(), which add up in .grad, over their number."""

    def back(scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]) -> Answers:
        total, everything = weighted(answers, weights), [x for x in leaves.values() if x.requires_grad]
        before = [x.grad for x in everything]
        try:
            for x in everything:
                x.grad = None
            for k in range(times if total.requires_grad else 0):
                total.backward(retain_graph=k + 1 < times)
            chosen = [leaves[name] for name in names]
            return named(names, chosen, [None if x.grad is None else x.grad / times for x in chosen])
        finally:
            for x, grad in zip(everything, before, strict=True):
                x.grad = grad

    return back


def _scaled(factor: float) -> Back:
    """The loss times a power of two, as GradScaler or a mean over a batch has it, and the gradients over it again."""

    def back(scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]) -> Answers:
        found = backward(answers, {name: factor * x for name, x in weights.items()}, leaves, names)
        return {name: x / factor for name, x in found.items()}

    return back


def _back_in_no_grad(
    scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]
) -> Answers:
    total = weighted(answers, weights)
    chosen = [leaves[name] for name in names]
    with torch.no_grad():
        found = torch.autograd.grad(total, chosen, allow_unused=True) if total.requires_grad else [None] * len(chosen)
    return named(names, chosen, found)


def _back_after_other(
    scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]
) -> Answers:
    """Two calls, led back in the order of their calls, and this one last."""
    leaves_between = {name: x.requires_grad_(x.is_floating_point()) for name, x in mirrored(leaves).items()}
    inputs = {name: x for name, x in leaves_between.items() if name not in scene.held}
    total = sum(answer.sum() for answer in scene.call(inputs).values())
    if isinstance(total, Tensor) and total.requires_grad:
        torch.autograd.grad(total, [x for x in inputs.values() if x.requires_grad], allow_unused=True)
    return backward(answers, weights, leaves, names)


def _back_after_a_change(
    scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]
) -> Answers:
    """The inputs have other numbers by then: right all the same, or refused as autograd refuses it."""
    inputs = [x for name, x in leaves.items() if name not in scene.held]
    before = [x.detach().clone() for x in inputs]
    with torch.no_grad():
        for x, other in zip(inputs, mirrored({str(k): x for k, x in enumerate(inputs)}).values(), strict=True):
            x.copy_(other)
    try:
        return backward(answers, weights, leaves, names)
    except RuntimeError as error:
        if any(words in str(error) for words in REFUSED):
            raise Refused from error
        raise
    finally:
        for x, old in zip(inputs, before, strict=True):
            x.data.copy_(old)


# Not of layers: torch's own checkpointing computes again from what its inputs are by then.
AFTERWARDS = Way(name="inputs changed before the way back", claim="in_place", run=plainly, back=_back_after_a_change)
BACK: tuple[Way, ...] = (
    Way(name="inputs that are Parameters", claim="parameters", run=plainly, back=_parameters),
    Way(name="led back in another thread", claim="concurrent_calls", run=plainly, back=_back_in_a_thread),
    Way(name="led back twice", claim="retain_graph", run=plainly, back=_back_twice),
    Way(name="each answer led back alone", claim="retain_graph", run=plainly, back=_back_one_by_one),
    Way(name="led back to one input at a time", claim="retain_graph", run=plainly, back=_back_one_input),
    Way(name="led back from strided gradients", claim="strided", run=plainly, back=_back_strided),
    Way(name="led back from a gradient that is held", claim="repeat", run=plainly, back=_back_untouched),
    Way(name="led back after the answers were written to", claim="in_place", run=plainly, back=_back_after_answers),
    Way(name="backward() twice", claim="retain_graph", run=plainly, back=accumulated(2)),
    Way(name="led back from 2¹⁶ times the loss", claim="loss_scale", run=plainly, back=_scaled(2.0**16)),
    Way(name="led back from 2⁻¹⁶ times the loss", claim="loss_scale", run=plainly, back=_scaled(2.0**-16)),
    Way(name="led back under no_grad", claim="no_grad", run=plainly, back=_back_in_no_grad),
    Way(name="led back after another", claim="repeat", run=plainly, back=_back_after_other),
)
