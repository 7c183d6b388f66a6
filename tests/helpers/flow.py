"""Small chains on their way from noise to data, and rotations by the matrix exponential, in float64."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from iga.experiment.task.chains import Batch, chains_of, collate
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.structure.synthetic import synthetic_structures

each_mode = pytest.mark.parametrize("gaussians", ["fixed", "learned"])
each_stress = pytest.mark.parametrize("stress", [False, True], ids=["plain", "stress"])


def small_batch() -> Batch:
    """Four chains of 16 to 40 residues, float32."""
    chains = chains_of(synthetic_structures(4, seed=3, lengths=(16, 40)))[0]
    return collate(chains, [5, 6, 70, 800])


def in_float64(batch: Batch) -> Batch:
    """The same in float64, its rotations orthonormal and its padded rows neutral to float64."""
    g = batch.gaussian.to(dtype=torch.float64)
    u, _, vh = torch.linalg.svd(g.rot)
    log_scale = g.log_scale.masked_fill(~batch.mask[..., None], math.log(0.1))
    return replace(batch, gaussian=GaussianRigid(Frame(u @ vh, g.trans), g.local_mean, log_scale))


def tensors(batch: Batch) -> tuple[torch.Tensor, ...]:
    g = batch.gaussian
    return g.rot, g.trans, g.local_mean, g.log_scale, batch.index, batch.mask, batch.draws


def distances(trans: torch.Tensor) -> np.ndarray:
    x = trans.double().numpy()
    return np.linalg.norm(x[:, None] - x, axis=-1)


def skew(v: torch.Tensor) -> torch.Tensor:
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*v.shape, 3)


def turn(v: torch.Tensor) -> torch.Tensor:
    """The rotation about v, by the matrix exponential."""
    return torch.linalg.matrix_exp(skew(v))


def vectors(seed: int, *shape: int, longest: float = 3.0) -> torch.Tensor:
    """Rotation vectors [*shape, 3] in random directions, lengths uniform up to `longest` < π."""
    rng = np.random.default_rng(seed)
    v = rng.standard_normal((*shape, 3))
    v *= rng.uniform(0.05, longest, (*shape, 1)) / np.linalg.norm(v, axis=-1, keepdims=True)
    return torch.from_numpy(v)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def state(seed: int, b: int, n: int) -> GaussianRigid:
    frame = Frame(turn(vectors(seed, b, n)), normal(seed + 1, b, n, 3))
    return GaussianRigid(frame, 0.1 * normal(seed + 2, b, n, 3), -2 + 0.5 * normal(seed + 3, b, n, 3))


def values(g: GaussianRigid) -> tuple[torch.Tensor, ...]:
    return g.rot, g.trans, g.local_mean, g.log_scale


def moved(g: GaussianRigid, rot: torch.Tensor, trans: torch.Tensor) -> GaussianRigid:
    """Rotated and shifted, by matmul."""
    return replace(g, frame=Frame(rot @ g.rot, (rot @ g.trans[..., None])[..., 0] + trans))
