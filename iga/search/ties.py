"""Exact relations between the numbers of a pair, which no sample of real numbers meets: ties, as columns of a genome.

Equal scales, equal components of the means, frames that are one another bit by bit or a right angle apart, numbers that
are round. A tie is a whole number in a column of its own; 0 leaves the pair as it is. They are applied to the decoded
numbers, so that what is tied is tied exactly, in any dtype.
"""

import itertools
import math
from functools import cache

import torch

from iga._typing import Float, Tensor
from iga.search.pairs import Pairs

__all__ = ["TIES", "draw_ties", "right_angles", "tied"]

# columns of ties, and how many values each has
_Q_SIGMA, _K_SIGMA, _ACROSS, _MEAN_X, _MEAN_Y, _MEAN_Z, _Q_FRAME, _K_FRAME = range(8)
_ROUND_SIGMA, _ROUND_MEAN, _SIGMA_SLOT, _Q_ZERO, _K_ZERO = range(8, 13)
_VALUES = (5, 5, 5, 2, 2, 2, 29, 30, 5, 5, 7, 8, 8)
TIES = len(_VALUES)

# Means that differ are at least so far apart, nm. Nearer, dist_sq over a determinant of 150 nm underflows in float32.
NEAREST = 5e-10

_EQUAL = ((), (0, 1), (1, 2), (0, 2), (0, 1, 2))  # axes of one Gaussian that share a scale


@cache
def right_angles() -> Float[Tensor, "24 3 3"]:
    """The 24 rotations that permute and flip axes, the identity first; float64."""
    matrices = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = torch.zeros(3, 3, dtype=torch.float64)
            for row, (column, sign) in enumerate(zip(order, signs, strict=True)):
                matrix[row, column] = sign
            if torch.linalg.det(matrix) > 0:
                matrices.append(matrix)
    return torch.stack(matrices)


def draw_ties(count: int, generator: torch.Generator, share: float = 0.3) -> Float[Tensor, "count ties"]:
    """Ties of `count` pairs: a `share` of them has some, each column then with chance ¼; float64."""
    values = torch.tensor(_VALUES, dtype=torch.float64)
    drawn = (torch.rand(count, TIES, generator=generator, dtype=torch.float64) * values).floor()
    some = torch.rand(count, 1, generator=generator) < share
    each = torch.rand(count, TIES, generator=generator) < 0.25
    return torch.where(some & each, drawn, 0.0)


def tied(
    pairs: Pairs,
    ties: Float[Tensor, "n ties"],
    constants: Float[Tensor, " c"] | None = None,
    sigma_range: tuple[float, float] = (0.03, 150.0),
) -> Pairs:
    """The pairs with their ties made exact; `constants` are numbers to meet, σ stays in `sigma_range` (nm).

    Differentiable where a number stays what it was.
    """
    if not bool((ties != 0).any()):
        return pairs
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = pairs
    column = ties.long().unbind(-1)
    q_sigma, k_sigma = (_rounded_sigma(x, column[_ROUND_SIGMA], sigma_range) for x in (q_sigma, k_sigma))
    if constants is not None and len(constants):
        inside = constants[(constants >= sigma_range[0]) & (constants <= sigma_range[1])].to(q_sigma.dtype)
        if len(inside):
            chosen = inside[torch.arange(len(ties)) % len(inside)]
            both = torch.cat([q_sigma, k_sigma], dim=-1)
            slot = column[_SIGMA_SLOT][:, None] == torch.arange(1, 7)
            q_sigma, k_sigma = torch.where(slot, chosen[:, None], both).split(3, dim=-1)
    q_sigma, k_sigma = _equal(q_sigma, column[_Q_SIGMA]), _equal(k_sigma, column[_K_SIGMA])
    across = column[_ACROSS]
    same = torch.stack([(across == 1) | (across == 2 + axis) for axis in range(3)], dim=-1)
    k_sigma = torch.where(same, q_sigma, k_sigma)
    q_mean, k_mean = (_rounded_mean(x, column[_ROUND_MEAN]) for x in (q_mean, k_mean))
    k_mean = torch.where((column[_ROUND_MEAN] == 4)[:, None], torch.zeros_like(k_mean), k_mean)
    q_mean, k_mean = _zeroed(q_mean, column[_Q_ZERO]), _zeroed(k_mean, column[_K_ZERO])
    level = torch.stack([column[axis] == 1 for axis in (_MEAN_X, _MEAN_Y, _MEAN_Z)], dim=-1)
    k_mean = torch.where(level, q_mean, k_mean)
    apart = (q_mean - k_mean).detach().double().norm(dim=-1, keepdim=True)
    k_mean = torch.where(apart < NEAREST, q_mean, k_mean)
    group = right_angles().to(q_rot.dtype)
    q_frame, k_frame = column[_Q_FRAME], column[_K_FRAME]
    q_rot = torch.where(((q_frame >= 2) & (q_frame < 26))[:, None, None], group[(q_frame - 2).clamp(0, 23)], q_rot)
    for axis in range(3):
        q_rot = torch.where((q_frame == 26 + axis)[:, None, None], _about(q_rot, axis), q_rot)
    relative = group[(k_frame - 2).clamp(0, 23)]
    # one term of each sum is not zero: exact
    turned = (q_rot[:, :, :, None] * relative[:, None, :, :]).sum(-2)
    k_rot = torch.where(((k_frame >= 2) & (k_frame < 26))[:, None, None], turned, k_rot)
    k_rot = torch.where((k_frame == 1)[:, None, None], q_rot, k_rot)
    for axis in range(3):
        k_rot = torch.where((k_frame == 27 + axis)[:, None, None], _about(k_rot, axis), k_rot)
    return q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma


def _equal(sigma: Tensor, kind: Tensor) -> Tensor:
    for number, axes in enumerate(_EQUAL):
        for axis in axes[1:]:
            here = (kind == number)[:, None] & (torch.arange(3) == axis)
            sigma = torch.where(here, sigma[:, axes[:1]], sigma)
    return sigma


def _zeroed(mean: Tensor, kind: Tensor) -> Tensor:
    """The components whose bit of `kind` is set are exactly 0."""
    bits = torch.stack([(kind // 2**axis) % 2 == 1 for axis in range(3)], dim=-1)
    return torch.where(bits, torch.zeros_like(mean), mean)


def _about(rot: Tensor, axis: int) -> Tensor:
    """The turn about one coordinate axis that is like `rot`: five entries are exactly 0 and 1.

    To a half turn about another axis all are alike, and it is none: what its entries leave is rounding.
    """
    b, c = (axis + 1) % 3, (axis + 2) % 3
    cosine, sine = rot[:, b, b] + rot[:, c, c], rot[:, c, b] - rot[:, b, c]
    squares = cosine.square() + sine.square()
    some = squares > 1e-6
    size = torch.where(some, squares, torch.ones_like(squares)).sqrt()
    one, zero = torch.ones_like(size), torch.zeros_like(size)
    cosine, sine = torch.where(some, cosine / size, one), torch.where(some, sine / size, zero)
    entries = {(b, b): cosine, (c, c): cosine, (c, b): sine, (b, c): -sine, (axis, axis): one}
    rows = [torch.stack([entries.get((i, j), zero) for j in range(3)], dim=-1) for i in range(3)]
    return torch.stack(rows, dim=-2)


def _rounded_sigma(sigma: Tensor, kind: Tensor, ends: tuple[float, float]) -> Tensor:
    choices = [sigma, sigma.log2().round().exp2(), _digits(sigma, 1), _digits(sigma, 2)]
    low, high = math.log(ends[0]), math.log(ends[1])
    near = torch.where(sigma.log() < 0.5 * (low + high), ends[0], ends[1]).to(sigma.dtype)
    return _pick([*choices, near], kind).clamp(*ends)


def _rounded_mean(mean: Tensor, kind: Tensor) -> Tensor:
    return _pick([mean, mean.round(), _digits(mean, 1), _digits(mean, 2), mean], kind)


def _pick(choices: list[Tensor], kind: Tensor) -> Tensor:
    out = choices[0]
    for number, choice in enumerate(choices[1:], start=1):
        out = torch.where((kind == number)[:, None], choice, out)
    return out


def _digits(x: Tensor, digits: int) -> Tensor:
    """x to so many significant decimal digits."""
    size = 10.0 ** (x.detach().double().abs().clamp(min=1e-300).log10().floor() - (digits - 1))
    return ((x.detach().double() / size).round() * size).to(x.dtype)
