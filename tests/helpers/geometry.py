"""Shared parts of the geometry tests: dtypes, a comparison that NaN cannot pass, and a chain of ideal residues."""

import math

import numpy as np
import pytest
import torch

each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
ANGLES = (0.0, 1e-30, 1e-9, 1e-3, 0.7, 2.0, math.pi - 1e-3, math.pi)


def eps(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps


def close(actual: torch.Tensor, expected: np.ndarray | torch.Tensor | float, limit: torch.Tensor | float) -> bool:
    """Finite everywhere, and nowhere further than `limit` from the expected values; judged in float64."""
    error = (actual.detach().double() - torch.as_tensor(expected, dtype=torch.float64)).abs()
    return bool(actual.isfinite().all() and (error <= limit).all())


def is_rotation(rot: torch.Tensor, limit: float) -> bool:
    """Rᵀ R = I and det R = +1 within `limit`, judged in float64."""
    exact = rot.detach().double()
    return close(exact.mT @ exact, np.eye(3), limit) and close(torch.linalg.det(exact), 1.0, limit)


def rotations(dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """[8, 3, 3], one an angle, about axes that have nothing in common."""
    axes = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    axes = axes / axes.norm(dim=-1, keepdim=True)
    x, y, z = axes.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    angle = torch.tensor(ANGLES, dtype=torch.float64)[:, None, None]
    return (torch.eye(3) + angle.sin() * cross + 2 * (angle / 2).sin().square() * cross @ cross).to(dtype)


def chain(residues: int, *, phi: float = -57.0, psi: float = -47.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """N, CA, C of an ideal chain, each [residues, 3] in nm, float64: atom after atom from bond, angle and torsion."""
    bonds = (0.1458, 0.1525, 0.1329)  # N–CA, CA–C, C–N
    angles = (111.0, 117.2, 121.7)  # at CA, C, N
    torsions = (psi, 180.0, phi)  # about CA–C, C–N, N–CA
    atoms = [np.zeros(3), np.array([bonds[0], 0.0, 0.0])]
    turn = math.radians(180.0 - angles[0])
    atoms.append(atoms[1] + bonds[1] * np.array([math.cos(turn), math.sin(turn), 0.0]))
    while len(atoms) < 3 * residues:
        kind = len(atoms) % 3  # the new atom is N (0), CA (1) or C (2)
        a, b, c = atoms[-3:]
        length = bonds[kind - 1]
        angle = math.radians(angles[(kind + 1) % 3])
        torsion = math.radians(torsions[kind])
        x = (c - b) / np.linalg.norm(c - b)
        z = np.cross(b - a, x)
        z /= np.linalg.norm(z)
        y = np.cross(z, x)
        step = np.array([-math.cos(angle), math.sin(angle) * math.cos(torsion), math.sin(angle) * math.sin(torsion)])
        atoms.append(c + length * (step[0] * x + step[1] * y + step[2] * z))
    n, ca, c = torch.from_numpy(np.array(atoms)).reshape(residues, 3, 3).unbind(1)
    return n, ca, c
