"""Limits of chemistry in a residue: bonds, extent of a side chain, atoms in one place; and breaks of a chain.

The limits leave half an ångström of error to each atom, more than the worst models have: what they exclude is no
coarse model but a slip (placeholders, overflowed columns, a wrong unit). Lengths in Å.

bond       of N–CA, CA–C, C–O and CA–CB: ideal lengths are 1.23 to 1.53, so at most 2.5; under 0.5 two atoms overlap,
           for no bond is shorter than that of H–H, 0.74
extent     an atom k bonds from CA lies within 2.5 + 1.4 (k − 1): past the first bond, two bonds of 1.54 at an angle of
           112° carry 2.55, and those at a sulphur (1.81, 101°) 2.8. In the twenty amino acids the Greek letter of a
           name tells k, in others k is at most the number of side-chain atoms
one place  atoms within 0.05 of each other: precision at atomic resolution is 0.02
break      CA–CA over a peptide bond is at most CA–C + C–N + N–CA on a straight line, 1.525 + 1.329 + 1.458 = 4.31 (it
           is 3.80 in a trans and 2.95 in a cis one)

Source of the ideal lengths and angles: R. A. Engh and R. Huber, Acta Crystallographica A47 (1991), 392.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from iga._typing import Bool, Tensor
from iga.structure.atoms import ResidueAtoms

__all__ = ["AT_ORIGIN", "BOND", "BREAK", "breaks", "excluded", "reach"]

BOND = (0.5, 2.5)
BREAK = 4.31
AT_ORIGIN = "an atom at (0, 0, 0), as if not placed"
_PER_BOND = 1.4
_ONE_PLACE = 0.05

_GREEK = {letter: bonds for bonds, letter in enumerate("BGDEZH", 1)}
_AMINO_ACIDS = frozenset(
    "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL".split()
)  # fmt: skip


@lru_cache(maxsize=4096)
def reach(residue_name: str, atom_names: tuple[str, ...]) -> list[float]:
    """How far from CA each side-chain atom can be; all the side chain's heavy atoms are named."""
    bonds = [
        _GREEK.get(name[1:2], len(atom_names)) if residue_name in _AMINO_ACIDS else len(atom_names)
        for name in atom_names
    ]
    return [BOND[1] + _PER_BOND * (k - 1) for k in bonds]


def excluded(residues: Sequence[ResidueAtoms]) -> dict[str, Bool[Tensor, " n"]]:
    """Reason → residues [n] that it excludes. What is not finite is nobody's evidence here."""
    backbone = np.array([residue.backbone for residue in residues])
    names = [tuple(residue.atom_names) for residue in residues]
    owner = np.repeat(np.arange(len(residues)), [len(residue.atoms) for residue in residues])
    points = np.array([xyz for residue in residues for xyz in residue.atoms]).reshape(-1, 3)
    limit = np.array([x for residue, own in zip(residues, names, strict=True) for x in reach(residue.name, own)])
    is_cb = np.array([name == "CB" for own in names for name in own], dtype=bool)

    def having(bad: np.ndarray) -> np.ndarray:
        return np.bincount(owner[bad], minlength=len(residues)) > 0

    n, ca, c, o = backbone.transpose(1, 0, 2)
    with np.errstate(invalid="ignore", over="ignore"):
        from_ca = np.linalg.norm(points - ca[owner], axis=-1)
        bonds = np.linalg.norm(np.stack([n - ca, c - ca, o - c]), axis=-1)
    reasons = {
        AT_ORIGIN: _at_the_origin(backbone, points, owner),
        f"a bond of N, CA, C, O or CB under {BOND[0]} or over {BOND[1]} Å": (
            _outside(bonds).any(axis=0) | having(is_cb & _outside(from_ca))
        ),
        "a side-chain atom farther from CA than bonds reach": having(~is_cb & (from_ca > limit)),
        "two atoms in one place": having(_twice(points, owner)),
    }
    return {reason: torch.from_numpy(bad) for reason, bad in reasons.items()}


def breaks(ca: Tensor, mask: Bool[Tensor, " n"], chains: Sequence[str]) -> Bool[Tensor, " n"]:
    """Where the way from the last residue that has a frame, in the same chain, is longer than its peptide bonds reach.

    ca [n, 3] in nm; k residues further, all of them in the file, the bonds reach k times 4.31 Å.
    """
    rows = mask.nonzero()[:, 0]
    out = torch.zeros_like(mask)
    if len(rows) < 2:
        return out
    run = torch.from_numpy(_runs(chains))[rows]
    step = (ca[rows[1:]].double() - ca[rows[:-1]].double()).square().sum(dim=-1).sqrt() * 10.0
    out[rows[1:]] = (run[1:] == run[:-1]) & (step > BREAK * (rows[1:] - rows[:-1]))
    return out


def _runs(chains: Sequence[str]) -> np.ndarray:
    """Number of the run of equal names that each residue is in."""
    names = np.array(chains)
    return np.concatenate([[0], (names[1:] != names[:-1]).cumsum()])


def _outside(length: np.ndarray) -> np.ndarray:
    return (length < BOND[0]) | (length > BOND[1])


def _at_the_origin(backbone: np.ndarray, points: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Residues with two atoms of the backbone there, or with one of the side chain where the file has two: a single
    atom may have been put there on purpose."""
    side = (points == 0).all(axis=-1)
    found = (backbone == 0).all(axis=-1).sum(axis=-1) >= 2
    return found | (np.bincount(owner[side], minlength=len(backbone)) > 0) if side.sum() >= 2 else found


def _twice(points: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Atoms that another one of the same residue shares its place with."""
    found = np.zeros(len(points), dtype=bool)
    for apart in range(1, len(points)):
        same = owner[apart:] == owner[:-apart]
        if not same.any():
            break
        with np.errstate(invalid="ignore"):
            found[apart:] |= same & (np.abs(points[apart:] - points[:-apart]).max(axis=-1) < _ONE_PLACE)
    return found
