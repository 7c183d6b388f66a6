"""Codes: the number of a regime, made of conditions and of places among boundaries, one digit each.

3·i + j has the digits i and j. Where such a number looks up a row of a small table, the row is a side, taken where each
digit has its value; the sum of the digits' distances leads there, which that of the number itself does not. So is a
cell of any table that stands out from those beside it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import product
from typing import Any

import torch

from iga._typing import Tensor
from iga.fuzz import distances
from iga.fuzz.cells import standing_out
from iga.fuzz.distances import Distances
from iga.fuzz.weights import PRODUCTS, SHIFTS, Known, two_valued

__all__ = ["CODES", "LOOKUPS", "OF_A_TABLE", "Digits"]

OF_A_TABLE = " of a table"  # ends the name of a site
FEW = 64  # values that a code can have
LOOKUPS = {"getitem", "index_select", "gather", "take", "take_along_dim", "embedding"}
_SUMS = {"add", "iadd", "radd", "or", "ior", "bitwise_or"}
CODES = _SUMS | PRODUCTS | SHIFTS
Whole = Callable[[Tensor], Tensor | None]  # the number on the graph that stands for an integer


@dataclass(frozen=True)
class Digit:
    """`far(k)`, how far it is from being k = 0, 1, …, and how many values it has; None where that is not known."""

    times: int
    far: Callable[[int], Distances]
    count: int | None


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
        self.known[id(out)] = (out, [_of_values([under[0], *values, distances.negated(under[-1])])])

    def join(self, name: str, args: Any, out: Any, condition: Known, whole: Whole) -> None:
        """`out` may be a multiple of a code, or a sum of two."""
        if not isinstance(out, Tensor) or out.dtype == torch.bool or len(args) != 2 or name not in CODES:
            return
        tensors = [x for x in args if isinstance(x, Tensor)]
        parts = [self._of(x, condition, whole) for x in tensors]
        number = next((x for x in args if not isinstance(x, Tensor)), 0)
        digits = [digit for part in parts for digit in part or []]
        if not digits or any(part is None for part in parts) or number != int(number):
            return
        if name in PRODUCTS | SHIFTS and len(tensors) == 1:
            by = 2 ** int(number) if name in SHIFTS else int(number)
            self.known[id(out)] = (out, [replace(one, times=by * one.times) for one in digits])
        elif name in _SUMS and (len(tensors) == 2 or number == 0):
            self.known[id(out)] = (out, digits)

    def same(self, x: Tensor, out: Tensor) -> None:
        """`out` is the code x, as numbers of another kind or within bounds."""
        if id(x) in self.known:
            self.known[id(out)] = (out, self.known[id(x)][1])

    def _of(self, x: Tensor, condition: Known, whole: Whole) -> list[Digit] | None:
        if id(x) in self.known:
            return self.known[id(x)][1]
        if x.dtype == torch.bool:
            return None
        if not x.dtype.is_floating_point and (found := condition(x)) is not None and two_valued(x):
            return [_of_values([distances.negated(found), found])]
        return None if (line := whole(x)) is None else [_of_line(x, line)]

    def rows(self, index: Tensor) -> dict[int, Distances]:
        """Number → the distances of `index` being that; none where it is no code, or one of too many numbers."""
        digits = self.known[id(index)][1] if id(index) in self.known else []
        if not digits or math.prod(one.count or FEW + 1 for one in digits) > FEW:
            return {}
        found = {}
        for chosen in product(*(range(one.count or 0) for one in digits)):
            number = sum(one.times * d for one, d in zip(digits, chosen, strict=True))
            found.setdefault(number, [one.far(d) for one, d in zip(digits, chosen, strict=True)])
        return {number: reduce(distances.both, parts) for number, parts in found.items()}

    def at(self, index: Tensor, number: int, condition: Known, whole: Whole) -> Distances | None:
        """How far `index` is from being the number, digit by digit; None where nothing is known of it."""
        digits = self._of(index, condition, whole)
        if not digits or any(one.times <= 0 for one in digits):
            return None
        parts, rest = [], number
        for one in sorted(digits, key=lambda one: -one.times):
            value = rest // one.times if one.count is None else min(rest // one.times, one.count - 1)
            parts.append(one.far(value))
            rest -= one.times * value
        return reduce(distances.both, parts) if rest == 0 else None

    def sides(self, name: str, args: Any, condition: Known, whole: Whole) -> Iterator[tuple[str, Distances]]:
        """(name, how far each example is from looking it up) in a call of LOOKUPS: each row of a small table, since a
        regime's number is made of conditions, and one may never be met; cells of any table that stand out."""
        for index, count in _small(name, args):
            line = whole(index)
            if line is None or count > FEW:
                continue
            codes = self.rows(index)
            for k in range(count):
                yield f"row {k}{OF_A_TABLE}", codes.get(k) or _of_line(index, line).far(k)
        table, places = _table(name, args)
        if not places or not all(self._of(x, condition, whole) for x in places):
            return
        for cell in standing_out(table, len(places)):
            parts = [self.at(x, k, condition, whole) for x, k in zip(places, cell, strict=True)]
            known = [part for part in parts if part is not None]
            if len(known) == len(parts):
                yield f"cell {cell}{OF_A_TABLE}", reduce(distances.both, known)


def _of_values(values: list[Distances]) -> Digit:
    return Digit(1, values.__getitem__, len(values))


def _of_line(index: Tensor, line: Tensor) -> Digit:
    def far(k: int) -> Distances:
        return distances.equal(line, torch.full_like(line, float(k)), index == k)

    return Digit(1, far, None)


def _small(name: str, args: Any) -> list[tuple[Any, int]]:
    """(what looks up, of how many) along each dimension."""
    if name == "embedding":
        return [(args[0], args[1].shape[0])]
    table, places = args[:2]
    if name == "take":
        return [(places, table.numel())]
    if name in ("index_select", "gather", "take_along_dim"):
        dim = next((x for x in args[1:] if isinstance(x, int)), 0)
        return [(x, table.shape[dim]) for x in args[1:] if isinstance(x, Tensor)]
    return list(zip(places if isinstance(places, tuple) else (places,), table.shape, strict=False))


def _table(name: str, args: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    """(a table of constants, the numbers that look up its cells, by dimension); no numbers of what is none."""
    table, places = (args[1], args[:1]) if name == "embedding" else args[:2]
    places = places if isinstance(places, tuple) else tuple(x for x in args[1:] if isinstance(x, Tensor))
    table = table.flatten() if name == "take" else table
    whole = all(isinstance(x, Tensor) and not x.dtype.is_floating_point for x in places)
    rows = name in ("getitem", "embedding") or table.ndim == 1
    return table, places if whole and rows and len(places) <= table.ndim and not table.requires_grad else ()
