"""Gaussians: the floor in both places, indices, conversions, defaults, and the ceiling to the bit."""

import math

import torch

from helpers.geometry import close, each_dtype, eps
from iga.frame import Frame
from iga.gaussian import GaussianRigid, floored_sigma

FLOORS = ["hard", "smooth"]


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
def test_a_ceiling_is_not_passed_by_a_bit_whatever_decimal_it_is(dtype):
    """As a real number, which most decimals are not in any dtype; and reached to the rounding of exp and log."""
    for k in range(1, 400):
        ceiling = 0.037 * k
        sigma = floored_sigma(torch.full((3,), 20.0, dtype=dtype), sigma_min=0.03, sigma_max=ceiling, floor="hard")
        found = sigma.double()
        # ln σ_max is rounded at a size of up to 4, exp errs by an ulp
        assert (found <= ceiling).all() and (found >= ceiling * (1 - 6 * eps(dtype))).all()


def test_the_default_perturbation_has_the_hard_floor_at_three_hundredths_of_a_nanometre():
    """Exactly: σ = max(e^(log s + d), 0.03), and no ceiling."""
    logs = torch.tensor([[-30.0, 0.0, 9.0]], dtype=torch.float64)
    g = GaussianRigid(Frame.identity(1, dtype=torch.float64), torch.zeros_like(logs), logs)
    found = g.perturbed(torch.ones_like(logs), torch.zeros_like(logs)).local_mean
    assert close(found, torch.tensor([[0.03, 1.0, math.exp(9.0)]], dtype=torch.float64), 2 * 2**-52 * found)
