"""A call that breaks is made as small, plain and readable as it can be while it breaks."""

from dataclasses import replace

import torch

from iga.fuzz.layer_draw import Room, draw
from iga.fuzz.layer_genome import LayerGenome
from iga.fuzz.layer_shrink import simplest
from iga.presets import preset
from iga.testing.contract import PROFILES, Contract
from iga.testing.layer.subject import Subject

CLEAN = Subject("bounded", preset("bounded"), PROFILES["fast"])
ROOM = Room(CLEAN.claims, Contract(), CLEAN.dtypes)
IDENTITY = torch.eye(3, dtype=torch.float64)


def a_call(size: str, value: int, seed: int) -> LayerGenome:
    return draw(ROOM, torch.Generator().manual_seed(seed), size, value)


def test_a_call_is_made_simple_as_far_as_it_still_breaks() -> None:
    genome = a_call("samples", 5, seed=2).sized(no_qk_points=9, no_heads=3)
    mask = torch.ones_like(genome.mask)
    mask[:, 1] = False

    def fails(one: LayerGenome) -> bool:
        return one.points >= 7 and one.residues >= 2 and bool((~one.mask).any())

    small = simplest(replace(genome, mask=mask), fails, 20.0)
    assert fails(small)
    assert (small.points, small.residues, len(small.samples), small.shape) == (7, 2, 1, (1,))
    assert small.sizes["no_heads"] == small.sizes["c_hidden"] == 1
    assert torch.equal(small.trans, torch.zeros(1, 2, 3, dtype=torch.float64))


def test_a_turn_that_has_to_stay_becomes_numbers_that_a_person_can_read() -> None:
    def fails(one: LayerGenome) -> bool:
        return bool(((one.rot - IDENTITY).abs().amax(dim=(-2, -1)) > 0.1).all())

    small = simplest(replace(a_call("residues", 2, seed=0), gain=2.0), fails, 20.0)
    assert set(small.rot.flatten().tolist()) <= {0.0, 1.0, 0.6, 0.8, -0.8}  # about one axis


def test_parameters_that_are_not_needed_are_left_out() -> None:
    small = simplest(replace(a_call("residues", 2, seed=0), gain=2.0), lambda one: True, 20.0)
    matrices = [x for x in CLEAN.random(2, seed=1, gain=small.gain).parameters() if x.ndim >= 2]
    assert small.gain == 0.0 and matrices and not any(x.any() for x in matrices)
