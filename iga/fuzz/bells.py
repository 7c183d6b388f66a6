"""Bells: factors without a branch that are next to nothing but in a small place.

exp(−r²/w²) for a narrow w changes no side of any condition, and far from its middle not even a bit of the result. Its
argument still has a slope towards the middle: to be over −1 is a side of the factor, seldom taken, with a distance. A
product of such factors is a bell of their joint arguments, and of conditions as numbers too (`iga.fuzz.weights`).
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from iga._typing import Tensor
from iga.fuzz import distances
from iga.fuzz.distances import Distances
from iga.fuzz.weights import PRODUCTS, SCALED, Known

__all__ = ["FACTORS", "bell", "joined"]

POWER = 4.0  # exponents below it in size make no bell
_EXPONENTIALS = {"exp", "exp2", "expm1", "special_exp2", "special_expm1"}
_SIGMOIDS = {"sigmoid", "expit", "special_expit"}
_POWERS = {"pow", "rpow", "float_power"}
FACTORS = _EXPONENTIALS | _SIGMOIDS | _POWERS | {"erfc", "special_erfc", "cosh"}


def bell(name: str, args: Any) -> Distances | None:
    """Of a factor f that a call of that name made of its arguments: how far ln f, or what stands for it, is below −1,
    and how far over 1, for 1/(1 + f) is a bell too. None of what makes no bell."""
    x = args[0] if args else None
    if not isinstance(x, Tensor) or not x.dtype.is_floating_point or x.numel() == 0:
        return None
    if name in _EXPONENTIALS | _SIGMOIDS:
        height = x
    elif name in ("erfc", "special_erfc"):
        height = -x
    elif name == "cosh":
        height = -x.abs()
    elif name in _POWERS:
        height = _of_power(name, args)
    else:
        return None
    if height is None:
        return None
    one = torch.ones_like(height)
    return Distances(
        distances.at_least(height, -one, height > -1.0).to_true, distances.at_least(one, height, height < 1.0).to_true
    )


def _of_power(name: str, args: Any) -> Tensor | None:
    """ln |a^b| where one of the two is a number."""
    base, exponent = (args[1], args[0]) if name == "rpow" else (args[0], args[1])
    if isinstance(exponent, Tensor) and exponent.ndim == 0 and not exponent.requires_grad:
        exponent = float(exponent)
    if isinstance(base, Tensor):
        if isinstance(exponent, Tensor) or abs(exponent) < POWER:
            return None
        return float(exponent) * base.double().abs().clamp(min=1e-300).log()
    return exponent * math.log(base) if isinstance(exponent, Tensor) and base > 0 else None


def joined(name: str, args: Any, soft: Known, hard: Known, dims: Callable[[], tuple[list[int], bool]]) -> Any:
    """(the distances of a bell that is made of others, or of one and a condition; whether it is more than one), or
    None where the result is none."""
    first = soft(args[0]) if args else None
    second = soft(args[1]) if len(args) > 1 else None
    if name in PRODUCTS and len(args) > 1 and (first is not None or second is not None):
        one, other = first or hard(args[0]), second or hard(args[1])
        if one is not None and other is not None:
            return distances.both(one, other), True
    if first is None:
        return None
    if name == "prod":
        return distances.all_of(first, *dims()), True
    if name in SCALED and not any(isinstance(x, Tensor) and x.ndim for x in args[1:]):
        return first, False
    return None
