"""Overlap functions as targets: what is right in its own way holds, what is wrong ends 1, no check accepts garbage.

That right functions of three algorithms raise no alarm, and that each fault is seen, is for `iga faults` to prove.
"""

from dataclasses import replace

import pytest
import torch

from iga.overlap import gaussian_overlap, gaussian_overlap_textbook
from iga.testing.checks import checks_of
from iga.testing.contract import PROFILES
from iga.testing.faults.clean import CLEAN
from iga.testing.result import Finding
from iga.testing.targets import Claims, Target, target
from iga.testing.verify import verify

TINY = replace(PROFILES["fast"], name="tiny", synthetic=2, pairs=2000, digits_pairs=8)


def findings(function, names=None, *, sigma_range=(0.03, 150.0), **options) -> dict[str, Finding]:
    claimed = Target("f", "overlap", function, sigma_range)
    report = verify(claimed, **({"profile": TINY, "only": names} | options))
    return {finding.name: finding for finding in report.findings}


def inverse_in_float64(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma):
    """The textbook, in float64: it squares the condition, and float64 can afford it."""
    r, s, t, v = (x.double() for x in (q_rot, q_sigma, k_rot, k_sigma))
    cov = (r * s.square()[..., None, :]) @ r.mT + (t * v.square()[..., None, :]) @ t.mT
    delta = (q_mean.double() - k_mean.double()).expand(*cov.shape[:-2], 3)
    dist_sq = (delta * torch.linalg.solve(cov, delta[..., None])[..., 0]).sum(-1)
    return dist_sq.to(q_mean.dtype), torch.linalg.slogdet(cov)[1].to(q_mean.dtype)


def textbook(*pair):
    return gaussian_overlap_textbook(*pair, jitter=0.0)


def test_a_form_that_squares_the_condition_is_right_in_float64_and_the_report_says_what_it_loses() -> None:
    found = findings(inverse_in_float64, profile=replace(TINY, name="fast"))
    assert {f.verdict for f in found.values()} == {"holds"}, found
    assert "κ²" in found["accuracy"].note


def test_the_same_form_in_float32_is_right_where_the_range_of_scales_is_narrow_only() -> None:
    assert findings(textbook, ["accuracy"])["accuracy"].verdict == "broken"
    narrow = findings(textbook, ["accuracy", "score_laws"], sigma_range=(0.03, 0.1))
    assert {finding.verdict for finding in narrow.values()} == {"holds"}


# --- wrong functions --------------------------------------------------------------------------------------------


def off_in_float32(*pair):
    dist_sq, log_det = gaussian_overlap(*pair)
    return dist_sq * (1.001 if dist_sq.dtype == torch.float32 else 1.0), log_det


def raises_for_needles(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma):
    if bool((q_sigma.amax(-1) > 100).any()):
        raise RuntimeError("the matrix is not positive definite")
    return gaussian_overlap(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma)


@pytest.mark.parametrize("function", [off_in_float32, raises_for_needles])
def test_a_wrong_function_ends_1_and_what_it_raises_is_said(function) -> None:
    report = verify(function, kind="overlap", profile=TINY, only=["accuracy"])
    assert report.exit_code == 1 and report["accuracy"].verdict == "broken"
    assert function is off_in_float32 or "not positive definite" in report["accuracy"].note


def lossy_for_spheres(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma):
    factor = torch.where((q_sigma == q_sigma[..., :1]).all(-1, keepdim=True), torch.nan, 1.0)
    if q_sigma.requires_grad:
        q_sigma = q_sigma * 1
        q_sigma.register_hook(lambda g: g * factor)
    return gaussian_overlap(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma)


def test_a_gradient_that_is_lost_where_values_are_right_is_said_to_be_the_gradient_alone() -> None:
    found = findings(lossy_for_spheres, ["gradient_values", "gradient_finiteness"])
    assert {finding.verdict for finding in found.values()} == {"broken"}
    assert all("gradient: dist_sq by log sigma" in f.note and "values agree" in f.note for f in found.values())


def test_who_claims_to_have_no_gradients_is_asked_for_none() -> None:
    known = Target("f", "overlap", gaussian_overlap, (0.03, 150.0), claims=Claims(inference_only=True))
    names = ["gradient_values", "gradient_finiteness"]
    report = verify(known, profile=TINY, only=names)
    assert report.exit_code == 0 and {f.verdict for f in report.findings} == {"not supported"}


def once(*pair):
    """Both answers of one Function, whose backward gives back its memory: no second way back."""

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            with torch.enable_grad():
                ctx.leaves = [x.detach().requires_grad_(True) for x in inputs]
                ctx.answers = gaussian_overlap(*ctx.leaves)
            return tuple(x.detach() for x in ctx.answers)

        @staticmethod
        def backward(ctx, *grads):
            answers, ctx.answers = ctx.answers, None
            if answers is None:
                raise RuntimeError("led back already")
            return torch.autograd.grad(answers, ctx.leaves, grads, allow_unused=True)

    return Once.apply(*pair)


def test_who_claims_to_be_led_back_once_is_led_back_once() -> None:
    names = ["gradient_values", "gradient_finiteness"]
    claims = Claims(unsupported=("retain_graph",))
    report = verify(Target("f", "overlap", once, (0.03, 150.0), claims=claims), profile=TINY, only=names)
    assert {f.verdict for f in report.findings} == {"holds"}, report.findings
    assert {f.verdict for f in findings(once, names).values()} == {"broken"}


# --- no check accepts garbage -----------------------------------------------------------------------------------


def filled(value: float, *, graph: bool):
    """An overlap that answers with one number, with a path back to every input or without."""

    def function(*pair):
        return tuple(x * 0 + value if graph else torch.full_like(x, value) for x in gaussian_overlap(*pair))

    return function


@pytest.mark.parametrize("graph", [False, True], ids=["detached", "in the graph"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 0.0, 1.5], ids=["NaN", "infinity", "zeros", "a constant"])
def test_no_check_accepts_garbage(value: float, graph: bool) -> None:
    costly = value == 1.5 and graph  # compiled and differentiated twice for one of them
    judging = {name: check for name, check in checks_of("overlap").items() if name != "process_state"}  # no answers
    names = [name for name, check in judging.items() if costly or check.every == 1]
    found = findings(filled(value, graph=graph), names, profile=replace(TINY, pairs=640))
    assert len(found) == (9 if costly else 7)
    assert [name for name, finding in found.items() if finding.verdict == "holds"] == []


def test_examples_that_no_float32_can_decide_are_counted_and_left_out() -> None:
    found = findings(CLEAN["QR of the 6×3 factor"].function, ("accuracy",), sigma_range=(1e-4, 1e4))["accuracy"]
    assert found.undecided > 0
    assert "ill-conditioned" in found.note


# --- claims -----------------------------------------------------------------------------------------------------


def test_a_claimed_dtype_is_the_only_one_judged() -> None:
    only_float32 = Target("f", "overlap", off_in_float32, dtypes=(torch.float64,))
    assert verify(only_float32, profile=TINY, only=["accuracy"]).exit_code == 0


def test_an_expected_failure_passes_the_gate_and_one_that_holds_fails_it() -> None:
    claim = target(kind="overlap", expected_broken={"accuracy": "a thousandth off, on purpose"})

    def off(*pair):
        return off_in_float32(*pair)

    def right(*pair):
        return gaussian_overlap(*pair)

    assert verify(claim(off), profile=TINY, only=["accuracy"]).exit_code == 0
    assert verify(claim(right), profile=TINY, only=["accuracy"]).exit_code == 1
