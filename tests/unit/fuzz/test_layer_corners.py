"""Layers that are right but for a corner: each breaks where it lies, and the right layer holds there."""

import math
from dataclasses import replace

import pytest
import torch

from helpers.layer_calls import CLEAN, ONE, SHUT, Right, a_call, asked, ordinary
from iga.fuzz.layer_genome import LayerGenome
from iga.fuzz.layer_measure import Asked
from iga.testing.faults.layer_corners import LAYER_CORNERS

CORNERS = {fault.name: fault for fault in LAYER_CORNERS}


def stretched(genome: LayerGenome) -> LayerGenome:
    """The last residue 400 nm away."""
    trans = genome.trans.clone()
    trans[:, -1, 0] += 400.0
    return replace(genome, trans=trans)


def with_distance(genome: LayerGenome, apart: float) -> LayerGenome:
    """The second residue so far from the first."""
    trans = genome.trans.clone()
    trans[:, 1] = trans[:, 0] + torch.tensor([apart, 0.0, 0.0], dtype=torch.float64)
    return replace(genome, trans=trans)


def half_turned(genome: LayerGenome) -> LayerGenome:
    """The second residue half a turn from the first, 3.105 nm away, of a first σ of 0.201 nm."""
    rot, log_scale = genome.rot.clone(), genome.log_scale.clone()
    rot[:, 1] = rot[:, 0] @ torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    log_scale[:, 1, 0] = math.log(0.201)
    return with_distance(replace(genome, rot=rot, log_scale=log_scale), 3.105)


def last_masked(genome: LayerGenome) -> LayerGenome:
    mask = torch.ones_like(genome.mask)
    mask[:, -1] = False
    return replace(genome, mask=mask)


def flat(genome: LayerGenome) -> LayerGenome:
    """The first residue of scales 400 : 1, its mean 5.01 nm off."""
    mean, log_scale = genome.local_mean.clone(), genome.log_scale.clone()
    mean[:, 0] = torch.tensor([5.01, 0.0, 0.0], dtype=torch.float64)
    log_scale[:, 0] = torch.tensor([math.log(0.05), 0.0, math.log(20.0)], dtype=torch.float64)
    return replace(genome, local_mean=mean, log_scale=log_scale)


# corner → (relation, a call in its region)
REGIONS: dict[str, tuple[str, LayerGenome]] = {
    "a mask is forgotten for one head": ("masked_numbers", SHUT),
    "geometry is too heavy at seven points": ("reference", ONE.sized(no_qk_points=7)),
    "outputs are too large at 129 residues": (
        "equal_copies",
        replace(ordinary(a_call(value=129)), choice=1).sized(no_heads=1, no_qk_points=1),
    ),
    "the third sample of a batch is too large": (
        "sample_alone",
        replace(ordinary(a_call("samples", 3)), shape=(3,)),
    ),
    "a row with a far key saturates": ("reference", stretched(ONE)),
    "far keys are shut out": ("reference", stretched(ONE)),
    "the last query is halved after a masked first": ("masked_removed", SHUT),
    "the last key of 193 gets no weight": (
        "residues_reordered",
        ordinary(a_call(value=193)).sized(no_heads=1, no_qk_points=1),
    ),
    "geometry is too heavy at 29 points": ("reference", ONE.sized(no_qk_points=29)),
    "the last of five heads has the first's bias": ("reference", ONE.sized(no_heads=5)),
    "24 channels weigh too much": ("reference", ONE.sized(c_hidden=24)),
    "the second of 17 samples has the first's frames": (
        "sample_alone",
        replace(ordinary(a_call("samples", 17)), shape=(17,)),
    ),
    "origins with gaps are read as dense": ("memory_layouts", replace(ONE, layout="gaps", choice=3)),
    "a buffer keeps the size of the call before": ("called_again", ONE),
    "three digits where a scale is narrow": (
        "other_precision",
        replace(ONE, log_scale=torch.full_like(ONE.log_scale, -3.2)),
    ),
    "identity frames are taken for local": (
        "frames_moved",
        replace(ONE, rot=torch.eye(3, dtype=torch.float64).expand_as(ONE.rot).clone()),
    ),
    "a weight is off in a box of pairs": ("reference", half_turned(ONE)),
    "a flat residue takes another way": ("reference", flat(ONE)),
    "one bin of distances is wrong": ("reference", with_distance(ONE, 15.839)),
    "one head of many forgets the mask of a long chain": (
        "masked_removed",
        last_masked(a_call(value=66).sized(no_heads=6, no_qk_points=1)),
    ),
}


def test_every_corner_has_a_call_here() -> None:
    assert set(REGIONS) == set(CORNERS) and all(fault.region for fault in LAYER_CORNERS)


@pytest.fixture(scope="module")
def right() -> Asked:
    """A right layer behind the same kind of Module; which twins it has is found once."""
    subject = next(iter(CORNERS.values())).planted(CLEAN)
    return asked(replace(subject, layer=lambda **sizes: Right(**sizes)))


@pytest.mark.parametrize("name", CORNERS)
def test_a_corner_breaks_where_it_lies_and_the_right_layer_does_not(name: str, right: Asked) -> None:
    relation, genome = REGIONS[name]
    wrong = asked(CORNERS[name].planted(CLEAN))
    found = wrong.measure(relation, wrong.scene(genome))
    assert found.broken and found.ratio > 1, found
    held = right.measure(relation, right.scene(genome))
    assert held.finding.verdict in ("holds", "vacuous") and held.finding.examples, held.finding
