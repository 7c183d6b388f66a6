"""The Gaussians of residues as ellipsoids that molecular viewers draw: PDB with ANISOU records, and mmCIF.

Crystallography calls the covariance of an atom's place U, in Å² and Cartesian axes: U_ij = ⟨Δx_i Δx_j⟩. A residue's
Gaussian is written as an atom at its mean with its covariance for U. 1 nm = 10 Å, so

    U = 10² Σ  [Å², Σ in nm²]          ANISOU holds 10⁴ U as whole numbers, so round(10⁶ Σ)          B = 8π²/3 · tr U

in the order 11, 22, 33, 12, 13, 23. An ellipsoid of U is then that of the Gaussian; viewers draw the one that holds
half of it, of semi-axes 1.5382 σ (the median of χ with three degrees of freedom), unless told otherwise.

The atom is called GAU, in its residue beside N, CA, C and O, which the frame places in ideal geometry
(`iga.structure.write`): PyMOL: `show ellipsoids, name GAU`; ChimeraX: `aniso @GAU`. Masked residues are left out.
Source: wwPDB, "Atomic Coordinate Entry Format", version 3.3, ANISOU; K. N. Trueblood et al., Acta Crystallographica A52
(1996), 770.
"""

import math
from pathlib import Path

import gemmi
import torch

from iga._files import write_bytes
from iga._text import one_line
from iga._typing import NM_PER_ANGSTROM, Float, Tensor
from iga.structure.read import Structure
from iga.structure.write import PdbLimit, backbone_atoms

__all__ = ["GAUSSIAN", "anisotropic", "check_pdb", "write_ellipsoids"]

GAUSSIAN = "GAU"
# The columns of PDB: seven digits of 10⁴ U, one letter for a chain, four digits for a residue, 6.2f for B.
_U_MOST, _HIGHEST, _B_MOST, _FARTHEST = 999.9999, 9999, 999.99, 999.0


def anisotropic(structure: Structure) -> Float[Tensor, "n 3 3"]:
    """U of each residue's Gaussian, Å², float64: 10² times its covariance in nm²."""
    exact = structure.gaussian.to(dtype=torch.float64)
    return exact.covariance() / NM_PER_ANGSTROM**2


def check_pdb(structure: Structure) -> None:
    """Raises PdbLimit, a ValueError, in one line, for what the columns of PDB cannot hold; mmCIF holds it."""
    u = anisotropic(structure)[structure.mask]
    largest = float(u.abs().amax())
    if not largest <= _U_MOST:
        raise PdbLimit(
            f"a Gaussian has U = {largest:.4g} Å², and ANISOU holds {_U_MOST:.0f} Å² (σ = 3.16 nm); mmCIF does"
        )
    means = structure.gaussian.mean[structure.mask] / NM_PER_ANGSTROM
    if not float(means.abs().amax()) <= _FARTHEST:
        raise PdbLimit(f"a residue lies beyond {_FARTHEST:g} Å from the origin, the columns of PDB; mmCIF holds it")
    for chain, number in zip(structure.chains, structure.numbers, strict=True):
        if len(chain) > 1:
            raise PdbLimit(
                f"the chain {one_line(chain)} has more than one letter, and PDB has one column; mmCIF holds it"
            )
        if not -999 <= _numbered(number)[0] <= _HIGHEST:
            raise PdbLimit(f"the residue number {number} has more than four columns; mmCIF holds it")


def write_ellipsoids(path: str | Path, structure: Structure) -> None:
    """Write the residues of one structure; .pdb or .ent: PDB, .cif: mmCIF; the file is there whole or not at all.

    Raises PdbLimit, a ValueError, for what PDB cannot hold (`check_pdb`), ValueError for another ending.
    """
    ending = Path(path).suffix.lower()
    if ending not in (".pdb", ".ent", ".cif"):
        raise ValueError(f"{one_line(path)}: ellipsoids are written as .pdb or .cif")
    if ending == ".cif":
        text = _model(structure).make_mmcif_document().as_string()
    else:
        check_pdb(structure)
        text = _model(structure, most=_B_MOST).make_pdb_string()
    write_bytes(Path(path), text.encode("utf-8", "backslashreplace"))


def _model(structure: Structure, most: float = math.inf) -> gemmi.Structure:
    """The structure as gemmi has it. most: the largest B, for columns that hold no more."""
    valid = structure.mask.nonzero().flatten()
    gaussian = structure.gaussian[valid].to(dtype=torch.float64)
    backbone = backbone_atoms(gaussian.frame, torch.arange(len(valid))).tolist()
    means, us = (gaussian.mean / NM_PER_ANGSTROM).tolist(), anisotropic(structure)[valid].tolist()
    made, model, chain = gemmi.Structure(), gemmi.Model(1), gemmi.Chain("")
    made.name = Path(structure.path).name.split(".")[0] or "iga"
    for place, row in enumerate(valid.tolist()):
        if place == 0 or structure.chains[row] != structure.chains[int(valid[place - 1])]:
            chain = model.add_chain(gemmi.Chain(structure.chains[row]))
        residue = gemmi.Residue()
        residue.name, residue.seqid = structure.residue_names[row], gemmi.SeqId(*_numbered(structure.numbers[row]))
        residue.entity_type, residue.het_flag = gemmi.EntityType.Polymer, "A"
        for name, xyz in zip(("N", "CA", "C", "O"), backbone[place], strict=True):
            residue.add_atom(_atom(name, name[0], xyz))
        u = us[place]
        atom = _atom(GAUSSIAN, "C", means[place])
        atom.b_iso = min(8 * math.pi**2 / 3 * (u[0][0] + u[1][1] + u[2][2]), most)
        atom.aniso = gemmi.SMat33f(u[0][0], u[1][1], u[2][2], u[0][1], u[0][2], u[1][2])
        residue.add_atom(atom)
        chain.add_residue(residue)
    made.add_model(model)
    made.setup_entities()
    made.assign_serial_numbers()
    return made


def _atom(name: str, element: str, xyz: list[float]) -> gemmi.Atom:
    atom = gemmi.Atom()
    atom.name, atom.element, atom.occ = name, gemmi.Element(element), 1.0
    atom.pos = gemmi.Position(*xyz)
    return atom


def _numbered(number: str) -> tuple[int, str]:
    """The number and the insertion code, or a blank, of "60A"; gemmi's own parser makes a small letter of it."""
    end = number if number[-1].isdigit() else number[:-1]
    return int(end), number[len(end) :] or " "
