"""From a PDB or mmCIF file to the atoms of its protein residues, in ångström. gemmi parses.

Taken are the first model and the residues of its polymer chains that are not nucleic acid, modified ones (MSE, HYP, …)
included, with insertion codes. Of alternate locations one conformer a residue is taken whole: the one with a backbone
and the highest mean occupancy, the first on a tie; of several residue names at a position, likewise. Chains end at TER
too, so that chains which share a name (a blank, in files of simulations) are not laid over each other. A PDB coordinate
that is no number (overflowed to ****, or blank) is NaN: gemmi reads it as 0.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gemmi

__all__ = ["Atoms", "ResidueAtoms", "StructureError", "read_residues"]

Atoms = Literal["sidechain", "backbone"]

_BACKBONE = ("N", "CA", "C")
_TERMINAL = {"OXT", "OT1", "OT2"}  # the second and third as CHARMM and GROMACS have them
_MAIN_CHAIN = {"N", "CA", "C", "O"} | _TERMINAL
_NUCLEIC = (gemmi.PolymerType.Dna, gemmi.PolymerType.Rna, gemmi.PolymerType.DnaRnaHybrid)

_NOT_PDB = re.compile(rb"\A(?:\s+|#[^\n]*(?:\n|\Z))*(?:data_|\Z)", re.IGNORECASE)
# A PDB record whose columns 31–54 are not three fields of eight with a number in each; a last one cut off before them.
_NO_NUMBERS = re.compile(rb"^((?:ATOM  |HETATM)[^\r\n]{24})(?!(?:(?! {8})[-+ .\deE]{8}){3})[^\r\n]{24}", re.MULTILINE)
_CUT_OFF = re.compile(rb"(?:\A|(?<=\n))(?:ATOM|HETATM)[^\r\n]{0,50}\Z")


class StructureError(ValueError):
    """A structure that can't be read; the message is one line: file, reason, remedy."""


@dataclass
class ResidueAtoms:
    """One residue of a file: what frames and Gaussians are made of, Å."""

    chain: str
    number: str
    name: str
    backbone: list[list[float]]  # N, CA, C; NaN where missing
    atoms: list[list[float]]  # those that the Gaussian is made of
    ambiguous: bool  # an atom stands at two places


def read_residues(path: str | Path, gaussians: Atoms) -> list[ResidueAtoms]:
    """The protein residues of a file; `gaussians` chooses the atoms beside the backbone's. Raises StructureError."""
    return list(_residues(_model(path), gaussians))


def _model(path: str | Path) -> gemmi.Model:
    try:
        data = Path(path).read_bytes()
        # Unpacked here, since gemmi takes what a cut-off gzip file begins with for the whole.
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except (OSError, EOFError, zlib.error) as error:
        raise StructureError(f"{path}: not readable: {getattr(error, 'strerror', None) or error}") from error
    try:
        # PDB or mmCIF by what the file holds; nothing at all is PDB without atoms.
        if data.strip() and _NOT_PDB.match(data):
            parsed = gemmi.read_structure_string(data, format=gemmi.CoorFormat.Detect)
        else:
            data = _NO_NUMBERS.sub(rb"\1" + 3 * b"     nan", _CUT_OFF.sub(b"", data))
            parsed = gemmi.read_pdb_string(data, split_chain_on_ter=True)
    except (RuntimeError, ValueError, IndexError) as error:  # what gemmi raises for a text that it can't parse
        reason = " ".join(str(error).removeprefix("string:").split())
        raise StructureError(f"{path}: not readable as PDB or mmCIF: {reason}") from error
    if sum(model.count_atom_sites() for model in parsed) == 0:
        raise StructureError(f"{path}: no atoms; the file is empty or holds no coordinates")
    parsed.setup_entities()
    return parsed[0]


def _residues(model: gemmi.Model, gaussians: Atoms) -> Iterator[ResidueAtoms]:
    for chain in model:
        polymer = chain.get_polymer()
        nucleic = polymer.check_polymer_type() in _NUCLEIC
        position: list[gemmi.Residue] = []
        for residue in polymer:
            kind = gemmi.find_tabulated_residue(residue.name)
            # gemmi's table lacks many modified nucleotides; their chain tells.
            if kind.is_nucleic_acid() or (nucleic and not kind.is_amino_acid()):
                continue
            if position and residue.seqid != position[-1].seqid:
                yield _position(chain.name, position, gaussians)
                position = []
            position.append(residue)
        if position:
            yield _position(chain.name, position, gaussians)


def _position(chain: str, candidates: list[gemmi.Residue], gaussians: Atoms) -> ResidueAtoms:
    """The residue at one position, one conformer of it."""
    options: list[tuple[tuple[bool, float], gemmi.Residue, dict[str, gemmi.Atom]]] = []
    # What residue names share at a position stands in the file under the first of them.
    shared = {a.name: a for r in candidates for a in r if a.altloc == "\0" and a.name in _MAIN_CHAIN}
    for residue in candidates:
        heavy = [atom for atom in residue if not atom.is_hydrogen()]
        lettered = {atom.name for atom in heavy if atom.altloc != "\0"}
        # Atoms without a letter are common to all conformers, or one of their own where a letter repeats the name.
        split = [atom for atom in heavy if atom.name in lettered] or heavy
        for altloc in sorted({atom.altloc for atom in split}) or ["\0"]:
            atoms = {atom.name: atom for letter in ("\0", altloc) for atom in heavy if atom.altloc == letter}
            chosen = shared | atoms
            own = [atom.occ for atom in split if atom.altloc == altloc] or [0.0]
            rank = (all(name in chosen for name in _BACKBONE), sum(own) / len(own))
            options.append((rank, residue, chosen))
    _, residue, chosen = max(options, key=lambda option: option[0])  # the first on a tie
    return _conformer(chain, residue, chosen, gaussians)


def _conformer(chain: str, residue: gemmi.Residue, atoms: dict[str, gemmi.Atom], gaussians: Atoms) -> ResidueAtoms:
    wanted = (lambda name: name not in _MAIN_CHAIN) if gaussians == "sidechain" else (lambda name: name in _MAIN_CHAIN)
    missing = [float("nan")] * 3
    return ResidueAtoms(
        chain=chain,
        number=str(residue.seqid),
        name=residue.name,
        backbone=[atoms[name].pos.tolist() if name in atoms else missing for name in _BACKBONE],
        atoms=[atom.pos.tolist() for name, atom in atoms.items() if wanted(name) and name not in _TERMINAL],
        ambiguous=any(
            atom.name in atoms and atom.altloc == atoms[atom.name].altloc and atom.pos.dist(atoms[atom.name].pos) > 0
            for atom in residue
        ),
    )
