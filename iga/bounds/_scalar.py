"""Functions of a number or a tensor: a tensor in, a tensor out."""

import math
from typing import Any

import torch

from iga._typing import Tensor

__all__ = ["Result", "Scalar", "exp", "log", "log1p", "maximum", "sqrt"]

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


def maximum(x: Scalar, y: Scalar) -> Result:
    if isinstance(x, Tensor):
        return torch.maximum(x, y.to(x)) if isinstance(y, Tensor) else x.clamp(min=y)
    return maximum(y, x) if isinstance(y, Tensor) else max(float(x), float(y))
