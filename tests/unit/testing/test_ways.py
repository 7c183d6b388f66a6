"""Claims about the driver of ways, on a toy: it tells values, gradients and capabilities apart, and judges copies."""

import threading

import pytest
import torch

from iga.testing.common_ways import COMMON
from iga.testing.process_ways import PROCESS
from iga.testing.tally import Tally
from iga.testing.targets import TargetError
from iga.testing.ways import Plain, Refused, Scene, Way, judge_ways, plain_call
from iga.testing.ways_back import in_turn


def toy(inputs):
    return {"y": inputs["a"] * inputs["b"].sin()}


def judged(way, call=toy, *, profile="fast", unsupported=()):
    """The finding about one way of calling `call`, which is right in the plain call."""
    generator = torch.Generator().manual_seed(0)
    inputs = {name: torch.rand(5, 3, generator=generator, dtype=torch.float64) for name in "ab"}
    other = {name: torch.rand(4, 3, generator=generator, dtype=torch.float64) for name in "ab"}
    weights = {"y": torch.rand(5, 3, generator=generator, dtype=torch.float64)}
    answers, slopes = plain_call(Scene(toy, other, toy), inputs, weights, "ab")
    budget = torch.full((), 1e-12)
    plain = Plain(inputs, answers, weights, slopes, {"y": budget}, {name: budget for name in "ab"})
    tally = Tally("calls_agree", "of the budget")
    judge_ways([way], Scene(call, other, call), plain, profile, unsupported, "toy", tally)
    return tally.finding()


def way(run, **facts):
    return Way(name="so", claim="so", run=run, **facts)


@pytest.mark.parametrize("one", [*COMMON, *PROCESS], ids=lambda one: one.name)
def test_every_common_way_leads_to_the_plain_answers(one):
    finding = judged(one)
    assert finding.verdict == "holds", finding.note


def test_a_wrong_value_and_a_lost_gradient_are_told_apart():
    value = judged(way(lambda scene, inputs: {"y": scene.call(inputs)["y"] + 1}))
    lost = judged(way(lambda scene, inputs: scene.call({**inputs, "b": inputs["b"].detach()})))
    assert (value.verdict, lost.verdict) == ("broken", "broken")
    assert "value of y: so" in value.note and "gradient" not in value.note
    assert "gradient of b: so" in lost.note and "value" not in lost.note


def test_an_answer_of_another_dtype_is_a_value():
    finding = judged(way(lambda scene, inputs: {"y": scene.call(inputs)["y"].float()}))
    assert "value: so: y is torch.float32, of a plain call torch.float64" in finding.note


def test_what_raises_is_a_capability_that_may_be_claimed_away():
    def raises(scene, inputs):
        raise RuntimeError("no such thing\nand more")

    finding = judged(way(raises))
    assert finding.verdict == "broken"
    assert "capability: so: it raised RuntimeError: no such thing; if that is known, claim it" in finding.note
    assert judged(way(raises), unsupported=("so",)).verdict == "not supported"
    assert judged(way(raises, excused=("such",)), unsupported=("such",)).verdict == "not supported"


def test_a_wrong_answer_is_a_value_though_it_raises_here():
    def wrong(inputs):
        raise TargetError("y must have the shape [5, 3], got [5]")

    assert "value: so: y must have" in judged(way(lambda scene, inputs: scene.call(inputs)), wrong).note


def test_a_way_that_is_refused_counts_for_nothing():
    def refused(scene, inputs):
        raise Refused

    assert judged(way(refused)).verdict == "vacuous"


def test_each_copy_is_judged_by_itself():
    def all_but_the_last(scene, inputs):
        last = torch.arange(7)[:, None, None] == 6
        return scene.call({**inputs, "b": torch.where(last, inputs["b"].detach(), inputs["b"])})

    assert judged(way(lambda scene, inputs: scene.call(inputs), copies=7)).examples == 3 * 7 * 15
    lost = judged(way(all_but_the_last, copies=7))
    assert lost.verdict == "broken" and lost.note.startswith("broken in 15 of")


def test_of_several_answers_each_is_compared_and_their_gradient_is_the_mean():
    def twice(scene, inputs):
        return {"y": torch.stack([scene.call(inputs)["y"], inputs["a"] * inputs["b"].sin()])}

    assert judged(way(twice)).verdict == "holds"


def test_an_exact_way_has_no_budget():
    barely = way(lambda scene, inputs: {"y": scene.call(inputs)["y"] * (1 + 2.0**-52)}, exact=True)
    assert judged(barely).verdict == "broken"


def test_a_way_of_other_profiles_is_left_out():
    dear = way(lambda scene, inputs: {"y": scene.call(inputs)["y"] + 1}, profiles=("ci",))
    assert judged(dear).examples == 0
    assert judged(dear, profile="ci").verdict == "broken"


def test_gradients_are_not_asked_of_what_claims_to_have_none():
    lost = way(lambda scene, inputs: {"y": scene.call(inputs)["y"].detach()})
    assert judged(lost).verdict == "broken"
    assert judged(lost, unsupported=("gradients",)).verdict == "holds"


def test_two_threads_in_turn_meet_what_they_share_between_two_lines() -> None:
    shared = {}

    def call(number):
        shared["number"] = number
        unused = number  # noqa: F841 - a line that the other thread comes in at
        return shared["number"]

    for _ in range(20):
        assert in_turn(lambda: call(0), lambda: call(1)) != [0, 1]


def test_two_threads_in_turn_of_which_one_waits_for_the_others_lock_both_answer() -> None:
    lock, shared = threading.Lock(), {}

    def call(number):
        with lock:
            shared["number"] = number
            for _ in range(50):
                assert shared["number"] == number
            return shared["number"]

    assert in_turn(lambda: call(0), lambda: call(1)) == [0, 1]
