"""Pairs of Gaussians as a space to search: genomes with their exact ties, drawn, changed, moved by a gradient, decoded.

A genome is a row of `iga.search.pairs` (22 numbers) and of `iga.search.ties` (11 whole numbers).
"""

import math
from dataclasses import dataclass, field, replace

import torch

from iga._typing import Float, Tensor
from iga.search import pairs
from iga.search.pairs import GENES, Domain, Pairs
from iga.search.ties import TIES, draw_ties, tied

__all__ = ["CELLS", "PairSpace", "cells_of"]

# Cells of κ × angle between the frames × |δ|, by decades: what a search has been to.
_KAPPA, _ANGLE, _DELTA = (0.0, 5.0, 10), (-7.0, 0.5, 15), (-9.0, 4.0, 13)
CELLS = _KAPPA[2] * _ANGLE[2] * _DELTA[2]


@dataclass(frozen=True)
class PairSpace:
    """The pairs with σ in domain's range; `constants` are numbers that a search has seen something compared with."""

    domain: Domain
    constants: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))

    genes = GENES + TIES

    def draw(self, count: int, generator: torch.Generator, ties: float = 0.3) -> Float[Tensor, "count genes"]:
        """Degenerate pairs, a share of them with ties."""
        numbers = pairs.degenerate_pairs(count, generator, self.domain)
        return torch.cat([numbers, draw_ties(count, generator, ties)], dim=-1)

    def mutate(self, genome: Float[Tensor, "n genes"], generator: torch.Generator) -> Float[Tensor, "n genes"]:
        """A few genes moved; now and then the ties are drawn anew, or those of two genomes exchanged."""
        n = len(genome)
        numbers = pairs.mutated(genome[:, :GENES], generator, self.domain)
        other = torch.randperm(n, generator=generator)
        crossed = torch.rand(n, 1, generator=generator) < 0.1
        block = torch.rand(n, 6, generator=generator) < 0.5
        swap = torch.cat([block[:, :1].expand(n, 3), block[:, 1:2].expand(n, 3), block[:, 2:3]], dim=-1)
        swap = torch.cat([swap, block[:, 3:4].expand(n, 6), block[:, 4:5].expand(n, 6), block[:, 5:6].expand(n, 3)], -1)
        numbers = torch.where(crossed & swap, numbers[other], numbers)
        fresh = torch.rand(n, 1, generator=generator) < 0.1
        ties = torch.where(fresh, draw_ties(n, generator, 0.7), genome[:, GENES:])
        return torch.cat([numbers, ties], dim=-1)

    def confined(self, genome: Float[Tensor, "n genes"]) -> Float[Tensor, "n genes"]:
        """Genes moved back into their ranges."""
        out = genome.clone()
        low, high = math.log(self.domain.sigma_min), math.log(self.domain.sigma_max)
        out[:, pairs._SIGMA] = out[:, pairs._SIGMA].clamp(low, high)
        out[:, pairs._ANGLE] = out[:, pairs._ANGLE].clamp(-8.0, math.log10(math.pi))
        out[:, pairs._DELTA] = out[:, pairs._DELTA].clamp(-9.0, 3.0)
        out[:, pairs._MEAN] = out[:, pairs._MEAN].clamp(-1e3, 1e3)
        return out

    def encode(self, given: Pairs) -> Float[Tensor, "n genes"]:
        """Genomes that decode to these pairs, to within rounding, without ties."""
        return torch.cat([pairs.encode(given), torch.zeros(len(given[0]), TIES, dtype=torch.float64)], dim=-1)

    def decode(self, genome: Float[Tensor, "n genes"], dtype: torch.dtype) -> Pairs:
        """The Gaussians, rounded once to dtype; differentiable, rounding as if it were the identity."""
        decoded = pairs.decode(genome[:, :GENES], replace(self.domain, dtype=dtype))
        ends = (self.domain.sigma_min, self.domain.sigma_max)
        return tied(decoded, genome[:, GENES:].detach(), self.constants, ends)


def cells_of(genome: Float[Tensor, "n genes"]) -> Tensor:
    """The number of the cell of κ × angle × |δ| that each genome lies in, below `CELLS`."""
    sigma = genome[:, pairs._SIGMA]
    kappa = (sigma.amax(-1) - sigma.amin(-1)) / math.log(10.0)
    delta = genome[:, pairs._DELTA].amax(-1)
    place = torch.zeros(len(genome), dtype=torch.long)
    for value, (low, high, count) in ((kappa, _KAPPA), (genome[:, pairs._ANGLE][:, 0], _ANGLE), (delta, _DELTA)):
        index = ((value - low) / (high - low) * count).floor().long().clamp(0, count - 1)
        place = place * count + index
    return place
