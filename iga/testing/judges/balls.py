"""Balls (Arb, by python-flint) around what one pair of Gaussians gives, at exact points; the engine of `rigorous`.

Numbers are taken as the exact binary numbers that they are, matrices as they are given, nm. All that is computed is a
polynomial in the inputs, or one quotient or logarithm of such: with enough bits the polynomials are exact, so that
every zero, and the sign of det Σ, is decided (docs/theory.md, section 11.1). flint is imported when first used.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from iga._typing import Tensor

__all__ = ["INPUTS", "Central", "Gradient", "Point", "SingularError", "outward", "refined"]

Triple = tuple[Any, Any, Any]  # of balls
_Rows = list[list[Any]]

INPUTS = 27  # the numbers of a point: R_i 9, σ_i 3, R_j 9, σ_j 3, δ 3
# The polynomials have degree 22 at most in numbers of at most 2100 bits: 2^16 bits hold them.
FEWEST_BITS, MOST_BITS = 256, 1 << 17
_CYCLES = ((0, 1, 2), (1, 2, 0), (2, 0, 1))


@dataclass(frozen=True, eq=False)
class Gradient:
    """Balls of ∂/∂ω (torque, along R exp([ω]×)), ∂/∂μ (per nm) and ∂/∂log σ (means fixed), for query and key."""

    q_omega: Triple
    q_mean: Triple
    q_log_sigma: Triple
    k_omega: Triple
    k_mean: Triple
    k_log_sigma: Triple

    def flat(self) -> list[Any]:
        """The 18 balls in the order of the fields."""
        parts = (self.q_omega, self.q_mean, self.q_log_sigma, self.k_omega, self.k_mean, self.k_log_sigma)
        return [ball for part in parts for ball in part]


class SingularError(ValueError):
    """det Σ is 0: there is no Σ⁻¹ and no log_det."""


@dataclass(frozen=True)
class Point:
    """Exact numbers: matrices by rows, standard deviations, δ."""

    rot: tuple[_Rows, _Rows]
    sigma: tuple[list[Any], list[Any]]
    delta: list[Any]

    @classmethod
    def of(cls, pair: Sequence[Tensor | Sequence[Any]]) -> "Point":
        from flint import arb

        q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = _checked(pair)
        rot = tuple([[arb(x) for x in row[3 * a : 3 * a + 3]] for a in range(3)] for row in (q_rot, k_rot))
        sigma = tuple([arb(x) for x in row] for row in (q_sigma, k_sigma))
        # exact: a difference of two float64 has at most 2100 bits
        delta = _exactly(lambda: [arb(x) - arb(y) for x, y in zip(q_mean, k_mean, strict=True)])
        return cls(rot, sigma, delta)  # pyright: ignore[reportArgumentType] - two of each

    def numbers(self) -> list[Any]:
        """The 27 numbers that the box changes, in the order of `INPUTS`."""
        sides = [x for r, s in zip(self.rot, self.sigma, strict=True) for x in (*r[0], *r[1], *r[2], *s)]
        return [*sides, *self.delta]

    def corner(self, signs: list[int], u: float) -> "Point":
        """Every number times 1 + u·sign, exactly."""
        from flint import arb

        moved = _exactly(lambda: [x * (1 + sign * arb(u)) for x, sign in zip(self.numbers(), signs, strict=True)])
        rows = [[moved[k : k + 3], moved[k + 3 : k + 6], moved[k + 6 : k + 9]] for k in (0, 12)]
        return Point((rows[0], rows[1]), (moved[9:12], moved[21:24]), moved[24:])


class Central:
    """Σ, its determinant and adjugate, and the values and derivatives that they give, at the current precision.

    Everything but a quotient or a logarithm is a polynomial in the inputs, so that enough bits make it exact.
    """

    def __init__(self, point: Point) -> None:
        self.point = point
        self.v = [[s * s for s in sigma] for sigma in point.sigma]
        sides = list(zip(point.rot, self.v, strict=True))
        m = [[sum(r[a][k] * v[k] * r[b][k] for r, v in sides for k in range(3)) for b in range(3)] for a in range(3)]
        # cofactors with cyclic indices, so that the signs come out by themselves
        self.adj = [
            [
                m[(a + 1) % 3][(b + 1) % 3] * m[(a + 2) % 3][(b + 2) % 3]
                - m[(a + 1) % 3][(b + 2) % 3] * m[(a + 2) % 3][(b + 1) % 3]
                for b in range(3)
            ]
            for a in range(3)
        ]
        self.det: Any = sum(m[0][b] * self.adj[0][b] for b in range(3))
        if self.det == 0:
            raise SingularError("q_rot and k_rot must be rotations, got matrices with which det Σ is 0")
        if not self.det > 0:
            raise _Undecided(f"det Σ is {self.det.str(5)}")
        self.a = _times(self.adj, point.delta)  # y = Σ⁻¹δ is a/det
        self.num = sum(x * y for x, y in zip(point.delta, self.a, strict=True))
        self.z = [[sum(r[a][k] * self.a[a] for a in range(3)) for k in range(3)] for r in point.rot]  # det · Rᵀy

    def inv(self, a: int, b: int) -> Any:
        """(Σ⁻¹)_ab"""
        return self.adj[a][b] / self.det

    def of_dist_sq(self) -> Gradient:
        """2y, −2v_k(Rᵀy)_k², and 2 z × (v ∘ z) with z = Rᵀy."""
        square = self.det * self.det
        mean: Any = tuple(2 * x / self.det for x in self.a)
        sides: list[Any] = []
        for z, v in zip(self.z, self.v, strict=True):
            omega = tuple(2 * ((v[c] - v[b]) * z[b] * z[c]) / square for _, b, c in _CYCLES)
            sides.append((omega, tuple(-2 * v[k] * z[k] * z[k] / square for k in range(3))))
        return Gradient(sides[0][0], mean, sides[0][1], sides[1][0], (-mean[0], -mean[1], -mean[2]), sides[1][1])

    def of_log_det(self) -> Gradient:
        """0, 2v_k M_kk, and 2(v_b − v_c) M_bc with M = RᵀΣ⁻¹R."""
        from flint import arb

        sides: list[Any] = []
        for r, v in zip(self.point.rot, self.v, strict=True):
            columns = [[r[a][k] for a in range(3)] for k in range(3)]
            turned = [_times(self.adj, column) for column in columns]
            m = [[sum(x * y for x, y in zip(columns[k], t, strict=True)) for t in turned] for k in range(3)]
            omega = tuple(2 * ((v[b] - v[c]) * m[b][c]) / self.det for _, b, c in _CYCLES)
            sides.append((omega, tuple(2 * v[k] * m[k][k] / self.det for k in range(3))))
        zero: Any = (arb(0),) * 3
        return Gradient(sides[0][0], zero, sides[0][1], sides[1][0], zero, sides[1][1])

    def relative_sensitivities(self) -> tuple[list[Any], list[Any]]:
        """x ∂/∂x of dist_sq and of log_det for the 27 numbers of the box: −2y_a v_b(Rᵀy)_b R_ab, 2(Σ⁻¹Rv)_ab R_ab."""
        of_dist_sq, of_log_det = self.of_dist_sq(), self.of_log_det()
        scales = ((of_dist_sq.q_log_sigma, of_log_det.q_log_sigma), (of_dist_sq.k_log_sigma, of_log_det.k_log_sigma))
        squared, logarithm = [], []
        for r, v, z, (by_scale, of_scale) in zip(self.point.rot, self.v, self.z, scales, strict=True):
            solved = [_times(self.adj, [r[a][b] for a in range(3)]) for b in range(3)]
            for a in range(3):
                for b in range(3):
                    squared.append(-2 * self.a[a] * v[b] * z[b] * r[a][b] / (self.det * self.det))
                    logarithm.append(2 * solved[b][a] * v[b] * r[a][b] / self.det)
            squared += by_scale
            logarithm += of_scale
        squared += [2 * x * y / self.det for x, y in zip(self.point.delta, self.a, strict=True)]
        return squared, [*logarithm, *(0 * x for x in self.point.delta)]


def outward(ball: Any) -> tuple[float, float]:
    """The largest float64 below or at a ball and the smallest above or at it; for a number that a float64 is, both."""
    from flint import ctx

    with ctx.workprec(FEWEST_BITS):
        return _towards(ball.lower(), -math.inf), _towards(ball.upper(), math.inf)


class _Undecided(Exception):
    """More bits are needed."""


def refined(attempt: Callable[[], list[Any]], accurate: int) -> tuple[list[Any], int]:
    """What `attempt` returns once every ball is accurate to `accurate` bits or exact, and the bits that it took."""
    from flint import ctx

    bits, reason = FEWEST_BITS, ""
    while bits <= MOST_BITS:
        with ctx.workprec(bits):
            try:
                values = attempt()
            except _Undecided as undecided:
                reason = str(undecided)
            else:
                if all(x.is_exact() or x.rel_accuracy_bits() >= accurate for x in values):
                    return values, bits
                reason = "a value is not accurate enough"
        bits *= 2
    raise ValueError(f"the pair cannot be enclosed with {MOST_BITS} bits: {reason}; pass rotations and sigmas in nm")


def _exactly(compute: Callable[[], list[Any]]) -> list[Any]:
    """A list of sums or products of inputs, with as many bits as their exact values need."""
    from flint import ctx

    bits = FEWEST_BITS
    while True:  # ends: sums and products of float64 have finitely many bits
        with ctx.workprec(bits):
            values = compute()
        if all(x.is_exact() for x in values):
            return values
        bits *= 2


def _checked(pair: Sequence[Tensor | Sequence[Any]]) -> list[list[float]]:
    names = ("q_rot", "q_mean", "q_sigma", "k_rot", "k_mean", "k_sigma")
    if len(pair) != 6:
        raise ValueError(f"pair must be the six of {', '.join(names)}, got {len(pair)}")
    rows = [torch.as_tensor(x, dtype=torch.float64).detach().flatten().tolist() for x in pair]
    for name, row in zip(names, rows, strict=True):
        if len(row) != (9 if name.endswith("rot") else 3):
            raise ValueError(f"{name} must hold {9 if name.endswith('rot') else 3} numbers of one pair, got {len(row)}")
        if not all(math.isfinite(x) for x in row):
            raise ValueError(f"{name} must be finite, got {row}")
        if name.endswith("sigma") and not all(x > 0 for x in row):
            raise ValueError(f"{name} must be above 0 nm, got {row}")
    return rows


def _towards(exact: Any, end: float) -> float:
    """The nearest float64 at or beyond an exact number, in the direction of `end`."""
    mantissa, exponent = exact.man_exp()
    value = Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
    try:
        found = float(value)
    except OverflowError:
        found = math.inf if value > 0 else -math.inf
    beyond = found >= value if end > 0 else found <= value
    return found if beyond else math.nextafter(found, end)


def _times(matrix: _Rows, x: list[Any]) -> list[Any]:
    return [sum(row[k] * x[k] for k in range(3)) for row in matrix]
