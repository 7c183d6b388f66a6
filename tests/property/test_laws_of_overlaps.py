"""The closed form is the overlap: within its budget on drawn pairs in float32, and exactly in rational numbers.

The budgets are those of `iga.bounds`, docs/theory.md, section 6; the judges share no code with `iga.overlap`. A pair is
drawn as numbers a person can read: angle, exponents of σ and of δ.
"""

import inspect
import math
from fractions import Fraction

import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.overlap import SINGLE, assert_overlap_within
from iga.overlap import closed_form
from iga.search.pairs import decode
from iga.testing.judges.overlap import overlap_reference


@st.composite
def genomes(draw, twins=False):
    """One pair: rotation vector of frame i, axis and log10 angle of the turn to frame j, σ and |δ| by exponents."""
    component = st.integers(-4, 4).map(lambda k: k / 2)
    frame = [draw(component) for _ in range(3)]
    axis = draw(st.tuples(component, component, component).filter(any))
    angle = draw(st.one_of(st.integers(-7, 0).map(float), st.floats(-7, math.log10(math.pi))))
    exponent = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
    low, high = math.log(SINGLE.sigma_min), math.log(SINGLE.sigma_max)
    sigma = [low + (high - low) * draw(exponent) for _ in range(6)]
    if twins:
        sigma[3:] = sigma[:3]
    size = [float(draw(st.integers(-6, 2))) for _ in range(3)]
    sign = [draw(st.sampled_from([-1.0, 1.0])) for _ in range(3)]
    mean = [draw(st.sampled_from([0.0, 1.0, -20.0])) for _ in range(3)]
    return torch.tensor([[*frame, *axis, angle, *sigma, *size, *sign, *mean]], dtype=torch.float64)


@given(genomes())
def test_float32_is_within_its_budget_of_the_float64_reference(genome):
    pairs = decode(genome, SINGLE)
    assert_overlap_within(pairs, overlap_reference(*pairs), torch.float32)


@given(genomes(twins=True))
def test_twins_in_nearly_shared_frames_are_within_the_budget_too(genome):
    pairs = decode(genome, SINGLE)
    assert_overlap_within(pairs, overlap_reference(*pairs), torch.float32)


class Exact(Fraction):
    """A rational that answers the two methods of a tensor that the closed form calls; its log is itself."""

    def square(self):
        return Exact(self * self)

    def log(self):
        return self

    def __add__(self, other):
        return Exact(Fraction(self) + other)

    def __sub__(self, other):
        return Exact(Fraction(self) - other)

    def __mul__(self, other):
        return Exact(Fraction(self) * other)

    def __truediv__(self, other):
        return Exact(Fraction(self) / other)


@given(st.lists(st.integers(-9, 9), min_size=8, max_size=8), st.lists(st.integers(-30, 30), min_size=9, max_size=9))
def test_the_closed_form_is_an_identity_of_rational_numbers(quaternions, rest):
    """The code itself in exact arithmetic: num/det = δᵀ(X+Y)⁻¹δ and det = det(X+Y), as polynomials."""
    r_i, r_j = rational_rotation(quaternions[:4]), rational_rotation(quaternions[4:])
    delta, v_i, v_j = rest[:3], [Exact(abs(x) + 1) for x in rest[3:6]], [Exact(abs(x) + 1) for x in rest[6:]]
    into = lambda r: tuple(sum((r[a][k] * delta[a] for a in range(3)), Exact(0)) for k in range(3))  # noqa: E731
    q = tuple(
        tuple(sum((r_i[a][k] * r_j[a][l] for a in range(3)), Exact(0)) for l in range(3))  # noqa: E741
        for k in range(3)
    )
    dist_sq, det = inspect.unwrap(closed_form)(q, into(r_i), into(r_j), tuple(v_i), tuple(v_j))
    sigma = [
        [sum(r[a][k] * r[b][k] * v[k] for r, v in ((r_i, v_i), (r_j, v_j)) for k in range(3)) for b in range(3)]
        for a in range(3)
    ]
    minors = [
        [
            sigma[(a + 1) % 3][(b + 1) % 3] * sigma[(a + 2) % 3][(b + 2) % 3]
            - sigma[(a + 1) % 3][(b + 2) % 3] * sigma[(a + 2) % 3][(b + 1) % 3]
            for b in range(3)
        ]
        for a in range(3)
    ]
    expected = sum(sigma[0][b] * minors[0][b] for b in range(3))
    assert det == expected
    assert dist_sq * expected == sum(delta[a] * minors[a][b] * delta[b] for a in range(3) for b in range(3))


def rational_rotation(quaternion):
    """A rotation with rational entries: that of an integer quaternion (the identity for zero)."""
    w, x, y, z = (Exact(c) for c in (quaternion if any(quaternion) else (1, 0, 0, 0)))
    n = w * w + x * x + y * y + z * z
    rows = (
        (w * w + x * x - y * y - z * z, (x * y - w * z) * Exact(2), (x * z + w * y) * Exact(2)),
        ((x * y + w * z) * Exact(2), w * w - x * x + y * y - z * z, (y * z - w * x) * Exact(2)),
        ((x * z - w * y) * Exact(2), (y * z + w * x) * Exact(2), w * w - x * x - y * y + z * z),
    )
    return [[entry / n for entry in row] for row in rows]
