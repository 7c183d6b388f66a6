"""Functions of a number or a tensor: a tensor in, a tensor out."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch

from iga._typing import Tensor

__all__ = ["Result", "Scalar", "exp", "log", "log1p", "maximum", "of_numbers", "sqrt", "tanh"]

Scalar = float | int | Tensor
# a tensor if any argument is one, else a float
Result = Any


def sqrt(x: Scalar) -> Result:
    return torch.sqrt(x) if isinstance(x, Tensor) else math.sqrt(x)


def log(x: Scalar) -> Result:
    return torch.log(x) if isinstance(x, Tensor) else math.log(x)


def log1p(x: Scalar) -> Result:
    return torch.log1p(x) if isinstance(x, Tensor) else math.log1p(x)


def exp(x: Scalar) -> Result:
    return torch.exp(x) if isinstance(x, Tensor) else math.exp(x)


def tanh(x: Scalar) -> Result:
    return torch.tanh(x) if isinstance(x, Tensor) else math.tanh(x)


def maximum(x: Scalar, y: Scalar) -> Result:
    if isinstance(x, Tensor):
        return torch.maximum(x, y.to(x)) if isinstance(y, Tensor) else x.clamp(min=y)
    return maximum(y, x) if isinstance(y, Tensor) else max(float(x), float(y))


def of_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, refusing what no bound holds for: tensors but float32 and float64, and complex numbers."""
    names = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name, value in (*zip(names, args, strict=False), *kwargs.items()):
            if isinstance(value, Tensor) and value.dtype not in (torch.float32, torch.float64):
                raise ValueError(f"{name} must be a number, or float32 or float64, got {value.dtype}; call .double()")
            if isinstance(value, complex):
                raise ValueError(f"{name} must be a real number, got {value!r}")
        return function(*args, **kwargs)

    return checked
