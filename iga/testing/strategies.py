"""Hypothesis strategies for degenerate geometry, drawn as the few numbers that make it degenerate.

What is tested is drawn explicitly, as axis, angle and exponents, so that a failure shrinks to numbers a person can
read: axes are small integers, an angle is 0 or π plus or minus a power of ten, a σ is a power of ten. Only filler
(features, the other residues) comes from a drawn seed. Everything is handed out in float64 on the CPU, in nm, for
tests to cast; matrices are made with NumPy here, so that `iga.rotation` is not its own judge.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st

from iga._typing import Float, Tensor

__all__ = [
    "AxisAngle",
    "Backbone",
    "ExactPair",
    "GaussianPair",
    "axes",
    "axis_angles",
    "coincident_backbones",
    "filler",
    "gaussian_pairs",
    "near_collinear_backbones",
    "seeds",
    "sigmas",
    "translations",
]

Row = tuple[float, float, float]
Rows = tuple[Row, Row, Row]
# N–CA and CA–C in nm, and the angle N–CA–C in radians, of an ideal residue.
N_CA, CA_C, TAU = 0.146, 0.153, math.radians(111.0)


@dataclass(frozen=True)
class AxisAngle:
    """A rotation by `base` + `offset` radians about an integer `axis`; |offset| is 0 or a power of ten."""

    axis: tuple[int, int, int]
    base: float
    offset: float

    @property
    def angle(self) -> float:
        return self.base + self.offset

    @property
    def rotvec(self) -> Float[Tensor, "3"]:
        """Axis times angle."""
        axis = np.array(self.axis, dtype=np.float64)
        return torch.from_numpy(self.angle * axis / np.linalg.norm(axis))

    @property
    def matrix(self) -> Float[Tensor, "3 3"]:
        """I + sin θ K + 2 sin²(θ/2) K², with sine and cosine of `offset` so that π ± 10⁻¹² keeps its digits."""
        x, y, z = np.array(self.axis, dtype=np.float64) / np.linalg.norm(self.axis)
        k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        if self.base == math.pi:
            sine, one_minus_cosine = -math.sin(self.offset), 2 * math.cos(self.offset / 2) ** 2
        else:
            sine, one_minus_cosine = math.sin(self.angle), 2 * math.sin(self.angle / 2) ** 2
        return torch.from_numpy(np.eye(3) + sine * k + one_minus_cosine * (k @ k))


def axes() -> st.SearchStrategy[tuple[int, int, int]]:
    """Directions as integer triples up to 4, not zero; shrinks to (0, 0, 1)."""
    component = st.integers(-4, 4)
    return st.tuples(component, component, component).filter(any)


def axis_angles(*, bases: tuple[float, ...] = (0.0, math.pi, 1.0)) -> st.SearchStrategy[AxisAngle]:
    """Rotations at, and at ±10⁻¹² to ±10⁰ from, each of the `bases` (the identity, π, and an angle like any other)."""
    offset = st.one_of(
        st.just(0.0), st.builds(lambda sign, exponent: sign * 10.0**exponent, st.sampled_from([1, -1]), _exponents())
    )
    return st.builds(AxisAngle, axes(), st.sampled_from(bases), offset)


def _exponents(low: int = -12, high: int = 0) -> st.SearchStrategy[int]:
    """Integers that shrink towards `high`, where a power of ten is least degenerate."""
    return st.integers(0, high - low).map(lambda steps: high - steps)


def sigmas(low: float = 0.03, high: float = 150.0) -> st.SearchStrategy[tuple[float, float, float]]:
    """Three standard deviations (nm), each `low` times a power of ten (in steps of a quarter) up to `high`.

    Covers spheres, needles and pancakes up to κ = high/low; shrinks to a sphere of `low`.
    """
    steps = st.integers(0, math.floor(4 * math.log10(high / low)))
    one = steps.map(lambda quarter: min(low * 10.0 ** (quarter / 4), high)) | st.just(high)
    return st.tuples(one, one, one)


def translations(high: int = 3) -> st.SearchStrategy[tuple[float, float, float]]:
    """A vector (nm): an integer direction times a power of ten from 10⁻⁶ to 10^high, or zero."""
    far = st.builds(
        lambda axis, exponent: tuple(component * 10.0**exponent for component in axis), axes(), _exponents(-6, high)
    )
    return st.just((0.0, 0.0, 0.0)) | far


def seeds() -> st.SearchStrategy[int]:
    """Seeds for filler."""
    return st.integers(0, 2**31 - 1)


def filler(seed: int, *shape: int) -> Tensor:
    """Standard-normal float64 tensor [*shape] of the seed: what a test needs but does not test."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@dataclass(frozen=True)
class Backbone:
    """One residue's N, CA, C (nm), turned by `frame` and moved by `origin`; what is degenerate stands in `label`."""

    label: str
    lengths: tuple[float, float]
    angle: AxisAngle
    frame: AxisAngle
    origin: tuple[float, float, float]

    @property
    def atoms(self) -> tuple[Tensor, Tensor, Tensor]:
        """(N, CA, C), each [3]: C on the local x axis, N at `angle` from it in the plane."""
        n = self.angle.matrix[:, 0] * self.lengths[0]
        c = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64) * self.lengths[1]
        turn, origin = self.frame.matrix, torch.tensor(self.origin, dtype=torch.float64)
        n, c = ((turn * x).sum(dim=-1) + origin for x in (n, c))
        return n, origin, c


def near_collinear_backbones() -> st.SearchStrategy[Backbone]:
    """Residues whose angle N–CA–C is 0 or π or 10⁻¹² to 1 radian from it, with ideal bonds, less than 1 nm from 0."""
    angle = st.builds(
        lambda base, sign, exponent: AxisAngle((0, 0, 1), base, sign * 10.0**exponent),
        st.sampled_from([math.pi, 0.0]),
        st.sampled_from([1, -1, 0]),
        _exponents(),
    )
    return st.builds(
        Backbone, st.just("near-collinear"), st.just((N_CA, CA_C)), angle, axis_angles(), translations(high=-1)
    )


def coincident_backbones() -> st.SearchStrategy[Backbone]:
    """Residues in which N and CA, C and CA, N and C, or all three are one point."""
    ideal, none = AxisAngle((0, 0, 1), TAU, 0.0), AxisAngle((0, 0, 1), 0.0, 0.0)
    cases: list[tuple[str, tuple[float, float], AxisAngle]] = [
        ("N = CA", (0.0, CA_C), ideal),
        ("C = CA", (N_CA, 0.0), ideal),
        ("N = C", (CA_C, CA_C), none),
        ("N = CA = C", (0.0, 0.0), ideal),
    ]
    return st.builds(
        lambda case, frame, origin: Backbone(case[0], case[1], case[2], frame, origin),
        st.sampled_from(cases),
        axis_angles(),
        translations(),
    )


@dataclass(frozen=True)
class GaussianPair:
    """Two Gaussians: the key's axes are the query's turned by `turn`, its mean is `delta` (nm) from the query's."""

    frame: AxisAngle
    turn: AxisAngle
    sigma_i: tuple[float, float, float]
    sigma_j: tuple[float, float, float]
    delta: tuple[float, float, float]

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma) in the order of `iga.overlap`; the query at the origin."""
        q_rot = self.frame.matrix
        k_rot = torch.from_numpy(q_rot.numpy() @ self.turn.matrix.numpy())
        q_sigma, k_sigma, delta = (
            torch.tensor(x, dtype=torch.float64) for x in (self.sigma_i, self.sigma_j, self.delta)
        )
        return q_rot, torch.zeros(3, dtype=torch.float64), q_sigma, k_rot, delta, k_sigma


@dataclass(frozen=True)
class ExactPair:
    """Two Gaussians by all their numbers, as a search found them: for `@example(…)` above a test of `gaussian_pairs`.

    Rotations are three rows. Numbers that float32 has are those numbers when a test casts to it.
    """

    q_rot: Rows
    q_mean: Row
    q_sigma: Row
    k_rot: Rows
    k_mean: Row
    k_sigma: Row

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma), as those of a `GaussianPair`."""
        parts = (self.q_rot, self.q_mean, self.q_sigma, self.k_rot, self.k_mean, self.k_sigma)
        return tuple(torch.tensor(part, dtype=torch.float64) for part in parts)  # pyright: ignore[reportReturnType]


def gaussian_pairs(*, sigma_min: float = 0.03, sigma_max: float = 150.0) -> st.SearchStrategy[GaussianPair]:
    """Pairs with near-degenerate σ, frames turned by nearly 0 or π against each other, and means near or far."""
    sigma = sigmas(sigma_min, sigma_max)
    return st.builds(GaussianPair, axis_angles(), axis_angles(), sigma, sigma, translations())
