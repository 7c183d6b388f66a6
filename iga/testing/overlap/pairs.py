"""The pairs of Gaussians on which overlap functions are judged: of structures, degenerate, and exactly aligned.

All are rounded to the dtype once; what a function is compared with is computed from the rounded numbers. The source of
a run's pairs says how many there are, of which structures, and how many digits are asked for.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from iga import rotation
from iga._typing import Tensor
from iga.search.pairs import Domain, decode, degenerate_pairs
from iga.search.ties import right_angles
from iga.testing.judges.overlap import nearest_rotation
from iga.testing.overlap.subject import Pair

if TYPE_CHECKING:
    from iga.structure import Structure

__all__ = [
    "GivenPairs",
    "PairSource",
    "aligned_pairs",
    "broken_up",
    "degenerate",
    "joined",
    "structure_pairs",
]


def degenerate(count: int, sigma_range: tuple[float, float], dtype: torch.dtype, seed: int) -> Pair:
    """`count` pairs with σ between and at the ends of the range: needles, pancakes, spheres, frames nearly shared,
    means from 10⁻³ nm to 10³ nm apart (`iga.search.pairs`); the first 64 are spheres at either end."""
    generator = torch.Generator().manual_seed(seed)
    domain = Domain(*sigma_range, dtype)
    genome = degenerate_pairs(count, generator, domain)
    ends = torch.tensor([math.log(x) for x in sigma_range], dtype=torch.float64).repeat_interleave(32)[:count]
    genome[: len(ends), 7:13] = ends[:, None]
    return decode(genome, domain)


def structure_pairs(structures: "list[Structure]", count: int, dtype: torch.dtype, sigma_min: float, seed: int) -> Pair:
    """Up to `count` pairs of different residues of one structure, half of them neighbours; σ raised to `sigma_min`."""
    generator = torch.Generator().manual_seed(seed)
    each = -(-count // len(structures))
    parts = []
    for structure in structures:
        valid = structure.mask.nonzero().flatten()
        i = torch.randint(0, len(valid), (each,), generator=generator)
        near = (i + torch.randint(-4, 5, (each,), generator=generator)).clamp(0, len(valid) - 1)
        far = torch.randint(0, len(valid), (each,), generator=generator)
        j = torch.where(torch.rand(each, generator=generator) < 0.5, near, far)
        ends = []
        other = i != j
        for index in (valid[i[other]], valid[j[other]]):
            g = structure.gaussian[index]
            # a float32 matrix is no rotation in float64: the nearest one is
            rot = g.rot if dtype == torch.float32 else nearest_rotation(g.rot)
            ends += [rot, g.mean, g.sigma.clamp(min=sigma_min)]
        parts.append(tuple(x.to(dtype) for x in ends))
    return tuple(torch.cat(column)[:count] for column in zip(*parts, strict=True))  # pyright: ignore[reportReturnType]


def aligned_pairs(count: int, sigma_range: tuple[float, float], dtype: torch.dtype, seed: int) -> Pair:
    """Pairs whose frames are exact multiples of a right angle: axis-aligned boxes, equal frames, δ along an axis.

    A third share one frame, a third have both frames among the 24 aligned rotations, a third have one frame at random
    and the other equal to it bit by bit.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(*size, generator=generator, dtype=torch.float64)

    group = right_angles()
    i, j = (group[torch.randint(0, 24, (count,), generator=generator)] for _ in range(2))
    kind = torch.arange(count) % 3
    j = torch.where((kind == 0)[:, None, None], i, j)
    anywhere = rotation.random(count, generator=generator, dtype=torch.float64)
    i, j = (torch.where((kind == 2)[:, None, None], anywhere, x) for x in (i, j))
    low, high = math.log(sigma_range[0]), math.log(sigma_range[1])
    # within a factor of 10 of each other, so that float32 can tell right from wrong
    centre = uniform(low, max(high - math.log(10.0), low), count, 1)
    sigma = (centre + uniform(0.0, min(math.log(10.0), high - low), count, 6)).exp()
    delta = torch.randn(count, 3, generator=generator, dtype=torch.float64) * sigma.amax(-1, keepdim=True)
    along = torch.nn.functional.one_hot(torch.randint(0, 3, (count,), generator=generator), 3).double()
    delta = torch.where((kind == 1)[:, None], delta * along, delta)
    mean = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    ends = (i, mean, sigma[:, :3], j, mean + delta, sigma[:, 3:])
    return tuple(x.to(dtype) for x in ends)  # pyright: ignore[reportReturnType] - six of them


def joined(*pairs: Pair) -> Pair:
    """One batch after the other."""
    return tuple(torch.cat(column) for column in zip(*pairs, strict=True))  # pyright: ignore[reportReturnType]


def broken_up(pair: Pair, index: Tensor | slice) -> Pair:
    """The pairs of the index."""
    return tuple(x[index] for x in pair)  # pyright: ignore[reportReturnType] - six of them


@dataclass(frozen=True)
class PairSource:
    """`count` degenerate pairs of a dtype for the values, a tenth of them for each other check.

    digits        significant digits required: pairs that no implementation could give them for are left out; None: all
                  are judged
    digits_pairs  pairs judged against 50 digits
    profile       name of the run's profile, by which ways of calling are chosen
    """

    structures: "list[Structure]"
    sigma_range: tuple[float, float]
    count: int
    digits: int | None = 2
    digits_pairs: int = 50
    profile: str = "fast"

    def sampled(self, dtype: torch.dtype, seed: int) -> Iterator[tuple[str, Pair]]:
        """Labelled batches: pairs of residues as they are, and degenerate pairs over the whole range of σ."""
        low = self.sigma_range[0]
        ordinary = structure_pairs(self.structures, self.count // 4, dtype, low, seed)
        inside = (torch.maximum(ordinary[2].amax(-1), ordinary[5].amax(-1)) <= self.sigma_range[1]).nonzero().flatten()
        if len(inside):
            yield "residues", broken_up(ordinary, inside)
        yield "degenerate", degenerate(self.count, self.sigma_range, dtype, seed)

    def few(
        self, dtype: torch.dtype, seed: int, *, spread: float | None = None, most: float | None = None, share: int = 10
    ) -> Pair:
        """A `share`-th of the pairs; with κ up to `spread` only, where float32 can tell right from wrong; with σ up to
        `most`, nm."""
        low, high = self.sigma_range
        if spread is not None:
            high = min(high, low * spread)
        if most is not None:
            high = min(high, most)
        return degenerate(max(self.count // share, 64), (low, high), dtype, seed)

    def aligned(self, dtype: torch.dtype, seed: int, *, most: float | None = None) -> Pair:
        """A tenth as many pairs whose frames are exact multiples of a right angle; with σ up to `most`, nm."""
        low, high = self.sigma_range
        return aligned_pairs(self.count // 10, (low, high if most is None else most), dtype, seed)

    def exact(self, dtype: torch.dtype, seed: int) -> Pair:
        """The few that are judged against 50 digits."""
        return degenerate(self.digits_pairs, self.sigma_range, dtype, seed)


@dataclass(frozen=True)
class GivenPairs(PairSource):
    """These pairs, row by row: `given(dtype)` are all of them, of which 50 digits judge the first.

    A check that asks for others, by another seed than `seed`, gets as many that are drawn.
    """

    given: Callable[[torch.dtype], Pair] = field(kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def sampled(self, dtype: torch.dtype, seed: int) -> Iterator[tuple[str, Pair]]:
        """Labelled batches: the given pairs."""
        yield "given", self.given(dtype)

    def few(
        self, dtype: torch.dtype, seed: int, *, spread: float | None = None, most: float | None = None, share: int = 10
    ) -> Pair:
        """All of them, with σ moved as far as `spread` and `most` ask for."""
        if seed != self.seed:
            return super().few(dtype, seed, spread=spread, most=most, share=1)
        q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = self.given(dtype)
        if spread is not None:
            least = torch.maximum(q_sigma.amax(-1, keepdim=True), k_sigma.amax(-1, keepdim=True)) / spread
            q_sigma, k_sigma = torch.maximum(q_sigma, least), torch.maximum(k_sigma, least)
        if most is not None:
            q_sigma, k_sigma = q_sigma.clamp(max=most), k_sigma.clamp(max=most)
        return q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma

    def aligned(self, dtype: torch.dtype, seed: int, *, most: float | None = None) -> Pair:
        """None: the given pairs are what they are."""
        return broken_up(self.given(dtype), slice(0, 0))

    def exact(self, dtype: torch.dtype, seed: int) -> Pair:
        """The first of them."""
        return broken_up(self.given(dtype), slice(0, self.digits_pairs))
