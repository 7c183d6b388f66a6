"""Calls of a layer that the search is tested on, and a right layer in a plain Module."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

import iga
from iga.fuzz.layer_draw import Room, draw
from iga.fuzz.layer_genome import LayerGenome
from iga.fuzz.layer_measure import Asked
from iga.presets import preset
from iga.testing.checks import CHECKS
from iga.testing.contract import PROFILES, Contract
from iga.testing.layer.subject import Subject

CONTRACT = Contract()
CLEAN = Subject("bounded", preset("bounded"), PROFILES["fast"])
LAYER_CHECKS = [check for check in CHECKS if check.kind == "layer"]
ROOM = Room(CLEAN.claims, CONTRACT, CLEAN.dtypes)


def asked(subject: Subject) -> Asked:
    return Asked(subject, CONTRACT, LAYER_CHECKS, "fast")


def a_call(size: str = "residues", value: int = 6, *, seed: int = 0, **changes: object) -> LayerGenome:
    genome = draw(ROOM, torch.Generator().manual_seed(seed), size, value)
    parts = {"layout": "plain", "gain": 1.0, "s_size": 1.0, "z_size": 1.0, "dtype": torch.float32, "choice": 0}
    return replace(genome, **{**parts, **changes})  # pyright: ignore[reportArgumentType]


def ordinary(genome: LayerGenome) -> LayerGenome:
    """Some nm apart, a tenth of a nm wide, all valid."""
    places = torch.randn(genome.trans.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    narrow = torch.full_like(genome.log_scale, -1.5)
    still = torch.zeros_like(places)
    valid = torch.ones_like(genome.mask)
    return replace(genome, trans=places, log_scale=narrow, local_mean=still, mask=valid)


def masked(genome: LayerGenome, *index: int) -> LayerGenome:
    mask = torch.ones_like(genome.mask)
    mask[:, list(index)] = False
    return replace(genome, mask=mask)


ONE = ordinary(a_call(value=6).picked(torch.tensor([0])))
SHUT = masked(ONE, 0)


def built(sizes: dict[str, int], config: iga.IGAConfig) -> iga.InvariantGaussianAttention:
    return iga.InvariantGaussianAttention(**sizes, config=config, implementation="reference")  # pyright: ignore[reportArgumentType]


class Right(nn.Module):
    def __init__(self, **sizes: int) -> None:
        super().__init__()
        self.inner = built(sizes, preset("bounded"))

    def forward(self, s: Any, z: Any, r: Any, mask: Any) -> Any:
        return self.inner(s, z, r, mask)
