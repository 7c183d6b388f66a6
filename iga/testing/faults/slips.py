"""Slips: whole targets that are right but for one mistake that people make, in a region that is stated.

What the slips of overlap functions and of layers share: in which mode a call is made, numbers read from memory as a
kernel without strides reads them, gradients that are lost or out of scale while the value stays.
"""

import math
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.autograd import forward_ad

from iga._typing import Tensor

__all__ = [
    "Both",
    "Passed",
    "batched",
    "compiled",
    "elsewhere",
    "exported",
    "graded",
    "in_backward",
    "kept_where",
    "moving",
    "plain",
    "raw",
    "recording",
]


# --- the mode of a call -----------------------------------------------------------------------------------------


def plain(*tensors: Any) -> bool:
    """An eager call of ordinary tensors: not traced, not inside vmap or a functional derivative."""
    if torch.compiler.is_compiling():
        return False
    wrapped = _functorch.is_functorch_wrapped_tensor
    return not any(isinstance(x, Tensor) and (type(x).__name__ == "FakeTensor" or wrapped(x)) for x in tensors)


def recording(*tensors: Any) -> bool:
    """Whether a gradient is recorded of one of the tensors."""
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in tensors)


def compiled() -> bool:
    return torch.compiler.is_compiling() and not torch.compiler.is_exporting()


def exported() -> bool:
    return torch.compiler.is_exporting()


def batched(x: Tensor) -> bool:
    """Inside torch.vmap."""
    return not torch.compiler.is_compiling() and _functorch.is_batchedtensor(x)


def moving(*tensors: Tensor) -> bool:
    """Whether one of them carries a tangent of forward-mode derivatives."""
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(x).tangent is not None for x in tensors)


def in_backward() -> bool:
    """While a backward pass runs, as a checkpoint calls again."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def elsewhere() -> bool:
    """In another thread than the main one."""
    return not torch.compiler.is_compiling() and threading.current_thread() is not threading.main_thread()


# --- memory -----------------------------------------------------------------------------------------------------


def raw(x: Tensor, *, stride: tuple[int, ...] | None = None, offset: int | None = None) -> Tensor:
    """The numbers that stand where x's would if its strides were those of a contiguous tensor (or `stride`), from its
    own place in the storage (or `offset`) on; x itself where the storage ends before."""
    packed = tuple(math.prod(x.shape[k + 1 :]) for k in range(x.ndim)) if stride is None else stride
    start = x.storage_offset() if offset is None else offset
    last = start + sum((n - 1) * step for n, step in zip(x.shape, packed, strict=True))
    fits = x.numel() > 0 and 0 <= start and last < x.untyped_storage().nbytes() // x.element_size()
    return x.as_strided(x.shape, packed, start) if fits else x


# --- gradients --------------------------------------------------------------------------------------------------


def graded(value: Tensor, factor: Tensor | float) -> Tensor:
    """The value as it is, its derivative multiplied by the factor."""
    change = value * factor
    return value.detach() + (change - change.detach())


def kept_where(value: Tensor, keep: Tensor) -> Tensor:
    """The value as it is, its derivative only where `keep`."""
    return torch.where(keep, value, value.detach())


class Passed(torch.autograd.Function):
    """Its argument, whose gradient goes through `rule`."""

    @staticmethod
    def forward(x: Tensor, rule: Callable[[Tensor], Tensor]) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.rule = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return ctx.rule(gradients[0]), None


class Both(torch.autograd.Function):
    """Two answers, of which `judge(first, second)` says what gradient goes back; None stands for one not asked for."""

    @staticmethod
    def forward(x: Tensor, y: Tensor, judge: Callable[..., Any]) -> tuple[Tensor, Tensor]:
        return x.clone(), y.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.judge = inputs[2]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return *ctx.judge(*gradients), None
