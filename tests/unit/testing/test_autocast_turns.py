"""Of what autocast does, what turns with the frames: steps of bf16 do not alarm, a geometry that it rounds does."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from iga import rotation
from iga._typing import Tensor
from iga.structure.synthetic import synthetic_structures
from iga.testing.contract import PROFILES
from iga.testing.layer.cases import Case, make_case
from iga.testing.layer.modes import turned
from iga.testing.tally import Tally

CASE = make_case(synthetic_structures(1)[0], PROFILES["fast"], residues=7, seed=0)
FEATURES, CHANNELS = 50, 16
MODE = "bf16 autocast"


def _short(x: Tensor) -> Tensor:
    return x.bfloat16().to(x.dtype) if torch.is_autocast_enabled("cpu") else x


def _ratio(output: Callable[[Any, Case], Tensor], seed: int) -> float:
    subject: Any = SimpleNamespace(output=output)
    tally = Tally("reduced_precision", "of the budget")
    exact = output(None, CASE).double()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = output(None, CASE).double()
    turned(subject, torch.nn.Identity(), CASE, rounded, exact, seed, f"a place, {MODE}", tally)
    return float(tally.finding().worst)


def _own_frames(seed: int, change: float) -> Callable[[Any, Case], Tensor]:
    """Features of sizes apart by up to 100, that float32 changes by `change` of themselves as the frames turn, rounded
    and weighed."""
    draws = torch.Generator().manual_seed(seed)
    features = torch.randn(7, FEATURES, generator=draws, dtype=torch.float64)
    features *= 10 ** (2 * torch.rand(FEATURES, generator=draws, dtype=torch.float64))
    weights = torch.randn(FEATURES, CHANNELS, generator=draws, dtype=torch.float64)
    ways = torch.randn(9, 7, FEATURES, generator=draws, dtype=torch.float64)

    def output(layer: Any, case: Case) -> Tensor:
        turn = (case.rigid.rot[0, 0].double().flatten()[:, None, None] * ways).sum(0)
        return (_short(features * (1 + change * turn)) @ weights)[None]

    return output


@pytest.mark.parametrize("change", [1e-7, 1e-5, 1e-4, 1e-3])
def test_steps_that_bf16_makes_of_float32s_change_do_not_alarm(change: float) -> None:
    assert max(_ratio(_own_frames(seed, change), seed) for seed in range(100)) <= 1.0


def test_a_place_that_is_rounded_in_the_frame_of_space_does() -> None:
    def output(layer: Any, case: Case) -> Tensor:
        rot, place = case.rigid.rot.double(), case.rigid.trans.double()
        local = rotation.rotate(rot[:, :, None], case.rigid.local_mean.double()[:, :, None]) + place[:, :, None]
        return (_short(local) - place[:, :, None]).square().sum(-1)

    assert min(_ratio(output, seed) for seed in range(20)) > 1.0
