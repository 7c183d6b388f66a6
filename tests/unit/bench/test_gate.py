"""The parts of a timing: the problem, the repeats, and the gate that passes what is right and refuses what is wrong."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from iga._statistics import ratio
from iga.bench.gate import Verdict, Yardstick, cotangents, sampled_rows
from iga.bench.implementations import IMPLEMENTATIONS, step
from iga.bench.measure import interleaved
from iga.bench.problem import CONFIG, Case, Problem, make_problem
from iga.functional import PointGaussians, point_scores


def test_every_repeat_calls_everyone_and_the_order_rotates() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}

    def seconds(call: Callable[[], object]) -> float:
        call()
        return 1.0

    samples = interleaved(calls, 4, seconds)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert {name: len(values) for name, values in samples.items()} == {"a": 4, "b": 4, "c": 4}
    assert {len(values) for values in interleaved(calls, 50, seconds, limit=7.0).values()} == {3}


def test_the_same_contestant_twice_has_a_ratio_of_one() -> None:
    samples = interleaved({"first": list, "second": list}, 9, lambda call: 1e-3)
    assert ratio(samples["first"], samples["second"]) == (1.0, (1.0, 1.0))


def _verdict(name: str, forward: Callable[[Problem], object], direction: str = "forward_backward") -> Verdict:
    case = Case(direction, 24, 2, 2)
    problem = make_problem(case, seed=1)
    rows = sampled_rows(case, 600)
    cotangent = cotangents(problem, rows, 1) if case.backward else None
    judged = Yardstick(problem, IMPLEMENTATIONS[name].function, rows, cotangent)
    return judged.judge(step(forward, problem, cotangent)())  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["cpu", "reference", "dense", "textbook", "ipa_sdpa"])
def test_the_gate_passes_what_is_right(name: str) -> None:
    for direction in ("forward", "forward_backward"):
        verdict = _verdict(name, IMPLEMENTATIONS[name].build(Case(direction, 24, 2, 2)), direction)
        assert verdict.passed, (direction, verdict)


def _right(p: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    return IMPLEMENTATIONS["dense"].build(Case("forward", 24, 2, 2))(p)


def _altered(**factors: float) -> Callable[[Problem], object]:
    return lambda p: _right(replace(p, **{name: vars(p)[name] * factor for name, factor in factors.items()}))


FAULTS = {
    "the query scale is 0.1 % too large": _altered(q_sigma=1.001),
    "a head's weight is 1 % too large": _altered(geo_scale=1.01),
    "the last key is forgotten": lambda p: _right(replace(p, k_mean=_far(p.k_mean), k=_far(p.k))),
    "a gradient is cut off": lambda p: _right(replace(p, rot=p.rot.detach())),
    "values are NaN": lambda p: tuple(out * math.nan for out in _right(p)),
    "values are zero": lambda p: tuple(out * 0.0 for out in _right(p)),
}


def _far(x: torch.Tensor) -> torch.Tensor:
    moved = x.clone()
    moved[..., -1, :] = moved[..., -1, :] * 1.5
    return moved


def test_the_gate_refuses_what_is_wrong() -> None:
    for name, fault in FAULTS.items():
        assert not _verdict("dense", fault).passed, name


def test_every_bench_problem_is_that_of_a_healthy_layer() -> None:
    p = make_problem(Case("forward", 600, 2, 2), seed=0, dtype=torch.float64)
    assert 0.03 <= float(p.q_sigma.min()) and float(p.q_sigma.max()) < 3.0
    assert (p.trans.mean(1).abs() < 1e-12).all()
    query, key = PointGaussians(p.rot, p.q_mean, p.q_sigma), PointGaussians(p.rot, p.k_mean, p.k_sigma)
    _, log_det, score = point_scores(query, key, CONFIG)
    assert score.isfinite().all() and (log_det > -19.0).all()
    same = make_problem(Case("forward", 600, 2, 2), seed=0, dtype=torch.float64)
    assert torch.equal(p.k_mean, same.k_mean)


def test_sampled_rows_reach_both_ends_and_are_never_more_than_there_are() -> None:
    assert sampled_rows(Case("forward", 5, 1, 1), 10**6).tolist() == [0, 1, 2, 3, 4]
    assert sampled_rows(Case("forward", 100, 8, 8), 1).tolist() == [0, 99]
    assert sampled_rows(Case("forward", 1, 1, 1), 1).tolist() == [0]
