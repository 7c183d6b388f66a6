"""Checks of single arguments: a number in a range, a whole number, a dense tensor of a known dtype, its values.

Anything else is a ValueError that names the argument, says what was expected and what came.
"""

import math
import numbers
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "FEATURE_DTYPES",
    "GEOMETRY_DTYPES",
    "check_dense",
    "check_mask",
    "check_number",
    "check_whole",
    "holds",
    "is_dense",
]

GEOMETRY_DTYPES = (torch.float32, torch.float64)
FEATURE_DTYPES = (torch.float16, torch.bfloat16, *GEOMETRY_DTYPES)

# The largest index of 32 bits, which kernels count in.
_LARGEST = 2**31 - 1


def check_whole(name: str, value: Any, least: int, meaning: str = "") -> None:
    """Raises ValueError unless `value` is a whole number from `least` to 2³¹ − 1; True is none, and neither is 2.0."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number, at least {least}{meaning}, got {value!r}")
    if int(value) < least:
        raise ValueError(f"{name} must be at least {least}{meaning}, got {value}")
    if int(value) > _LARGEST:
        raise ValueError(f"{name} must be at most 2³¹ − 1{meaning}, got {value}")


def check_number(name: str, value: Any, low: float, high: float, unit: str = "", remedy: str = "") -> None:
    """Raises ValueError unless `value` is a number in [low, high]; NaN, True and text are none."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # pyright: ignore[reportOperatorIssue] - a Real compares
        span = f"at least {low:.3g}" if high == math.inf else f"in [{low:.3g}, {high:.3g}]"
        raise ValueError(f"{name} must be a number{unit} {span}, got {value!r}{remedy}")


def is_dense(x: Any) -> bool:
    """Whether `x` is a tensor of one block of memory: not sparse, nested, or in a layout of a library's own."""
    return isinstance(x, Tensor) and x.layout == torch.strided and not x.is_nested


def check_dense(name: str, x: Any, dtypes: tuple[torch.dtype, ...], remedy: str = "") -> None:
    """Raises ValueError unless `x` is a dense tensor of one of `dtypes`; its shape is not looked at."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(x).__name__}{remedy}")
    if x.dtype not in dtypes:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{name} must be one of {known}, got {x.dtype}; convert it")
    if not is_dense(x):
        kind = "a nested one" if x.is_nested else f"the layout {x.layout}"
        raise ValueError(f"{name} must be a dense tensor, got {kind}; pass {name}.to_dense(), or pad and mask")


def check_mask(mask: Any) -> None:
    """Raises ValueError unless `mask` is a dense bool tensor."""
    if isinstance(mask, Tensor) and mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool (True = valid), got {mask.dtype}; a float mask: mask > 0.5")
    check_dense("mask", mask, (torch.bool,))


def holds(condition: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """The answer of `condition` for every number of `x`; True, too, where they are not to be read: on a GPU, which
    would stall (and cannot while a graph is captured), of a fake tensor, under torch.compile or vmap."""
    plain = type(x) in (Tensor, nn.Parameter) and x.device.type == "cpu"  # a fake tensor is of a class of its own
    if not plain or torch.compiler.is_compiling():
        return True
    try:
        return bool(condition(x).all())
    except RuntimeError:  # under vmap
        return True
