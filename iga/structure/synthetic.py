"""Synthetic structures: protein-like backbones with side-chain Gaussians, for checks without structure files.

Backbones have ideal bond lengths and angles, trans peptide bonds, and φ, ψ of helices, strands and coil. They fold back
on themselves to some 1.35 times the radius of gyration of a globular protein (2.2 n^0.38 Å), without sheets or packing.
Side chains are drawn by residue type from a table measured over real structures. Lengths in nm, frames in the alphafold
convention of `iga.frame`. A seed gives the same structure whatever the global generators hold.

Sources: ideal geometry R. A. Engh and R. Huber, Acta Crystallographica A47 (1991), 392. An atom is placed from the
three before it by bond length, bond angle and dihedral, signs as IUPAC-IUB 1970 (cis 0, clockwise positive).
"""

import numpy as np
import torch

from iga._typing import Tensor
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.structure.read import BASE_THICKNESS, Structure

__all__ = ["synthetic_backbone", "synthetic_structures"]

# Bond to the atom (nm), angle at the atom before it (degrees), in the order in which a residue's N, CA, C are placed.
_BOND = (0.1329, 0.1458, 0.1525)  # C–N, N–CA, CA–C
_ANGLE = (116.2, 121.7, 111.2)  # CA–C–N, C–N–CA, N–CA–C
_OMEGA = 180.0

# φ, ψ and their standard deviation in degrees, and the share of a segment's residues; drawn within 3 deviations.
_HELIX = ((-63.0, -43.0, 7.0, 1.0),)
_STRAND = ((-120.0, 130.0, 15.0, 1.0),)
_COIL = (
    (-75.0, 145.0, 12.0, 0.4),  # polyproline II
    (-110.0, 125.0, 20.0, 0.25),
    (-70.0, -30.0, 12.0, 0.25),
    (57.0, 42.0, 10.0, 0.1),  # left-handed
)
_HELIX_LENGTHS, _STRAND_LENGTHS, _COIL_LENGTHS = (6, 18), (4, 9), (2, 7)
_CUT = 3.0  # deviations, of torsions and centroids
_LOG_CUT = 2.0  # of log deviations, so that the largest σ is near that of real residues, 0.31 nm

# Continuations drawn for each one kept, and the distance under which CA at least three residues apart are too close.
_DRAWS = 16
_CONTACT = 0.40

# Share of the type, and three triples in nm along the axes of the residue's frame: mean of the side chain's centroid,
# its standard deviation, and mean of the population standard deviation of the side chain's heavy atoms. Measured over
# 64 291 residues of 135 entries of the Protein Data Bank by tools/residue_statistics.py, which prints this table.
_Triple = tuple[float, float, float]
_SIDE_CHAINS: dict[str, tuple[float, _Triple, _Triple, _Triple]] = {
    "ALA": (0.081, (-0.053, -0.076, -0.121), (0.004, 0.005, 0.004), (0.000, 0.000, 0.000)),
    "ARG": (0.046, (-0.177, -0.218, -0.224), (0.128, 0.103, 0.123), (0.108, 0.105, 0.109)),
    "ASN": (0.042, (-0.112, -0.132, -0.133), (0.084, 0.068, 0.049), (0.069, 0.059, 0.064)),
    "ASP": (0.053, (-0.110, -0.125, -0.138), (0.084, 0.070, 0.050), (0.067, 0.057, 0.066)),
    "CYS": (0.018, (-0.079, -0.105, -0.138), (0.056, 0.044, 0.033), (0.054, 0.043, 0.023)),
    "GLN": (0.039, (-0.144, -0.170, -0.165), (0.082, 0.074, 0.089), (0.081, 0.080, 0.081)),
    "GLU": (0.061, (-0.140, -0.166, -0.170), (0.085, 0.079, 0.087), (0.081, 0.080, 0.079)),
    "GLY": (0.078, (0.000, 0.000, 0.000), (0.000, 0.000, 0.000), (0.000, 0.000, 0.000)),
    "HIS": (0.019, (-0.153, -0.152, -0.142), (0.133, 0.101, 0.070), (0.096, 0.076, 0.057)),
    "ILE": (0.054, (-0.113, -0.126, -0.150), (0.031, 0.026, 0.033), (0.099, 0.063, 0.058)),
    "LEU": (0.087, (-0.131, -0.158, -0.134), (0.069, 0.049, 0.030), (0.066, 0.064, 0.081)),
    "LYS": (0.055, (-0.162, -0.197, -0.185), (0.106, 0.084, 0.085), (0.095, 0.096, 0.086)),
    "MET": (0.023, (-0.135, -0.173, -0.156), (0.077, 0.057, 0.081), (0.081, 0.087, 0.080)),
    "PHE": (0.037, (-0.150, -0.166, -0.151), (0.155, 0.114, 0.077), (0.107, 0.090, 0.068)),
    "PRO": (0.045, (-0.103, 0.046, -0.146), (0.025, 0.013, 0.015), (0.040, 0.091, 0.032)),
    "SER": (0.068, (-0.059, -0.081, -0.147), (0.043, 0.038, 0.030), (0.037, 0.032, 0.030)),
    "THR": (0.066, (-0.078, -0.096, -0.142), (0.020, 0.030, 0.020), (0.076, 0.055, 0.035)),
    "TRP": (0.015, (-0.142, -0.204, -0.158), (0.176, 0.135, 0.120), (0.120, 0.116, 0.097)),
    "TYR": (0.034, (-0.162, -0.178, -0.159), (0.183, 0.133, 0.092), (0.122, 0.099, 0.070)),
    "VAL": (0.078, (-0.077, -0.112, -0.135), (0.020, 0.025, 0.019), (0.079, 0.061, 0.026)),
}
# Spread of the log standard deviation within a type; same source.
_LOG_SPREAD = 0.49


def synthetic_structures(
    count: int,
    *,
    seed: int = 0,
    lengths: tuple[int, int] = (40, 160),
    dtype: torch.dtype = torch.float32,
) -> list[Structure]:
    """`count` structures of one chain, no residue masked; the i-th depends on `seed`, i and `lengths` alone.

    lengths   shortest and longest number of residues, both included
    dtype     float32 or float64; everything before the last rounding is float64

    Residue types, centroids and deviations are independent of each other and of φ, ψ. Raises ValueError for a count
    or length under 1, lengths out of order, a negative seed or another dtype. Shapes and units: `Structure`.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}; ask for one structure or more")
    if not 1 <= lengths[0] <= lengths[1]:
        raise ValueError(
            f"lengths must be (shortest, longest) with 1 ≤ shortest ≤ longest, got {lengths!r}; pass (40, 160), say"
        )
    _check_seed(seed)
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}; convert features, not geometry")
    return [_structure(index, np.random.default_rng((seed, index)), lengths, dtype) for index in range(count)]


def synthetic_backbone(length: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Atoms N, CA, C of a chain, each [length, 3], nm, float64, the mean of CA at the origin.

    Coil and a helix, or coil and a strand, are added in turn, of drawn lengths and φ, ψ: of sixteen draws the one that
    brings the fewest CA too close to others, and of equals the one that leaves the smallest radius of gyration. Raises
    ValueError for a length under 1 or a negative seed.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1 residue, got {length}; ask for one residue or more")
    _check_seed(seed)
    rng = np.random.default_rng(seed)
    atoms = np.empty((0, 3, 3))
    frame, psi = np.eye(3), 0.0
    while len(atoms) < length:
        torsions = np.radians(_torsions(rng))[:, : length - len(atoms)]
        origin = atoms[-1, 2] if len(atoms) else np.zeros(3)
        added, frames = _place(torsions, frame, origin, psi)
        best = _most_compact(atoms, added)
        atoms = np.concatenate([atoms, added[best]])
        frame, psi = frames[best], float(torsions[best, -1, 1])
    n, ca, c = torch.from_numpy(atoms - atoms[:, 1].mean(axis=0)).unbind(dim=1)
    return n.contiguous(), ca.contiguous(), c.contiguous()


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise ValueError(f"seed must be an integer ≥ 0, got {seed}; pass another one")


def _structure(index: int, rng: np.random.Generator, lengths: tuple[int, int], dtype: torch.dtype) -> Structure:
    length = int(rng.integers(lengths[0], lengths[1] + 1))
    frame = Frame.from_backbone(*synthetic_backbone(length, seed=int(rng.integers(2**63))), unit="nm")
    names, local_mean, sigma = _side_chains(length, rng)
    return Structure(
        path=f"synthetic/{index}",
        gaussian=GaussianRigid(frame, local_mean, sigma.log()).to(dtype=dtype),
        mask=torch.ones(length, dtype=torch.bool),
        chains=("A",) * length,
        numbers=tuple(str(number) for number in range(1, length + 1)),
        residue_names=names,
        masked={},
    )


def _side_chains(length: int, rng: np.random.Generator) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """Residue names [n], local means and σ [n, 3], nm, float64.

    σ = s exp(a z − a²/2) + base thickness, s the type's deviation, z standard normal: but for the cut, the factor has
    mean 1. Glycine has neither atoms nor spread, alanine one atom: σ is the thickness.
    """
    types = list(_SIDE_CHAINS)
    share = np.array([_SIDE_CHAINS[name][0] for name in types])
    drawn = rng.choice(len(types), size=length, p=share / share.sum())
    table = np.array([_SIDE_CHAINS[name][1:] for name in types])[drawn]
    mean, spread, deviation = table[:, 0], table[:, 1], table[:, 2]
    local_mean = mean + spread * _normal(rng, (length, 3))
    factor = np.exp(_LOG_SPREAD * _normal(rng, (length, 3), _LOG_CUT) - _LOG_SPREAD**2 / 2)
    sigma = deviation * factor + BASE_THICKNESS / 10.0
    return tuple(types[i] for i in drawn), torch.from_numpy(local_mean), torch.from_numpy(sigma)


def _torsions(rng: np.random.Generator) -> np.ndarray:
    """φ, ψ [draws, residues, 2] in degrees: coil, then a helix or a strand, of the same lengths in every draw."""
    regular = (_HELIX, _HELIX_LENGTHS) if rng.random() < 0.5 else (_STRAND, _STRAND_LENGTHS)
    drawn = []
    for basins, (shortest, longest) in ((_COIL, _COIL_LENGTHS), regular):
        table = np.array(basins)
        size = (_DRAWS, int(rng.integers(shortest, longest + 1)))
        drawn.append(table[rng.choice(len(table), size=size, p=table[:, 3])])
    parameters = np.concatenate(drawn, axis=1)
    return parameters[..., :2] + parameters[..., 2:3] * _normal(rng, (*parameters.shape[:2], 2))


def _most_compact(atoms: np.ndarray, added: np.ndarray) -> int:
    """Which of `added` [draws, m, 3, 3] continues `atoms` [n, 3, 3] best: fewest close CA, then radius of gyration."""
    n, m = len(atoms), added.shape[1]
    ca = np.concatenate([np.broadcast_to(atoms[:, 1], (len(added), n, 3)), added[:, :, 1]], axis=1)
    distance = np.sqrt(np.square(ca[:, n:, None] - ca[:, None]).sum(axis=-1))
    apart = np.arange(n, n + m)[:, None] - np.arange(n + m) > 2
    close = ((distance < _CONTACT) & apart).sum(axis=(1, 2))
    gyration = ca.var(axis=1).sum(axis=-1)
    return int(np.lexsort((gyration, close))[0])


def _normal(rng: np.random.Generator, shape: tuple[int, ...], cut: float = _CUT) -> np.ndarray:
    """Standard normal numbers, those beyond the cut set to it."""
    return rng.standard_normal(shape).clip(-cut, cut)


def _place(torsions: np.ndarray, frame: np.ndarray, origin: np.ndarray, psi: float) -> tuple[np.ndarray, np.ndarray]:
    """N, CA, C [draws, m, 3, 3] in nm from φ, ψ [draws, m, 2] in radians, and the frames [draws, 3, 3] at the last C.

    The draws continue one chain, whose last C lies at `origin` with `frame`, and whose last ψ is `psi`. In an atom's
    frame e1 is along the bond that led to it, and the atom two before it lies in the plane of e1 and e2, at y > 0. The
    next atom lies at bond · d and has the frame (d, p, d × p); with angle θ at the atom and dihedral χ about its bond

        d = (−cos θ, sin θ cos χ, sin θ sin χ)        p = (−sin θ, −cos θ cos χ, −cos θ sin χ)
    """
    draws, m = torsions.shape[:2]
    theta = np.radians(np.broadcast_to(_ANGLE, (draws, m, 3)))
    chi = np.empty((draws, m, 3))  # about CA–C (ψ of the residue before), C–N (ω), N–CA (φ)
    chi[:, 0, 0], chi[:, 1:, 0] = psi, torsions[:, :-1, 1]
    chi[:, :, 1], chi[:, :, 2] = np.radians(_OMEGA), torsions[:, :, 0]
    cos, sin, c, s = np.cos(theta), np.sin(theta), np.cos(chi), np.sin(chi)
    d = np.stack([-cos, sin * c, sin * s], axis=-1)
    p = np.stack([-sin, -cos * c, -cos * s], axis=-1)
    third = np.stack([np.zeros_like(c), -s, c], axis=-1)  # d × p
    turns = np.stack([d, p, third], axis=-1).reshape(draws, 3 * m, 3, 3)
    steps = np.empty((draws, 3 * m, 3))
    frames = np.broadcast_to(frame, (draws, 3, 3))
    for i in range(3 * m):
        frames = frames @ turns[:, i]
        steps[:, i] = frames[:, :, 0] * _BOND[i % 3]
    return (origin + steps.cumsum(axis=1)).reshape(draws, m, 3, 3), frames
