"""The atoms of the protein residues of a PDB or mmCIF file, in ångström. gemmi parses.

Taken are the first model and the residues of its polymer chains that are not nucleic acid, modified ones (MSE, HYP, …)
included, with insertion codes. Of alternate locations one conformer a residue is taken whole: the one with a backbone
and the highest mean occupancy, the first on a tie; of several residue names at a position, likewise, also where each
conformer is written as a chain of its own. Chains end at TER too, so that chains which share a name (a blank, in files
of simulations) are not laid over each other. Where a file does not say what is polymer and what is solvent, residues
joined by peptide bonds are polymer, whatever stands between them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gemmi

from iga._text import one_line
from iga.structure.cif_text import cif_structure
from iga.structure.decode import StructureError, foreign_text, read_text
from iga.structure.pdb_text import Position, repaired

__all__ = ["Atoms", "ResidueAtoms", "StructureError", "read_residues"]

Atoms = Literal["sidechain", "backbone"]

_FRAME = ("N", "CA", "C")
_TERMINAL = {"OXT", "OT1", "OT2"}  # the second and third as CHARMM and GROMACS have them
_MAIN_CHAIN = {*_FRAME, "O"} | _TERMINAL
_NUCLEIC = (gemmi.PolymerType.Dna, gemmi.PolymerType.Rna, gemmi.PolymerType.DnaRnaHybrid)
_UNSAID = (gemmi.EntityType.Unknown, gemmi.EntityType.Water)
_PEPTIDE_BOND = 2.5  # Å: 1.33, and an error of half an ångström at each end

_CIF = re.compile(rb"\A(?:\s+|#[^\n]*(?:\n|\Z))*(?:data_|\Z)", re.IGNORECASE)
_MMJSON = re.compile(rb'\s*\{\s*"data_')
_PDB = re.compile(rb"^(?:ATOM|HETATM|HEADER|TITLE|CRYST1|REMARK|MODEL|END|TER|SEQRES)", re.IGNORECASE | re.MULTILINE)


@dataclass
class ResidueAtoms:
    """One residue of a file: what frames and Gaussians are made of, Å."""

    chain: str
    number: str
    name: str
    backbone: list[list[float]]  # N, CA, C, O; NaN where missing
    atoms: list[list[float]]  # those that the Gaussian is made of
    atom_names: list[str]
    ambiguous: bool  # an atom stands at two places


def read_residues(path: str | Path, gaussians: Atoms) -> list[ResidueAtoms]:
    """The protein residues of a file; `gaussians` chooses the atoms beside the backbone's. Raises StructureError."""
    return list(_residues(_parsed(path), gaussians))


def _parsed(path: str | Path) -> gemmi.Structure:
    text = read_text(path)
    is_json = _MMJSON.match(text)
    if not is_json and (foreign := foreign_text(text)):
        raise StructureError(f"{one_line(path)}: {foreign}")
    wide: list[Position] = []
    try:
        # By what the text holds; nothing at all is PDB without atoms.
        if is_json:
            parsed = gemmi.read_structure_string(text, format=gemmi.CoorFormat.Mmjson)
        elif _is_cif(text):
            parsed = cif_structure(text)
        else:
            fixed, wide = repaired(text)
            parsed = gemmi.read_pdb_string(fixed, split_chain_on_ter=True)
    except (RuntimeError, ValueError, IndexError) as error:  # what gemmi raises for a text that it can't parse
        reason = one_line(" ".join(str(error).removeprefix("string:").split()))
        raise StructureError(f"{one_line(path)}: not readable as PDB or mmCIF: {reason}") from error
    if sum(model.count_atom_sites() for model in parsed) == 0:
        raise StructureError(f"{one_line(path)}: {_why_no_atoms(text)}")
    while not parsed[0].count_atom_sites():
        del parsed[0]
    for atom in (atom for chain in parsed[0] for residue in chain for atom in residue) if wide else ():
        x, y = atom.pos.x, atom.pos.y
        if x == x and y != y:  # an index in place of x: see `repaired`
            atom.pos = gemmi.Position(*wide[int(x)])
    return parsed


def _is_cif(text: bytes) -> bool:
    return b"_atom_site." in text or bool(text.strip() and _CIF.match(text))


def _why_no_atoms(text: bytes) -> str:
    begin = text.strip()[:60]
    if not begin or _PDB.search(text) or _is_cif(text):
        return "no atoms; the file is empty or holds no coordinates"
    if any(byte < 9 for byte in text[:1000]):
        return "no atoms; binary data of a kind that is not known; name a PDB or mmCIF file"
    line = one_line(begin.decode("utf-8", errors="replace").splitlines()[0])
    return f'no atoms; a text that begins "{line}", neither PDB nor mmCIF; download the file again'


def _residues(parsed: gemmi.Structure, gaussians: Atoms) -> Iterator[ResidueAtoms]:
    # Water is known by its name, whatever the file says.
    unsaid = [all(r.entity_type in _UNSAID for r in chain) for chain in parsed[0]]
    parsed.setup_entities()
    positions: list[tuple[str, list[gemmi.Residue]]] = []
    seen: dict[tuple[str, int | None, str], list[gemmi.Residue]] = {}
    for chain, undivided in zip(parsed[0], unsaid, strict=True):
        last = None
        for residue in _protein(chain, undivided):
            key = chain.name, residue.seqid.num, residue.seqid.icode
            before = seen.get(key)
            if before is not None and (before is last or _is_conformer(residue, before)):
                before.append(residue)
            else:
                last = seen[key] = [residue]
                positions.append((chain.name, last))
    for name, candidates in positions:
        yield _position(name, candidates, gaussians)


def _protein(chain: gemmi.Chain, undivided: bool) -> Iterator[gemmi.Residue]:
    """Residues of the polymer but for nucleic acid and solvent; `undivided`: the file does not say where it ends."""
    polymer = chain.get_polymer()
    nucleic = polymer.check_polymer_type() in _NUCLEIC
    for before, residue, after in zip([None, *polymer], polymer, [*polymer, None][1:], strict=False):
        kind = gemmi.find_tabulated_residue(residue.name)
        if kind.is_amino_acid():
            yield residue
        # gemmi's table lacks many modified nucleotides; their chain tells.
        elif not (nucleic or kind.is_nucleic_acid() or kind.is_water()):
            # A cap has no CA, and a bond to the chain; ions, solvent and lipids have neither.
            if residue.get_ca() or _joined(before, residue) or _joined(residue, after):
                yield residue
    # gemmi finds no polymer where most residues are of another kind, and ends it at the first of them.
    if undivided and len(polymer) < len(chain):
        rest = [residue for residue in list(chain)[len(polymer) :] if _is_peptide(residue)]
        last = [polymer[-1]] if len(polymer) else []
        if any(_joined(a, b) for a, b in zip([*last, *rest], [*last, *rest][1:], strict=False)):
            yield from rest


def _is_peptide(residue: gemmi.Residue) -> bool:
    kind = gemmi.find_tabulated_residue(residue.name)
    if kind.found():
        return kind.is_amino_acid()
    return residue.get_ca() is not None and "N" in residue and "C" in residue


def _joined(a: gemmi.Residue | None, b: gemmi.Residue | None) -> bool:
    return (
        a is not None and b is not None and "C" in a and "N" in b and a["C"][0].pos.dist(b["N"][0].pos) <= _PEPTIDE_BOND
    )


def _is_conformer(residue: gemmi.Residue, others: list[gemmi.Residue]) -> bool:
    """Whether all its atoms have a letter that those of the others have not: a chain for each conformer."""
    letters = {atom.altloc for atom in residue}
    return "\0" not in letters and all(letters.isdisjoint(atom.altloc for atom in other) for other in others)


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
            rank = (all(name in chosen for name in _FRAME), sum(own) / len(own))
            options.append((rank, residue, chosen))
    _, residue, chosen = max(options, key=lambda option: option[0])  # the first on a tie
    return _conformer(chain, residue, chosen, gaussians)


def _conformer(chain: str, residue: gemmi.Residue, atoms: dict[str, gemmi.Atom], gaussians: Atoms) -> ResidueAtoms:
    wanted = (lambda name: name not in _MAIN_CHAIN) if gaussians == "sidechain" else (lambda name: name in _MAIN_CHAIN)
    missing = [float("nan")] * 3
    chosen = {name: atom for name, atom in atoms.items() if wanted(name) and name not in _TERMINAL}
    return ResidueAtoms(
        chain=chain,
        number=str(residue.seqid),
        name=residue.name,
        backbone=[atoms[name].pos.tolist() if name in atoms else missing for name in (*_FRAME, "O")],
        atoms=[atom.pos.tolist() for atom in chosen.values()],
        atom_names=list(chosen),
        ambiguous=any(
            atom.name in atoms and atom.altloc == atoms[atom.name].altloc and atom.pos.dist(atoms[atom.name].pos) > 0
            for atom in residue
        ),
    )
