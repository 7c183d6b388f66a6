"""Rigorous arithmetic for one pair of Gaussians: certified enclosures, and whether a dtype can be asked for an answer.

`enclosure` gives balls (Arb, by python-flint) that contain dist_sq, log_det and their gradients for the numbers exactly
as given: Σ = R_i diag(σ_i²) R_iᵀ + R_j diag(σ_j²) R_jᵀ with the matrices as they are, rotations or not, nm. Rotations
are differentiated along R → R exp([ω]×).

`ill_conditioned` looks at the box of inputs within one unit roundoff u of the given ones: every entry of R and every σ
times 1 + ε, and every component of δ = μ_i − μ_j times 1 + ε, |ε| ≤ u. The box is of δ, not of the means: dist_sq knows
the means only by δ, which one subtraction gives from any means to within u, so distant or equal means do not make a
pair ill-conditioned.

Sources: docs/theory.md, section 11 (and 9.1, 9.3 for the gradients); F. Johansson, "Arb: efficient arbitrary-precision
midpoint-radius interval arithmetic", IEEE Transactions on Computers 66 (2017), 1281. flint is imported when first used.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from iga._typing import Bool, Float, Tensor
from iga.bounds import unit_roundoff
from iga.testing.judges.balls import FEWEST_BITS, INPUTS, Central, Gradient, Point, SingularError, outward, refined

__all__ = [
    "Conditioning",
    "Enclosure",
    "Gradient",
    "SingularError",
    "Width",
    "conditioning",
    "enclosure",
    "ill_conditioned",
    "outward",
]

_ACCURATE = 64  # bits that a value needs before it is compared with another


@dataclass(frozen=True, eq=False)
class Enclosure:
    """Balls (flint.arb) that contain the exact values; `bits` is the precision that sufficed."""

    dist_sq: Any
    log_det: Any
    of_dist_sq: Gradient
    of_log_det: Gradient
    bits: int


@dataclass(frozen=True)
class Width:
    """How far apart the answers over the box are, in units of what the digits allow: lower ≤ width ≤ upper, certified.

    Above 1 no number agrees with all of them to the digits required.
    """

    lower: float
    upper: float

    @property
    def verdict(self) -> str:
        """ "ill" (certified: may be excused), "well" (certified), or "undecided" (to be judged like "well")."""
        return "ill" if self.lower > 1.0 else "well" if self.upper <= 1.0 else "undecided"


@dataclass(frozen=True)
class Conditioning:
    """Of one pair in one dtype: the width of dist_sq and that of log_det over the box of rounded inputs."""

    dist_sq: Width
    log_det: Width


def enclosure(pair: Sequence[Tensor | Sequence[Any]], *, digits: int = 25) -> Enclosure:
    """Balls of dist_sq, log_det and their gradients, each of relative radius below 10^−digits; an exact 0 is exact.

    pair  q_rot [3, 3], q_mean [3], q_sigma [3], k_rot, k_mean, k_sigma: tensors or lists; each number is taken as the
          exact binary number that it is

    Raises ValueError if an input is misshapen or not finite, σ is not above 0, or Σ is singular (det Σ is decided
    exactly, see section 11.1).
    """
    point = Point.of(pair)
    needed = math.ceil(digits * math.log2(10.0)) + 2

    def attempt() -> list[Any]:
        c = Central(point)
        return [c.num / c.det, c.det.log(), *c.of_dist_sq().flat(), *c.of_log_det().flat()]

    values, bits = refined(attempt, needed)
    gradients = [Gradient(*(tuple(values[k + 3 * m : k + 3 * m + 3]) for m in range(6))) for k in (2, 20)]
    return Enclosure(values[0], values[1], gradients[0], gradients[1], bits)


def ill_conditioned(pair: Sequence[Tensor | Sequence[Any]], dtype: torch.dtype, *, digits: int = 2) -> Conditioning:
    """Whether inputs within one unit roundoff of these have answers that no number meets to `digits` digits.

    lower  the largest |f₁ − f₂|/(tolerance of f₁ + tolerance of f₂) over some points of the box, each evaluated
           exactly; the tolerance is 10^−digits |f| for dist_sq, 10^−digits max(|f|, 1) for log_det, a logarithm, whose
           relative error means nothing near 0. Above 1 the two intervals of acceptable answers are disjoint: "ill".
    upper  the same quotient for all points of the box, from the first-order bound and a remainder: section 11.3.

    `pair` and errors as in `enclosure`. About 1 ms.
    """
    u, tolerance = unit_roundoff(dtype), 10.0**-digits
    point = Point.of(pair)

    def at_the_centre() -> list[Any]:
        c = Central(point)
        squared, logarithm = c.relative_sensitivities()
        leverage = [c.inv(a, a) for a in range(3)]
        return [c.num / c.det, c.det.log(), *squared, *logarithm, *leverage]

    values, _ = refined(at_the_centre, _ACCURATE)
    squared, logarithm = values[2 : 2 + INPUTS], values[2 + INPUTS : 2 + 2 * INPUTS]
    signs = [
        *_both([_sign(x) for x in squared]),
        *_both([_sign(x) for x in logarithm]),
        *(sign for axis in range(3) for sign in _both(_turn(point, axis))),
    ]
    corners = [point, *(point.corner(sign, u) for sign in signs)]

    def at_the_corners() -> list[Any]:
        found = []
        for corner in corners:
            c = Central(corner)
            found += [c.num / c.det, c.det.log()]
        return found

    answers, _ = refined(at_the_corners, _ACCURATE)
    reach = _Reach(values[0], squared, logarithm, values[-3:], point, u)
    return Conditioning(
        Width(_widest(answers[0::2], tolerance, 0.0), _worst_case(values[0], reach.dist_sq, tolerance, 0.0)),
        Width(_widest(answers[1::2], tolerance, 1.0), _worst_case(values[1], reach.log_det, tolerance, 1.0)),
    )


def conditioning(
    pairs: Sequence[Tensor], dtype: torch.dtype, digits: int = 2, *, at_most: int = 256
) -> tuple[Bool[Tensor, "..."], Bool[Tensor, "..."]]:
    """Which pairs may be excused: (dist_sq, log_det), True where `ill_conditioned` certifies "ill"; [...] broadcast.

    The float64 prefilter only ever says "not ill", and is *proved* to be right (section 11.4): rotations with κ up to
    2.8·10⁴ in float32 at two digits pass it and never reach flint. Of the others the `at_most` of largest κ are decided
    by flint; the rest, what stays undecided, and pairs that are not finite, are singular or have a σ not above 0, are
    False: judged, not excused.
    """
    u, tolerance = unit_roundoff(dtype), 10.0**-digits
    cores = (2, 1, 1, 2, 1, 1)
    batch = torch.broadcast_shapes(*(x.shape[: x.ndim - c] for x, c in zip(pairs, cores, strict=True)))
    flat = [
        x.detach().double().expand(*batch, *(3,) * c).reshape(-1, *(3,) * c) for x, c in zip(pairs, cores, strict=True)
    ]
    count = flat[0].shape[0]
    excused = [torch.zeros(count, dtype=torch.bool, device=flat[0].device) for _ in range(2)]
    valid = (flat[2] > 0).all(-1) & (flat[5] > 0).all(-1)
    for x in flat:
        valid &= x.isfinite().flatten(1).all(-1)
    for index in _suspects(flat, valid, u, tolerance)[:at_most].tolist():
        try:
            found = ill_conditioned([x[index] for x in flat], dtype, digits=digits)
        except SingularError:
            continue
        excused[0][index] = found.dist_sq.verdict == "ill"
        excused[1][index] = found.log_det.verdict == "ill"
    return excused[0].reshape(batch), excused[1].reshape(batch)


def _suspects(flat: list[Tensor], valid: Tensor, u: float, tolerance: float) -> Tensor:
    """Indices of the valid pairs that section 11.4 does not show to be well-conditioned, largest κ first."""
    off = torch.stack([_shear(flat[0]), _shear(flat[3])]).amax(0)
    kappa = torch.maximum(flat[2].amax(-1), flat[5].amax(-1)) / torch.minimum(flat[2].amin(-1), flat[5].amin(-1))
    # 1.001: a thousand times the rounding of this line and of _shear
    widened = 1.001 * kappa * ((1.0 + off) / (1.0 - off)).sqrt()
    eta = math.sqrt(3.0) * u * (widened + 1.0) * (1.0 + u)
    # of the two conditions of 11.4 that of log_det implies the other; a comparison with NaN is False
    safe = (off < 0.5) & (eta < 0.5) & (eta / (1.0 - eta) <= tolerance / (2.0 * math.sqrt(3.0)))
    suspects = (valid & ~safe).nonzero()[:, 0]
    return suspects[kappa[suspects].argsort(descending=True, stable=True)]


def _shear(rot: Float[Tensor, "n 3 3"]) -> Float[Tensor, " n"]:
    """‖RᵀR − I‖_F"""
    gram = (rot[..., :, :, None] * rot[..., :, None, :]).sum(-3)
    return (gram - torch.eye(3, dtype=rot.dtype, device=rot.device)).square().sum((-2, -1)).sqrt()


def _turn(point: Point, axis: int) -> list[int]:
    """Signs that turn frame i about its own axis and frame j the other way: what nearly equal frames feel most."""
    b, c = (axis + 1) % 3, (axis + 2) % 3
    signs = []
    for r, way in zip(point.rot, (1, -1), strict=True):
        for row in r:  # R [e_axis]×: column b receives column c, column c minus column b
            change = [0, 0, 0]
            change[b], change[c] = way * _sign(row[c]) * _sign(row[b]), -way * _sign(row[b]) * _sign(row[c])
            signs += change
        signs += [1, 1, 1]
    return [*signs, 1, 1, 1]


def _both(signs: list[int]) -> tuple[list[int], list[int]]:
    return signs, [-sign for sign in signs]


def _sign(ball: Any) -> int:
    return 1 if ball > 0 else -1 if ball < 0 else 0


def _widest(values: list[Any], tolerance: float, least: float) -> float:
    """The largest certified |f₁ − f₂|/(t max(|f₁|, least) + t max(|f₂|, least)) among the values, rounded down."""
    from flint import ctx

    low = min(values, key=lambda x: float(x.mid()))
    high = max(values, key=lambda x: float(x.mid()))
    with ctx.workprec(FEWEST_BITS):
        apart, allowed = high - low, tolerance * (_at_least(high, least) + _at_least(low, least))
        if not (apart > 0):
            return 0.0
        return outward(apart / allowed)[0] if allowed > 0 else math.inf


def _worst_case(value: Any, reach: float, tolerance: float, least: float) -> float:
    """An upper bound of the same quotient for any two values within `reach` of `value`."""
    from flint import arb, ctx

    if reach == 0.0:
        return 0.0
    if math.isinf(reach):
        return math.inf
    with ctx.workprec(FEWEST_BITS):
        # the smallest sizes that two values 2·reach apart within it can have add up to 2|value|, both on one side of 0
        size = abs(value) - (0 if least == 0.0 else reach)
        if least == 0.0 and not (size > reach):
            return math.inf
        allowed = 2 * tolerance * _at_least(size, least)
        return outward(2 * arb(reach) / allowed)[1]


def _at_least(x: Any, least: float) -> Any:
    from flint import arb

    size = abs(x)
    return size.max(arb(least)) if least else size


class _Reach:
    """How far dist_sq and log_det can lie from their values at the centre anywhere in the box: section 11.3.

    Upper bounds as float64, each operation on balls; infinite from ‖H‖ = 1 on, where the remainder has no bound.
    """

    def __init__(
        self, dist_sq: Any, squared: list[Any], logarithm: list[Any], leverage: list[Any], point: Point, u: float
    ) -> None:
        from flint import arb, ctx

        with ctx.workprec(FEWEST_BITS):
            root = [x.sqrt() for x in leverage]  # √(Σ⁻¹)_aa
            moved = [
                sum(abs(r[a][k]) * root[a] for a in range(3)) * s[k]
                for r, s in zip(point.rot, point.sigma, strict=True)
                for k in range(3)
            ]
            eta = u * ((1 + arb(u)) * arb(sum(x * x for x in moved)).sqrt() + arb(3).sqrt())
            eps = u * sum(abs(x) * y for x, y in zip(point.delta, root, strict=True))
            h = 2 * eta + eta * eta
            self.dist_sq = self.log_det = math.inf
            if not h < 1:
                return
            first = u * sum(abs(x) for x in squared)
            rest = dist_sq * (eta * eta + h * h / (1 - h) + 2 * u * eta)
            if not (dist_sq == 0):
                rest += 2 * h / (1 - h) * dist_sq.sqrt() * eps
            rest += eps * eps / (1 - h)
            self.dist_sq = outward(first + rest)[1]
            first = u * sum(abs(x) for x in logarithm)
            rest = 2 * arb(3).sqrt() * u * eta + eta * eta + h * h / (2 * (1 - h))
            self.log_det = outward(first + rest)[1]
