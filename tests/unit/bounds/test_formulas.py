"""Every bound and budget of `iga.bounds` is the number that its theorem states, evaluated in forty digits.

The formulas are those of docs/theory.md, written out again in mpmath; the functions err by the roundings of one
evaluation in float64, at most a hundred of 2⁻⁵³ each. That the theorems hold is examined elsewhere; here, that the code
states them and nothing weaker.
"""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch

from helpers.bounds import MP, dist_sq_budget, log_det_budget, log_det_floor_budget, score_range
from iga import bounds
from iga.bounds._scalar import maximum
from iga.bounds.rounding import _minus_log1m, _with_second_order

ROUNDINGS = 100 * 2.0**-53
SINGLE, DOUBLE = torch.float32, torch.float64
UNIT = {SINGLE: MP.mpf(2) ** -24, DOUBLE: MP.mpf(2) ** -53}
ln, log1p, exp, tanh, root, mpf = MP.ln, MP.log1p, MP.exp, MP.tanh, MP.sqrt, MP.mpf


def agree(found: object, expected: object) -> None:
    value = float(found)  # pyright: ignore[reportArgumentType] - a float or a tensor of one number
    assert math.isfinite(value)
    assert abs(mpf(value) - expected) <= ROUNDINGS * abs(expected), (value, expected)


EXACT: dict[str, tuple[Callable, Callable, list[tuple]]] = {
    "log_det_floor": (bounds.log_det_floor, lambda s: 3 * ln(2 * s**2), [(0.03,), (2.0,)]),
    "log_det_ceiling": (bounds.log_det_ceiling, lambda s: 3 * ln(2 * s**2), [(150.0,), (0.4,)]),
    "smooth_ceiling": (bounds.smooth_ceiling, lambda a, b: root(a**2 + b**2), [(0.03, 150.0), (3.0, 4.0)]),
    "dist_sq_bound": (bounds.dist_sq_bound, lambda d, s: d / (2 * s**2), [(4.0, 0.03), (7.0, 3.0)]),
    "sqrt_dist_sq_bound": (
        bounds.sqrt_dist_sq_bound,
        lambda e, s, u=3: e / (root(2) * s) + root(6) * u,
        [(20.0, 0.03), (20.0, 0.03, 5.0), (0.5, 7.0, 0.25)],
    ),
    "displacement_bound": (bounds.displacement_bound, lambda d, s: d / (root(2) * s), [(2.0, 0.03), (2.0, 5.0)]),
    "max_weight_bound": (
        bounds.max_weight_bound,
        lambda n, r: 1 / (1 + (n - 1) * exp(-r)),
        [(91, 6.7), (2, 0.5), (1, 3.0)],
    ),
    "span_for_weight": (bounds.span_for_weight, lambda n, w: ln((n - 1) * w / (1 - w)), [(91, 0.9), (5, 0.7)]),
    "dist_sq_gradient_bound": (bounds.dist_sq_gradient_bound, lambda d, s: d / s**2, [(2.0, 0.03), (2.0, 5.0)]),
    "torque_bound": (bounds.torque_bound, lambda d, k: (k - 1 / k) * d / root(2), [(7.0, 3.0), (0.5, 400.0)]),
    "student_t_gradient_bound": (
        lambda s, n: bounds.student_t_gradient_bound(s, dof=n),
        lambda s, n: (n + 3) / (2 * root(2 * mpf(n)) * s),
        [(0.03, 4.0), (2.0, 0.5)],
    ),
    "student_t_log_scale_gradient_bound": (
        lambda u, n: bounds.student_t_log_scale_gradient_bound(u, dof=n, mean_moves=True),
        lambda u, n: (n + 3) * (1 + 6 * mpf(u) ** 2 / (2 * (n + root(mpf(n) ** 2 + 6 * mpf(u) ** 2 * n)))) + 1,
        [(3.0, 4.0), (0.5, 1.0)],
    ),
    "student_t_log_scale_gradient_bound, means fixed": (
        lambda n: bounds.student_t_log_scale_gradient_bound(dof=n, mean_moves=False),
        lambda n: mpf(n) + 4,
        [(4.0,), (0.5,)],
    ),
    "student_t_torque_bound": (
        lambda k, n: bounds.student_t_torque_bound(k, dof=n),
        lambda k, n: (n + 3) * (k - 1 / mpf(k)) / (2 * root(2)) + (mpf(k) ** 2 - 1) / (2 * root(2 * (mpf(k) ** 2 + 1))),
        [(3.0, 4.0), (400.0, 1.0)],
    ),
    "weight_change_bound": (bounds.weight_change_bound, lambda x: tanh(mpf(x) / 2), [(0.3,), (7.0,)]),
    "log_scale_gradient_bound": (
        partial(bounds.log_scale_gradient_bound, mean_moves=True),
        lambda d, u=3: 2 * d + 2 * root(6) * u * root(d),
        [(7.0,), (7.0, 0.5)],
    ),
    "weighted_logit_bound": (bounds.weighted_logit_bound, lambda g, w, t=1: w * g / t, [(7.0, 3.0), (7.0, 0.3, 2.5)]),
    "weighted_logit_bound, capped": (
        bounds.weighted_logit_bound,
        lambda g, w, t, c: c * tanh(w * g / t / c),
        [(7.0, 0.3, 2.5, 2.0), (0.4, 2.0, 0.5, 10.0)],
    ),
    "capped_logit_bound": (bounds.capped_logit_bound, lambda c: c, [(50.0,)]),
    "geometry_logit_bound": (
        bounds.geometry_logit_bound,
        lambda s, p, a: s * mpf(p) ** {"sum": 1, "rsqrt": mpf(1) / 2, "mean": 0}[a],
        [(7.0, 12, "sum"), (7.0, 12, "rsqrt"), (7.0, 12, "mean")],
    ),
    "floor_gradient, smooth": (
        lambda a, b: bounds.floor_gradient(a, b, "smooth"),
        lambda a, b: a**2 / (a**2 + b**2),
        [(0.02, 0.03), (5.0, 0.3)],
    ),
}


def exactly(arguments: tuple) -> list:
    return [mpf(x) if isinstance(x, float) else x for x in arguments]


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_bound_is_the_number_of_its_theorem(name):
    function, theorem, examples = EXACT[name]
    for arguments in examples:
        agree(function(*arguments), theorem(*exactly(arguments)))


@pytest.mark.parametrize("name", [name for name in EXACT if "logit" not in name])
def test_an_exact_bound_of_tensors_is_that_of_their_numbers(name):
    function, theorem, examples = EXACT[name]
    for arguments in examples:
        found = function(*(torch.tensor([x, x], dtype=DOUBLE) for x in arguments))
        assert found.shape == (2,) and found.dtype == DOUBLE
        for value in found:
            agree(value, theorem(*exactly(arguments)))


@pytest.mark.parametrize("clamp", [None, -5.0, 12.0, 40.0])
@pytest.mark.parametrize("extent", [0.0, 20.0, 400.0])
@pytest.mark.parametrize("offset", [None, 0.5])
def test_a_score_range_is_that_of_the_deepest_end(extent, clamp, offset):
    given = (extent, 0.03, 150.0) if offset is None else (extent, 0.03, 150.0, offset)
    options = {} if clamp is None else {"log_det_min": clamp}
    low_clamp = -MP.inf if clamp is None else mpf(clamp)
    exact = (mpf(extent), mpf(0.03), mpf(150), 3 if offset is None else mpf(offset), low_clamp)
    for dof, range_of, bound_of in (
        (None, bounds.gaussian_score_range, bounds.gaussian_score_bound),
        (4.0, bounds.student_t_score_range, bounds.student_t_score_bound),
    ):
        by_dof = options if dof is None else options | {"dof": dof}
        low, high = score_range(*exact, dof)
        found = range_of(*given, **by_dof)
        agree(found[0], low)
        agree(found[1], high)
        agree(bound_of(*given, **by_dof), max(abs(low), abs(high)))
        per_pair = bound_of(torch.tensor([extent], dtype=DOUBLE), *given[1:], **by_dof)
        agree(per_pair, max(abs(low), abs(high)))


def test_the_bound_of_a_score_is_its_high_end_where_that_is_further_from_zero():
    """Residues in one place, little blurred: −½ log_det is 9.5 at the floor, and no score is as low as −9.5."""
    arguments = (0.0, 0.03, 0.04, 0.1)
    low, high = score_range(*(mpf(x) for x in arguments), -MP.inf)
    assert high > abs(low)
    agree(bounds.gaussian_score_bound(*arguments), high)
    agree(bounds.student_t_score_bound(*arguments, dof=2.0), score_range(*map(mpf, arguments), -MP.inf, mpf(2))[1])


def test_the_gradient_through_a_hard_floor_jumps_from_zero_to_one_at_the_floor():
    """At the floor itself it is 0: 9.2 claims 1 only above."""
    assert [bounds.floor_gradient(x, 0.03, "hard") for x in (0.02, 0.03, 0.04)] == [0.0, 0.0, 1.0]
    sigma = torch.tensor([0.02, 0.03, 0.04], dtype=DOUBLE)
    found = bounds.floor_gradient(sigma, 0.03, "hard")
    assert found.dtype == DOUBLE and found.tolist() == [0.0, 0.0, 1.0]


def test_fixed_means_leave_exactly_twice_dist_sq():
    assert bounds.log_scale_gradient_bound(7.25, mean_moves=False) == 14.5


def test_fp16_ends_at_65504_on_both_sides():
    answers = {x: bounds.fits_in_fp16(x) for x in (65504.0, 65504.5, -65504.0, -65504.5, 0.0)}
    assert answers == {65504.0: True, 65504.5: False, -65504.0: True, -65504.5: False, 0.0: True}


def moved_budget(d, k, u, rho, eta, last=5):
    change = 2 * eta * root(d) + eta**2
    return change + dist_sq_budget(k, u, rho, last) * (d + change)  # 8.3


def theta(n, u):
    return n * u / (1 - n * u)


def log_det_term(x, k, u, rho):
    error = log_det_budget(k, u, rho, abs(x))
    return (error + theta(3, u) * (abs(x) + error)) / 2


def gaussian_budget(d, x, k, u, rho, eta):
    return moved_budget(d, k, u, rho, eta, 5) / 2 + log_det_term(x, k, u, rho)


def student_budget(d, x, k, u, rho, eta, dof):
    """8.3, of any implementation: dist_sq/ν after 7 roundings, 4 u of 1 + dist_sq/ν, 6 + 3 of its logarithm."""
    lost = moved_budget(d, k, u, rho, eta, 7)
    error = -ln(1 - lost / (dof + d)) + theta(4, u)
    error += theta(9, u) * (log1p(d / dof) + error)
    return (dof + 3) / 2 * error + log_det_term(x, k, u, rho)


SIZES = [(1.0, SINGLE), (70.0, SINGLE), (5000.0, SINGLE), (3.0, DOUBLE), (1e6, DOUBLE)]
each_size = pytest.mark.parametrize(("kappa", "dtype"), SIZES)
each_drift = pytest.mark.parametrize("drift", [None, 30.0])


def drifted(drift: float | None) -> tuple[dict[str, float], object]:
    return ({}, root(3)) if drift is None else ({"drift": drift}, mpf(drift))


@each_drift
def test_the_coefficients_are_those_of_the_theorems(drift):
    option, rho = drifted(drift)
    q, gamma = 9 + 2 * rho, 4 * root(3) + 2 * rho
    # of the reference, the CPU kernels, the fused ones and any of them: num, det and quotient, det, twice T's
    counts = {"reference": (35, 17, 4), "cpu": (27, 15, 6), "fused": (31, 15, 6), "any": (39, 17, 6)}
    for name, roundings in (bounds.IMPLEMENTATIONS | {"any": bounds.ANY}).items():
        sums, det, cross = counts[name]
        constant, slope = bounds.dist_sq_coefficients(roundings=roundings, **option)
        agree(constant, sums + 4 * root(3) * rho)
        agree(slope, root(6) * gamma + root(2) * q + cross + q)
        constant, slope = bounds.log_det_coefficients(roundings=roundings, **option)
        agree(constant, det + 2 * root(3) * rho)
        agree(slope, q)
    assert bounds.dist_sq_coefficients(**option) == bounds.dist_sq_coefficients(roundings=bounds.ANY, **option)


@each_size
@each_drift
def test_the_budgets_of_the_overlap_are_those_of_the_theorems(kappa, dtype, drift):
    option, rho = drifted(drift)
    k, u = mpf(kappa), UNIT[dtype]
    largest = 3 * ln(2 * mpf(150) ** 2)
    agree(bounds.dist_sq_budget(kappa, dtype, **option), dist_sq_budget(k, u, rho))
    agree(bounds.dist_sq_bound_budget(kappa, dtype, **option), dist_sq_budget(k, u, rho) + 3 * u)
    agree(bounds.log_det_budget(kappa, dtype, **option), log_det_budget(k, u, rho, largest))
    agree(bounds.log_det_budget(kappa, dtype, magnitude=7.5, **option), log_det_budget(k, u, rho, mpf(7.5)))
    agree(bounds.textbook_loss(kappa, dtype), k**2 * u)
    for sigma in (0.03, 2.0):
        agree(bounds.log_det_floor_budget(dtype, sigma, **option), log_det_floor_budget(mpf(sigma), u, rho))


@each_size
@each_drift
@pytest.mark.parametrize("moved", [None, 0.01, 3.0])
def test_the_budgets_of_the_scores_are_those_of_the_theorems(kappa, dtype, drift, moved):
    option, rho = drifted(drift)
    eta = mpf(0)
    if moved is not None:
        option, eta = option | {"moved": moved}, mpf(moved)
    k, u = mpf(kappa), UNIT[dtype]
    for d, x in ((7.0, 20.0), (1e5, -19.0), (0.25, 0.5)):
        agree(bounds.moved_dist_sq_budget(d, kappa, dtype, **option), moved_budget(mpf(d), k, u, rho, eta))
        gauss = gaussian_budget(mpf(d), mpf(x), k, u, rho, eta)
        agree(bounds.gaussian_score_budget(d, x, kappa, dtype, **option), gauss)
        for dof in (4.0, 40.0):
            student = bounds.student_t_score_budget(d, x, kappa, dtype, dof=dof, **option)
            lost = moved_budget(mpf(d), k, u, rho, eta, 7)
            if lost >= dof + d:
                assert student == math.inf
            else:
                # −ln(1 − x) magnifies the rounding of x by x/((1 − x)·(−ln(1 − x))) ≤ 1/(1 − x)
                share = lost / (mpf(dof) + mpf(d))
                expected = student_budget(mpf(d), mpf(x), k, u, rho, eta, mpf(dof))
                assert abs(mpf(student) - expected) <= ROUNDINGS / (1 - share) * expected


@each_size
def test_the_budgets_of_means_sums_and_gradients_are_those_of_the_theorems(kappa, dtype):
    k, u, sigma = mpf(kappa), UNIT[dtype], mpf(0.03)
    c = 5 * root(3) + 1
    agree(bounds.mean_budget(2.0, 0.03, dtype), c * u * 2 / (root(2) * sigma))
    agree(bounds.mean_budget(2.0, 0.03, dtype, trans=50.0), u * (c * 2 + 50) / (root(2) * sigma))
    agree(bounds.far_translation_budget(1e3, 0.03, dtype), 2 * root(2) * u * 1000 / sigma)
    agree(bounds.far_translation_budget(1e3, 0.03, dtype, centred=True), root(2) * u * 1000 / sigma)
    for points in (1, 8, 64):
        agree(bounds.point_sum_budget(points, dtype), (points + 1) * u / (1 - (points + 1) * u))
    d = mpf(7)
    agree(bounds.dist_sq_gradient_budget(7.0, kappa, 0.03, dtype), (140 + 65 * k) * u * root(2) * root(d) / sigma)
    agree(bounds.log_scale_gradient_budget(7.0, kappa, dtype), (300 + 310 * k) * u * d)
    agree(bounds.log_det_gradient_budget(kappa, dtype), (100 + 50 * k) * u)
    agree(bounds.torque_budget(7.0, kappa, dtype), 600 * (k + k**2) * u * d)


@pytest.mark.parametrize("rho", [3**0.5, 10.0, 200.0])
def test_the_gradient_budgets_cover_the_parts_that_their_theorem_adds_up(rho):
    """9.3 in ρ, part by part: what z and Z err by, det, and for a torque the 2·64.5 of ∂num/∂g."""
    p = mpf(rho)
    q, gamma = 9 + 2 * p, 4 * root(3) + 2 * p
    by_z, by_map = root(1.5) * gamma + root(2) * q + 4, root(2) * q
    by_num = root(6) * gamma + root(2) * q + 4
    force = by_z + by_map + q
    torque = 2 * root(2) * by_z + 2 * gamma + root(2) * q + 2 * q + (by_num + q) + q + 2 * force
    u, kappa = 2.0**-24, 1e6  # the part of κ, or κ², alone
    parts = {
        bounds.dist_sq_gradient_budget(2.0, kappa, 2.0, u, drift=rho): force,
        bounds.log_scale_gradient_budget(1.0, kappa, u, drift=rho): 2 * (2 * by_z + by_num + 3 * q),
        bounds.log_det_gradient_budget(kappa, u, drift=rho): 4 * q,
    }
    for budget, part in parts.items():
        assert part <= budget / (u * kappa) <= part * mpf(1.05)
    assert root(2) * torque <= bounds.torque_budget(1.0, kappa, u, drift=rho) / (u * (kappa + kappa**2))
    assert rho > 2 or 128 < 2 * force < 130


@each_size
def test_digits_left_are_minus_the_logarithm_of_the_loss(kappa, dtype):
    k, u = mpf(kappa), UNIT[dtype]
    for form, loss in (("closed", dist_sq_budget(k, u, root(3))), ("textbook", k**2 * u)):
        digits = max(mpf(0), -MP.log10(loss))
        found = bounds.digits_left(kappa, dtype, form=form)
        # absolute: the logarithm turns relative errors into absolute ones of ½ their size, and rounds to 16 at most
        assert abs(found - digits) <= ROUNDINGS * 16
    assert bounds.digits_left(kappa, dtype) == bounds.digits_left(kappa, dtype, form="closed")


@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_budget_claims_nothing_from_one_eighth_on_and_something_up_to_it(as_tensor):
    """e = (23 + 12.46 κ) u is 1/8 at κ = 1.68·10⁵ in float32, and e + 2e² there is 5/32."""
    assert _with_second_order(0.125) == _with_second_order(torch.tensor(0.125)) == 5 / 32
    constant, slope = bounds.log_det_coefficients(roundings=bounds.REFERENCE)
    edge = (0.125 * 2**24 - constant) / slope
    for kappa, finite in ((edge * (1 - 1e-12), True), (edge * (1 + 1e-12), False)):
        value = torch.tensor([kappa], dtype=DOUBLE) if as_tensor else kappa
        found = float(bounds.log_det_budget(value, SINGLE, magnitude=0.0, roundings=bounds.REFERENCE))
        assert math.isfinite(found) == finite and (not finite or abs(found - 5 / 32) <= 1e-10)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_student_t_budget_claims_nothing_once_the_error_reaches_the_number(as_tensor):
    """dist_sq = 0 and moved = 2: an error of 4 against ν = 4 leaves the logarithm no floor; less leaves one."""
    for moved, finite in ((1.999, True), (2.0, False), (3.0, False)):
        values = [0.0, 0.0, 1.0]
        arguments = [torch.tensor([x], dtype=DOUBLE) for x in values] if as_tensor else values
        found = float(bounds.student_t_score_budget(*arguments, 2.0**-53, dof=4.0, moved=moved))
        assert math.isfinite(found) == finite and found > 0
    assert _minus_log1m(1.0) == _minus_log1m(torch.tensor(1.0)) == math.inf


def test_the_unit_roundoff_is_half_the_spacing_above_one():
    assert [bounds.unit_roundoff(x) for x in (SINGLE, DOUBLE, torch.bfloat16, 0.25)] == [2**-24, 2**-53, 2**-8, 0.25]
    agree(bounds.ROUNDED_DRIFT, root(3))


def test_the_larger_of_numbers_and_tensors_is_the_same_in_either_order_and_keeps_the_first_tensors_dtype():
    tensor, other = torch.tensor([1.0, 5.0], dtype=SINGLE), torch.tensor([4.0, 2.0], dtype=DOUBLE)
    assert maximum(2, 3.5) == maximum(3.5, 2) == 3.5
    for found, dtype, expected in (
        (maximum(tensor, 3.0), SINGLE, [3.0, 5.0]),
        (maximum(3.0, tensor), SINGLE, [3.0, 5.0]),
        (maximum(tensor, other), SINGLE, [4.0, 5.0]),
        (maximum(other, tensor), DOUBLE, [4.0, 5.0]),
    ):
        assert found.dtype == dtype and found.tolist() == expected
