"""Every theorem of `iga.bounds`: no numbers that satisfy its hypotheses break it, and it is tight where it says so.

Exact statements are examined in float64 with the reference as judge; budgets, in float32 against float64.
"""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from iga import bounds
from iga.overlap import gaussian_overlap, gaussian_score, student_t_score
from iga.rotation import rotate
from iga.testing.genomes import Domain, decode, degenerate_pairs, mutated
from iga.testing.measures import MEASURES, judge, ratio
from iga.testing.oracle import condition, overlap_reference
from iga.testing.search import hill_climb

SIGMA_MIN, SIGMA_MAX, OFFSET_MAX = 0.03, 150.0, 3.0
DOUBLE = Domain(dtype=torch.float64)
SINGLE = Domain(dtype=torch.float32)
EYE = torch.eye(3, dtype=torch.float64)
# the reference's own rounding, some tens of κ·2⁻⁵³ at κ = 5000
SLACK = 1e-10

lengths = st.floats(0.0, 1e3)
conditions = st.floats(1.0, 5e3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs(count=4000, seed=0, domain=DOUBLE):
    return decode(degenerate_pairs(count, generator(seed), domain), domain)


def model_pairs(count=4000, seed=0):
    """Anchors, frames, σ and u under the hypotheses (H), and the pairs that they make: (extent, u [., 2, 3], pairs)."""
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = pairs(count, seed)
    draw = torch.rand(count, 2, 3, generator=generator(seed + 1), dtype=torch.float64)
    u = OFFSET_MAX * torch.where(draw < 0.3, -1.0, torch.where(draw > 0.7, 1.0, 4 * draw - 2)).clamp(-1, 1)
    placed_q, placed_k = (
        rotate(q_rot, u[:, 0] * q_sigma) + q_mean,
        rotate(k_rot, u[:, 1] * k_sigma) + k_mean,
    )
    extent = (q_mean - k_mean).norm(dim=-1)
    return extent, u, (q_rot, placed_q, q_sigma, k_rot, placed_k, k_sigma)


def aligned(sigma, delta, other=None):
    """A pair in the same frame: (dist_sq, log_det) by the reference, from lists."""
    row = lambda x: torch.tensor(x, dtype=torch.float64)  # noqa: E731
    found = overlap_reference(EYE, row(delta), row(sigma), EYE, row([0.0] * 3), row(sigma if other is None else other))
    return float(found[0]), float(found[1])


# ---- exact: log_det and dist_sq


def test_log_det_lies_between_floor_and_ceiling_and_both_are_reached():
    _, log_det = overlap_reference(*pairs())
    assert log_det.isfinite().all()
    assert (log_det >= bounds.log_det_floor(SIGMA_MIN) - SLACK).all()
    assert (log_det <= bounds.log_det_ceiling(SIGMA_MAX) + SLACK).all()
    assert aligned([SIGMA_MIN] * 3, [0, 0, 0])[1] == pytest.approx(bounds.log_det_floor(SIGMA_MIN), abs=1e-12)
    assert aligned([SIGMA_MAX] * 3, [0, 0, 0])[1] == pytest.approx(bounds.log_det_ceiling(SIGMA_MAX), abs=1e-12)


def test_the_floors_of_the_contract_and_of_the_collapsed_model_are_what_they_are_said_to_be():
    assert bounds.log_det_floor(0.03) == pytest.approx(-18.9599, abs=5e-5)
    assert bounds.log_det_floor(1e-3) == pytest.approx(-39.367, abs=5e-4)  # σ² = the jitter 1e-6


@given(st.floats(0.0, 1.0), st.floats(0.01, 1.0), st.floats(1.0, 200.0))
def test_the_smooth_floor_stays_under_its_ceiling(share, sigma_min, sigma_max):
    sigma = share * sigma_max
    assert sigma_min <= math.hypot(sigma, sigma_min) <= bounds.smooth_ceiling(sigma_min, sigma_max) * (1 + 1e-15)


def test_dist_sq_is_within_its_bound_and_the_bound_is_reached():
    gaussians = pairs(seed=1)
    dist_sq, _ = overlap_reference(*gaussians)
    bound = bounds.dist_sq_bound((gaussians[1] - gaussians[4]).square().sum(-1), SIGMA_MIN)
    assert dist_sq.isfinite().all() and (dist_sq >= 0).all() and (dist_sq <= bound * (1 + SLACK)).all()
    flat = aligned([SIGMA_MIN, SIGMA_MAX, SIGMA_MAX], [2.0, 0, 0])[0]
    assert flat == pytest.approx(bounds.dist_sq_bound(4.0, SIGMA_MIN), rel=1e-12)


def test_offsets_counted_in_their_own_sigma_add_a_constant_to_sqrt_dist_sq():
    extent, _, gaussians = model_pairs(seed=2)
    dist_sq, _ = overlap_reference(*gaussians)
    bound = bounds.sqrt_dist_sq_bound(extent, SIGMA_MIN, OFFSET_MAX)
    assert dist_sq.isfinite().all() and (dist_sq.sqrt() <= bound * (1 + SLACK)).all()
    # spheres at the floor, x and both offsets along (1, 1, 1): every inequality of the proof is an equality
    step = 5.0 / math.sqrt(3.0) + 2 * OFFSET_MAX * SIGMA_MIN
    reached = math.sqrt(aligned([SIGMA_MIN] * 3, [step] * 3)[0])
    assert reached == pytest.approx(bounds.sqrt_dist_sq_bound(5.0, SIGMA_MIN, OFFSET_MAX), rel=1e-12)


def test_a_floor_in_the_mean_only_breaks_the_bound_that_both_floors_give():
    collapsed, floored = 1e-6, SIGMA_MIN
    delta = 2 * OFFSET_MAX * floored
    assert math.sqrt(aligned([collapsed] * 3, [delta] * 3)[0]) > bounds.sqrt_dist_sq_bound(0.0, SIGMA_MIN, OFFSET_MAX)


def test_moving_a_mean_moves_sqrt_dist_sq_no_further_than_the_displacement_bound():
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = pairs(seed=3)
    step = torch.randn(len(q_mean), 3, generator=generator(4), dtype=torch.float64)
    before, _ = overlap_reference(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma)
    after, _ = overlap_reference(q_rot, q_mean + step, q_sigma, k_rot, k_mean, k_sigma)
    bound = bounds.displacement_bound(step.norm(dim=-1), SIGMA_MIN)
    moved = (after.sqrt() - before.sqrt()).abs()
    assert moved.isfinite().all() and (moved <= bound * (1 + SLACK) + SLACK * before.sqrt()).all()


# ---- exact: scores and logits


@pytest.mark.parametrize("log_det_min", [None, -20.0, -5.0])
def test_scores_lie_in_their_ranges(log_det_min):
    extent, _, gaussians = model_pairs(seed=5)
    dist_sq, log_det = overlap_reference(*gaussians)
    arguments = (extent, SIGMA_MIN, SIGMA_MAX, OFFSET_MAX, log_det_min)
    for score, (low, high), bound in (
        (
            gaussian_score(dist_sq, log_det, log_det_min=log_det_min),
            bounds.gaussian_score_range(*arguments),
            bounds.gaussian_score_bound(*arguments),
        ),
        (
            student_t_score(dist_sq, log_det, dof=4.0, log_det_min=log_det_min),
            bounds.student_t_score_range(*arguments, dof=4.0),
            bounds.student_t_score_bound(*arguments, dof=4.0),
        ),
    ):
        room = SLACK * (1 + score.abs())
        assert score.isfinite().all()
        assert (score >= low - room).all() and (score <= high + room).all() and (score.abs() <= bound + room).all()


@pytest.mark.parametrize("extent", [0.0, 20.0, 1e3])
def test_score_ranges_are_nearly_reached(extent):
    """Thin along the anchors' line, wide across it, offsets at their limit: only their directions do not all agree."""
    step = [extent + 2 * OFFSET_MAX * SIGMA_MIN, 2 * OFFSET_MAX * SIGMA_MAX, 2 * OFFSET_MAX * SIGMA_MAX]
    dist_sq, log_det = aligned([SIGMA_MIN, SIGMA_MAX, SIGMA_MAX], step)
    wide = aligned([SIGMA_MAX] * 3, [extent / math.sqrt(3.0) + 2 * OFFSET_MAX * SIGMA_MAX] * 3)
    scores = [(0.5 * d + 0.5 * x, 3.5 * math.log1p(d / 4) + 0.5 * x) for d, x in ((dist_sq, log_det), wide)]
    for k, low in (
        (0, bounds.gaussian_score_range(extent, SIGMA_MIN, SIGMA_MAX)[0]),
        (1, bounds.student_t_score_range(extent, SIGMA_MIN, SIGMA_MAX, dof=4.0)[0]),
    ):
        reached = max(pair[k] for pair in scores)
        assert 0.95 * -low <= reached <= -low * (1 + 1e-12)


@given(
    st.floats(0.0, 1e3),
    st.floats(0.1, 100.0),
    st.floats(0.0, 5.0),
    st.floats(0.0, 1.0),
    st.floats(-30.0, 30.0) | st.none(),
)
def test_the_worst_shortest_axis_is_at_an_end(extent, dof, offset_max, between, log_det_min):
    """What 3.3 proves by convexity: no variance λ between 2 σ_min² and 2 σ_max² is worse than both ends."""
    low, high = 2 * SIGMA_MIN**2, 2 * SIGMA_MAX**2
    variance = low * (high / low) ** between
    dist_sq = (extent / math.sqrt(variance) + math.sqrt(6) * offset_max) ** 2
    log_det = max(math.log(variance) + 2 * math.log(high), -math.inf if log_det_min is None else log_det_min)
    arguments = (extent, SIGMA_MIN, SIGMA_MAX, offset_max, log_det_min)
    deepest = bounds.student_t_score_range(*arguments, dof=dof)[0]
    assert -0.5 * (dof + 3) * math.log1p(dist_sq / dof) - 0.5 * log_det >= deepest - 1e-9 * abs(deepest)
    deepest = bounds.gaussian_score_range(*arguments)[0]
    assert -0.5 * dist_sq - 0.5 * log_det >= deepest - 1e-9 * abs(deepest)


def test_a_raw_gaussian_score_does_not_fit_in_fp16_and_a_student_t_mean_does():
    assert not bounds.fits_in_fp16(bounds.gaussian_score_bound(20.0, SIGMA_MIN, SIGMA_MAX))
    score = bounds.student_t_score_bound(20.0, SIGMA_MIN, SIGMA_MAX, dof=4.0)
    assert score <= 48.0
    assert bounds.fits_in_fp16(bounds.geometry_logit_bound(score, 10**6, "mean"))
    assert torch.tensor(bounds.FP16_MAX).half().isfinite() and bounds.fits_in_fp16(-bounds.FP16_MAX)
    assert torch.tensor(65520.0).half().isinf() and not bounds.fits_in_fp16(65520.0)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=64), st.sampled_from(["sum", "rsqrt", "mean"]))
def test_the_sum_over_points_obeys_its_scaling_exponent(scores, scaling):
    points, largest = len(scores), max(map(abs, scores))
    factor = {"sum": 1.0, "rsqrt": points**-0.5, "mean": 1 / points}[scaling]
    bound = bounds.geometry_logit_bound(largest, points, scaling)
    assert abs(math.fsum(scores) * factor) <= bound * (1 + 1e-14)
    coherent = math.fsum([largest] * points) * factor
    assert coherent == pytest.approx(bound, rel=1e-14, abs=0.0)


def test_an_unknown_scaling_or_floor_or_form_is_named():
    with pytest.raises(ValueError, match="scaling.*'max'"):
        bounds.scaling_exponent("max")
    with pytest.raises(ValueError, match="floor.*'soft'"):
        bounds.floor_gradient(1.0, 0.03, "soft")
    with pytest.raises(ValueError, match="form.*'fast'"):
        bounds.digits_left(10.0, torch.float32, form="fast")


@given(st.floats(-1e30, 1e30), st.floats(1e-3, 1e4))
def test_a_capped_logit_stays_within_its_cap(value, cap):
    assert abs(cap * math.tanh(value / cap)) <= bounds.capped_logit_bound(cap)
    weighted = bounds.weighted_logit_bound(abs(value), 0.5, 2.0, cap)
    assert abs(cap * math.tanh(0.25 * value / cap)) <= weighted <= cap


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=300))
def test_no_weight_exceeds_what_the_span_allows(logits):
    row = torch.tensor(logits, dtype=torch.float64)
    bound = bounds.max_weight_bound(len(logits), max(logits) - min(logits))
    assert float(row.softmax(0).max()) <= bound * (1 + 1e-12)


@given(st.integers(2, 10_000), st.floats(0.0, 100.0))
def test_the_weight_bound_is_reached_by_one_key_against_equal_others(keys, span):
    row = torch.zeros(keys, dtype=torch.float64)
    row[0] = span
    assert float(row.softmax(0)[0]) == pytest.approx(bounds.max_weight_bound(keys, span), rel=1e-12)


@given(st.integers(2, 10_000), st.floats(0.01, 0.99))
def test_span_for_weight_is_the_inverse_of_the_weight_bound(keys, weight):
    assert bounds.max_weight_bound(keys, bounds.span_for_weight(keys, weight)) == pytest.approx(weight, rel=1e-12)


def test_one_of_91_keys_takes_nine_tenths_from_a_span_of_6_7():
    assert bounds.span_for_weight(91, 0.9) == pytest.approx(6.697, abs=1e-3)


# ---- exact: gradients


def gradients(inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    dist_sq, log_det = overlap_reference(*leaves)
    of_dist_sq = torch.autograd.grad(dist_sq.sum(), leaves, retain_graph=True)
    of_log_det = torch.autograd.grad(log_det.sum(), leaves, materialize_grads=True)
    return dist_sq.detach(), of_dist_sq, of_log_det


def test_gradients_of_the_overlap_are_within_their_bounds():
    gaussians = pairs(seed=6)
    dist_sq, found, of_log_det = gradients(gaussians)
    room = 1 + 1e-8
    delta = (gaussians[1] - gaussians[4]).norm(dim=-1)
    assert (found[1].norm(dim=-1) <= bounds.dist_sq_gradient_bound(delta, SIGMA_MIN) * room).all()
    by_scale = torch.cat([gaussians[2] * found[2], gaussians[5] * found[5]], -1)
    expected = bounds.log_scale_gradient_bound(dist_sq, mean_moves=False)
    assert torch.allclose(by_scale.abs().sum(-1), expected, rtol=1e-8) and (by_scale <= SLACK * dist_sq[:, None]).all()
    of_scale = torch.cat([gaussians[2] * of_log_det[2], gaussians[5] * of_log_det[5]], -1)
    assert (of_scale >= 0).all() and (of_scale <= 2 * room).all()
    assert torch.allclose(of_scale.sum(-1), torch.full_like(dist_sq, 6.0), rtol=1e-8)


def test_the_gradient_in_delta_reaches_its_bound():
    delta = torch.tensor([2.0, 0, 0], dtype=torch.float64, requires_grad=True)
    sigma = torch.full((3,), SIGMA_MIN, dtype=torch.float64)
    dist_sq, _ = overlap_reference(EYE, delta, sigma, EYE, torch.zeros(3, dtype=torch.float64), sigma)
    (found,) = torch.autograd.grad(dist_sq, delta)
    assert float(found.norm()) == pytest.approx(bounds.dist_sq_gradient_bound(2.0, SIGMA_MIN), rel=1e-12)


def scale_gradients(rot_i, anchor_i, log_i, u_i, rot_j, anchor_j, log_j, u_j):
    """(dist_sq, Σ |∂dist_sq/∂log σ|) with the means moving with σ."""
    logs = [log_i.clone().requires_grad_(), log_j.clone().requires_grad_()]
    sigma = [x.exp() for x in logs]
    means = [rotate(rot_i, u_i * sigma[0]) + anchor_i, rotate(rot_j, u_j * sigma[1]) + anchor_j]
    dist_sq, _ = overlap_reference(rot_i, means[0], sigma[0], rot_j, means[1], sigma[1])
    found = torch.autograd.grad(dist_sq.sum(), logs)
    return dist_sq.detach(), torch.cat(found, -1).abs().sum(-1)


def test_the_gradient_in_log_scale_with_moving_means_is_within_its_bound_and_reaches_it():
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = pairs(seed=7)
    _, u, _ = model_pairs(seed=7)
    dist_sq, total = scale_gradients(q_rot, q_mean, q_sigma.log(), u[:, 0], k_rot, k_mean, k_sigma.log(), u[:, 1])
    bound = bounds.log_scale_gradient_bound(dist_sq, OFFSET_MAX, mean_moves=True)
    assert total.isfinite().all() and (total <= bound * (1 + 1e-8)).all()
    # equal spheres with offsets turned inwards and anchors further apart than they reach: both terms have one sign
    log, inwards = torch.full((3,), math.log(0.1), dtype=torch.float64), torch.full((3,), -OFFSET_MAX).double()
    anchor = torch.full((3,), 5.0, dtype=torch.float64)
    dist_sq, total = scale_gradients(EYE, anchor, log, inwards, EYE, -anchor, log, -inwards)
    bound = bounds.log_scale_gradient_bound(dist_sq, OFFSET_MAX, mean_moves=True)
    assert float(total) == pytest.approx(float(bound), rel=1e-9)


def test_the_torque_is_within_its_bound_and_nearly_reaches_it():
    gaussians = pairs(60000, seed=8)
    dist_sq, found, _ = gradients(gaussians)
    kappa = condition(gaussians[2], gaussians[5])
    bound = bounds.torque_bound(dist_sq, kappa)
    share = 0.0
    for k in (0, 3):
        m = (gaussians[k][..., :, :, None] * found[k][..., :, None, :]).sum(-3)
        torque = (m - m.mT).abs().amax((-1, -2))
        # the float64 judge itself loses κ² u₆₄ of it
        assert (torque <= bound * (1 + 1e-8) + 1e-13 * kappa.square() * dist_sq).all()
        able = kappa > 2
        share = max(share, float((torque / bound)[able & (dist_sq > 0)].max()))
    assert share > 0.95


@given(st.floats(1e-6, 10.0), st.sampled_from(["hard", "smooth"]))
def test_the_gradient_through_a_floor_is_what_the_theorem_says(sigma, floor):
    assume(sigma != SIGMA_MIN)
    log = torch.tensor(math.log(sigma), dtype=torch.float64, requires_grad=True)
    raw = log.exp()
    floored = raw.clamp(min=SIGMA_MIN) if floor == "hard" else (raw.square() + SIGMA_MIN**2).sqrt()
    (found,) = torch.autograd.grad(floored.log(), log)
    assert float(found) == pytest.approx(bounds.floor_gradient(sigma, SIGMA_MIN, floor), rel=1e-12, abs=1e-300)
    per_tensor = bounds.floor_gradient(torch.tensor([sigma], dtype=torch.float64), SIGMA_MIN, floor)
    assert float(per_tensor[0]) == pytest.approx(bounds.floor_gradient(sigma, SIGMA_MIN, floor), rel=1e-12)


# ---- rounding


def test_the_constants_are_those_of_the_theorems():
    assert bounds.dist_sq_coefficients() == pytest.approx((47.0, 59.547), abs=1e-3)
    assert bounds.log_det_coefficients() == pytest.approx((23.0, 12.464), abs=1e-3)
    assert bounds.unit_roundoff(torch.float32) == 2.0**-24 and bounds.unit_roundoff(2.0**-53) == 2.0**-53
    u = 2.0**-24
    at_one_ulp = 2 * u * abs(bounds.log_det_floor(SIGMA_MIN))
    assert bounds.log_det_floor_budget(torch.float32, SIGMA_MIN) - at_one_ulp == pytest.approx(34.8 * u, rel=1e-3)
    # four spacings of float32 at −18.96, which is what is asked for
    assert bounds.log_det_floor_budget(torch.float32, SIGMA_MIN) <= 4 * 2.0**-19


@given(st.floats(0, 0.1), st.floats(0, 0.025), st.floats(0, 1e-3))
def test_two_e_squared_covers_the_second_order(n, a, o):
    """(1 ± (n + n²))(1 ± o)/(1 ∓ (a + a²)) lies within 1 ± (e + 2e²) for e = n + a + o ≤ 1/8."""
    n = max(n, 3 * a)
    e = n + a + o
    assume(e <= 0.125)
    room = (e + 2 * e * e) * (1 + 1e-12)
    up = (1 + n + n * n) * (1 + o) / (1 - a - a * a)
    down = (1 - n - n * n) * (1 - o) / (1 + a + a * a)
    assert up - 1 <= room + 1e-15 and 1 - down <= room + 1e-15
    assert -math.log1p(-(a + a * a)) <= a + 2 * a * a + 1e-15


def test_beyond_its_range_a_budget_claims_nothing():
    assert bounds.dist_sq_budget(1e6, torch.float32) == math.inf
    assert bounds.dist_sq_budget(torch.tensor([10.0, 1e6]), torch.float32).isinf().tolist() == [False, True]
    assert bounds.digits_left(1e6, torch.float32) == 0.0
    assert bounds.digits_left(5000.0, torch.float32) > 1.5 > bounds.digits_left(5000.0, torch.float32, form="textbook")


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
def test_a_budget_is_above_what_a_search_finds_and_not_absurdly_above(measure):
    genome = degenerate_pairs(20000, generator(9), SINGLE)
    if measure.grows:
        outcome = judge(decode(genome, SINGLE), SINGLE)
        genome = genome[outcome.kappa > 1000]
    top = genome[ratio(measure, judge(decode(genome, SINGLE), SINGLE)).argsort(descending=True)[:128]]
    outcome = judge(decode(hill_climb(measure, top, 60, generator(10), SINGLE), SINGLE), SINGLE)
    value, proven = measure.value(outcome), measure.proven(outcome)
    assert value.isfinite().all() and (value <= proven).all()
    if measure.grows and "over" not in measure.name:
        assert (value / proven).max() > 0.015


def test_a_mutation_stays_in_the_domain():
    genome = mutated(degenerate_pairs(1000, generator(11), SINGLE), generator(12), SINGLE)
    for sigma in decode(genome, SINGLE)[2::3]:
        assert (sigma >= torch.tensor(SIGMA_MIN)).all() and (sigma <= SIGMA_MAX).all()


@pytest.mark.parametrize("far", [0.0, 10.0, 1e4], ids="{:g} nm".format)
def test_rounding_of_the_means_is_within_its_budget(far):
    """μ = R (m + u ⊙ σ) + t in float32 against float64, from the same float32 numbers; dist_sq by the reference."""
    q_rot, _, q_sigma, k_rot, _, k_sigma = pairs(seed=13, domain=SINGLE)
    parts = []
    reach = trans = torch.zeros(len(q_rot), dtype=torch.float64)
    for k, (rot, sigma) in enumerate(((q_rot, q_sigma), (k_rot, k_sigma))):
        m, u, t = torch.randn(3, len(rot), 3, generator=generator(14 + k)).unbind(0)
        u, t = u.clamp(-3, 3), t + far / math.sqrt(3)
        parts.append((rot, m, u, sigma, t))
        reach = reach + m.double().norm(dim=-1) + (u.double() * sigma.double()).norm(dim=-1)
        trans = trans + t.double().norm(dim=-1)

    def place(dtype):
        means = [
            rotate(rot.to(dtype), m.to(dtype) + u.to(dtype) * sigma.to(dtype)) + t.to(dtype)
            for rot, m, u, sigma, t in parts
        ]
        return overlap_reference(q_rot, means[0], q_sigma, k_rot, means[1], k_sigma)[0].sqrt()

    exact = place(torch.float64)
    error = (place(torch.float32) - exact).abs()
    budget = bounds.mean_budget(reach, SIGMA_MIN, torch.float32, trans=trans)
    assert error.isfinite().all() and (error <= budget + SLACK * exact).all()
    assert (budget <= bounds.mean_budget(reach + trans, SIGMA_MIN, torch.float32)).all()
    assert float((error / budget).max()) > 0.02


@pytest.mark.parametrize("centred", [False, True])
def test_a_far_translation_costs_no_more_than_its_budget(centred):
    distance = 1e3
    t = 5.0 * torch.randn(2, 4000, 3, generator=generator(15), dtype=torch.float64)
    offset = torch.randn(2, 4000, 3, generator=generator(16), dtype=torch.float64) * SIGMA_MIN
    shift = torch.tensor([600.0, -640.0, 480.0], dtype=torch.float64) * distance / 1e3
    placed = (t + shift).float()
    origin = placed[0, :1] if centred else torch.zeros(1, 3)
    means = offset.float() + (placed - origin)
    sigma = torch.full((3,), SIGMA_MIN, dtype=torch.float64)
    exact = overlap_reference(EYE, (t + offset)[0], sigma, EYE, (t + offset)[1], sigma)[0].sqrt()
    found = overlap_reference(EYE, means[0], sigma, EYE, means[1], sigma)[0].sqrt()
    far = float(placed.double().norm(dim=-1).max())
    budget = bounds.far_translation_budget(far, SIGMA_MIN, torch.float32, centred=centred)
    near = bounds.mean_budget(2 * float((t.norm(dim=-1) + offset.norm(dim=-1)).max()), SIGMA_MIN, torch.float32)
    error = (found - exact).abs().max()
    assert error.isfinite() and 0.05 * budget < error <= budget + near


@given(st.integers(1, 64), st.sampled_from([1.0, 1e3]))
def test_the_sum_over_points_is_within_its_budget(points, size):
    scores = size * torch.randn(points, 200, generator=generator(points))
    for factor in (1.0, points**-0.5, 1.0 / points):
        exact = scores.double().sum(0) * factor
        found = (scores.sum(0) * factor).double()
        budget = bounds.point_sum_budget(points, torch.float32) * scores.double().abs().sum(0) * factor
        assert found.isfinite().all() and ((found - exact).abs() <= budget).all()


@given(st.floats(0.0, 1e6), st.floats(0.0, 1.0), conditions)
def test_a_moved_dist_sq_budget_covers_both_moves(dist_sq, moved, kappa):
    relative = bounds.dist_sq_budget(kappa, torch.float32)
    budget = bounds.moved_dist_sq_budget(dist_sq, kappa, torch.float32, moved=moved)
    for step in (-moved, moved):
        for sign in (-1, 1):
            computed = max(math.sqrt(dist_sq) + step, 0.0) ** 2 * (1 + sign * relative)
            assert abs(computed - dist_sq) <= budget * (1 + 1e-9) + 1e-12


@given(st.floats(0.0, 1e6), st.floats(-19.0, 32.0), conditions, st.floats(0.5, 50.0))
def test_score_budgets_cover_the_ends_of_the_budgets_they_are_made_of(dist_sq, log_det, kappa, dof):
    by_dist_sq = bounds.dist_sq_budget(kappa, torch.float32) * dist_sq
    by_log_det = bounds.log_det_budget(kappa, torch.float32, magnitude=abs(log_det))

    def student(d, x):
        return -0.5 * (dof + 3) * math.log1p(d / dof) - 0.5 * x

    gauss = bounds.gaussian_score_budget(dist_sq, log_det, kappa, torch.float32)
    t_budget = bounds.student_t_score_budget(dist_sq, log_det, kappa, torch.float32, dof=dof)
    for a in (-1, 1):
        for b in (-1, 1):
            d, x = dist_sq + a * by_dist_sq, log_det + b * by_log_det
            assert abs(0.5 * (d - dist_sq) + 0.5 * (x - log_det)) <= gauss * (1 + 1e-9)
            assert abs(student(d, x) - student(dist_sq, log_det)) <= t_budget * (1 + 1e-9)


def test_a_budget_of_tensors_is_the_budget_of_their_numbers():
    kappa = torch.tensor([1.0, 70.0, 5000.0], dtype=torch.float64)
    dist_sq = torch.tensor([0.0, 3.0, 1e5], dtype=torch.float64)
    log_det = torch.tensor([-19.0, 0.0, 30.0], dtype=torch.float64)
    for budget in (
        lambda k, d, x: bounds.dist_sq_budget(k, torch.float32),
        lambda k, d, x: bounds.log_det_budget(k, torch.float32, magnitude=abs(x)),
        lambda k, d, x: bounds.gaussian_score_budget(d, x, k, torch.float32, moved=0.01),
        lambda k, d, x: bounds.student_t_score_budget(d, x, k, torch.float32, dof=4.0, moved=0.01),
        lambda k, d, x: bounds.sqrt_dist_sq_bound(d, SIGMA_MIN),
        lambda k, d, x: bounds.gaussian_score_bound(d, SIGMA_MIN, SIGMA_MAX),
        lambda k, d, x: bounds.student_t_score_bound(d, SIGMA_MIN, SIGMA_MAX, dof=4.0),
        lambda k, d, x: bounds.torque_bound(d, k),
    ):
        together = budget(kappa, dist_sq, log_det)
        one_by_one = [budget(*row) for row in zip(kappa.tolist(), dist_sq.tolist(), log_det.tolist(), strict=True)]
        assert together.tolist() == pytest.approx(one_by_one, rel=1e-12)


# ---- the summary


def answers(**changes):
    return {row["quantity"]: list(row.values()) for row in bounds.bounds_summary(**changes)}


def test_the_summary_answers_what_a_user_asks():
    rows = answers(points=8)
    assert rows["Gaussian: |G|, mean of P = 8"][2] == "no"
    assert rows["Student-t, ν = 4: |G|, mean of P = 8"][2] == "yes"
    assert rows["Student-t, ν = 4: |G|, mean of P = 8"][3].startswith("yes: span")
    assert rows["log_det, lowest"][1] == "-18.9599"
    capped = answers(points=8, cap=2.0, keys=256)
    assert capped["cap"][3].startswith("no: span 4,") and capped["Gaussian: |G|, sum of P = 8"][3].startswith("no:")


def test_the_summary_names_contradictory_hypotheses():
    for changes, name in (
        ({"sigma_min": 0.0}, "sigma_min"),
        ({"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_max"),
        ({"extent": -1.0}, "extent"),
        ({"points": 0}, "points"),
        ({"keys": 0}, "keys"),
        ({"cap": 0.0}, "cap"),
        ({"floor": "soft"}, "floor"),
    ):
        with pytest.raises(ValueError, match=name):
            bounds.bounds_summary(**changes)


def test_the_closed_form_keeps_the_floor_that_its_budget_allows():
    """Spheres at the floor in random frames: the one place where log_det meets its bound."""
    gaussians = list(pairs(20000, seed=17, domain=SINGLE))
    gaussians[2] = gaussians[5] = torch.full((20000, 3), SIGMA_MIN)
    _, log_det = gaussian_overlap(*gaussians)
    limit = bounds.log_det_floor(SIGMA_MIN) - bounds.log_det_floor_budget(torch.float32, SIGMA_MIN)
    assert log_det.isfinite().all() and (log_det.double() >= limit).all()
