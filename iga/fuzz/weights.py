"""Conditions as numbers: what a program makes of a boolean that it casts, multiplies or counts.

A box of several conditions need not be one boolean: a product of casts is 1 inside and 0 outside, and so are the least
of them, `where(c, 1.0, 0.0)`, and one inside the other of two `where`. Such a tensor has the distances of the condition
that it stands for, so that the rare side of the whole can be sought, and not that of one factor, which may be common.
"""

from collections.abc import Callable
from typing import Any

import torch

from iga._typing import Tensor
from iga.fuzz import distances
from iga.fuzz.calls import of_all_samples
from iga.fuzz.distances import Distances

__all__ = ["PRODUCTS", "SCALED", "SHIFTS", "Known", "compared", "counted", "nested", "two_valued", "weight"]

_CASTS = {"double", "float", "half", "bfloat16", "int", "long", "short", "to", "type", "type_as"}
PRODUCTS = {"mul", "imul", "rmul", "multiply"}
SCALED = {"mul", "imul", "rmul", "multiply", "div", "truediv", "true_divide", "divide", "pow", "square"}
_LEAST, _MOST = {"minimum", "fmin"}, {"maximum", "fmax"}
_COUNTS = {"add", "iadd", "radd", "sum", "mean", "sub", "isub", "mul", "rmul", "div", "truediv", "count_nonzero"}
_BITS = {"or", "ior", "bitwise_or", "xor", "ixor", "bitwise_xor"}
SHIFTS = {"lshift", "ilshift", "bitwise_left_shift"}
PATHS = 4  # of a result of `where`: which branches it may have come through

Known = Callable[[Any], Distances | None]


def weight(name: str, args: Any, kwargs: Any, known: Known, dims: Callable[[], tuple[list[int], bool]]) -> Any:
    """(the distances of the condition that the result is, not 0 where it holds and 0 elsewhere; whether it joins
    several), or None where the result is no such number."""
    if not args:
        return None
    first = known(args[0])
    second = known(args[1]) if len(args) > 1 else None
    if name == "where" and len(args) == 3:
        return _chosen(args, known)
    if name == "heaviside":
        return distances.at_least(args[0], torch.zeros_like(args[0]), args[0] > 0), False
    if first is None:
        return None
    if second is not None:
        if name in PRODUCTS | _LEAST:
            return distances.both(first, second), True
        return (distances.either(first, second), True) if name in _MOST else None
    if name in _CASTS:
        return first, False
    if name == "rsub" and not isinstance(args[1], Tensor) and float(args[1]) == 1.0:
        return distances.negated(first), False
    if name in ("prod", "amin", "amax"):
        return (distances.any_of if name == "amax" else distances.all_of)(first, *dims()), True
    numbers = [x for x in args[1:] if not isinstance(x, Tensor)]
    if name in SCALED and len(numbers) == len(args) - 1 and all(float(x) > 0 for x in numbers):
        return first, False
    return None


def _chosen(args: Any, known: Known) -> Any:
    """Of where(condition, a, b): a number where one branch is 0 everywhere and the other a number or a weight."""
    condition = known(args[0])
    if condition is None:
        return None
    for here, there, side in ((args[1], args[2], condition), (args[2], args[1], distances.negated(condition))):
        if _constant(there) == 0.0:
            inside = known(here)
            if inside is not None:
                return distances.both(side, inside), True
            if _constant(here) not in (None, 0.0):
                return side, False
    return None


def _constant(x: Any) -> float | None:
    """The one number that x is everywhere; None of what depends on the inputs, or has several."""
    if not isinstance(x, Tensor):
        return float(x)
    if x.requires_grad or x.numel() == 0:
        return None
    x = of_all_samples(x)
    value = x.flatten()[0]
    return float(value) if bool((x == value).all()) else None


def two_valued(x: Tensor) -> bool:
    """True for numbers that are 0 or one other: a hat, 0 up to a place and growing from there on, is no count."""
    x = of_all_samples(x)
    inside = x[x != 0]
    return x.dtype == torch.bool or inside.numel() == 0 or bool((inside == inside[0]).all())


def compared(known: Distances, out: Tensor) -> Distances | None:
    """The distances of a comparison of a weight with a number: the condition itself or its contrary, if it is one."""
    holds, out = of_all_samples((known.to_true.detach() == 0).expand(out.shape)), of_all_samples(out)
    if bool((holds == out).all()) and not bool(out.all()):
        return known
    if bool((holds != out).all()) and not bool((~out).all()):
        return distances.negated(known)
    return None


def counted(name: str, func: Any, args: Any, kwargs: Any, value: Callable[[Any], Tensor | None]) -> Tensor | None:
    """The sum of weights on the graph: a count that grows as the missing conditions come nearer. Bits set by | and <<
    are one too."""
    tensors = [x for x in args if isinstance(x, Tensor)]
    if name in _BITS and len(tensors) == 2:
        name, func = "add", torch.Tensor.add
    elif name in SHIFTS and len(tensors) == 1 and len(args) == 2:
        name, func, args = "mul", torch.Tensor.mul, (args[0], 2 ** int(args[1]))
    if name not in _COUNTS or not tensors or any(value(x) is None for x in tensors):
        return None
    if name == "count_nonzero":
        name, func = "sum", torch.Tensor.sum
    return func(
        *(value(x) if isinstance(x, Tensor) else x for x in args), **{k: v for k, v in kwargs.items() if k != "dtype"}
    )


def nested(condition: Distances, a: list[Distances], b: list[Distances]) -> tuple[list[Distances], list[Distances]]:
    """(the conditions under which where(condition, a, b) has gone through its branches, those that are new) when a
    and b have gone through theirs."""
    joint = [distances.both(condition, x) for x in a]
    other = [distances.both(distances.negated(condition), x) for x in b]
    return [*(joint or [condition]), *other][:PATHS], [*joint, *other][:PATHS]
