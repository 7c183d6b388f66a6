"""The check `score_slopes`: it reaches the bounds of theory.md, 9.4, sees what exceeds them, asks no other score."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import iga
from helpers.subjects import SMALL, foreign, judged
from iga._typing import Tensor
from iga.presets import IGAConfig, preset
from iga.testing.faults.patched import patched
from iga.testing.layer.lipschitz import score_slopes
from iga.testing.layer.subject import Subject

TWICE = 2.0


def traced(**changes: Any) -> Subject:
    return Subject("traced", preset("bounded", **changes), SMALL)


def times_backward(x: Tensor, factor: float) -> Tensor:
    """x, whose gradient is `factor` times too large."""
    moving = x * factor
    return x.detach() + (moving - moving.detach())


def steep_means(right, dist_sq, log_det, **options):
    return times_backward(right(dist_sq, log_det, **options), TWICE)


def steep_scales(right, r, raw_offset, raw_scale, config):
    """Means as they are, with twice the gradient to σ."""
    found = right(r, raw_offset, raw_scale, config)
    moved = found.mean + (found.sigma - found.sigma.detach()) * raw_offset.tanh().detach() * config.offset_max * 3
    return replace(found, mean=moved)


def steep_turns(right, q_rot, *rest):
    return right(times_backward(q_rot, TWICE), *rest)


# by which derivative it shows
FAULTS: dict[str, tuple[str, Callable, str]] = {
    "a score of twice the slope": ("functional.student_t_score", steep_means, "by mean"),
    "means that move thrice with σ": ("functional.point_gaussians", steep_scales, "by log σ"),
    "a turn of twice the torque": ("functional.gaussian_overlap", steep_turns, "by turn"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_score_that_changes_too_fast_is_broken(fault: str) -> None:
    place, wrong, kind = FAULTS[fault]
    finding = judged(score_slopes, patched(traced(), {place: wrong}))
    assert finding.verdict == "broken" and kind in finding.worst_example, finding


@pytest.mark.parametrize("changes", [{}, {"dof": 0.5}, {"dof": 30.0}, {"floor": "hard"}, {"log_det_min": -5.0}])
def test_the_score_of_any_setting_holds(changes: dict[str, Any]) -> None:
    assert judged(score_slopes, traced(**changes)).verdict == "holds"


def test_the_search_comes_near_each_bound() -> None:
    """By a mean it starts there, with σ off the floor by e⁻¹² at most; by a turn of needles at (ν+3)/(ν+4) of the bound
    less what log_det takes, 1/(ν+4); by log σ a climb from random offsets has to pass half."""
    note = judged(score_slopes, traced()).note
    reached = {part.split(" by ")[1].split(",")[0]: float(part.split()[-1]) for part in note.split("; ")}
    assert reached["mean"] >= 0.999
    assert reached["turn"] >= 0.7
    assert reached["log σ"] >= 0.5


def test_a_score_without_gradient_is_broken() -> None:
    finding = judged(
        score_slopes, patched(traced(), {"functional.student_t_score": lambda right, *a, **o: right(*a, **o).detach()})
    )
    assert finding.verdict == "broken" and "no gradient" in finding.note


def test_a_gaussian_score_is_not_asked() -> None:
    report = iga.verify("sigma_floor", only=["log_det_floor"])
    assert "score_slopes" not in report.not_applicable  # nobody asked for it
    with pytest.raises(ValueError, match="score_slopes does not apply: is of score='student_t'.*has score='gaussian'"):
        iga.verify("sigma_floor", only=["score_slopes"])


def test_a_layer_without_trace_is_not_asked() -> None:
    assert "offers no trace" in score_slopes.not_applicable(foreign(), "fast")


def test_float32_alone_is_judged_in_float32() -> None:
    subject = replace(traced(), dtypes=(torch.float32,))
    finding = judged(score_slopes, subject)
    assert finding.verdict == "holds" and "float32" in finding.worst_example


def test_the_config_of_a_traced_layer_says_which_score_it_claims() -> None:
    assert score_slopes.not_applicable(replace(traced(), foreign=True), "fast") == ""
    gaussian = replace(traced(), config=IGAConfig(score="gaussian"))
    assert "gaussian" in score_slopes.not_applicable(gaussian, "fast")
