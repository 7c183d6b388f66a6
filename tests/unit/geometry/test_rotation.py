"""Rotations: degenerate inputs, thresholds to the bit, random draws, and dtypes; the judge is NumPy in float64."""

import math

import pytest
import torch

from helpers.geometry import ANGLES, close, each_dtype, eps, is_rotation, rotations
from iga import rotation
from iga.frame import Frame


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_a_quaternion_without_direction_is_refused(bad):
    with pytest.raises(ValueError, match="quaternion must be finite and not zero, got 1 of 2"):
        rotation.from_quaternion(torch.tensor([[1.0, 0, 0, 0], [bad, 0, 0, 0]]))


@each_dtype
def test_random_rotations_are_haar_uniform(dtype):
    count = 4096
    rot = rotation.random(count, generator=torch.Generator().manual_seed(7), dtype=dtype).double()
    assert is_rotation(rot, 16 * eps(dtype))
    # Each entry is uniform in [−1, 1]: mean 0, variance 1/3; square 1/3, variance 4/45. The angle has the density
    # (1 − cos θ)/π: mean π/2 + 2/π, second moment π²/3 + 2. Six standard errors of the mean of `count`.
    angle = rotation.geodesic_distance(rot, torch.eye(3, dtype=torch.float64))
    mean_angle = math.pi / 2 + 2 / math.pi
    spread = 6 / math.sqrt(count)
    assert close(rot.mean(dim=0), 0.0, spread * math.sqrt(1 / 3))
    assert close(rot.square().mean(dim=0), 1 / 3, spread * math.sqrt(4 / 45))
    assert close(angle.mean(), mean_angle, spread * math.sqrt(math.pi**2 / 3 + 2 - mean_angle**2))


@each_dtype
def test_random_repeats_with_its_generator(dtype):
    first, again = (rotation.random(5, generator=torch.Generator().manual_seed(3), dtype=dtype) for _ in range(2))
    assert first.dtype == dtype
    assert (first == again).all()
    assert rotation.random().shape == (3, 3)


def test_vectors_span_a_plane_from_a_sine_of_the_root_of_eps():
    """In float64 √eps is 2⁻²⁶, and the sine of (1, 0, 0) and (1, 2⁻²⁶, 0) is that to the bit."""
    x = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    for sine, spans in ((2.0**-26, True), (2.0**-26 * (1 - 2**-20), False)):
        rot, valid = rotation.gram_schmidt(x, torch.tensor([1.0, sine, 0.0], dtype=torch.float64))
        assert bool(valid) == spans and torch.equal(rot, torch.eye(3, dtype=torch.float64))


@each_dtype
def test_a_vector_is_zero_below_tiny_over_eps_and_usable_from_there_on(dtype):
    info = torch.finfo(dtype)
    least = info.tiny / info.eps
    sizes = torch.tensor([least, least / 2, 0.0, info.max, math.inf, math.nan], dtype=dtype)
    y = torch.tensor([0.0, 1.0, 0.0], dtype=dtype).expand(6, 3)
    for sign in (1.0, -1.0):
        x = torch.nn.functional.pad(sign * sizes[:, None], (0, 2))
        for vectors in ((x, y), (y, x)):
            rot, valid = rotation.gram_schmidt(*vectors)
            assert valid.tolist() == [True, False, False, True, False, False]
            assert (rot[~valid] == torch.eye(3, dtype=dtype)).all()


@each_dtype
def test_collinear_vectors_are_found_beside_good_ones(dtype):
    x = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [0.0, 0.0, 5.0], [2.0, 0.0, 0.0]], dtype=dtype)
    y = torch.tensor([[3.0, 1.0, 0.0], [-2.0, -4.0, -6.0], [0.0, 1.0, 1.0], [4.0, 0.0, 0.0]], dtype=dtype)
    rot, valid = rotation.gram_schmidt(x, y)
    assert valid.tolist() == [True, False, True, False]
    assert (rot[~valid] == torch.eye(3, dtype=dtype)).all()
    # the same as three points: origin at 0
    _, by_points = Frame.from_backbone(y, torch.zeros_like(x), x, return_valid=True)
    assert by_points.tolist() == valid.tolist()


@each_dtype
def test_a_batch_keeps_the_digits_of_its_smallest_angle(dtype):
    """From 10⁻³⁰ to π: 8 eps relative (see the laws of `geodesic_distance` and `log`); near π, a half turn's 12."""
    rot, angles = rotations(dtype), torch.tensor(ANGLES, dtype=torch.float64)
    distance, vector = rotation.geodesic_distance(rot, torch.eye(3, dtype=dtype)), rotation.log(rot)
    for found in (distance, vector.double().norm(dim=-1)):
        assert close(found, angles, 12 * eps(dtype) * angles)
