"""Budgets of any overlap function (theory.md, 14): enough for every perturbation that they allow, and needed by one."""

import math

import pytest
import torch

from helpers.bounds import generator, pairs
from iga.testing.judges.overlap import condition
from iga.testing.overlap import budgets

SIZE = 1e-7  # p u of the perturbations; second order is a 10⁻⁴ of the first at κ = 10³


def factors(count: int, kappa: float, seed: int):
    """(F [n, 6, 3], δ [n, 3], smallest σ): pairs drawn to a κ at most, and spheres as the first."""
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = pairs(count, seed=seed)
    low = torch.minimum(q_sigma.amin(-1), k_sigma.amin(-1))[:, None]
    q_sigma, k_sigma = (torch.minimum(x, kappa * low) for x in (q_sigma, k_sigma))
    q_sigma[0] = k_sigma[0] = low[0]
    f = torch.cat([q_sigma[..., None] * q_rot.mT, k_sigma[..., None] * k_rot.mT], 1)
    return f, q_mean - k_mean, low[:, 0], condition(q_sigma, k_sigma)


def solved(f, delta):
    """dist_sq [n], y [n, 3] and w = F y [n, 6] by QR in float64."""
    q, r = torch.linalg.qr(f)
    half = torch.linalg.solve_triangular(r.mT, delta[..., None], upper=False)
    y = torch.linalg.solve_triangular(r, half, upper=True)[..., 0]
    return half[..., 0].square().sum(-1), y, (q @ half)[..., 0]


def perturbed(f, delta, seed):
    """F and δ moved by all that is allowed: at random, or as hurts dist_sq most."""
    size = SIZE * torch.linalg.matrix_norm(f, 2)
    if seed is None:
        _, y, w = solved(f, delta)
        unit = y / y.norm(dim=-1, keepdim=True)
        by = -(w / w.norm(dim=-1, keepdim=True))[..., :, None] * unit[..., None, :]
        return f + size[:, None, None] * by, delta + SIZE * delta.norm(dim=-1, keepdim=True) * unit
    g = generator(seed)
    by = torch.randn(f.shape, generator=g, dtype=torch.float64)
    moved = torch.randn(delta.shape, generator=g, dtype=torch.float64)
    by = by / torch.linalg.matrix_norm(by, 2)[:, None, None]
    moved = moved / moved.norm(dim=-1, keepdim=True)
    return f + size[:, None, None] * by, delta + SIZE * delta.norm(dim=-1, keepdim=True) * moved


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
@pytest.mark.parametrize("kappa", [1.0, 3.0, 1000.0])
def test_what_the_hypothesis_allows_is_within_the_budgets(kappa: float, seed: int | None) -> None:
    f, delta, smallest, ratio = factors(4000, kappa, 21)
    dist_sq, y, w = solved(f, delta)
    able = dist_sq > 1e-12
    moved, new_y, new_w = solved(*perturbed(f, delta, seed))
    room = 1.02  # second order, and the float64 of this very computation
    assert able.sum() > 3000 and moved.isfinite().all()
    assert ((moved - dist_sq).abs() <= room * SIZE * (2.6 * ratio + 1.4) * dist_sq)[able].all()
    force = dist_sq.sqrt() * 2**0.5 / smallest
    assert ((2 * (new_y - y)).norm(dim=-1) <= room * SIZE * (2.42 * ratio + 0.6) * force)[able].all()
    by_scale = 2 * (new_w.square() - w.square()).abs().amax(-1)
    assert (by_scale <= room * SIZE * (8 * ratio + 1) * dist_sq)[able].all()


def test_spheres_need_more_than_the_old_constants() -> None:
    """14.1 and 14.2 forgot that δ errs as well: 2pκu and 2pκu √2√dist_sq/m_σ are too little for two equal spheres."""
    f, delta, smallest, _ = factors(2, 1.0, 22)
    dist_sq, y, _ = solved(f, delta)
    moved, new_y, _ = solved(f * (1 - SIZE), delta * (1 + SIZE))
    assert float((moved - dist_sq)[0] / dist_sq[0]) > 1.9 * 2 * SIZE
    old = 2 * SIZE * dist_sq[0].sqrt() * 2**0.5 / smallest[0]
    assert float((2 * (new_y - y)[0]).norm() / old) > 1.4


def test_the_constants_of_values_and_forces_are_above_the_maxima_that_theory_states() -> None:
    for kappa in torch.logspace(0, 4, 200, dtype=torch.float64):
        q = 1 + (kappa - 1) * torch.linspace(0, 1, 4001, dtype=torch.float64)
        root = (1 + kappa**2 - q**2).clamp(min=0).sqrt()
        assert float((q / kappa * (root + kappa)).amax()) <= 1.3 * float(kappa) + 0.7
        assert float((root + kappa + q).amax()) <= 2.42 * float(kappa) + 0.6 + 1e-12
        assert float((q**2 + (root + kappa) ** 2).amax().sqrt()) <= 2 * float(kappa) + 0.25


def test_beyond_first_order_nothing_is_claimed() -> None:
    limit = 0.125 / (2 * budgets.BACKWARD * 2.0**-24)
    one = torch.ones(2, dtype=torch.float64)
    kappa = torch.tensor([0.99 * limit, 1.01 * limit], dtype=torch.float64)
    found = budgets.value_budgets(one, one, kappa, torch.float32)["dist_sq"]
    assert found[0] < 0.25 and found[1] == math.inf
