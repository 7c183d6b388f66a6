"""Budgets of calls that are searched: a residue far from all others, whose own points are rounded where they stand."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from iga.fuzz.layer_genome import LayerGenome
from iga.fuzz.layer_relations import RELATIONS
from iga.fuzz.layer_scene import LayerScene
from iga.fuzz.objectives import Ratios
from iga.testing.tally import Tally
from iga.testing.verify import prepare

SIZES = {"c_s": 1, "c_z": 3, "c_hidden": 4, "no_heads": 1, "no_qk_points": 1, "no_v_points": 3}


def far_apart(reach: float, seed: int = 336510) -> LayerGenome:
    """Two residues, narrow where they would see each other, `reach` nm apart: found by a search of `bounded`."""
    double = torch.float64
    return LayerGenome(
        sizes=SIZES,
        seed=seed,
        gain=2.0,
        features=27830,
        ids=torch.tensor([6, 7]),
        samples=torch.tensor([6]),
        mask=torch.ones(1, 2, dtype=torch.bool),
        rot=torch.eye(3, dtype=double).expand(1, 2, 3, 3).clone(),
        trans=torch.tensor([[[0.0, 0.0, 0.0], [reach, 0.0, 0.0]]], dtype=double),
        local_mean=torch.zeros(1, 2, 3, dtype=double),
        log_scale=torch.tensor([[[3.0, -10.0, 3.0], [-10.0, -10.0, 3.0]]], dtype=double),
    )


def judged(scene: LayerScene) -> Tally:
    tally = Tally("other_precision", "of the output")
    RELATIONS["other_precision"].measure(scene, tally)
    return tally


@pytest.mark.parametrize("reach", [20.0, 300.0, 1000.0, 2000.0])
@pytest.mark.parametrize("seed", [336510, 1, 2])
def test_rounded_points_of_a_residue_far_away_are_no_finding(reach: float, seed: int) -> None:
    plan = prepare("bounded")
    scene = LayerScene(plan.subject, far_apart(reach, seed), plan.contract)
    assert not judged(scene).broken


def test_query_points_that_half_precision_rounds_there_are_one() -> None:
    """The budget is of float32's roundings: at 1000 nm float16 rounds by up to 0.25 nm."""
    plan = prepare("bounded")
    scene = LayerScene(plan.subject, far_apart(1000.0), plan.contract)

    def coarse(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output + 0.25 if output.dtype == torch.float32 else output

    scene.layer.get_submodule("linear_q_offsets").register_forward_hook(coarse)
    assert judged(scene).broken


# --- float64, where a right form may lose κ² ------------------------------------------------------------------


def needles(seed: int) -> LayerGenome:
    """Needles and pancakes of 0.03 and 20 nm, a nm from each other."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(1, 4, 3, generator=generator, dtype=torch.float64)
    return replace(
        far_apart(0.0, seed),
        gain=1.0,
        choice=seed,
        ids=torch.arange(4),
        mask=torch.ones(1, 4, dtype=torch.bool),
        rot=torch.eye(3, dtype=torch.float64).expand(1, 4, 3, 3).clone(),
        trans=torch.randn(1, 4, 3, generator=generator, dtype=torch.float64),
        local_mean=torch.zeros(1, 4, 3, dtype=torch.float64),
        log_scale=torch.where(draws < 0.5, math.log(0.03), math.log(20.0)).double(),
        dtype=torch.float64,
    )


def test_a_textbook_form_in_float64_may_lose_kappa_squared_and_no_more() -> None:
    """Turned and moved: over a budget for backward stable forms, far under that with κ, and not out of sight."""
    plan = prepare("sigma_floor")

    def worst(seed: int, kappa: float | None) -> float:
        scene, tally = LayerScene(plan.subject, needles(seed), plan.contract), Ratios("frames_moved", "", 1)
        if kappa is not None:
            scene.kappa = kappa
        RELATIONS["frames_moved"].measure(scene, tally)
        assert tally.finding().examples
        return float(tally.ratio)

    stable, allowed = (max(worst(seed, kappa) for seed in range(8)) for kappa in (1.0, None))
    kappa = plan.contract.sigma_max / plan.contract.sigma_min  # the most that the budget grows by
    assert stable > 1.0 > allowed > 1.0 / kappa
