"""The closed form's values on many degenerate pairs: its budget, its symmetries and its edges.

Tolerances are the budgets of `iga.bounds`, derived in docs/theory.md, section 6 and 9; the judges share no code with
`iga.overlap`.
"""

import inspect
import math

import pytest
import torch

from helpers.overlap import DOMAINS, DOUBLE, SINGLE, assert_overlap_within, assert_within, batch, budgets
from iga import bounds, overlap
from iga.overlap import gaussian_overlap
from iga.search.pairs import Domain, decode, degenerate_pairs
from iga.testing.judges.overlap import condition, nearest_rotation, overlap_digits, overlap_reference


@pytest.mark.parametrize("sigma_max", [0.05, 3.0, 150.0, 1000.0])
def test_degenerate_pairs_are_within_the_budget_at_every_condition(sigma_max):
    pairs = batch(Domain(sigma_max=sigma_max))
    assert_overlap_within(pairs, overlap_reference(*pairs), torch.float32)


def test_the_budget_also_holds_against_the_nearest_rotations():
    pairs = batch(SINGLE, seed=1)
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = pairs
    reference = overlap_reference(nearest_rotation(q_rot), q_mean, q_sigma, nearest_rotation(k_rot), k_mean, k_sigma)
    assert_overlap_within(pairs, reference, torch.float32)


@DOMAINS
def test_the_budget_holds_against_fifty_digits(domain):
    pairs = batch(domain, count=300, seed=2)
    assert_overlap_within(pairs, overlap_digits(*pairs), domain.dtype)


def test_the_two_judges_agree_far_below_what_they_judge():
    pairs = batch(SINGLE, count=300, seed=3)
    coarse, fine = overlap_reference(*pairs), overlap_digits(*pairs)
    kappa = condition(pairs[2], pairs[5])
    # Householder QR of a 6×3 matrix: 6·3^{3/2} ≈ 31 times 2 u₆₄ for each of factor, solve and norm
    slack = 200 * kappa * 2.0**-53
    assert_within(coarse[0], fine[0], slack * fine[0])
    assert_within(coarse[1], fine[1], slack + 2.0**-50 * fine[1].abs())


def test_the_budget_rejects_a_T_that_was_formed_in_the_global_frame():
    """(R_i e_k × R_j e_l)·δ is the same number, and loses κ² instead of κ: the budget must tell them apart."""
    genome = degenerate_pairs(20000, torch.Generator().manual_seed(4), SINGLE)
    genome[:, 7:13] = math.log(0.03)
    genome[:, [7, 10]] = math.log(150.0)  # parallel needles, δ along them
    genome[:, 14:16] = -7.0
    pairs = decode(genome, SINGLE)
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = pairs
    v_i, v_j, delta = q_sigma.square(), k_sigma.square(), q_mean - k_mean
    w_i, w_j = v_i[..., [1, 2, 0]] * v_i[..., [2, 0, 1]], v_j[..., [1, 2, 0]] * v_j[..., [2, 0, 1]]
    g = (q_rot * delta[..., :, None]).sum(-2)
    h = (k_rot * delta[..., :, None]).sum(-2)
    num = (w_i * g.square()).sum(-1) + (w_j * h.square()).sum(-1)
    for k in range(3):
        for l in range(3):  # noqa: E741
            cross = torch.linalg.cross(q_rot[..., k], k_rot[..., l])
            num = num + v_i[..., k] * v_j[..., l] * (cross * delta).sum(-1).square()
    reference = overlap_reference(*pairs)
    by_dist_sq, _ = budgets(pairs, torch.float32, dist_sq=reference[0], log_det=reference[1])
    assert_within(gaussian_overlap(*pairs)[0], reference[0], by_dist_sq)
    with pytest.raises(AssertionError, match="over budget"):
        assert_within(num.double() / reference[1].exp(), reference[0], by_dist_sq)


@DOMAINS
def test_the_overlap_is_symmetric_under_exchange(domain):
    pairs = batch(domain, seed=5)
    dist_sq, log_det = gaussian_overlap(*pairs)
    by_dist_sq, by_log_det = budgets(pairs, domain.dtype, dist_sq=dist_sq.double(), log_det=log_det.double())
    swapped = gaussian_overlap(*pairs[3:], *pairs[:3])
    assert_within(swapped[0], dist_sq.double(), 2 * by_dist_sq)
    assert_within(swapped[1], log_det.double(), 2 * by_log_det)


@pytest.mark.parametrize("far", [0.0, 10.0, 1000.0], ids="{:g} nm".format)
@DOMAINS
def test_the_overlap_is_invariant_under_a_shared_rigid_motion(domain, far):
    """Frames and means of float64 are moved, rounded once, and compared with the unmoved ones, rounded once."""
    exact = batch(DOUBLE, seed=6)
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = exact
    turn = nearest_rotation(torch.randn(3, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64))
    shift = far * turn[:, 0]

    def moved(rot, mean):
        return (turn[:, :, None] * rot[:, None, :, :]).sum(-2), (turn * mean[:, None, :]).sum(-1) + shift

    def rounded(q, k):
        placed = (q[0], q[1], q_sigma, k[0], k[1], k_sigma)
        return gaussian_overlap(*(x.to(domain.dtype) for x in placed)), q[1].norm(dim=-1) + k[1].norm(dim=-1)

    (dist_sq, log_det), reach = rounded((q_rot, q_mean), (k_rot, k_mean))
    (other_dist_sq, other_log_det), other_reach = rounded(moved(q_rot, q_mean), moved(k_rot, k_mean))
    u = bounds.unit_roundoff(domain.dtype)
    kappa = condition(q_sigma, k_sigma)
    shortest = torch.minimum(q_sigma.amin(-1), k_sigma.amin(-1))
    # in float64 the motion itself, 3×3 products in float64, rounds as much again: 5 roundings of means, 4 of frames
    slack, wobble = (1, bounds.ROUNDED_DRIFT) if domain is SINGLE else (6, 6.0)
    true_dist_sq, true_log_det = overlap_reference(*exact)
    budget = 0.0
    for length in (reach, other_reach):
        # σ rounded to float32 once more moves every σ by u: 2u of dist_sq, 6u of log_det
        slip = bounds.displacement_bound(slack * u * length, shortest)
        budget = budget + bounds.moved_dist_sq_budget(true_dist_sq, kappa, domain.dtype, drift=wobble, moved=slip)
    budget = budget + 4 * u * true_dist_sq
    assert_within(other_dist_sq, dist_sq.double(), budget)
    by_log_det = bounds.log_det_budget(kappa, domain.dtype, magnitude=true_log_det.abs(), drift=wobble)
    assert_within(other_log_det, log_det.double(), 2 * by_log_det + 12 * u)


@DOMAINS
def test_a_unit_of_length_that_is_a_power_of_two_changes_no_bit_of_dist_sq(domain):
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = batch(domain, seed=8)
    dist_sq, log_det = gaussian_overlap(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma)
    for c in (0.25, 8.0):
        scaled = gaussian_overlap(q_rot, c * q_mean, c * q_sigma, k_rot, c * k_mean, c * k_sigma)
        assert torch.equal(scaled[0], dist_sq)
        # one ulp of each of the two logarithms, and the rounding of what is expected
        expected = log_det.double() + 6 * math.log(c)
        size = log_det.double().abs() + 2 * expected.abs()
        assert_within(scaled[1], expected, 2 * bounds.unit_roundoff(domain.dtype) * size)


@DOMAINS
def test_nanometres_to_angstrom_keeps_dist_sq_and_adds_six_ln_ten_to_log_det(domain):
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = pairs = batch(domain, seed=9)
    dist_sq, log_det = (x.double() for x in gaussian_overlap(*pairs))
    scaled = gaussian_overlap(q_rot, 10 * q_mean, 10 * q_sigma, k_rot, 10 * k_mean, 10 * k_sigma)
    u = bounds.unit_roundoff(domain.dtype)
    by_dist_sq, by_log_det = budgets(pairs, domain.dtype, dist_sq=dist_sq, log_det=log_det.abs() + 6 * math.log(10))
    # means and σ were rounded once when multiplied by ten
    shortest = torch.minimum(q_sigma.amin(-1), k_sigma.amin(-1)).double()
    slip = bounds.displacement_bound(u * (q_mean.double().norm(dim=-1) + k_mean.double().norm(dim=-1)), shortest)
    moved = 2 * dist_sq.sqrt() * slip + slip.square() + 2 * u * dist_sq
    assert_within(scaled[0], dist_sq, 2.1 * by_dist_sq + 1.1 * moved)
    assert_within(scaled[1], log_det + 6 * math.log(10), 2 * by_log_det + 6 * u)


@DOMAINS
def test_dist_sq_grows_with_the_square_of_the_distance(domain):
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = batch(domain, seed=10)
    delta, origin = q_mean - k_mean, torch.zeros_like(k_mean)
    near = gaussian_overlap(q_rot, delta, q_sigma, k_rot, origin, k_sigma)
    far = gaussian_overlap(q_rot, 2 * delta, q_sigma, k_rot, origin, k_sigma)
    assert torch.equal(far[0], 4 * near[0]) and torch.equal(far[1], near[1])


@DOMAINS
def test_widening_a_gaussian_never_raises_dist_sq_nor_lowers_log_det(domain):
    pairs = batch(domain, seed=11)
    dist_sq, log_det = (x.double() for x in gaussian_overlap(*pairs))
    for axis in range(3):
        wider = pairs[2].clone()
        wider[..., axis] *= 1.5
        wide = (*pairs[:2], wider, *pairs[3:])
        less, more = (x.double() for x in gaussian_overlap(*wide))
        by_dist_sq, by_log_det = budgets(wide, domain.dtype, dist_sq=dist_sq, log_det=log_det.abs() + 1)
        assert (less <= dist_sq + 2 * by_dist_sq).all() and (more >= log_det - 2 * by_log_det).all()


@DOMAINS
def test_coincident_means_have_dist_sq_zero_and_finite_gradients(domain):
    q_rot, q_mean, q_sigma, k_rot, _, k_sigma = batch(domain, count=200, seed=12)
    inputs = [x.clone().requires_grad_() for x in (q_rot, q_mean, q_sigma, k_rot, q_mean, k_sigma)]
    dist_sq, log_det = gaussian_overlap(*inputs)
    assert torch.equal(dist_sq, torch.zeros_like(dist_sq)) and log_det.isfinite().all()
    for gradient in torch.autograd.grad((dist_sq + log_det).sum(), inputs):
        assert gradient.isfinite().all()


@DOMAINS
def test_the_dtype_is_kept_and_leading_dimensions_broadcast(domain):
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = (x[:5] for x in batch(domain, seed=14))
    table = gaussian_overlap(q_rot[:, None], q_mean[:, None], q_sigma[:, None], k_rot, k_mean, k_sigma)
    assert table[0].shape == table[1].shape == (5, 5) and table[0].dtype == table[1].dtype == domain.dtype
    for a in range(5):
        for b in range(5):
            one = gaussian_overlap(q_rot[a], q_mean[a], q_sigma[a], k_rot[b], k_mean[b], k_sigma[b])
            # vectorised and scalar logarithms may differ in the last place
            assert torch.equal(table[0][a, b], one[0])
            ulp = 2 * bounds.unit_roundoff(domain.dtype) * abs(float(one[1]))
            assert abs(float(table[1][a, b]) - float(one[1])) <= 2 * ulp


def test_the_overlap_module_never_multiplies_matrices():
    source = inspect.getsource(overlap)
    for word in ("matmul", "einsum", "bmm", "torch.mm", " @ "):
        assert word not in source


@pytest.mark.parametrize("form", [gaussian_overlap, overlap.gaussian_overlap_textbook])
def test_many_means_may_share_frames_and_scales(form) -> None:
    """log_det had the shape of frames and scales alone."""
    rot, sigma = torch.eye(3)[None], torch.tensor([[0.1, 0.2, 0.3]])
    dist_sq, log_det = form(rot, torch.randn(5, 3), sigma, rot, torch.zeros(3), sigma)
    assert dist_sq.shape == log_det.shape == (5,)
