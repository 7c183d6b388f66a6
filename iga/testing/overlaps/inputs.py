"""What overlap functions are run on: how many pairs, of which structures, and how many digits are asked for."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from iga.structure import Structure
from iga.testing.overlaps import pairs
from iga.testing.overlaps.subject import Pair

__all__ = ["Inputs"]


@dataclass(frozen=True)
class Inputs:
    """`count` degenerate pairs of a dtype for the values, a tenth of them for each other check.

    digits        significant digits required: pairs that no implementation could give them for are left out
    digits_pairs  pairs judged against 50 digits
    """

    structures: list[Structure]
    sigma_range: tuple[float, float]
    count: int
    digits: int = 2
    digits_pairs: int = 50

    def sampled(self, dtype: torch.dtype, seed: int) -> Iterator[tuple[str, Pair]]:
        """Labelled batches: pairs of residues as they are, and degenerate pairs over the whole range of σ."""
        low = self.sigma_range[0]
        ordinary = pairs.structure_pairs(self.structures, self.count // 4, dtype, low, seed)
        inside = (torch.maximum(ordinary[2].amax(-1), ordinary[5].amax(-1)) <= self.sigma_range[1]).nonzero().flatten()
        if len(inside):
            yield "residues", pairs.broken_up(ordinary, inside)
        yield "degenerate", pairs.degenerate(self.count, self.sigma_range, dtype, seed)

    def few(self, dtype: torch.dtype, seed: int, *, spread: float | None = None, share: int = 10) -> Pair:
        """A `share`-th of the pairs; with κ up to `spread` only, where float32 can tell right from wrong."""
        low, high = self.sigma_range
        if spread is not None:
            high = min(high, low * spread)
        return pairs.degenerate(max(self.count // share, 64), (low, high), dtype, seed)
