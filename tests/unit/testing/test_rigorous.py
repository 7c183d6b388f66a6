"""Certified enclosures contain what others compute, and "ill-conditioned" is said where, and only where, it is proven.

The judges share no code with `iga.testing.judges.rigorous`: mpmath, torch's autograd through a QR, differences in 50
digits, and points of the box drawn at random.
"""

import math
import subprocess
import sys

import pytest
import torch

from helpers.overlap import DOUBLE, SINGLE, batch
from iga import bounds
from iga.search.pairs import Domain, decode, degenerate_pairs
from iga.testing.judges import rigorous
from iga.testing.judges.overlap import condition, overlap_digits, overlap_reference
from iga.testing.judges.rigorous import Width, conditioning, enclosure, ill_conditioned, outward

EYE = [1.0, 0, 0, 0, 1, 0, 0, 0, 1]
TURN = torch.tensor([[2.0, -1, 2], [2, 2, -1], [-1, 2, 2]]) / 3  # rounded to float32
OTHER = torch.tensor([[2.0, 2, -1], [-1, 2, 2], [2, -1, 2]]) / 3


def rows(pairs):
    return [[x[k] for x in pairs] for k in range(len(pairs[0]))]


def assert_contains(ball, value, slack=0.0):
    """A value rounded to float64, known to within `slack`."""
    lower, upper = outward(ball)
    assert math.isfinite(value)
    assert lower - slack <= value <= upper + slack, f"{value!r} is not in [{lower!r}, {upper!r}] ± {slack:.3g}"


@pytest.mark.parametrize("domain", [SINGLE, DOUBLE], ids=["float32", "float64"])
def test_the_enclosure_contains_fifty_digits(domain):
    pairs = batch(domain, count=100, seed=31)
    dist_sq, log_det = overlap_digits(*pairs)
    for pair, d, logarithm in zip(rows(pairs), dist_sq.tolist(), log_det.tolist(), strict=True):
        found = enclosure(pair)
        assert_contains(found.dist_sq, d)
        assert_contains(found.log_det, logarithm)


def test_the_enclosed_gradients_contain_those_of_the_reference():
    """Autograd through float64 QR, whose error is some tens of κ, and of κ² for means and rotations, times 2⁻⁵³."""
    given_pairs = [x.double() for x in batch(SINGLE, count=100, seed=32)]
    pairs = [x.clone().requires_grad_() for x in given_pairs]
    outputs = overlap_reference(*pairs)
    kappa, u = condition(given_pairs[2], given_pairs[5]), 2.0**-53
    shortest = torch.minimum(given_pairs[2].amin(-1), given_pairs[5].amin(-1))
    dist_sq = outputs[0].detach()
    slacks = (
        (
            bounds.dist_sq_gradient_budget(dist_sq, kappa, shortest, u),
            bounds.log_scale_gradient_budget(dist_sq, kappa, u),
            bounds.torque_budget(dist_sq, kappa, u),
        ),
        (torch.zeros_like(kappa), bounds.log_det_gradient_budget(kappa, u), 600 * (kappa + kappa**2) * u),
    )
    balls = [enclosure(pair) for pair in rows(given_pairs)]
    for output, slack, of in zip(outputs, slacks, ("of_dist_sq", "of_log_det"), strict=True):
        found = torch.autograd.grad(output.sum(), pairs, retain_graph=True, materialize_grads=True)
        for side, first in (("q", 0), ("k", 3)):
            m = (given_pairs[first][:, :, :, None] * found[first][:, :, None, :]).sum(-3)
            skew = m - m.mT
            omega = torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], dim=-1)
            scale = given_pairs[first + 2] * found[first + 2]
            for name, values, limit in (
                ("mean", found[first + 1], slack[0]),
                ("log_sigma", scale, slack[1]),
                ("omega", omega, slack[2]),
            ):
                for k, ball in enumerate(balls):
                    for component in range(3):
                        exact = getattr(getattr(ball, of), f"{side}_{name}")[component]
                        assert_contains(exact, float(values[k, component]), float(limit[k]))


def test_the_enclosed_gradients_agree_with_central_differences():
    """Differences of the exact function over steps of 2⁻²⁰, evaluated with balls: their error is of order 2⁻⁴⁰."""
    step = 2.0**-20
    pair = [x.double() for x in rows(batch(Domain(sigma_max=3.0), count=1, seed=33))[0]]
    found = enclosure(pair)

    def difference(name, component):
        side, what = name.split("_", 1)
        first = 0 if side == "q" else 3
        values = []
        for h in (step, -step):
            moved = [x.clone() for x in pair]
            if what == "mean":
                moved[first + 1][component] += h
            elif what == "log_sigma":
                moved[first + 2][component] *= math.exp(h)
            else:
                b, c = (component + 1) % 3, (component + 2) % 3
                rot = pair[first]
                # R exp([ω]×) turns column b towards column c
                moved[first][:, b] = math.cos(h) * rot[:, b] + math.sin(h) * rot[:, c]
                moved[first][:, c] = math.cos(h) * rot[:, c] - math.sin(h) * rot[:, b]
            values.append(torch.stack(overlap_digits(*moved)))
        return ((values[0] - values[1]) / (2 * step)).tolist()

    size = (outward(found.dist_sq)[1], 1.0)
    for name in ("q_omega", "q_mean", "q_log_sigma", "k_omega", "k_mean", "k_log_sigma"):
        scale = 1 / float(min(pair[2].min(), pair[5].min())) if name.endswith("mean") else float(condition(*pair[2::3]))
        for component in range(3):
            by_difference = difference(name, component)
            for of, value, top in zip(("of_dist_sq", "of_log_det"), by_difference, size, strict=True):
                exact = getattr(getattr(found, of), name)[component]
                # rounding of inputs and results over 2h, and the third derivative over h²
                slack = 2.0**-53 / step * 8 * scale * top + 8 * scale**3 * step**2 * top
                assert_contains(exact, value, slack)


def test_every_ball_is_as_narrow_as_asked_and_zeros_are_exact():
    for pair in rows(batch(SINGLE, count=30, seed=34)):
        found = enclosure(pair, digits=40)
        for ball in (found.dist_sq, found.log_det, *found.of_dist_sq.flat(), *found.of_log_det.flat()):
            assert ball == 0 or float(ball.rad() / abs(ball.mid())) < 1e-40
    # in one frame nothing turns the pair, as δ lies along an axis, and only this scale is felt
    found = enclosure([EYE, [1.0, 0, 0], [0.1, 0.2, 0.3], EYE, [0.0, 0, 0], [0.2, 0.1, 0.1]])
    zeros = [found.of_dist_sq.q_omega, found.of_dist_sq.k_omega, found.of_log_det.q_omega, found.of_log_det.q_mean]
    assert all(outward(x) == (0.0, 0.0) for zero in zeros for x in zero)
    assert [outward(x) == (0.0, 0.0) for x in found.of_dist_sq.q_log_sigma] == [False, True, True]


def test_coincident_means_are_exactly_zero_and_no_excuse():
    """δ = 0 stays 0 under relative changes, wherever the means lie: docs/theory.md, 11.2."""
    pair = [TURN, torch.full((3,), 1234.5678), [0.03, 150.0, 0.03], OTHER, torch.full((3,), 1234.5678), [0.03] * 3]
    found = enclosure(pair)
    assert outward(found.dist_sq) == (0.0, 0.0)
    assert all(outward(x) == (0.0, 0.0) for x in found.of_dist_sq.flat())
    verdict = ill_conditioned(pair, torch.float32, digits=6)
    assert verdict.dist_sq == Width(0.0, 0.0) and verdict.dist_sq.verdict == "well"


def test_far_and_nearly_coincident_means_are_no_excuse():
    far = torch.tensor([1e6, -1e6, 1e6])
    near = torch.nextafter(far, torch.zeros(3))
    pair = [TURN, far, [0.1, 0.2, 0.1], OTHER, near, [0.1] * 3]
    assert ill_conditioned(pair, torch.float32).dist_sq.verdict == "well"


def needles(kappa):
    """Needles in frames a turn of some 1/κ apart, δ across them: any turn of 1/κ changes the answer."""
    tilt = torch.tensor([[1.0, 0, 0], [0, 1, -1 / kappa], [0, 1 / kappa, 1]]).double()
    tilted = (TURN.double()[:, :, None] * tilt[None]).sum(1)
    long = 0.03 * kappa
    return [TURN, TURN[:, 2] + TURN[:, 1], [0.03, 0.03, long], tilted.float(), [0.0] * 3, [0.03, 0.03, long]]


def test_needles_with_kappa_beyond_the_dtype_are_certified_ill_conditioned():
    beyond = ill_conditioned(needles(1e7), torch.float32)
    assert beyond.dist_sq.verdict == beyond.log_det.verdict == "ill"
    assert 1.0 < beyond.dist_sq.lower <= beyond.dist_sq.upper
    within = ill_conditioned(needles(1e7), torch.float64)
    assert within.dist_sq.verdict == within.log_det.verdict == "well"
    short = ill_conditioned(needles(10.0), torch.float32)
    assert short.dist_sq.verdict == short.log_det.verdict == "well"
    strict = ill_conditioned(needles(10.0), torch.float32, digits=8)
    assert strict.dist_sq.verdict == strict.log_det.verdict == "ill"


def test_log_det_near_zero_is_asked_for_absolute_digits():
    """Spheres with 8σ⁶ ≈ 1 nm⁶: a relative error of log_det means nothing there."""
    pair = [TURN, [0.0, 0, 0], [0.70710678] * 3, OTHER, [1.0, 0, 0], [0.70710678] * 3]
    assert abs(outward(enclosure(pair).log_det)[1]) < 1e-6
    assert ill_conditioned(pair, torch.float32).log_det.verdict == "well"
    assert ill_conditioned(pair, torch.float32, digits=7).log_det.verdict == "ill"


def moved(pair, u, generator):
    """A point of the box: corners and insides, in float64, where the products are exact to 2⁻⁵³."""
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = (torch.as_tensor(x).double() for x in pair)

    def shaken(x):
        draw = 2 * torch.rand(x.shape, generator=generator, dtype=torch.float64) - 1
        return x * (1 + u * torch.where(draw.abs() < 0.7, draw.sign(), draw))

    delta = shaken(q_mean - k_mean)
    return shaken(q_rot), delta, shaken(q_sigma), shaken(k_rot), torch.zeros(3).double(), shaken(k_sigma)


def test_no_point_of_the_box_lies_beyond_the_certified_width():
    generator = torch.Generator().manual_seed(35)
    u, tolerance = 2.0**-24, 1e-2
    domain = Domain(sigma_max=3e4)
    tight = []
    for pair in rows(decode(degenerate_pairs(25, generator, domain), domain)):
        width = ill_conditioned(pair, torch.float32)
        points = [moved(pair, u, generator) for _ in range(40)]
        dist_sq, log_det = overlap_digits(*(torch.stack(x) for x in zip(*points, strict=True)))
        size = log_det.abs().clamp(min=1.0)
        for values, allowed, certified in ((dist_sq, dist_sq, width.dist_sq), (log_det, size, width.log_det)):
            low, high = values.argmin(), values.argmax()
            spread = float((values[high] - values[low]) / (tolerance * (allowed[high] + allowed[low])))
            # the points are rounded to float64, which moves them by 2⁻²⁹ of the box
            assert 0.0 <= certified.lower <= certified.upper and spread <= certified.upper * (1 + 1e-6) + 1e-9
        tight.append(width.dist_sq.lower / width.dist_sq.upper)
    assert max(tight) > 0.9  # the two sides meet where the box is small


def test_the_prefilter_passes_only_pairs_that_flint_finds_not_ill(monkeypatch):
    domain = Domain(sigma_max=0.03 * 2.7e4)
    pairs = decode(degenerate_pairs(60, torch.Generator().manual_seed(36), domain), domain)
    assert float(condition(pairs[2], pairs[5]).max()) > 2e4
    for pair in rows(pairs):
        found = ill_conditioned(pair, torch.float32)
        assert found.dist_sq.lower <= 1.0 and found.log_det.lower <= 1.0
    monkeypatch.setattr(rigorous, "ill_conditioned", lambda *_, **__: pytest.fail("the prefilter did not pass a pair"))
    for excused in conditioning(pairs, torch.float32):
        assert not excused.any()


def test_conditioning_excuses_what_flint_certifies_and_nothing_else():
    both = [
        torch.stack([torch.as_tensor(x).float() for x in row]) for row in zip(needles(1e7), needles(10.0), strict=True)
    ]
    for excused in conditioning(both, torch.float32):
        assert excused.tolist() == [True, False]
    for excused in conditioning(both, torch.float32, at_most=0):
        assert excused.tolist() == [False, False]
    for excused in conditioning(both, torch.float64):
        assert excused.tolist() == [False, False]
    # past the prefilter's threshold by little: one of the two values is beyond its digits
    dist_sq, log_det = conditioning([torch.as_tensor(x).float() for x in needles(5e5)], torch.float32)
    assert dist_sq.item() and not log_det.item()
    broken = [x.clone() for x in both]
    broken[1][0, 0] = math.nan
    for excused in conditioning(broken, torch.float32):
        assert excused.tolist() == [False, False]


def test_conditioning_broadcasts():
    q = [torch.as_tensor(x).float()[None] for x in needles(10.0)[:3]]
    k = [torch.as_tensor(x).float().expand(4, *torch.as_tensor(x).shape) for x in needles(10.0)[3:]]
    dist_sq, log_det = conditioning([*q, *k], torch.float32)
    assert dist_sq.shape == log_det.shape == (4,)


@pytest.mark.parametrize(("lower", "upper", "verdict"), [(0, 1, "well"), (0.9, 1.1, "undecided"), (1.01, 9, "ill")])
def test_only_a_certified_width_above_one_is_ill(lower, upper, verdict):
    assert Width(float(lower), float(upper)).verdict == verdict


def test_misuse_is_named():
    good = [EYE, [0.0] * 3, [0.1] * 3] * 2
    flat = [1.0, 0, 0, 0, 1, 0, 0, 0, 0]
    for bad, word in (
        ([*good[:2], [0.1, 0.0, 0.1], *good[3:]], "q_sigma"),
        ([*good[:4], [math.nan, 0, 0], good[5]], "k_mean"),
        ([EYE[:8], *good[1:]], "q_rot"),
        (good[:5], "six"),
        ([flat, *good[1:3], flat, *good[4:]], "det Σ is 0"),
    ):
        with pytest.raises(ValueError, match=word):
            enclosure(bad)


def test_outward_is_one_step_wide_where_no_float64_is_exact():
    from flint import arb, ctx

    with ctx.workprec(200):
        third, minus = arb(1) / 3, arb(-1) / 3
    lower, upper = outward(third)
    assert lower < upper and math.nextafter(lower, 1.0) == upper
    assert outward(minus) == (-upper, -lower)
    assert outward(arb(0)) == (0.0, 0.0)


@pytest.mark.process
def test_neither_module_imports_flint_before_it_is_needed():
    code = (
        "import runpy, sys, iga.testing.judges.rigorous; sys.argv = ['golden', '--count', 'none']\n"
        "try: runpy.run_module('iga.testing.golden', run_name='__main__')\n"
        "except SystemExit as stop: sys.exit(10 * ('flint' in sys.modules) + stop.code)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 2, done.stderr  # misuse of the command, flint not imported
