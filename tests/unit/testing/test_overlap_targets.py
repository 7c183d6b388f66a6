"""Overlap functions as targets: right ones raise no alarm, wrong ones do, and no check accepts garbage."""

from dataclasses import replace

import pytest
import torch

from iga.overlap import gaussian_overlap, gaussian_overlap_textbook
from iga.structure.synthetic import synthetic_structures
from iga.testing.contract import PROFILES, Contract
from iga.testing.faults import overlap as overlap_faults
from iga.testing.faults.clean import CLEAN
from iga.testing.overlap.checks import OVERLAP_INVARIANTS
from iga.testing.overlap.subject import OverlapSubject
from iga.testing.run import OverlapPlan
from iga.testing.targets import Target, target
from iga.testing.verify import verify

TINY = replace(PROFILES["fast"], name="tiny", synthetic=2, pairs=2000, digits_pairs=8)
ALL = tuple(OVERLAP_INVARIANTS)
CHEAP = tuple(name for name in ALL if name not in ("transforms", "second_derivatives"))


def findings(function, names=ALL, *, seed=0, sigma_range=(0.03, 150.0)):
    subject = function if isinstance(function, OverlapSubject) else OverlapSubject("f", function, sigma_range)
    contract = Contract(sigma_min=sigma_range[0], sigma_max=sigma_range[1])
    plan = OverlapPlan(subject, contract, TINY, seed, list(names), synthetic_structures(2, seed=seed), [])
    return {finding.name: finding for finding in plan.run().findings}


def broken(function, names=ALL, **options) -> set[str]:
    return {name for name, finding in findings(function, names, **options).items() if finding.verdict != "holds"}


# --- right functions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLEAN)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_right_function_raises_no_alarm_whatever_its_algorithm(name: str, seed: int) -> None:
    assert broken(CLEAN[name], CHEAP, seed=seed) == set()


def test_vmap_compile_and_export_take_a_right_function_as_it_is() -> None:
    # the functions of iga itself carry shape checks here, which a compiler does not see through
    assert broken(CLEAN["QR of the 6×3 factor"], ("transforms", "second_derivatives")) == set()


def inverse_in_float64(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma):
    """The textbook, in float64: it squares the condition, and float64 can afford it."""
    r, s, t, v = (x.double() for x in (q_rot, q_sigma, k_rot, k_sigma))
    cov = (r * s.square()[..., None, :]) @ r.mT + (t * v.square()[..., None, :]) @ t.mT
    delta = (q_mean.double() - k_mean.double()).expand(*cov.shape[:-2], 3)
    dist_sq = (delta * torch.linalg.solve(cov, delta[..., None])[..., 0]).sum(-1)
    return dist_sq.to(q_mean.dtype), torch.linalg.slogdet(cov)[1].to(q_mean.dtype)


@pytest.mark.parametrize("seed", range(4))
def test_a_form_that_squares_the_condition_is_right_in_float64_and_the_report_says_what_it_loses(seed: int) -> None:
    found = findings(inverse_in_float64, CHEAP, seed=seed)
    assert {f.verdict for f in found.values()} == {"holds"}, found
    assert "κ²" in found["accuracy"].note


def test_the_same_form_in_float32_is_not() -> None:
    def textbook(*pair):
        return gaussian_overlap_textbook(*pair, jitter=0.0)

    assert "accuracy" in broken(textbook, ("accuracy",))


def test_a_function_that_claims_a_narrow_range_is_judged_there_only() -> None:
    def textbook(*pair):
        return gaussian_overlap_textbook(*pair, jitter=0.0)

    assert broken(textbook, ("accuracy", "score_laws"), sigma_range=(0.03, 0.1)) == set()


# --- wrong functions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", overlap_faults.FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_seen_by_every_check_that_has_to(fault) -> None:
    faulty = fault.planted(CLEAN["closed form"])
    assert broken(faulty, fault.expected) == set(fault.expected)


def off_in_float32(*pair):
    dist_sq, log_det = gaussian_overlap(*pair)
    return dist_sq * (1.001 if dist_sq.dtype == torch.float32 else 1.0), log_det


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *pair):
        ctx.save_for_backward(*pair)
        return gaussian_overlap(*pair)

    @staticmethod
    def backward(ctx, by_dist_sq, by_log_det):
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_(True) for x in ctx.saved_tensors]
            values = gaussian_overlap(*leaves)
            grads = torch.autograd.grad(values, leaves, (by_dist_sq, by_log_det), allow_unused=True)
        return tuple(None if g is None else 1.01 * g for g in grads)


def raises_for_needles(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma):
    if bool((q_sigma.amax(-1) > 100).any()):
        raise RuntimeError("the matrix is not positive definite")
    return gaussian_overlap(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma)


@pytest.mark.parametrize("function", [off_in_float32, WrongBackward.apply, raises_for_needles])
def test_a_wrong_function_ends_1(function) -> None:
    report = verify(function, kind="overlap", profile=TINY, only=["accuracy", "gradient_values"])
    assert report.exit_code == 1


def test_what_a_function_raises_is_a_finding_that_says_so() -> None:
    finding = findings(raises_for_needles, ("accuracy",))["accuracy"]
    assert finding.verdict == "broken"
    assert "not positive definite" in finding.note


# --- no check accepts garbage -----------------------------------------------------------------------------------


def _filled(value: float):
    def function(*pair):
        dist_sq, log_det = gaussian_overlap(*pair)
        return torch.full_like(dist_sq, value), torch.full_like(log_det, value)

    return function


def _filled_in_the_graph(value: float):
    """The same, with a path back to every input."""

    def function(*pair):
        return tuple(x * 0 + value for x in gaussian_overlap(*pair))

    return function


GARBAGE = {"NaN": torch.nan, "infinity": torch.inf, "zeros": 0.0, "a constant": 1.5}


@pytest.mark.parametrize("make", [_filled, _filled_in_the_graph])
@pytest.mark.parametrize("value", GARBAGE.values(), ids=GARBAGE.keys())
def test_no_check_accepts_garbage(value: float, make) -> None:
    found = findings(make(value))
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
