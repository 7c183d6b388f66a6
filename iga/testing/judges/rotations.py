"""The judge of the frame laws: rotations, their derivatives and seeded draws in NumPy's float64, from the formulas.

Nothing of `iga` is called here. With n the unit axis, θ the angle, K = [n]ₓ:

    R = I + sin θ K + 2 sin²(θ/2) K²                       dR = R [J dv]ₓ for a rotation vector v = θ n
    J = I − (1 − cos θ)/θ² [v]ₓ + (θ − sin θ)/θ³ [v]ₓ²     J⁻¹ = I + ½[v]ₓ + (1 − (θ/2) cot(θ/2))/θ² [v]ₓ²

Entries of R err by at most JUDGE u of float64: axis 3 roundings, twice; sine, cosine and products 6; sums 4.
Source: G. S. Chirikjian, Stochastic Models, Information Theory, and Lie Groups, vol. 2 (2012), section 10.6.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["AWKWARD", "JUDGE", "U64", "Turns", "inverse_jacobian", "jacobian", "matrix", "quaternion", "skew", "turns"]

Amount = float | int | np.ndarray

U64 = 2.0**-53
JUDGE = 16.0

# Awkward axes: on the coordinate axes, and where two or three components tie.
AWKWARD = np.array([[1, 0, 0], [0, 1, 0], [0, 0, -1], [1, 1, 0], [0, 1, -1], [1, -1, 1]], dtype=float)


def skew(v: np.ndarray) -> np.ndarray:
    """[v]ₓ, the matrix of x ↦ v × x: [..., 3] to [..., 3, 3]."""
    x, y, z = np.moveaxis(v, -1, 0)
    zero = np.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix(axis: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """The rotations about unit axes [..., 3] by angles [...]."""
    k = skew(axis)
    sine, versine = np.sin(angle), 2 * np.sin(angle / 2) ** 2
    return np.eye(3) + sine[..., None, None] * k + versine[..., None, None] * (k @ k)


def quaternion(axis: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """(cos θ/2, sin θ/2 n), w first, sign as it comes."""
    return np.concatenate([np.cos(angle / 2)[..., None], np.sin(angle / 2)[..., None] * axis], axis=-1)


def jacobian(v: np.ndarray) -> np.ndarray:
    """J of the exponential at rotation vectors [..., 3]; the series below 1e-2, where it is exact to θ⁶."""
    theta = np.linalg.norm(v, axis=-1)
    small = theta < 1e-2
    t = np.where(small, 1.0, theta)
    s = theta**2
    first = np.where(small, 0.5 - s / 24 + s**2 / 720, 2 * np.sin(t / 2) ** 2 / t**2)
    second = np.where(small, 1 / 6 - s / 120 + s**2 / 5040, (t - np.sin(t)) / t**3)
    k = skew(v)
    return np.eye(3) - first[..., None, None] * k + second[..., None, None] * (k @ k)


def inverse_jacobian(v: np.ndarray) -> np.ndarray:
    """J⁻¹ at rotation vectors [..., 3] with θ ≤ π; the series below 1e-2."""
    theta = np.linalg.norm(v, axis=-1)
    small = theta < 1e-2
    t = np.where(small, 1.0, theta)
    s = theta**2
    second = np.where(small, 1 / 12 + s / 720 + s**2 / 30240, (1 - t / 2 / np.tan(t / 2)) / t**2)
    k = skew(v)
    return np.eye(3) + 0.5 * k + second[..., None, None] * (k @ k)


@dataclass(frozen=True)
class Turns:
    """Rotations as they were drawn: unit axes [n, 3] and angles [n] in radians."""

    axis: np.ndarray
    angle: np.ndarray

    @property
    def vector(self) -> np.ndarray:
        return self.angle[:, None] * self.axis

    @property
    def matrix(self) -> np.ndarray:
        return matrix(self.axis, self.angle)


def turns(rng: np.random.Generator, *, generic: int = 0, small: int = 0, straight: int = 0) -> Turns:
    """Angles in (0.1, 3), then 10⁻¹ to 10⁻¹² above 0, then 10⁻¹ to 10⁻¹² below π; every fifth axis is awkward."""
    count = generic + small + straight
    axis = rng.standard_normal((count, 3))
    axis[::5] = AWKWARD[rng.integers(len(AWKWARD), size=len(axis[::5]))]
    angle = np.concatenate(
        [
            rng.uniform(0.1, 3.0, generic),
            10.0 ** -rng.uniform(1, 12, small),
            np.pi - 10.0 ** -rng.uniform(1, 12, straight),
        ]
    )
    return Turns(axis / np.linalg.norm(axis, axis=-1, keepdims=True), angle)
