"""Gaussians: the floor in both places, indices, conversions, defaults, and the ceiling to the bit."""

import math

import pytest
import torch

from helpers.geometry import close, each_dtype, eps
from iga.frame import Frame
from iga.gaussian import GaussianRigid, floored_sigma
from iga.testing.strategies import filler

FLOORS = ["hard", "smooth"]


def random_gaussians(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> GaussianRigid:
    frame = Frame.random(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    local_mean, log_scale = filler(seed, 2, *shape, 3).to(dtype).unbind(0)
    return GaussianRigid(frame, local_mean, log_scale - 2)


@each_dtype
def test_the_floor_acts_on_the_offset_and_on_the_covariance(dtype):
    collapsed = GaussianRigid(
        Frame.identity(1, dtype=dtype), torch.zeros(1, 3, dtype=dtype), torch.full((1, 3), -30.0, dtype=dtype)
    )
    u, d = torch.full((1, 3), 3.0, dtype=dtype), torch.full((1, 3), -2.0, dtype=dtype)
    for floor in FLOORS:
        moved = collapsed.perturbed(u, d, sigma_min=0.03, floor=floor)
        assert close(moved.local_mean, 0.09, 4 * eps(dtype) * 0.09)
        # log 0.03 = −3.5 is rounded, then exponentiated.
        assert close(moved.sigma, 0.03, 8 * eps(dtype) * 0.03)


@each_dtype
def test_openfold_verbs_read_the_frame(dtype):
    g = random_gaussians(5, dtype=dtype)
    x = filler(9, 5, 3).to(dtype)
    assert g.get_rots().get_rot_mats() is g.frame.rot
    assert g.get_trans() is g.frame.trans
    assert (g.apply(x) == g.frame.apply(x)).all()
    assert (g.invert_apply(x) == g.frame.invert_apply(x)).all()
    assert (g.to_tensor_7() == g.frame.to_tensor_7()).all()
    assert (g.to_tensor_4x4() == g.frame.to_tensor_4x4()).all()


@pytest.mark.parametrize("index", [0, slice(1, None), (slice(None), 2), (..., None), None, [1, 0]], ids=str)
def test_an_index_addresses_all_parts_alike(index):
    g = random_gaussians(2, 3)
    rows = torch.arange(6).reshape(2, 3)[index]
    picked = g[index]
    assert picked.shape == rows.shape
    for name in ("trans", "local_mean", "log_scale", "mean", "sigma"):
        assert (getattr(picked, name) == getattr(g, name).reshape(6, 3)[rows]).all()


def test_conversion_keeps_values_and_refuses_half_precision():
    g = random_gaussians(2, 3)
    double = g.to(torch.float64)
    assert double.dtype == double.sigma.dtype == double.covariance().dtype == torch.float64
    assert (double.log_scale == g.log_scale).all() and (double.trans == g.trans).all()
    assert double.device == g.device
    with pytest.raises(ValueError, match=r"must be float32 or float64.*\.float\(\)"):
        g.to(torch.bfloat16)


@each_dtype
def test_autocast_does_not_reach_gaussians(dtype):
    g = random_gaussians(6, dtype=dtype)
    u, d = filler(1, 2, 6, 4, 3).to(dtype).unbind(0)

    def results() -> list[torch.Tensor]:
        moved = g.perturbed(u, d, sigma_max=150.0, floor="smooth")
        return [moved.mean, moved.sigma, g.covariance(), g.scaled(10.0).mean]

    plain = results()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = results()
    assert all(a.dtype == b.dtype == dtype and (a == b).all() for a, b in zip(plain, cast, strict=True))


@each_dtype
def test_a_ceiling_is_not_passed_by_a_bit_whatever_decimal_it_is(dtype):
    """As a real number, which most decimals are not in any dtype; and reached to the rounding of exp and log."""
    for k in range(1, 400):
        ceiling = 0.037 * k
        sigma = floored_sigma(torch.full((3,), 20.0, dtype=dtype), sigma_min=0.03, sigma_max=ceiling, floor="hard")
        found = sigma.double()
        # ln σ_max is rounded at a size of up to 4, exp errs by an ulp
        assert (found <= ceiling).all() and (found >= ceiling * (1 - 6 * eps(dtype))).all()


def test_a_dtype_may_be_asked_for_by_name():
    g = GaussianRigid(Frame.identity(4), torch.zeros(4, 3), torch.zeros(4, 3)).to(dtype=torch.float64)
    assert g.rot.dtype == g.trans.dtype == g.local_mean.dtype == g.log_scale.dtype == torch.float64


def test_the_default_perturbation_has_the_hard_floor_at_three_hundredths_of_a_nanometre():
    """Exactly: σ = max(e^(log s + d), 0.03), and no ceiling."""
    logs = torch.tensor([[-30.0, 0.0, 9.0]], dtype=torch.float64)
    g = GaussianRigid(Frame.identity(1, dtype=torch.float64), torch.zeros_like(logs), logs)
    found = g.perturbed(torch.ones_like(logs), torch.zeros_like(logs)).local_mean
    assert close(found, torch.tensor([[0.03, 1.0, math.exp(9.0)]], dtype=torch.float64), 2 * 2**-52 * found)
