"""Codes: the number of a regime, made of conditions and of places among boundaries, one digit each.

3·i + j has the digits i and j. Where such a number looks up a row of a small table, the row is a side, taken where each
digit has its value; the sum of the digits' distances leads there, which that of the number itself does not.
"""

import math
from dataclasses import dataclass, field
from functools import reduce
from itertools import product
from typing import Any

import torch

from iga._typing import Tensor
from iga.fuzz import distances
from iga.fuzz.distances import Distances
from iga.fuzz.weights import PRODUCTS, SHIFTS, Known, two_valued

__all__ = ["FEW", "LOOKUPS", "Digits", "tables"]

FEW = 64  # values that a code can have
LOOKUPS = {"getitem", "index_select", "gather", "take", "take_along_dim", "embedding"}
_SUMS = {"add", "iadd", "radd", "or", "ior", "bitwise_or"}
Digit = tuple[int, list[Distances]]  # what it is multiplied by; how far each of its values 0, 1, … is


@dataclass
class Digits:
    """The codes of one call."""

    known: dict[int, tuple[Tensor, list[Digit]]] = field(default_factory=dict)

    def place(self, x: Tensor, ends: Tensor, out: Tensor) -> None:
        """`out` is the place of x among `ends`, which grow."""
        if len(ends) >= FEW:
            return
        under = [distances.negated(distances.at_least(x, end, out > k)) for k, end in enumerate(ends)]
        values = [distances.both(distances.negated(low), high) for low, high in zip(under, under[1:], strict=False)]
        self.known[id(out)] = (out, [(1, [under[0], *values, distances.negated(under[-1])])])

    def join(self, name: str, args: Any, out: Any, condition: Known) -> None:
        """`out` may be a multiple of a code, or a sum of two."""
        if not isinstance(out, Tensor) or out.dtype.is_floating_point or out.dtype == torch.bool or len(args) != 2:
            return
        tensors = [x for x in args if isinstance(x, Tensor)]
        parts = [self._of(x, condition) for x in tensors]
        number = next((x for x in args if isinstance(x, int)), 0)
        digits = [digit for part in parts for digit in part or []]
        if not digits or any(part is None for part in parts):
            return
        if name in PRODUCTS | SHIFTS and len(tensors) == 1:
            by = 2**number if name in SHIFTS else number
            self.known[id(out)] = (out, [(by * m, values) for m, values in digits])
        elif name in _SUMS and (len(tensors) == 2 or number == 0):
            self.known[id(out)] = (out, digits)

    def _of(self, x: Tensor, condition: Known) -> list[Digit] | None:
        if id(x) in self.known:
            return self.known[id(x)][1]
        if x.dtype.is_floating_point or (found := condition(x)) is None or not two_valued(x):
            return None
        return [(1, [distances.negated(found), found])]

    def rows(self, index: Tensor) -> dict[int, Distances]:
        """Number → the distances of `index` being that; none where it is no code, or one of too many numbers."""
        digits = self.known[id(index)][1] if id(index) in self.known else []
        if not digits or math.prod(len(values) for _, values in digits) > FEW:
            return {}
        found = {}
        for chosen in product(*(range(len(values)) for _, values in digits)):
            number = sum(m * d for (m, _), d in zip(digits, chosen, strict=True))
            found.setdefault(number, [values[d] for (_, values), d in zip(digits, chosen, strict=True)])
        return {number: reduce(distances.both, parts) for number, parts in found.items()}


def tables(name: str, args: Any) -> list[tuple[Any, int]]:
    """(what looks up, of how many) in a call of LOOKUPS."""
    if name == "embedding":
        return [(args[0], args[1].shape[0])]
    table, places = args[:2]
    if name == "take":
        return [(places, table.numel())]
    if name in ("index_select", "gather", "take_along_dim"):
        dim = next((x for x in args[1:] if isinstance(x, int)), 0)
        return [(x, table.shape[dim]) for x in args[1:] if isinstance(x, Tensor)]
    return list(zip(places if isinstance(places, tuple) else (places,), table.shape, strict=False))
