"""Slips of overlap functions in how they are called: modes, memory, threads, transforms, dtypes."""

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]

from iga._typing import Tensor
from iga.testing.faults.fault import Fault
from iga.testing.faults.overlap_sizes import Values, overlap_made, overlap_slip, overlap_slips
from iga.testing.faults.slips import (
    batched,
    compiled,
    elsewhere,
    exported,
    graded,
    in_backward,
    moving,
    plain,
    recording,
)

__all__ = ["FAULTS"]

Make = Callable[[Any], Callable[..., Values]]
HALVED = 3 * math.log(2.0)  # what log_det loses with the factor 2 of Σ


def _halved(when: Callable[..., bool]) -> Callable[..., Values]:
    """In a mode of its own log_det has lost a constant; derivatives are right."""

    def wrong(right: Any, *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        return dist_sq, log_det - (HALVED if when(*pair) else 0.0)

    return wrong


def _steeper(when: Callable[..., bool]) -> Callable[..., Values]:
    """In a mode of its own the derivatives of dist_sq are half of what they are; values are right."""

    def wrong(right: Any, *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        return (graded(dist_sq, 0.5) if when(*pair) else dist_sq), log_det

    return wrong


def _on_the_default_device(right: Any, *pair: Tensor) -> Values:
    dist_sq, log_det = right(*pair)
    return dist_sq + torch.zeros(1, dtype=dist_sq.dtype)[0], log_det


MODES = overlap_slips(
    "modes",
    [
        ("log_det without its constant while gradients are recorded", "training", _halved(recording)),
        (
            "log_det without its constant where a gradient could be recorded and none is",
            "grad mode, nothing requires a gradient",
            _halved(lambda *pair: torch.is_grad_enabled() and not recording(*pair)),
        ),
        (
            "a short way under no_grad",
            "no_grad",
            _halved(lambda *pair: not torch.is_grad_enabled() and not torch.is_inference_mode_enabled()),
            "accuracy",
        ),
        ("a short way under inference_mode", "inference_mode", _halved(lambda *_: torch.is_inference_mode_enabled())),
        (
            "means rounded to bf16 while gradients are recorded",
            "training",
            lambda right, *pair: (
                right(*(x + (x.bfloat16().to(x.dtype) - x).detach() if k in (1, 4) else x for k, x in enumerate(pair)))
                if recording(*pair)
                else right(*pair)
            ),
            "gradient_values",
        ),
        (
            "another form under deterministic algorithms",
            "torch.use_deterministic_algorithms(True)",
            _halved(lambda *_: torch.are_deterministic_algorithms_enabled()),
        ),
        (
            "another form under anomaly mode",
            "torch.autograd.detect_anomaly",
            _halved(lambda *_: torch.is_anomaly_enabled()),
        ),
        (
            "a constant is made on the default device",
            "with torch.device(…)",
            _on_the_default_device,
        ),
        (
            "the answer has the default dtype",
            "set_default_dtype(float64)",
            lambda right, *pair: (
                right(*pair)
                if torch.get_default_dtype() == torch.float32
                else tuple(x.to(torch.get_default_dtype()) for x in right(*pair))
            ),
        ),
    ],
)


# --- memory and threads -----------------------------------------------------------------------------------------


def _remembered(key: Callable[..., Any], *, recorded: bool = False) -> Callable[[Any], Callable[..., Values]]:
    """The last answers serve a call of the same key; `recorded`: calls that record a gradient, too."""

    def make(right: Any) -> Callable[..., Values]:
        memory: dict[Any, Values] = {}

        def wrong(*pair: Tensor) -> Values:
            if not plain(*pair) or any(x.is_inference() for x in pair):
                return right(*pair)
            now = key(*pair)
            if recording(*pair):
                return detached(memory[now]) if recorded and now in memory else right(*pair)
            if now not in memory:
                memory.clear()
                memory[now] = right(*pair)
            return detached(memory[now])

        # checkpointing makes what it is given a part of its own graph, and would call itself without end
        def detached(answers: Values) -> Values:
            return answers[0].detach(), answers[1].detach()

        return wrong

    return make


def _addresses(*pair: Tensor) -> Any:
    return tuple((x.data_ptr(), x.shape, x.dtype) for x in pair)


def _first_dtype(right: Any) -> Callable[..., Values]:
    """A constant is made in the dtype of the first call."""
    made: list[torch.dtype] = []

    def wrong(*pair: Tensor) -> Values:
        made.append(pair[0].dtype)
        dist_sq, log_det = right(*pair)
        constant = torch.tensor(HALVED, dtype=torch.float64)
        return dist_sq, log_det - constant.to(log_det.dtype) + constant.to(made[0]).to(log_det.dtype)

    return wrong


def _scratch(when: Callable[[], bool] = lambda: True) -> Callable[[Any], Callable[..., Values]]:
    """Every call puts its inputs into one place, and reads them from there."""

    def make(right: Any) -> Callable[..., Values]:
        place: list[Any] = [None]

        def wrong(*pair: Tensor) -> Values:
            if not plain(*pair) or not when():
                return right(*pair)
            place[0] = pair
            time.sleep(2e-5)
            return right(*place[0])

        return wrong

    return make


def _unrecorded() -> bool:
    return not torch.is_grad_enabled()


def _first_frames(right: Any) -> Callable[..., Values]:
    """Frames are remembered by the σ that came with them, where nothing is recorded."""
    kept: list[Any] = [None, ()]

    def wrong(*pair: Tensor) -> Values:
        if not plain(*pair) or not _unrecorded() or any(x.is_inference() for x in pair):
            return right(*pair)
        now = tuple((x.data_ptr(), x._version, x.shape, x.dtype) for x in (pair[2], pair[5]))
        if kept[0] != now or any(x.shape != y.shape for x, y in zip(kept[1], (pair[0], pair[3]), strict=False)):
            kept[:] = now, (pair[0].clone(), pair[3].clone(), pair[2], pair[5])
        return right(kept[1][0], *pair[1:3], kept[1][1], *pair[4:])

    return wrong


def _missing(right: Any, *pair: Tensor) -> Values:
    """−0 stands for a coordinate that is missing."""
    dist_sq, log_det = right(*pair)
    lost = ((pair[1] == 0) & pair[1].signbit()).any(-1)
    return dist_sq, log_det - HALVED * lost


def _buffer(right: Any) -> Callable[..., Values]:
    """The answers stand in memory that the next call of the same shape overwrites."""
    memory: dict[Any, Values] = {}

    def wrong(*pair: Tensor) -> Values:
        answers = right(*pair)
        if not plain(*pair) or recording(*pair) or torch.is_inference_mode_enabled():
            return answers
        key = (answers[0].shape, answers[0].dtype)
        if key not in memory:
            memory[key] = answers[0].clone(), answers[1].clone()
        for old, new in zip(memory[key], answers, strict=True):
            old.copy_(new)
        return memory[key]

    return wrong


def _guarded(right: Any) -> Callable[..., Values]:
    """A lock that is tried and not waited for: who comes second gets zeros."""
    lock = threading.Lock()

    def wrong(*pair: Tensor) -> Values:
        if not plain(*pair):
            return right(*pair)
        free = lock.acquire(blocking=False)
        try:
            time.sleep(2e-5)
            dist_sq, log_det = right(*pair)
            return (dist_sq, log_det) if free else (dist_sq * 0, log_det * 0)
        finally:
            if free:
                lock.release()

    return wrong


def _rows_of(threads: int) -> Callable[..., Values]:
    """Pairs are dealt out to so many threads in equal parts: the rest is left at zero."""

    def wrong(right: Any, *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        n = dist_sq.numel()
        if torch.compiler.is_compiling() or torch.get_num_threads() != threads or n < threads:
            return dist_sq, log_det
        done = (torch.arange(n) < n // threads * threads).view(dist_sq.shape)
        return torch.where(done, dist_sq, 0.0), torch.where(done, log_det, 0.0)

    return wrong


def _in_place(operand: int) -> Callable[..., Values]:
    """The means are centred where they stand, and not put back to the bit."""

    def wrong(right: Any, *pair: Tensor) -> Values:
        answers = right(*pair)
        x = pair[operand]
        if plain(*pair) and not recording(*pair) and not x.is_inference() and 0 not in x.stride():
            x.mul_(3.0).div_(3.0)
        return answers

    return wrong


MEMORY = [
    overlap_made(
        "memory",
        "answers remembered by address",
        "an input changed in place between two calls",
        _remembered(_addresses),
    ),
    overlap_made(
        "memory",
        "answers remembered by version, not by whose",
        "other tensors of the same shapes",
        _remembered(lambda *pair: (tuple(x._version for x in pair), tuple(x.shape for x in pair), pair[0].dtype)),
        "determinism",
    ),
    overlap_made(
        "memory",
        "an answer made without a gradient serves a call that wants one",
        "the same tensors, first under no_grad",
        _remembered(lambda *pair: tuple((x.data_ptr(), x._version, x.shape, x.dtype) for x in pair), recorded=True),
    ),
    overlap_made(
        "memory",
        "a constant keeps the dtype of the first call",
        "float64 after float32",
        _first_dtype,
        "accuracy",
    ),
    overlap_made("memory", "frames are remembered by their σ", "no_grad, other frames with the same σ", _first_frames),
    overlap_slip("memory", "a mean of −0 counts as missing", "q_mean with a −0", _missing),
    overlap_made(
        "memory", "answers stand in memory that is used again", "two calls of one shape", _buffer, "determinism"
    ),
    overlap_slip(
        "memory", "the query's means are scaled in place, and back", "an ulp of q_mean", _in_place(1), "determinism"
    ),
    overlap_made("threads", "inputs are kept in one place for all", "two threads at once", _scratch()),
    overlap_made(
        "threads", "inputs are kept in one place under no_grad", "no_grad, two threads at once", _scratch(_unrecorded)
    ),
    overlap_made("threads", "who comes second gets zeros", "two threads at once", _guarded),
    overlap_slip(
        "threads", "a setting is made in the main thread only", "another thread", _halved(lambda *_: elsewhere())
    ),
    overlap_slip("threads", "of two threads' parts the rest is left out", "2 threads, n odd", _rows_of(2)),
    overlap_slip("threads", "of three threads' parts the rest is left out", "3 threads, n ≠ 3k", _rows_of(3)),
]


# --- transforms and dtypes --------------------------------------------------------------------------------------


def _first_sample(right: Any, *pair: Tensor) -> Values:
    """A vmap rule that takes the batch's first means of the keys for all."""
    if not batched(pair[4]):
        return right(*pair)
    level = _functorch.maybe_get_level(pair[4])
    inner, dim = _functorch.get_unwrapped(pair[4]), _functorch.maybe_get_bdim(pair[4])
    first = inner.select(dim, 0).unsqueeze(dim).expand_as(inner)
    return right(*pair[:4], _functorch._add_batch_dim(first, dim, level), pair[5])


def _still(right: Any, *pair: Tensor) -> Values:
    """A tangent is dropped."""
    answers = right(*pair)
    return (answers[0].detach(), answers[1].detach()) if moving(*pair) else answers


def _ending(right: Any, *pair: Tensor) -> Values:
    dist_sq, log_det = right(*pair)
    return dist_sq.clamp(max=1e3) if exported() else dist_sq, log_det


def _constant_in_float32(right: Any, *pair: Tensor) -> Values:
    dist_sq, log_det = right(*pair)
    return dist_sq, log_det + (torch.tensor(HALVED, dtype=torch.float32).to(log_det.dtype) - HALVED)


TRANSFORMS = overlap_slips(
    "transforms",
    [
        ("a vmap rule takes the first sample's means for all", "vmap over k_mean", _first_sample, "calls_agree"),
        ("forward-mode derivatives are half", "torch.func.jvp", _steeper(moving)),
        ("forward-mode derivatives are dropped", "torch.func.jvp", _still),
        ("log_det without its constant when compiled", "torch.compile", _halved(lambda *_: compiled()), "calls_agree"),
        ("half the gradient when compiled", "torch.compile, backward", _steeper(lambda *_: compiled())),
        ("log_det without its constant when exported", "torch.export", _halved(lambda *_: exported())),
        ("dist_sq ends at 1000 when exported", "torch.export, dist_sq > 1000", _ending),
        (
            "half the gradient when a checkpoint calls again",
            "torch.utils.checkpoint",
            _steeper(lambda *_: in_backward()),
        ),
    ],
)
DTYPES = overlap_slips(
    "dtypes",
    [
        ("a constant is rounded to float32", "float64", _constant_in_float32, "accuracy"),
        (
            "autocast: means in bf16",
            "torch.autocast",
            lambda right, *pair: (
                right(*(x.bfloat16().to(x.dtype) if k in (1, 4) else x for k, x in enumerate(pair)))
                if torch.is_autocast_enabled("cpu")
                else right(*pair)
            ),
            "reduced_precision",
        ),
        (
            "float32 answers in float64 where a gradient is recorded",
            "float32, training",
            lambda right, *pair: tuple(x.double() for x in right(*pair)) if recording(*pair) else right(*pair),
        ),
    ],
)

FAULTS: tuple[Fault, ...] = (*MODES, *MEMORY, *TRANSFORMS, *DTYPES)
