"""Examples that a program picks out: x[mask], mask.nonzero(), masked_select, and what it asks of those alone.

A condition on m picked rows says nothing of the others but that they were not picked. `lifted` gives it the place of
each row again: the distance of a row outside is that of being picked, and one more.
"""

from dataclasses import dataclass, field
from typing import Any

import torch

from iga._typing import Tensor
from iga.fuzz.distances import Distances

__all__ = ["Picks"]


@dataclass
class Picks:
    """By how many were picked: which of the rows [L] they are, and the distances [L] of being picked; the latest."""

    rows: int
    known: dict[int, tuple[Tensor, Distances]] = field(default_factory=dict)

    def note(self, name: str, args: Any, out: Any, condition: Any) -> None:
        """Of a call that may have picked rows; `condition` gives a boolean tensor's distances, or None."""
        mask = args[0] if name in ("nonzero", "argwhere") or (name == "where" and len(args) == 1) else None
        if name in ("getitem", "masked_select") and len(args) > 1:
            mask = args[1][0] if isinstance(args[1], tuple) and args[1] else args[1]
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or (found := condition(mask)) is None:
            return
        inside = mask.detach().flatten().nonzero().flatten()
        count = len(inside)
        outer = found.mapped(lambda x: x.expand(mask.shape).flatten())
        if not count or count == self.rows:
            return
        if mask.numel() % self.rows:
            if (before := self.known.get(mask.numel())) is None:
                return
            inside, outer = before[0][inside], self._outward(outer, before)
        self.known[count] = inside, outer

    def lifted(self, found: Distances) -> Distances:
        """Distances [m, …] of what was picked, for all rows [L, …]; as it is where m is not known."""
        count = found.to_true.shape[0] if found.to_true.ndim else 0
        if count % self.rows == 0 or count not in self.known:
            return found
        return self._outward(found, self.known[count])

    @staticmethod
    def _outward(found: Distances, pick: tuple[Tensor, Distances]) -> Distances:
        inside, outer = pick

        def lift(x: Tensor) -> Tensor:
            away = (outer.to_true + 1.0).reshape(-1, *(1,) * (x.ndim - 1)).expand(-1, *x.shape[1:])
            return away.index_copy(0, inside, x.to(away.dtype))

        return found.mapped(lift)
