"""Inputs for the checks: residues of a structure, their degenerate perturbations, and seeded features.

A case is a batch of one: frames and Gaussians in nm, features of unit variance, a mask. Every perturbation keeps
σ within the contract once the layer has added its d of at most ±2 to the log scale.
"""

import math
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from iga import rotation
from iga._typing import Tensor
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.structure import Structure
from iga.testing.contract import Contract, Profile

__all__ = [
    "PERTURBATIONS",
    "SHORTEST_FOCUS",
    "Case",
    "focused",
    "make_case",
    "own_number",
    "perturbed_case",
    "sample_residues",
]

# The layer may add up to this to a log scale, so the ceiling of the inputs lies that far under the contract's.
LOG_SCALE_ROOM = 2.0
SHORTEST_FOCUS = 16  # residues; the shortest proteins known to fold have about 20


@dataclass(frozen=True)
class Case:
    """One input of a layer. Shapes: s [1, n, c_s], z [1, n, n, c_z], mask [1, n], rigid [1, n]."""

    label: str
    rigid: GaussianRigid
    s: Tensor
    z: Tensor
    mask: Tensor

    @property
    def call(self) -> tuple[Tensor, Tensor, GaussianRigid, Tensor]:
        """The positional arguments of a layer's forward."""
        return self.s, self.z, self.rigid, self.mask


def sample_residues(structure: Structure, count: int, generator: torch.Generator) -> Tensor:
    """Indices of up to `count` residues, in order: all of a short chain, else a seeded sample of valid ones.

    Half of a sample is contiguous (neighbours, where Gaussians overlap) and half is spread over the whole entry
    (the longest distances).
    """
    valid = structure.mask.nonzero().flatten()
    if len(valid) <= count:
        return valid
    window = count // 2
    start = int(torch.randint(0, len(valid) - window + 1, (), generator=generator))
    spread = torch.randperm(len(valid), generator=generator)
    chosen = set(range(start, start + window))
    for index in spread.tolist():
        if len(chosen) == count:
            break
        chosen.add(index)
    return valid[torch.tensor(sorted(chosen))]


def make_case(structure: Structure, profile: Profile, *, residues: int, seed: int) -> Case:
    """A case of `residues` residues of the structure, with features drawn from the seed."""
    generator = torch.Generator().manual_seed(seed)
    index = sample_residues(structure, residues, generator)
    rigid = structure.gaussian[index][None]
    n = len(index)
    dtype = rigid.dtype
    s = torch.randn(1, n, profile.c_s, generator=generator, dtype=torch.float64).to(dtype)
    z = torch.randn(1, n, n, profile.c_z, generator=generator, dtype=torch.float64).to(dtype)
    return Case(_label(structure), rigid, s, z, torch.ones(1, n, dtype=torch.bool))


def own_number(structure: Structure, index: int) -> int:
    """What a structure's draws add to the seed of a run: of a file a number made of its name, so that it is drawn alike
    whatever files stand beside it; of a synthetic structure its place among the others."""
    return index if structure.path.startswith("synthetic") else zlib.crc32(os.fsencode(_label(structure))) % 2**20


def focused(lengths: Sequence[int], count: int) -> list[int]:
    """The places, in order, of up to `count` structures for the costlier checks, spread by length (valid residues).

    A handful of residues has no spread and no saturation to speak of: those under SHORTEST_FOCUS are passed over.
    """
    ordered = sorted((i for i, n in enumerate(lengths) if n >= SHORTEST_FOCUS), key=lambda i: lengths[i])
    count = min(count, len(ordered))
    return sorted({ordered[round((i + 0.5) * len(ordered) / count - 0.5)] for i in range(count)})


Perturbation = Callable[[GaussianRigid, Contract, torch.Generator], GaussianRigid]


def _with_scales(rigid: GaussianRigid, sigma: Tensor) -> GaussianRigid:
    return replace(rigid, log_scale=sigma.log().to(rigid.dtype).expand(rigid.log_scale.shape))


def _long(contract: Contract) -> float:
    return contract.sigma_max * math.exp(-LOG_SCALE_ROOM)


def _short(contract: Contract) -> float:
    return contract.sigma_min * 1e-3


def needles(rigid: GaussianRigid, contract: Contract, generator: torch.Generator) -> GaussianRigid:
    """One axis at the ceiling, two under the floor."""
    return _with_scales(rigid, torch.tensor([_long(contract), _short(contract), _short(contract)]))


def pancakes(rigid: GaussianRigid, contract: Contract, generator: torch.Generator) -> GaussianRigid:
    """Two axes at the ceiling, one under the floor."""
    return _with_scales(rigid, torch.tensor([_short(contract), _long(contract), _long(contract)]))


def collapsed(rigid: GaussianRigid, contract: Contract, generator: torch.Generator) -> GaussianRigid:
    """Every σ far under the floor: what training did to the scales."""
    return replace(rigid, log_scale=torch.full_like(rigid.log_scale, -30.0))


def inflated(rigid: GaussianRigid, contract: Contract, generator: torch.Generator) -> GaussianRigid:
    """Every σ at the ceiling."""
    return _with_scales(rigid, torch.full((3,), _long(contract)))


def mixed_scales(rigid: GaussianRigid, contract: Contract, generator: torch.Generator) -> GaussianRigid:
    """Each axis of each residue anywhere between floor and ceiling, log-uniform."""
    low, high = math.log(contract.sigma_min), math.log(_long(contract))
    draw = torch.rand(rigid.log_scale.shape, generator=generator, dtype=torch.float64)
    return replace(rigid, log_scale=(low + (high - low) * draw).to(rigid.dtype))


def coincident(rigid: GaussianRigid, contract: Contract, generator: torch.Generator) -> GaussianRigid:
    """All residues at one place, frames as they were."""
    frame = Frame(rigid.rot, rigid.trans[..., :1, :].expand(rigid.trans.shape).clone())
    return replace(rigid, frame=frame)


def shared_frames(rigid: GaussianRigid, contract: Contract, generator: torch.Generator) -> GaussianRigid:
    """Residues turned alike in groups of four, each group at random; positions as they were."""
    return replace(rigid, frame=Frame(_shared(rigid, generator).to(rigid.dtype), rigid.trans))


def nearly_shared_frames(rigid: GaussianRigid, contract: Contract, generator: torch.Generator) -> GaussianRigid:
    """Groups of four frames turned against each other by about σ_min/σ_max: long axes almost, not quite, coincide."""
    angle = contract.sigma_min / contract.sigma_max
    turn = angle * torch.randn(rigid.trans.shape, generator=generator, dtype=torch.float64)
    rot = rotation.multiply(_shared(rigid, generator), rotation.exp(turn)).to(rigid.dtype)
    return replace(rigid, frame=Frame(rot, rigid.trans))


def _shared(rigid: GaussianRigid, generator: torch.Generator) -> Tensor:
    """A random rotation for every four residues, [1, n, 3, 3], float64."""
    n = rigid.trans.shape[-2]
    groups = rotation.random(1, (n + 3) // 4, generator=generator, dtype=torch.float64)
    return groups[:, torch.arange(n) // 4]


def far_away(rigid: GaussianRigid, contract: Contract, generator: torch.Generator) -> GaussianRigid:
    """The whole structure 10³ nm from the origin."""
    shift = rigid.trans.new_tensor([600.0, -640.0, 480.0])
    return replace(rigid, frame=Frame(rigid.rot, rigid.trans + shift))


def _then(first: Perturbation, second: Perturbation) -> Perturbation:
    def both(rigid: GaussianRigid, contract: Contract, generator: torch.Generator) -> GaussianRigid:
        return second(first(rigid, contract, generator), contract, generator)

    return both


PERTURBATIONS: dict[str, Perturbation] = {
    "collapsed and coincident": _then(collapsed, coincident),
    "collapsed scales": collapsed,
    "needles": needles,
    "needles in shared frames": _then(needles, shared_frames),
    "pancakes": pancakes,
    "pancakes in nearly shared frames": _then(pancakes, nearly_shared_frames),
    "scales at the ceiling": inflated,
    "mixed scales": mixed_scales,
    "needles in nearly shared frames": _then(needles, nearly_shared_frames),
    "coincident residues": coincident,
    "shared frames": shared_frames,
    "far away": far_away,
}


def perturbed_case(case: Case, name: str, contract: Contract, *, seed: int) -> Case:
    """The case with its Gaussians degenerate in the named way; features unchanged."""
    generator = torch.Generator().manual_seed(seed)
    rigid = PERTURBATIONS[name](case.rigid, contract, generator)
    return replace(case, label=f"{case.label}, {name}", rigid=rigid)


def _label(structure: Structure) -> str:
    """The file's name without its folder; a synthetic structure's whole name."""
    return structure.path if structure.path.startswith("synthetic") else Path(structure.path).name
