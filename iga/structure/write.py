"""Backbone frames to a PDB file: N, CA, C and O of each residue, Å, in ideal geometry.

In a frame of the alphafold convention CA is at the origin, C on the first axis, N in the half-plane y > 0; so
`iga.read_structure` reads the same frames back, up to the format's three decimals. O lies in the plane of CA, C and the
next residue's N, on the far side; where that is not bonded (a gap, an end, a sample that is no chain), where ψ = −43°
puts it, the middle of helices.

Source: ideal lengths and angles R. A. Engh and R. Huber, Acta Crystallographica A47 (1991), 392; columns wwPDB, "Atomic
Coordinate Entry Format", version 3.3.
"""

import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch

from iga._files import write_bytes
from iga._typing import NM_PER_ANGSTROM, Tensor
from iga.frame import Frame

__all__ = ["PdbLimit", "backbone_atoms", "write_pdb"]


class PdbLimit(ValueError):
    """What is sound, and does not fit into the columns of the format."""


# Å and degrees
_N_CA, _CA_C, _C_O = 1.458, 1.525, 1.231
_N_CA_C, _CA_C_O = 111.2, 120.1
_PSI = -43.0

# Å; a peptide bond has 1.33. Beyond it the next N says nothing about O.
_BONDED = 2.0

_HIGHEST = 9999  # four columns


def write_pdb(
    path: str | Path,
    frame: Frame,
    index: Tensor,
    residue_names: Sequence[str],
    chain: str = "A",
    remarks: Sequence[str] = (),
) -> None:
    """Write frames [n] as one chain; the file is there whole or not at all.

    index          long [n], rising: residue number − 1, so that gaps are kept
    residue_names  three-letter codes [n]; a longer one, which the columns can't hold, becomes UNK, and a REMARK says so
    chain          one letter or digit
    remarks        lines of text, wrapped, as REMARK 99; what is not ASCII becomes "?"

    Raises PdbLimit, a ValueError, for what the format can't hold, and ValueError for frames that are not finite.
    """
    n = _check(frame, index, residue_names, chain)
    names = [name if len(name) <= 3 else "UNK" for name in residue_names]
    long = dict.fromkeys(name for name in residue_names if len(name) > 3)
    notes = [*remarks, *(f"written as UNK, having more than three characters: {name}" for name in long)]
    lines = [f"REMARK  99 {line}" for note in notes for line in textwrap.wrap(note, 69) or [""]]
    atoms = backbone_atoms(frame, index)
    numbers = (index + 1).tolist()
    for i in range(n):
        for j, (atom, xyz) in enumerate(zip(("N", "CA", "C", "O"), atoms[i].tolist(), strict=True)):
            x, y, z = (f"{value:8.3f}" for value in xyz)
            lines.append(
                f"ATOM  {4 * i + j + 1:5d}  {atom:<3} {names[i]:>3} {chain}{numbers[i]:4d}    {x}{y}{z}"
                f"{1:6.2f}{0:6.2f}          {atom[0]:>2}"
            )
    lines += [f"TER   {4 * n + 1:5d}      {names[-1]:>3} {chain}{numbers[-1]:4d}", "END", ""]
    write_bytes(Path(path), "\n".join(lines).encode("ascii", errors="replace"))


def _check(frame: Frame, index: Tensor, residue_names: Sequence[str], chain: str) -> int:
    if len(frame.shape) != 1 or frame.shape[0] < 1:
        raise ValueError(f"frame must be [n], the residues of one chain, got {list(frame.shape)}; index the sample")
    n = frame.shape[0]
    if tuple(index.shape) != (n,) or len(residue_names) != n:
        raise ValueError(
            f"index and residue_names must have one entry per frame, {n}, got {list(index.shape)} and "
            f"{len(residue_names)}; leave the padded rows out of all three"
        )
    if int(index.min()) < 0 or int(index.max()) >= _HIGHEST or not bool((index[1:] > index[:-1]).all()):
        raise PdbLimit(
            f"index must rise from residue to residue and lie in 0 … {_HIGHEST - 1}, got {index.tolist()[:8]} …; "
            "number the residues anew"
        )
    if not re.fullmatch("[A-Za-z0-9]", chain):
        raise ValueError(f"chain must be one letter or digit, got {chain!r}; PDB has one column for it")
    bad = [name for name in residue_names if not re.fullmatch("[A-Za-z0-9]+", name)]
    if bad:
        raise PdbLimit(f'residue_names must be of letters and digits, got {bad[0]!r}; an unknown residue is "UNK"')
    if not bool(frame.rot.isfinite().all() and frame.trans.isfinite().all()):
        raise ValueError("frame must be finite, got NaN or infinity; the network that made it has diverged")
    if float(frame.trans.abs().max()) / NM_PER_ANGSTROM > 990:  # −999.999 Å is the lowest that the columns hold
        raise PdbLimit("frame must lie within 99 nm of the origin, the columns of PDB hold no more; centre the chain")
    return n


def backbone_atoms(frame: Frame, index: Tensor) -> Tensor:
    """N, CA, C, O [n, 4, 3], Å, float64."""
    exact = frame.to(dtype=torch.float64, device="cpu")
    at_ca, at_c, o = math.radians(_N_CA_C), math.radians(_CA_C_O), math.radians(_PSI + 180.0)
    local = torch.tensor(
        [
            [_N_CA * math.cos(at_ca), _N_CA * math.sin(at_ca), 0.0],
            [0.0, 0.0, 0.0],
            [_CA_C, 0.0, 0.0],
            # About the first axis, which leads from CA to C; N is at dihedral 0, and looking along it turns y to z.
            [
                _CA_C - _C_O * math.cos(at_c),
                _C_O * math.sin(at_c) * math.cos(o),
                _C_O * math.sin(at_c) * math.sin(o),
            ],
        ],
        dtype=torch.float64,
    )
    atoms = exact[:, None].apply(local * NM_PER_ANGSTROM) / NM_PER_ANGSTROM
    for i in range(len(index) - 1):
        to_next = atoms[i + 1, 0] - atoms[i, 2]
        to_ca = atoms[i, 1] - atoms[i, 2]
        # O–C–CA and O–C–N are nearly alike, so O is opposite to the bisector of CA–C–N.
        away = -(to_ca / to_ca.norm() + to_next / to_next.norm().clamp(min=1e-6))
        if int(index[i + 1] - index[i]) == 1 and float(to_next.norm()) < _BONDED and float(away.norm()) > 0.1:
            atoms[i, 3] = atoms[i, 2] + _C_O * away / away.norm()
    return atoms
