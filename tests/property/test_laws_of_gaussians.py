"""Laws of GaussianRigid and of the floor of σ; the judge is NumPy in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.geometry import close, each_dtype, eps
from iga.frame import Frame
from iga.gaussian import GaussianRigid, floored_sigma
from iga.testing.strategies import AxisAngle, axis_angles, filler, seeds, sigmas, translations

Vector = tuple[float, float, float]
FLOORS = ["hard", "smooth"]
each_floor = pytest.mark.parametrize("floor", FLOORS)
# Most decimal fractions have no exact binary form: about half round down, under the floor.
floor_lengths = st.sampled_from([0.03, 1e-6, 1.0]) | st.integers(1, 10**6).map(lambda k: k * 1e-6)


def gaussian_of(turn: AxisAngle, shift: Vector, mean: Vector, sigma: Vector, dtype: torch.dtype) -> GaussianRigid:
    trans, local_mean, scale = (torch.tensor(x, dtype=dtype) for x in (shift, mean, sigma))
    return GaussianRigid(Frame(turn.matrix.to(dtype), trans), local_mean, scale.log())


def random_gaussians(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> GaussianRigid:
    frame = Frame.random(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    local_mean, log_scale = filler(seed, 2, *shape, 3).to(dtype).unbind(0)
    return GaussianRigid(frame, local_mean, log_scale - 2)


@each_dtype
@given(turn=axis_angles(), sigma=sigmas())
def test_covariance_is_r_diag_r_transposed_and_symmetric_to_the_bit(dtype, turn, sigma):
    g = gaussian_of(turn, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), sigma, dtype)
    found = g.covariance()
    rot, s = g.rot.double().numpy(), np.exp(g.log_scale.double().numpy())
    assert found.dtype == dtype
    assert (found == found.mT).all()
    # exp is good to 2 eps, its square to 4; three products of two rounded factors: 3 eps more.
    assert close(found, rot @ np.diag(s**2) @ rot.T, 8 * eps(dtype) * s.max() ** 2)


@each_dtype
@given(turn=axis_angles(), shift=translations(), mean=translations(high=0))
def test_mean_is_the_local_mean_seen_from_outside(dtype, turn, shift, mean):
    g = gaussian_of(turn, shift, mean, (1.0, 1.0, 1.0), dtype)
    rot, trans, local = (x.double().numpy() for x in (g.rot, g.trans, g.local_mean))
    scale = float(np.linalg.norm(trans) + np.linalg.norm(local))
    assert close(g.mean, rot @ local + trans, 2 * eps(dtype) * scale)
    assert close(g.invert_apply(g.mean), local, 8 * eps(dtype) * scale)


@each_dtype
@given(turn=axis_angles(), shift=translations(), mean=translations(high=0), sigma=sigmas(), c=st.integers(-3, 3))
def test_a_change_of_unit_scales_every_length(dtype, turn, shift, mean, sigma, c):
    g = gaussian_of(turn, shift, mean, sigma, dtype)
    factor = 10.0**c
    scaled = g.scaled(factor)
    scale = float(g.trans.double().norm() + g.local_mean.double().norm())
    assert (scaled.rot == g.rot).all()
    assert close(scaled.trans, factor * g.trans.double(), eps(dtype) * factor * scale)
    assert close(scaled.mean, factor * g.mean.double(), 6 * eps(dtype) * factor * scale)
    # The log scale is rounded at a size of up to |ln s| + |ln c|, then exponentiated.
    logs = float(g.log_scale.abs().max()) + abs(math.log(factor))
    expected = factor * g.log_scale.double().exp()
    assert close(scaled.sigma, expected, (4 + 2 * logs) * eps(dtype) * expected)
    for name in ("trans", "local_mean", "log_scale"):
        assert (getattr(g.scale_translation(factor), name) == getattr(scaled, name)).all()


@each_dtype
@each_floor
@pytest.mark.parametrize("sigma_max", [None, 0.2])
@pytest.mark.parametrize("points", [(), (4,), (2, 3)], ids=str)
@given(seed=seeds())
def test_perturbed_moves_by_u_sigmas_and_scales_by_e_to_the_d(dtype, floor, sigma_max, points, seed):
    g = random_gaussians(2, 3, dtype=dtype, seed=seed)
    u, d = (x.to(dtype) for x in filler(seed + 1, 2, 2, 3, *points, 3).tanh() * 2)
    moved = g.perturbed(u, d, sigma_min=0.03, sigma_max=sigma_max, floor=floor)

    # Theory, section 1, in NumPy.
    def spread(x: torch.Tensor) -> np.ndarray:
        return x.double().numpy().reshape(2, 3, *(1,) * len(points), *x.shape[2:])

    e = np.exp(spread(g.log_scale) + d.double().numpy())
    e = np.minimum(e, sigma_max) if sigma_max else e
    sigma = np.maximum(e, 0.03) if floor == "hard" else np.sqrt(e**2 + 0.03**2)
    local = spread(g.local_mean) + u.double().numpy() * sigma
    # Logs of size up to 10 rounded twice, then exponentiated: 2 · 10 eps relative.
    limit = 24 * eps(dtype) * sigma
    assert close(moved.sigma, sigma, torch.from_numpy(limit))
    assert close(moved.local_mean, local, torch.from_numpy(2 * limit + 4 * eps(dtype) * np.abs(local)))
    assert close(moved.rot, np.broadcast_to(spread(g.rot), moved.rot.shape).copy(), 0.0)
    assert close(moved.trans, np.broadcast_to(spread(g.trans), moved.trans.shape).copy(), 0.0)
    assert moved.shape == (2, 3, *points)
    assert moved.dtype == dtype


@each_dtype
@each_floor
@given(exponent=st.integers(-300, 300), sigma_min=floor_lengths, sigma_max=st.sampled_from([None, 10.0, 148.0]))
def test_sigma_is_never_under_its_floor_nor_over_its_ceiling_by_a_single_bit(
    dtype, floor, exponent, sigma_min, sigma_max
):
    ceiling = 150.0 if sigma_max is None else sigma_max
    log_sigma = torch.tensor([float(exponent), math.log(sigma_min), math.log(ceiling)], dtype=dtype)
    if sigma_max is None:
        log_sigma = log_sigma.clamp(max=40.0)
    sigma = floored_sigma(log_sigma, sigma_min=sigma_min, sigma_max=sigma_max, floor=floor).double()
    assert sigma.isfinite().all()
    # As real numbers, not as numbers of the dtype: float32(0.03) itself lies under 0.03.
    assert (sigma >= sigma_min).all()
    if sigma_max is not None and floor == "hard":
        assert (sigma <= sigma_max).all()
    if sigma_max is not None and floor == "smooth":
        assert (sigma <= math.hypot(sigma_max, sigma_min) * (1 + 2 * eps(dtype))).all()


@each_dtype
@each_floor
@given(exponents=st.lists(st.integers(-400, 400), min_size=2, max_size=6), sigma_min=floor_lengths)
def test_sigma_grows_with_its_log(dtype, floor, exponents, sigma_min):
    logs = torch.tensor(sorted(exponents), dtype=dtype) / 100
    sigma = floored_sigma(logs, sigma_min=sigma_min, sigma_max=20.0, floor=floor)
    # exp may fall back by its own error.
    assert (sigma[1:] >= sigma[:-1] * (1 - 2 * eps(dtype))).all()


@each_dtype
@given(exponent=st.integers(-200, 40), sigma_min=floor_lengths)
def test_gradients_of_the_floors_are_those_of_their_formulas(dtype, exponent, sigma_min):
    def log_gradient(value: float, floor: str, sigma_max: float | None = None) -> torch.Tensor:
        log_sigma = torch.tensor([value], dtype=dtype, requires_grad=True)
        log = floored_sigma(log_sigma, sigma_min=sigma_min, sigma_max=sigma_max, floor=floor).log()
        return torch.autograd.grad(log.sum(), log_sigma)[0]

    value = exponent / 4
    e = math.exp(value)
    assert close(log_gradient(value, "smooth"), e**2 / (e**2 + sigma_min**2), 16 * eps(dtype))
    if abs(value - math.log(sigma_min)) > 1e-3:
        assert close(log_gradient(value, "hard"), 1.0 if e > sigma_min else 0.0, 4 * eps(dtype))
    for floor in FLOORS:
        above = log_gradient(1e4, floor, sigma_max=20.0)
        assert (above == 0).all()


@each_dtype
@given(turn=axis_angles(), update=axis_angles(), shift=translations(high=0))
def test_compose_moves_the_frame_and_leaves_the_gaussian_in_it(dtype, turn, update, shift):
    g = gaussian_of(turn, shift, (1.0, 0.0, -1.0), (0.1, 1.0, 10.0), dtype)
    other = Frame(update.matrix.to(dtype), torch.tensor(shift, dtype=dtype))
    moved = g.compose(other)
    expected = g.frame.compose(other)
    assert (moved.rot == expected.rot).all() and (moved.trans == expected.trans).all()
    assert (moved.local_mean == g.local_mean).all() and (moved.log_scale == g.log_scale).all()
