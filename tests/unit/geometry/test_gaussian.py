"""Gaussians: the floor in both places, indices, conversions, defaults, and the ceiling to the bit."""

import math

import pytest
import torch

from helpers.geometry import close, each_dtype, eps
from iga.frame import Frame
from iga.gaussian import GaussianRigid, floored_sigma
from iga.testing.strategies import filler

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


def test_gaussians_around_a_rigid_object_are_spheres_of_a_tenth_of_a_nanometre_at_its_origin_unless_told():
    frame = Frame.random(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, logs = filler(1, 2, 4, 3).unbind(0)
    for make, rounded in (
        (lambda **given: GaussianRigid.around(frame, **given), 0.0),
        (lambda **given: GaussianRigid.from_tensor_7(frame.to_tensor_7(), **given), 16 * eps(torch.float64)),
        (lambda **given: GaussianRigid.from_tensor_4x4(frame.to_tensor_4x4(), **given), 0.0),
    ):
        for options, sigma in (({}, 0.1), ({"sigma": 0.5}, 0.5)):
            g = make(**options)
            assert close(g.rot, frame.rot, rounded) and torch.equal(g.trans, frame.trans) and (g.local_mean == 0).all()
            assert close(g.log_scale, math.log(sigma), 2 * eps(torch.float64))
        g = make(local_mean=mean.float(), log_scale=logs.float())
        assert torch.equal(g.local_mean, mean.float().double()) and torch.equal(g.log_scale, logs.float().double())
    half = GaussianRigid(frame, mean.half(), logs.half())
    assert torch.equal(half.local_mean, mean.half().double()) and torch.equal(half.log_scale, logs.half().double())
    assert GaussianRigid.identity(2, 3).shape == (2, 3)
    for options, sigma in (({}, 0.1), ({"sigma": 0.5}, 0.5)):
        g = GaussianRigid.identity(2, dtype=torch.float64, **options)
        assert (g.rot == torch.eye(3)).all() and (g.trans == 0).all()
        assert close(g.sigma, sigma, 4 * eps(torch.float64))


def test_gaussians_around_a_rigid_object_are_refused_by_the_name_of_what_does_not_fit():
    frame, good = Frame.identity(4), torch.zeros(4, 3)
    with pytest.raises(ValueError, match="^sigma must be a finite number > 0"):
        GaussianRigid.around(frame, sigma=0.0)
    for name in ("local_mean", "log_scale"):
        with pytest.raises(ValueError, match=f"^{name} must be one of float16, bfloat16, float32, float64"):
            GaussianRigid.around(frame, **{name: good.long()})
