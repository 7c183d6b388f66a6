"""The search of the kernels' scores: a kernel that is wrong at a tail is found and made small, a right one is not."""

from dataclasses import replace

import pytest
import torch

from iga.fuzz import layer_scores
from iga.fuzz.layer import SCORED, LayerStream
from iga.fuzz.layer_draw import Room, draw
from iga.fuzz.layer_genome import genome_of
from iga.fuzz.layer_scene import LayerScene
from iga.fuzz.layer_scores import SMALL, asks_kernels
from iga.fuzz.objectives import Ratios
from iga.kernels.cpu.engine import CpuEngine
from iga.presets import IGAConfig, preset
from iga.search.ties import right_angles
from iga.testing.contract import PROFILES, Contract
from iga.testing.judges.attention_problem import CONFIGS
from iga.testing.layer.subject import Subject

NAME = "kernel_scores"
BOUNDED = Subject("bounded", preset("bounded"), PROFILES["fast"], implementation="cpu")


def stream(subject: Subject = BOUNDED, seed: int = 0) -> LayerStream:
    return LayerStream(subject, Contract(), checks=[], seed=seed, only=[NAME], engines=("kernels",))


class Tail(CpuEngine):
    """The last key of so many residues, modulo eight, counts a thousandth too much."""

    rest = 5

    def sums(self, start: int, stop: int, *args: object, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
        found = super().sums(start, stop, *args, **options)  # pyright: ignore[reportArgumentType]
        if found[0].shape[-1] % 8 == self.rest:
            found[0][..., -1] *= 1.001
        return found


class Point(CpuEngine):
    """Of seven points one is left out, from three residues on."""

    def sums(self, start: int, stop: int, *args: object, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
        found = super().sums(start, stop, *args, **options)  # pyright: ignore[reportArgumentType]
        if self.geometry.q_mean.shape[2] == 7 and found[0].shape[-1] >= 3:
            found[0][:] = found[0] * (6 / 7)
        return found


@pytest.mark.parametrize(("wrong", "residues", "points"), [(Tail, 5, 1), (Point, 3, 7)])
def test_a_wrong_kernel_is_found_believed_and_made_small(
    wrong: type[CpuEngine], residues: int, points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_scores, "engine_for", lambda name: wrong)
    search = stream()
    found = next(one for _ in range(12) for one in search.round().candidates)
    assert found.check == NAME and found.ratio > 1 and search.judge(found).verdict == "broken"
    small = search.shrink(found, 30.0)
    genome = genome_of(small.call)
    assert (genome.residues, genome.points, genome.sizes["no_heads"], len(genome.samples)) == (residues, points, 1, 1)
    assert genome.pair_points <= SMALL  # so the judge by QR has the last word
    assert search.judge(small).verdict == "broken"
    monkeypatch.undo()
    assert search.judge(small).verdict == "not reproducible"  # of the right kernel


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_right_kernels_stay_within_the_proven_budget_over_millions_of_pairs(config: IGAConfig) -> None:
    search = stream(Subject("right", config, PROFILES["fast"], implementation="cpu"))
    found = search.round()
    assert found.engine == "kernels" and found.pair_points >= SCORED and not found.candidates
    assert 0.01 < found.worst[NAME] <= 1.0  # near enough to the limit to say something


def test_closed_form_and_qr_judge_alike_where_frames_are_exact_rotations(monkeypatch: pytest.MonkeyPatch) -> None:
    room, generator = Room(BOUNDED.claims, Contract(), BOUNDED.dtypes), torch.Generator().manual_seed(3)
    genome = draw(room, generator, "residues", 40).sized(no_heads=2, no_qk_points=3)
    turns = right_angles().double()[torch.randint(0, 24, genome.rot.shape[:2], generator=generator)]
    scene, ratios = LayerScene(BOUNDED, replace(genome, rot=turns), Contract()), []
    for small in (0, 1 << 40):
        monkeypatch.setattr(layer_scores, "SMALL", small)
        tally = Ratios(NAME, "", 1)
        layer_scores.kernel_scores(scene, tally)
        ratios.append(float(tally.ratio))
    assert 0 < ratios[0] == pytest.approx(ratios[1], rel=1e-4)


def test_kernels_are_asked_of_what_they_compute() -> None:
    assert asks_kernels(BOUNDED)
    for other in (
        Subject("reference", preset("bounded"), PROFILES["fast"], implementation="reference"),
        Subject("textbook", preset("sigma_floor"), PROFILES["fast"], implementation="auto"),
    ):
        assert not asks_kernels(other)
        assert NAME not in LayerStream(other, Contract(), checks=[]).checks


def test_beside_other_engines_every_second_round_is_the_kernels() -> None:
    search = LayerStream(BOUNDED, Contract(), checks=[], only=[NAME, "finite_outputs"])
    assert [search.round().engine == "kernels" for _ in range(4)] == [False, True, False, True]
