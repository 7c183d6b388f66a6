"""The search of an overlap function: each kind of corner is found, judged again, shrunk; right ones are left alone."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from iga.fuzz.bandit import Bandit
from iga.fuzz.objectives import judge_pairs
from iga.fuzz.overlap import ENGINES, OverlapStream
from iga.fuzz.pair_cases import CLEARLY
from iga.fuzz.sampling import (
    BESIDE,
    SIZES,
    by_pivots,
    grid,
    odd_gradients,
    picked,
    rests_in_turn,
    screen,
    sizes_in_turn,
    table_in_turn,
)
from iga.fuzz.stream import Candidate
from iga.overlap import gaussian_overlap
from iga.search.pair_space import PairSpace
from iga.search.pairs import Domain, Pairs
from iga.structure.synthetic import synthetic_structures
from iga.testing.checks import checks_of
from iga.testing.faults.corners import CORNERS
from iga.testing.judges.overlap import condition, overlap_reference
from iga.testing.latest import Call
from iga.testing.overlap.budgets import value_budgets
from iga.testing.overlap.pairs import structure_pairs
from iga.testing.overlap.subject import ARGUMENTS, OverlapSubject

CLEAN = OverlapSubject("iga", gaussian_overlap)
SPACE = PairSpace(Domain())
# Without process_state: the checks of shapes in these tests draw from Python's generator.
QUICK = [check for check in checks_of("overlap").values() if check.every == 1 and check.name != "process_state"]


def _found(stream: OverlapStream, rounds: int) -> Candidate | None:
    for _ in range(rounds):
        for candidate in stream.round().candidates:
            if stream.judge(candidate).verdict == "broken":
                return candidate
    return None


def test_pairs_of_structures_are_judged_first_and_start_the_search() -> None:
    pair = structure_pairs(synthetic_structures(1, seed=5), 64, torch.float64, 0.03, seed=0)
    apart, scale = (pair[1] - pair[4])[7].norm(), pair[2][7, 0]

    def wrong(*given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the eighth pair is met, to within float32's rounding of means some nm from the origin."""
        dist_sq, log_det = gaussian_overlap(*given)
        near = ((given[1] - given[4]).norm(dim=-1) - apart).abs() < 1e-5 * apart
        near = near & ((given[2] - scale).abs().amin(dim=-1) < 1e-5 * scale)
        return torch.where(near, 1.5 * dist_sq, dist_sq), log_det

    for known, found in (([pair], True), ([], False)):
        stream = OverlapStream(OverlapSubject("wrong", wrong), checks=QUICK, engines=("sampling",), known=known)
        assert len(stream.pool) == (len(pair[0]) if known else 0)
        assert ("accuracy" in {one.check for one in stream.round().candidates}) == found


CHEAP = {  # of each kind one that is met in a second or two; benches/fuzz_benchmark.py looks for all
    "box": 2,
    "gradient": 14,
    "bump": 19,
    "table": 23,
    "equality": 34,
}


@pytest.mark.parametrize("kind", CHEAP)
def test_a_corner_is_found_shrunk_and_broken_alone(kind: str) -> None:
    fault = CORNERS[CHEAP[kind]]
    assert fault.kind == kind
    engines = {"box": ("branches",), "gradient": ("branches",)}.get(kind, ("sampling",))
    stream = OverlapStream(fault.planted(CLEAN), checks=QUICK, engines=engines)
    candidate = _found(stream, 12)
    assert candidate is not None and candidate.check in (*fault.expected, "gradient_values")
    simple = stream.shrink(candidate, 20.0)
    assert all(x.ndim == (2 if name.endswith("rot") else 1) for name, x in simple.call.inputs.items())
    assert stream.judge(simple).verdict == "broken"
    sigma = torch.cat([simple.call.inputs["q_sigma"], simple.call.inputs["k_sigma"]])
    assert float(sigma.min()) >= 0.03 - 1e-6 and float(sigma.max()) <= 150.001


STARTS = (
    *("among picked rows", "float32 alone: width", "of the gradient alone"),
    *("under vmap", "in an autograd.Function", "none by a backward"),
)


@pytest.mark.parametrize("start", STARTS)
def test_what_is_no_condition_on_all_rows_is_found_by_its_distance(start: str) -> None:
    (fault,) = (one for one in CORNERS if one.name.startswith(start))
    stream = OverlapStream(fault.planted(CLEAN), checks=QUICK, engines=("branches",))
    candidate = _found(stream, 12)
    assert candidate is not None and candidate.check in fault.expected


def test_a_batch_that_loses_its_tail_is_shrunk_to_the_smallest_such_batch() -> None:
    (fault,) = (one for one in CORNERS if one.name.startswith("the last of 1024"))
    stream = OverlapStream(fault.planted(CLEAN), checks=QUICK)
    pairs = SPACE.decode(SPACE.draw(2049, torch.Generator().manual_seed(0)), torch.float32)
    stream._begin("sampling")
    stream._screened(pairs, torch.float32, batch=True)
    candidate = stream._candidates["accuracy"]
    assert len(stream.shrink(candidate, 20.0).call.inputs["q_rot"]) == 1025


def test_a_batch_size_that_is_wrong_alone_is_met_in_a_few_rounds() -> None:
    """No power of two is near it: every size up to 2048 has its turn."""
    (fault,) = (one for one in CORNERS if one.name.startswith("the last of 384"))
    stream = OverlapStream(fault.planted(CLEAN), checks=QUICK)
    stream.halvings = 1  # sizes up to 1024
    stream._begin("sampling")
    for turn in range(32):
        stream._every_size(turn, torch.float32)
    assert len(stream._candidates["accuracy"].call.inputs["q_rot"]) % 384 == 1
    met = [size for turn in range(32) for size in sizes_in_turn(turn, 7, 0)]
    assert sorted(set(met)) == [*range(1, 2049), *BESIDE]


def test_a_tail_of_any_length_beside_many_blocks_has_its_turn() -> None:
    for whole in (32_768, 81_920):
        sizes = [size for turn in range(2 * 130) for size in rests_in_turn(turn, 7, 0)]
        met = [size - whole for size in sizes if abs(size - whole) <= 512]
        assert set(range(-511, 513)) <= set(met)
        assert set(met[:16]) == {k for k in range(-8, 9) if k}
    assert len(rests_in_turn(0, 7, 1)) == 2 and rests_in_turn(0, 7, 2) == []
    (fault,) = (one for one in CORNERS if one.name.startswith("4 to 7 pairs beside blocks"))
    for subject, found in ((fault.planted(CLEAN), True), (CLEAN, False)):
        stream = OverlapStream(subject, checks=QUICK)
        stream.halvings = 0
        stream._begin("sampling")
        for turn in range(2):
            stream._every_size(turn, torch.float32)
        assert ("accuracy" in stream._candidates) == found


def test_a_gradient_that_one_size_alone_loses_is_met_and_shrunk_to_the_smallest_such_batch() -> None:
    (fault,) = (one for one in CORNERS if one.name.startswith("no gradient of the last of 900"))
    for subject, found in ((fault.planted(CLEAN), True), (CLEAN, False)):
        stream = OverlapStream(subject, checks=QUICK)
        stream.halvings = 0
        stream._begin("sampling")
        turn = next(k for k in range(32) if {901, 1801} & set(sizes_in_turn(k, stream.seed, 0)))
        stream._every_size(turn, torch.float64)
        assert ("gradient_values" in stream._candidates) == found
    stream = OverlapStream(fault.planted(CLEAN), checks=QUICK)
    pairs = SPACE.decode(SPACE.draw(1801, torch.Generator().manual_seed(0)), torch.float64)
    stream._begin("sampling")
    stream._whole("gradient_values", pairs, torch.float64)
    candidate = stream._candidates["gradient_values"]
    assert stream.judge(candidate).verdict == "broken"
    assert len(stream.shrink(candidate, 20.0).call.inputs["q_rot"]) == 901


def test_a_gradient_that_is_no_number_or_raises_at_one_size_alone_is_clear() -> None:
    def raises(gradient: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such size")

    pairs = SPACE.decode(SPACE.draw(1000, torch.Generator().manual_seed(0)), torch.float64)
    for rule in (raises, lambda gradient: gradient * torch.nan):

        def wrong(*pair: torch.Tensor, rule=rule) -> tuple[torch.Tensor, torch.Tensor]:
            dist_sq, log_det = gaussian_overlap(*pair)
            if len(dist_sq) == 901 and log_det.requires_grad:
                log_det.register_hook(rule)
            return dist_sq, log_det

        assert odd_gradients(wrong, pairs, [900, 901, 902], lambda: None) == [901]
    assert odd_gradients(gaussian_overlap, pairs, [900, 901, 902], lambda: None) == []


def test_a_tail_of_one_pair_is_met_early_whatever_the_usual_block() -> None:
    (fault,) = (one for one in CORNERS if one.name.startswith("the last of 5000"))
    stream = OverlapStream(fault.planted(CLEAN), checks=QUICK)
    stream.halvings = 0
    stream._begin("sampling")
    turn = next(k for k in range(3) if 240_001 in table_in_turn(k, 0))
    stream._sizes(turn, torch.float32)
    assert len(stream._candidates["accuracy"].call.inputs["q_rot"]) % 5000 == 1
    blocks = (1000, 1024, 2000, 2048, 4000, 4096, 5000, 8000, 10_000, 20_000, 48, 96, 192, 384, 640, 120, 240, 480)
    for block in blocks:
        assert {1, block - 1} <= {size % block for size in SIZES if size > block}


def test_what_raises_on_a_larger_batch_alone_is_a_candidate_and_ends_no_round() -> None:
    def raises(*pair):
        assert len(pair[0]) < 1000, "too many"
        return CLEAN(*pair)

    stream = OverlapStream(replace(CLEAN, function=raises), checks=QUICK)
    stream.halvings = 0
    stream._begin("sampling")
    stream._every_size(0, torch.float32)
    assert stream._candidates


def test_of_a_function_that_raises_on_many_pairs_the_fewest_are_handed_on() -> None:
    """A batch of 10⁵ pairs is a message of tens of megabytes, and nobody reads it."""

    def wrong(*pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if pair[1].ndim == 2 and len(pair[1]) > 50:
            raise RuntimeError("too many")
        return gaussian_overlap(*pair)

    stream = OverlapStream(OverlapSubject("wrong", wrong), checks=QUICK, engines=("sampling",))
    raised = [one for one in stream.round().candidates if one.check == "accuracy"]
    assert len(raised) == 1 and "too many" in raised[0].note
    assert len(raised[0].call.inputs["q_mean"]) == 51
    assert stream.judge(raised[0]).verdict == "broken"


def test_what_every_call_sets_in_the_process_is_a_candidate_and_put_back() -> None:
    """The engines call the function by itself: what it sets there is there already when a check looks."""

    def wrong(*pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        torch.set_default_dtype(torch.float64)
        return gaussian_overlap(*pair)

    stream = OverlapStream(OverlapSubject("wrong", wrong), checks=[checks_of("overlap")["process_state"]])
    (found,) = stream.round().candidates
    assert torch.get_default_dtype() == torch.float32
    assert found.check == "process_state" and stream.judge(found).verdict == "broken"
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("index", range(len(CORNERS)))
def test_a_corner_is_right_elsewhere(index: int) -> None:
    fault = CORNERS[index]
    genome = SPACE.draw(200, torch.Generator().manual_seed(1), 0.0)
    pairs = SPACE.decode(genome, torch.float32)
    wrong, right = fault.planted(CLEAN)(*pairs), gaussian_overlap(*pairs)
    if fault.kind == "slope":  # a little wrong everywhere, and nowhere here by more than the check allows
        assert _accuracy(fault.planted(CLEAN), lambda dtype: SPACE.decode(genome, dtype), 200) < 1
        return
    moved = sum(int((a != b).sum()) for a, b in zip(wrong, right, strict=True))
    assert moved <= (40 if fault.size == 0 else 2)  # scales that are equal are drawn often


def test_a_slope_is_over_its_budget_at_the_top_and_seen_from_afar() -> None:
    (fault,) = (one for one in CORNERS if one.kind == "slope")
    scales = torch.tensor([[0.3, 1.0, 3.0], [2.0, 0.5, 6.0]], dtype=torch.float64)
    directions = torch.randn(64, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    directions = directions / directions.flatten(1).norm(dim=-1)[:, None, None]
    genome = SPACE.draw(64, torch.Generator().manual_seed(1), 0.0)

    def ratio(subject: OverlapSubject, r: float) -> float:
        sigma = scales * (r * directions).exp()

        def given(dtype: torch.dtype) -> Pairs:
            pair = SPACE.decode(genome, dtype)
            return (*pair[:2], sigma[:, 0].to(dtype), *pair[3:5], sigma[:, 1].to(dtype))

        return _accuracy(subject, given, 64)

    wrong = fault.planted(CLEAN)
    assert ratio(wrong, 0.0) > 1 > ratio(wrong, 0.2) > ratio(wrong, 0.6) > ratio(CLEAN, 0.6)


def _accuracy(subject: OverlapSubject, given: Callable[[torch.dtype], Pairs], count: int) -> float:
    """The largest value over its limit of the check `accuracy`, on these pairs in its dtype."""
    return float(judge_pairs([checks_of("overlap")["accuracy"]], subject, given, count)["accuracy"].ratio.max())


def test_a_right_function_raises_no_candidate() -> None:
    stream = OverlapStream(CLEAN, checks=QUICK)
    rounds = [stream.round() for _ in range(7)]
    assert {one.engine for one in rounds} == set(ENGINES)
    assert not [c for one in rounds for c in one.candidates] and sum(one.examples for one in rounds) > 10**6
    assert stream.covered().cells > 100


def test_a_stream_goes_on_from_its_state_as_if_it_had_not_stopped() -> None:
    first = OverlapStream(CORNERS[2].planted(CLEAN), checks=QUICK, seed=5)
    for _ in range(2):
        first.round()
    second = OverlapStream(CORNERS[2].planted(CLEAN), checks=QUICK, seed=5)
    second.restore(json.loads(json.dumps(first.state())))
    for _ in range(2):
        left, right = first.round(), second.round()
        assert (left.engine, left.examples, left.worst) == (right.engine, right.examples, right.worst)
    assert json.dumps(first.state()) == json.dumps(second.state())


@pytest.mark.parametrize("spoiled", [{}, {"pool": 1}, {"pool": {"dtype": "float64", "shape": [2, 3], "bytes": "AAAA"}}])
def test_what_is_no_state_is_refused(spoiled: dict) -> None:
    stream = OverlapStream(CLEAN)
    state = stream.state() | spoiled if spoiled else {}
    with pytest.raises(ValueError):
        OverlapStream(CLEAN).restore(state)


def test_what_the_accused_raises_is_a_candidate_and_does_not_end_the_search() -> None:
    def raises(*pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if pair[0].ndim == 3 and len(pair[0]) == 5:
            raise ZeroDivisionError("five")
        return gaussian_overlap(*pair)

    stream = OverlapStream(OverlapSubject("raises", raises), checks=QUICK, engines=("sampling",))
    candidate = _found(stream, 6)
    assert candidate is not None and "ZeroDivisionError" in candidate.note


def test_the_ratio_of_a_row_is_its_value_over_its_limit_whatever_the_check_left_out() -> None:
    def wrong(*pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        dist_sq, log_det = gaussian_overlap(*pair)
        return dist_sq, torch.where(pair[2][..., 0] == 7.0, log_det + 1.0, log_det)

    pairs = list(SPACE.decode(SPACE.draw(50, torch.Generator().manual_seed(0), 0.0), torch.float32))
    pairs[2][[7, 31], 0] = 7.0
    pairs[4][3] = pairs[1][3]  # equal means: accuracy leaves dist_sq out there
    checks = [checks_of("overlap")["accuracy"]]
    given = lambda dtype: tuple(pairs)  # noqa: E731
    found = judge_pairs(checks, OverlapSubject("wrong", wrong), given, 50, dtypes=[torch.float32])  # pyright: ignore[reportArgumentType]
    assert (found["accuracy"].ratio > 1).nonzero().flatten().tolist() == [7, 31]


def test_the_screen_s_formula_agrees_with_the_judge_where_it_looks() -> None:
    pairs = SPACE.decode(SPACE.draw(2000, torch.Generator().manual_seed(0)), torch.float32)
    allowed = 64 * condition(pairs[2], pairs[5]).square() * 2.0**-53  # a backward stable form of Σ, which is κ² off
    dist_sq, log_det = by_pivots(*pairs)
    right = overlap_reference(*pairs)
    assert bool(((dist_sq - right[0]).abs() <= allowed * right[0]).all())
    assert bool(((log_det - right[1]).abs() <= allowed + 1e-14 * right[1].abs()).all())
    pairs = grid(SPACE, torch.Generator().manual_seed(0), torch.float32, ends=32)
    suspects = screen(gaussian_overlap, pairs, torch.float32, most=10)
    assert suspects.examples == 1024 and float(suspects.share[0]) < 0.7
    assert len(picked(pairs, suspects.index)[0]) == 10


def test_the_bandit_follows_the_gain_and_forgets_no_engine() -> None:
    bandit, generator = Bandit(("a", "b", "c")), torch.Generator().manual_seed(0)
    turns = []
    for _ in range(300):
        turns.append(bandit.choose(generator))
        bandit.reward(turns[-1], 1.0 if turns[-1] == "b" else 0.0)
    assert turns[:2] == ["a", "a"] and turns.count("b") > 150 and min(map(turns.count, "abc")) > 20


def test_an_accused_that_changes_its_inputs_spoils_no_case() -> None:
    def greedy(*pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        answers = gaussian_overlap(*pair)
        if not torch.is_grad_enabled():
            pair[1].mul_(2.0)
        return answers

    subject = OverlapSubject("greedy", greedy)
    pairs = SPACE.decode(SPACE.draw(60, torch.Generator().manual_seed(0), 0.0), torch.float32)
    before = [x.clone() for x in pairs]
    found = judge_pairs(QUICK, subject, lambda dtype: pairs, 60, dtypes=[torch.float32])
    assert all(torch.equal(x, y) for x, y in zip(pairs, before, strict=True))
    assert [name for name, one in found.items() if one.finding.verdict == "broken"] == ["determinism"]
    call = found["determinism"].call
    assert call is not None
    assert all(torch.equal(x, y) for x, y in zip(call.inputs.values(), before, strict=True))
    screen(greedy, pairs, torch.float32)
    assert all(torch.equal(x, y) for x, y in zip(pairs, before, strict=True))
    # and the case is judged and made simple as any other
    stream = OverlapStream(subject, checks=QUICK)
    candidate = Candidate("determinism", call, 9.0, "", "", "sampling")
    assert stream.judge(stream.shrink(candidate, 5.0)).verdict == "broken"


def test_what_is_made_simple_still_breaks_clearly() -> None:
    """An error that grows with δ: just over the limit a shorter δ would be simpler."""

    def wrong(*pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        dist_sq, log_det = gaussian_overlap(*pair)
        return dist_sq, log_det + 1e-4 * (pair[1] - pair[4]).norm(dim=-1)

    stream = OverlapStream(OverlapSubject("wrong", wrong), checks=QUICK)
    pairs = SPACE.decode(SPACE.draw(40, torch.Generator().manual_seed(0), 0.0), torch.float32)
    call = Call("overlap", dict(zip(ARGUMENTS, pairs, strict=True)))
    simple = stream.shrink(Candidate("accuracy", call, 9.0, "", "", "sampling"), 10.0)
    verdict = stream.judge(simple)
    assert verdict.verdict == "broken" and verdict.value >= CLEARLY * verdict.limit
    # where the first is less clear, what is simpler is no less so
    smaller = {name: x * 0 + x[:1] if name.endswith("rot") else x for name, x in call.inputs.items()}
    smaller |= {"q_sigma": torch.ones(40, 3), "k_sigma": torch.ones(40, 3), "k_mean": torch.zeros(40, 3)}
    smaller |= {"q_rot": torch.eye(3).expand(40, 3, 3), "k_rot": torch.eye(3).expand(40, 3, 3)}
    allowed = float(value_budgets(torch.ones(1), torch.ones(1), torch.ones(1), torch.float32)["log_det"])
    smaller["q_mean"] = torch.tensor([1.4 * allowed / 1e-4, 0.0, 0.0]).expand(40, 3)
    close = stream.shrink(Candidate("accuracy", Call("overlap", smaller), 1.4, "", "", "sampling"), 10.0)
    verdict = stream.judge(close)
    assert verdict.verdict == "broken" and verdict.value > 1.39
