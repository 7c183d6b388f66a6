"""Counted numbers: each one a function of a seed and of whole-number coordinates, the same on every machine.

A generator draws by order, so that what is cut out of its numbers cannot be drawn alone. Here the number of a residue,
or of a pair, follows from its own coordinates: a case that lost residues has the same numbers on those that are left.
The hash is SplitMix64's finaliser, once a coordinate.
"""

import torch

from iga._typing import Tensor

__all__ = ["BITS", "hashed", "unit_numbers"]

BITS = 10  # numbers have so many binary digits and a sign: float32 holds them exactly
_STEP, _FIRST, _SECOND = (x - (x >> 63 << 64) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_HALF_WIDTH = 1.75  # of a uniform law of variance 1.02


def hashed(seed: int, *coordinates: Tensor) -> Tensor:
    """A whole number of 64 bits for each element of the coordinates, which are int64 and broadcast."""
    found = torch.tensor(seed, dtype=torch.int64)
    for one in coordinates:
        found = _mixed(found * _STEP + one + _STEP)
    return found


def unit_numbers(seed: int, *coordinates: Tensor) -> Tensor:
    """Numbers between −1.75 and 1.75 of variance about 1, float64, each of few binary digits."""
    high = _shifted(hashed(seed, *coordinates), 64 - BITS - 1)
    return (2 * high + 1 - (2 << BITS)).double() * (_HALF_WIDTH / (2 << BITS))


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """x >> by of a number without sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)
