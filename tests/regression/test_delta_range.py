"""The δ for which dist_sq keeps its relative budget although products underflow.

Section 5 of docs/theory.md gave a range of σ alone: at σ = 10⁻⁶ nm, inside it, and |δ| = 10⁻³σ the relative error was
83 times the budget. `iga.bounds.delta_floor` gives the range in (σ, δ), for subnormal numbers kept and flushed.
"""

import math
from collections.abc import Iterator

import pytest
import torch

from iga import bounds
from iga.overlap import gaussian_overlap
from iga.rotation import random
from iga.testing.judges.overlap import condition, overlap_reference

U = 2.0**-24


@pytest.fixture(params=[False, True], ids=["kept", "flushed"])
def flushed(request: pytest.FixtureRequest) -> Iterator[bool]:
    if request.param and not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    yield request.param
    torch.set_flush_denormal(False)


def shares(sigma_min: float, kappa: float, reach: float, count: int = 4000) -> torch.Tensor:
    """|error| of dist_sq over its relative budget for pairs with |δ| = `reach` in many directions."""
    g = torch.Generator().manual_seed(0)
    ends = torch.tensor([sigma_min, sigma_min * kappa], dtype=torch.float64)
    # inside the range after rounding, too
    sigma = [(ends[torch.randint(0, 2, (count, 3), generator=g)]).clamp(sigma_min, sigma_min * kappa) for _ in "ij"]
    sigma = [(s * (1 + (s < 2 * sigma_min) * 1e-6)).float() for s in sigma]
    rot = random(count, generator=g)
    other = torch.where(torch.rand(count, 1, 1, generator=g) < 0.5, rot, random(count, generator=g))
    exponents = torch.randint(-12, 1, (count, 3), generator=g, dtype=torch.float64)
    axes = torch.nn.functional.normalize(
        10.0**exponents * torch.randn(count, 3, generator=g, dtype=torch.float64), dim=-1
    )
    # along the axes of a frame as often as not: where long axes meet T is small, and its square underflows first
    mean = (rot.double() * axes[:, None, :]).sum(-1) * reach
    pair = (rot, mean.float(), sigma[0], other, torch.zeros(count, 3), sigma[1])
    found = gaussian_overlap(*pair)[0].double()
    exact = overlap_reference(*(x.double() for x in pair))[0]
    k = condition(pair[2], pair[5])
    budget = bounds.dist_sq_budget(k, torch.float32, roundings=bounds.REFERENCE) + (5 + 3 * k) * U
    return (found - exact).abs() / (budget * exact)


@pytest.mark.parametrize(
    ("sigma_min", "kappa"), [(1e-6, 1.0), (1e-6, 100.0), (3e-5, 10.0), (0.03, 5000.0), (1e3, 50.0)]
)
def test_from_the_floor_of_delta_on_the_relative_budget_holds(sigma_min, kappa, flushed):
    if flushed:
        sigma_min = max(sigma_min, 9e-6)
    least = bounds.delta_floor(sigma_min, kappa, torch.float32, flushed=flushed)
    for factor in (1.0 + 1e-6, 3.0, 1e3):
        share = shares(sigma_min, kappa, least * factor)
        assert share.isfinite().all() and (share <= 1).all()


def test_the_old_statement_breaks_inside_the_range_of_sigma_and_under_the_floor_of_delta():
    sigma, delta = 1e-6, 1e-9
    assert bounds.sigma_range(0.0, torch.float32, gradients=False)[0] < sigma
    assert delta < bounds.delta_floor(sigma, 1.0, torch.float32)
    assert shares(sigma, 1.0, delta).max() > 10


def test_under_the_floor_the_absolute_error_is_two_units_at_most():
    g = torch.Generator().manual_seed(1)
    rot, other = random(2000, generator=g), random(2000, generator=g)
    sigma = torch.full((2000, 3), 1e-6)
    for delta in (1e-9, 1e-8, 1e-12):
        mean = delta * torch.randn(2000, 3, generator=g)
        pair = (rot, mean, sigma, other, torch.zeros(2000, 3), sigma)
        exact = overlap_reference(*(x.double() for x in pair))[0]
        budget = bounds.dist_sq_budget(1.0, torch.float32, roundings=bounds.REFERENCE) * exact + 2 * U
        assert ((gaussian_overlap(*pair)[0].double() - exact).abs() <= budget).all()


def test_the_floor_is_the_number_of_its_theorem():
    tiny = 2.0**-126
    for sigma, kappa in ((1e-6, 1.0), (0.03, 5000.0), (1e5, 2.0)):
        expected = max(3 / sigma**2, math.sqrt(12) * kappa**1.5, 2 * kappa * sigma)
        for flushed, t in ((False, tiny), (True, tiny / U)):
            found = bounds.delta_floor(sigma, kappa, torch.float32, flushed=flushed)
            if flushed and sigma < 8.7e-6:  # a term of det is lost with a share of det that is over u
                assert found == math.inf == bounds.delta_floor(torch.tensor(sigma), kappa, torch.float32, flushed=True)
                continue
            assert found == pytest.approx(expected * math.sqrt(t), rel=1e-14)
    tensors = bounds.delta_floor(torch.tensor([1e-6, 0.03], dtype=torch.float64), 1.0, torch.float32)
    assert tensors[0] == pytest.approx(bounds.delta_floor(1e-6, 1.0, torch.float32), rel=1e-14)


def test_a_square_root_that_is_an_ulp_low_falls_under_the_floor_and_its_own_budget_holds():
    """6.5 said that no computed σ lies under σ_min: that needs a root which rounds correctly, as PTX's does not."""
    for sigma_min in torch.logspace(-3, 2, 40).tolist():
        rounded = torch.tensor(sigma_min)
        low = torch.nextafter(rounded.square().sqrt(), torch.tensor(0.0))  # sqrt.approx: 1 ulp
        assert low < rounded
        loss = 3 * math.log(2 * float(rounded) ** 2) - 3 * math.log(2 * float(low) ** 2)
        right, approximate = (bounds.log_det_floor_budget(torch.float32, sigma_min, root=root) for root in (0.0, 2.0))
        assert 0 < loss <= (approximate - right) * (1 + 1e-6) and approximate - right == pytest.approx(15 * U)
