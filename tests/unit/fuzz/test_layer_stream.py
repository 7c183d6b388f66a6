"""The search of a layer: each corner breaks where it lies, a right layer nowhere, and calls are rebuilt bit by bit."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import iga
from helpers.layer_calls import (
    CLEAN,
    CONTRACT,
    LAYER_CHECKS,
    ONE,
    ROOM,
    Right,
    a_call,
    asked,
    built,
    ordinary,
)
from helpers.subjects import Plain
from iga.fuzz.layer import LayerStream
from iga.fuzz.layer_counterexample import main, write_layer_counterexample
from iga.fuzz.layer_draw import LADDERS, PAIR_POINTS, Room, draw, draw_ordinary, ladder, mutated
from iga.fuzz.layer_genome import call_of, case_of, genome_of
from iga.fuzz.layer_structures import parts_of, stretch
from iga.fuzz.messages import candidate_of, document_of
from iga.fuzz.stream import Candidate
from iga.presets import preset
from iga.search.counted import hashed, unit_numbers
from iga.structure.synthetic import synthetic_structures
from iga.testing.contract import PROFILES
from iga.testing.layer.cases import make_case
from iga.testing.layer.edits import kept, tensors
from iga.testing.layer.subject import Subject, layer_subject
from iga.testing.targets import Target


def foreign(factory: object) -> Subject:
    """As a run has it: what a call of it lets see is known."""
    probe = make_case(synthetic_structures(1, seed=0)[0], PROFILES["fast"], residues=6, seed=0)
    target = Target("foreign", "layer", factory)  # pyright: ignore[reportArgumentType]
    return layer_subject(target, PROFILES["fast"], probe)


class _OwnDesign(Right):
    """A parameter more, so that nothing of this package pairs with it: it has no twin."""

    def __init__(self, **sizes: int) -> None:
        super().__init__(**sizes)
        self.sizes, self.level = sizes, nn.Parameter(torch.ones(()))

    def forward(self, s, z, r, mask):  # noqa: ANN001, ANN201
        return super().forward(s, z, r, mask) * self.level


class _LoudAtSeven(_OwnDesign):
    def forward(self, s, z, r, mask):  # noqa: ANN001, ANN201
        return super().forward(s, z, r, mask) * (1.001 if self.sizes["no_qk_points"] == 7 else 1.0)


class _FlatAtSeven(_OwnDesign):
    """Seven points have the weight of their mean squared."""

    def __init__(self, **sizes: int) -> None:
        super().__init__(**sizes)
        if sizes["no_qk_points"] == 7:
            self.inner = built(sizes, preset("bounded", temperature=1.1))


class _Cut(_OwnDesign):
    """Beyond 300 nm from the first residue an output is off."""

    def forward(self, s, z, r, mask):  # noqa: ANN001, ANN201
        far = (r.trans - r.trans[..., :1, :]).norm(dim=-1) > 300.0
        return super().forward(s, z, r, mask) * torch.where(far, 1.01, 1.0)[..., None]


def test_a_layer_of_its_own_design_has_no_twin_and_is_held_to_its_own_laws() -> None:
    right = asked(foreign(_OwnDesign))
    assert right.relation("reference") is None
    assert all(
        right.relation(name) is not None for name in ("equal_copies", "alike_residues", "equal_points", "no_jumps")
    )
    for layer, name, genome in (
        (_LoudAtSeven, "alike_residues", ONE.sized(no_qk_points=7)),
        (_FlatAtSeven, "equal_points", ONE.sized(no_qk_points=7)),
        (_Cut, "no_jumps", ONE),
    ):
        wrong = asked(foreign(layer))
        found = wrong.measure(name, wrong.scene(genome))
        assert found.broken, (layer, found.finding)
        assert layer is not _Cut or "jump at distance 30" in found.finding.worst_example
        held = right.measure(name, right.scene(genome))
        assert not held.broken and held.finding.examples, held.finding


class _Widths(Plain):
    """Distances in a width of each point's own, [P, H], which no layout of points ties to those of one point."""

    heavy_at = 0

    def __init__(self, **sizes: int) -> None:
        super().__init__(**sizes)
        self.count, self.width = sizes["no_qk_points"], nn.Parameter(torch.rand(sizes["no_qk_points"], 1) + 0.5)

    def forward(self, s, z, r, mask):  # noqa: ANN001, ANN201
        d = (r.trans[..., :, None, :] - r.trans[..., None, :, :]).square().sum(-1)
        share = (10.0 if self.count == self.heavy_at else 1.0) / self.count
        logits = -share * (d[..., None] * self.width.square().sum(-1)).log1p().sum(-1)
        weights = logits.masked_fill(~mask.bool()[..., None, :], -torch.inf).softmax(-1).nan_to_num(0.0)
        return weights.to(s) @ super().forward(s, z, r, mask)


class _HeavyAtSeven(_Widths):
    heavy_at = 7


def test_points_of_a_layout_of_their_own_are_made_alike() -> None:
    genome = ONE.sized(no_qk_points=7)
    right, wrong = asked(foreign(_Widths)), asked(foreign(_HeavyAtSeven))
    held, found = (one.measure("equal_points", one.scene(genome)) for one in (right, wrong))
    assert held.finding.examples and not held.broken, held.finding
    assert found.broken, found.finding


def test_a_law_that_a_layer_does_not_have_is_not_asked_of_it() -> None:
    class Sink(Plain):
        """A number that does not depend on N is in every sum: copies change the rest's share."""

        def forward(self, s, z, r, mask):  # noqa: ANN001, ANN202
            return super().forward(s, z, r, mask) / (1.0 + mask.sum(-1)[..., None, None])

    found = asked(foreign(Sink))
    assert found.relation("equal_copies") is None
    assert found.measure("equal_copies", found.scene(ONE)).finding.examples == 0


@pytest.mark.parametrize("layer", [Right, _OwnDesign, Plain, iga.InvariantPointAttention])
def test_of_a_right_layer_a_round_suspects_nothing(layer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    subjects = ("residues", "samples", "no_qk_points", "no_heads", "residues", "c_z")
    monkeypatch.setattr("iga.fuzz.layer.SUBJECTS", subjects)
    stream = LayerStream(foreign(layer), CONTRACT, checks=LAYER_CHECKS, seed=3)
    found = stream.round()
    assert (
        not found.candidates
        and found.examples >= len(subjects)
        and set(found.worst) >= {"masked_removed", "frames_moved"}
    )


def test_ladders_hold_each_number_once_and_small_ones_first() -> None:
    for name, rungs in LADDERS.items():
        assert sorted(rungs) == list(range(1, max(rungs) + 1)), name
    assert LADDERS["residues"].index(129) < 60 and ladder(64, first=17).index(7) == 6


def test_of_some_calls_two_sizes_are_large_and_none_is_too_costly() -> None:
    generator = torch.Generator().manual_seed(0)
    calls = [draw(ROOM, generator, "no_heads", 6) for _ in range(100)]
    assert all(one.sizes["no_heads"] == 6 and one.pair_points <= PAIR_POINTS for one in calls)
    assert any(one.residues > 64 for one in calls) and sum(one.residues < 10 for one in calls) > 70


def test_calls_begin_with_stretches_of_structures_and_copies_stand_beside_one_another() -> None:
    (structure,) = synthetic_structures(1, seed=3)
    (parts,) = given = parts_of([structure])
    length, generator = len(parts["trans"]), torch.Generator().manual_seed(0)
    for n in (3, length, 2 * length + 1):
        found = stretch(given, n, generator)
        assert torch.cdist(found["trans"], found["trans"]).fill_diagonal_(1.0).min() > 0.1  # nm: none in one place
        assert all(len(x) == n for x in found.values())
    room = replace(ROOM, structures=given)
    real = {tuple(x.tolist()) for x in parts["log_scale"]}
    drawn = [draw(room, generator, "residues", 7) for _ in range(40)]
    share = sum({tuple(x.tolist()) for x in one.log_scale[0]} <= real for one in drawn)
    assert 0 < share < 40  # some have a structure's scales, and some a family's
    plain = draw_ordinary(room, generator, "residues", 20)
    assert {tuple(x.tolist()) for x in plain.log_scale[0]} <= real and not plain.trans.isnan().any()


def test_numbers_follow_from_their_coordinates_alone() -> None:
    index = torch.arange(50)
    whole = unit_numbers(3, index[:, None], index)
    assert torch.equal(whole[4:9, 7], unit_numbers(3, index[4:9], torch.tensor(7)))
    assert abs(float(whole.mean())) < 0.1 and 0.8 < float(whole.var()) < 1.2
    assert torch.equal(whole.float().double(), whole)
    assert len(hashed(1, torch.arange(10_000)).unique()) == 10_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_call_crosses_a_file_bit_by_bit_and_what_is_cut_has_the_same_numbers(dtype: torch.dtype) -> None:
    genome = replace(a_call("samples", 4, seed=5), dtype=dtype, layout="gaps")
    sent = candidate_of(document_of(Candidate("masked_removed", call_of(genome), 1.0, "", "", "")))
    again = genome_of(sent.call)
    assert (again.shape, again.sizes, again.layout, again.label) == (
        genome.shape,
        genome.sizes,
        genome.layout,
        genome.label,
    )
    first, second = case_of(genome), case_of(again)
    assert all(torch.equal(x, tensors(second)[name]) for name, x in tensors(first).items())
    index = torch.arange(genome.residues).flip(0)[:2]
    cut = tensors(case_of(genome.kept(index)))
    assert all(torch.equal(x, cut[name]) for name, x in tensors(kept(first, index)).items())


@pytest.mark.parametrize(
    "change",
    [
        lambda call: call.inputs.pop("mask"),
        lambda call: call.inputs.update(shape=torch.tensor([7])),
        lambda call: call.inputs.update(rot=call.inputs["rot"][:, :1]),
        lambda call: call.layer.update(c_z=10**9),
        lambda call: call.layer.update(c_s="many"),
        lambda call: call.layer.pop("gain"),
        lambda call: call.inputs.update(numbers=torch.tensor([0, 0, 9, 0])),
    ],
)
def test_what_is_no_call_is_refused_in_one_line(change) -> None:  # noqa: ANN001
    call = copy.deepcopy(call_of(ONE))
    change(call)
    with pytest.raises(ValueError, match="no call of a layer"):
        genome_of(call)


def test_a_stream_goes_on_from_its_state_as_if_it_had_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iga.fuzz.layer.SUBJECTS", ("residues", "samples", "no_qk_points"))
    monkeypatch.setattr("iga.fuzz.layer.STEPS", 3)

    def new() -> LayerStream:
        names = ["masked_numbers", "sample_alone", "residues_reordered"]
        return LayerStream(foreign(Right), CONTRACT, checks=[], seed=1, only=names, engines=("sampling", "climb"))

    one, other = new(), new()
    for _ in range(3):
        one.round()
    other.restore(one.state())
    left, right = one.round(), other.round()
    assert (left.engine, left.examples, left.worst) == (right.engine, right.examples, right.worst)
    with pytest.raises(ValueError, match="no state of a layer's search"):
        other.restore({**one.state(), "generator": None})


def test_a_right_layer_agrees_with_its_reference_where_one_residue_is_far_from_all_others() -> None:
    """A false alarm of 2.3 limits: value points are summed 490 nm away, and the own origin is taken off after that."""
    genome = ordinary(a_call("residues", 6, dtype=torch.float64, s_size=0.0, z_size=0.0))
    genome = genome.sized(c_s=3, c_z=1, c_hidden=1, no_heads=1, no_qk_points=1, no_v_points=1)
    far = torch.zeros_like(genome.trans)
    far[:, 0] = torch.tensor([-200.0, 200.0, -400.0])
    needles = torch.full_like(far, -30.0)  # at the floor, so that the far one attends to itself alone
    turn = torch.eye(3, dtype=torch.float64).expand_as(genome.rot)
    own = asked(foreign(Right))
    for seed, choice in ((0, 0), (0, 1), (1, 0), (1, 1)):  # with gradients and without
        made = replace(genome, trans=far, log_scale=needles, rot=turn, seed=seed, choice=choice)
        found = own.measure("reference", own.scene(made))
        assert found.finding.verdict == "holds" and found.finding.shown, found


def test_a_fall_under_the_floor_is_met_and_shown_as_one_pair(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A round of checks looks at many traces, of which some of the historical cure are under the floor."""
    subject = Subject("sigma_floor", preset("sigma_floor"), PROFILES["fast"])
    stream = LayerStream(subject, CONTRACT, checks=LAYER_CHECKS, only=["log_det_floor"], engines=("checks",))
    found = next(one for _ in range(8) for one in stream.round().candidates)
    simple = stream.shrink(found, 5.0)
    assert stream.judge(simple).verdict == "broken" and genome_of(simple.call).residues <= 2
    verdict = stream.judge(simple)
    facts = {"target": "sigma_floor", "seed": 0}
    write_layer_counterexample(tmp_path, simple, verdict, facts)
    assert main(tmp_path / "case.json", "sigma_floor", kind=None) == 1
    said = capsys.readouterr().out
    accused, right = (float(x) for x in re.findall(r"log_det: it says (\S+), right is (\S+)", said)[0])
    assert accused == pytest.approx(verdict.value, rel=1e-5)  # of six digits
    assert accused < verdict.limit <= right and said.count("Gaussian: mean (") == 2
    assert main(tmp_path / "case.json", "bounded", kind=None) == 0


def test_the_checks_of_a_run_judge_the_layer_and_not_themselves_on_the_smallest_calls() -> None:
    """A check that cuts two channels of one raised, and the layer was blamed: a search made its calls so small."""
    small = ordinary(a_call("residues", 3, dtype=torch.float64)).sized(c_s=2, c_z=2, no_heads=1, c_hidden=1)
    none = ordinary(a_call("residues", 1, dtype=torch.float64)).sized(c_s=1, c_z=1, no_heads=1, c_hidden=1)
    for subject in (foreign(_OwnDesign), CLEAN):
        own = asked(subject)
        for name in own.registry:
            found = own.measure(name, own.scene(small))
            assert not found.broken, (subject.name, found.finding)
            assert name in own.of_traces or not own.measure(name, own.scene(none)).finding.shown


def test_what_is_not_asked_of_a_layer_has_judged_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iga.fuzz.layer.SUBJECTS", ("residues", "no_qk_points"))
    names = ["reference", "finite_outputs"]  # it has no twin
    stream = LayerStream(foreign(_OwnDesign), CONTRACT, checks=[], only=names, engines=("sampling",))
    assert set(stream.round().worst) == {"finite_outputs"}
    assert any(words.startswith("reference:") for words in stream.covered().blind)


def test_a_change_stays_where_the_target_claims_to_work() -> None:
    room = Room(replace(CLEAN.claims, max_points=3, multiple_of={"c_hidden": 4}), CONTRACT, (torch.float32,))
    generator = torch.Generator().manual_seed(0)
    genome = draw(room, generator, "no_qk_points", 60)
    for _ in range(60):
        genome = mutated(genome, room, generator)
        assert genome.points <= 3 and genome.sizes["c_hidden"] % 4 == 0 and genome.dtype == torch.float32
