"""Awkward files after the kinds in the test suites of Biopython, biotite, gemmi, MDAnalysis and mdtraj.

Each is made here from a small peptide. The judge is Biopython's own reader: chains, numbers with insertion codes, names
and CA positions of the residues with N, CA and C in the first model.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.structures import Atom, cif_text, moved, of, pdb_text, peptide, without
from iga.structure import read_structure

BIO = pytest.importorskip("Bio.PDB")
pytestmark = pytest.mark.filterwarnings("ignore::Bio.PDB.PDBExceptions.PDBConstructionWarning")

PLAIN = peptide("ALA", "LYS", "SER", "LEU", "GLY", "PRO", "ALA")
OTHER = peptide("SER", "LYS", "ALA", seed=4, shift=(40.0, 0.0, 0.0))


def numbered(*labels: tuple[int, str]) -> list[Atom]:
    return [replace(a, number=n, insertion=i) for k, (n, i) in enumerate(labels, 1) for a in of(PLAIN, k)]


def named(number: int, residue: str, het: bool = True, atoms: Sequence[Atom] = PLAIN) -> list[Atom]:
    return [replace(a, residue=residue, het=het) if a.number == number else a for a in atoms]


def split(letters: Sequence[str], shares: Sequence[float], *names: str, number: int = 3) -> list[Atom]:
    """A residue in conformers, all its atoms or those of these names."""
    own = of(PLAIN, number)
    common = [a for a in own if names and a.name not in names]
    parts = [a for a in own if a not in common]
    conformers = [
        a
        for k, (letter, share) in enumerate(zip(letters, shares, strict=True))
        for a in moved(parts, 0.3 * k, altloc=letter, occupancy=share)
    ]
    return [*of_range(1, number - 1), *common, *conformers, *of_range(number + 1, 7)]


def of_range(first: int, last: int) -> list[Atom]:
    return [a for a in PLAIN if first <= a.number <= last]


def water(count: int, chain: str = "A", number: int = 201) -> list[Atom]:
    return [Atom("O", (30.0 + 3 * k, 9.0, 9.0), "HOH", number + k, chain=chain, kind="water") for k in range(count)]


def ligand(chain: str = "A") -> list[Atom]:
    names = ("C1", "C2", "O1", "N", "CA")  # names that a backbone has too
    return [Atom(n, (20.0, 2.0 * k, 9.0), "LIG", 301, chain=chain, kind="ligand") for k, n in enumerate(names)]


def dna(chain: str) -> list[Atom]:
    names = ("P", "C1'", "C2'", "C3'", "O3'", "O5'", "N1")
    return [
        Atom(n, (20.0 + k, 5.0 * i, 30.0), r, i, chain=chain)
        for i, r in enumerate(("DA", "DC", "DG"), 1)
        for k, n in enumerate(names)
    ]


def hydrogens(element: str) -> list[Atom]:
    extra = [
        replace(a, name=name, element=element, xyz=(a.xyz[0] + 1.0, a.xyz[1], a.xyz[2]))
        for a in PLAIN
        if a.name == "CA"
        for name in (f"{element}A", f"{element}B1", f"1{element}G2", f"{element}G11")
    ]
    return sorted([*PLAIN, *extra], key=lambda atom: atom.number)


def anisou(text: str) -> str:
    row = re.compile(r"^(ATOM  )(.{22})(.{26})(.*)$", re.MULTILINE)
    return row.sub(lambda m: f"{m[0]}\nANISOU{m[2]}{'    100' * 6}{m[0][70:]}", text)


def lines(change: Callable[[str], str], text: str) -> str:
    return "".join(change(line) if line.startswith(("ATOM", "HETATM")) else line for line in text.splitlines(True))


def shuffled(atoms: Sequence[Atom]) -> list[Atom]:
    generator = np.random.default_rng(1)
    return [a for k in range(1, 8) for a in generator.permutation(np.array(of(atoms, k), dtype=object)).tolist()]


PDB: dict[str, str] = {
    "plain": pdb_text(PLAIN),
    "insertion codes behind and before their number": pdb_text(
        numbered((59, ""), (60, ""), (60, "A"), (60, "B"), (61, "B"), (61, "A"), (61, ""))
    ),
    "numbers under zero": pdb_text(numbered(*((k, "") for k in range(-3, 4)))),
    "numbers that jump and fall": pdb_text(numbered(*((k, "") for k in (1, 2, 50, 51, 7, 8, 9)))),
    "numbers up to the last": pdb_text(numbered(*((k, "") for k in range(9993, 10000)))),
    "chains in small and capital letters": pdb_text([*PLAIN, *(replace(a, chain="a") for a in OTHER)]),
    "chains named by digits and signs": pdb_text(
        [*(replace(a, chain="1") for a in PLAIN), *(replace(a, chain="+") for a in OTHER)]
    ),
    "a blank chain": pdb_text([replace(a, chain=" ") for a in PLAIN]),
    "two chains with the same numbers": pdb_text([*PLAIN, *(replace(a, chain="B") for a in moved(PLAIN, 40.0))]),
    "selenomethionine as HETATM": pdb_text(named(3, "MSE")),
    "a modified residue that no table has": pdb_text(named(4, "X9Z")),
    "residues of unknown type": pdb_text([replace(a, residue="UNK") for a in PLAIN]),
    "names of force fields": pdb_text(named(2, "HSD", False, named(4, "CYX", False, named(6, "GLH", False)))),
    "a D-amino acid": pdb_text(named(2, "DAL")),
    "water behind the chain": pdb_text([*PLAIN, *water(20)]),
    "a ligand with names of a backbone": pdb_text([*PLAIN, *ligand(), *water(2)]),
    "DNA beside protein": pdb_text([*dna("D"), *PLAIN]),
    "two conformers of a residue": pdb_text(split("AB", (0.3, 0.7))),
    "three conformers, named by digits": pdb_text(split("123", (0.2, 0.5, 0.3))),
    "conformers of equal occupancy": pdb_text(split("AB", (0.5, 0.5))),
    "conformers of a side chain": pdb_text(split("AB", (0.4, 0.6), "CB", "OG")),
    "one conformer, with a letter": pdb_text(split("B", (1.0,))),
    "hydrogens, digits first and last": pdb_text(hydrogens("H")),
    "deuterium": pdb_text(hydrogens("D")),
    "N missing": pdb_text(without(PLAIN, 4, "N")),
    "C missing at the end": pdb_text(without(PLAIN, 7, "C", "O")),
    "side chains missing": pdb_text([a for a in PLAIN if a.name in ("N", "CA", "C")]),
    "CA alone in the middle": pdb_text([a for a in PLAIN if a.number not in (3, 4) or a.name == "CA"]),
    "residues that are not modelled": pdb_text([a for a in PLAIN if a.number not in (3, 4)]),
    "occupancy zero": pdb_text([replace(a, occupancy=0.0) for a in PLAIN]),
    "atoms in any order": pdb_text(shuffled(PLAIN)),
    "two models": pdb_text([*PLAIN, *moved(PLAIN, 2.0, model=2)]),
    "models that begin at five": pdb_text([*(replace(a, model=5) for a in PLAIN), *moved(PLAIN, 2.0, model=9)]),
    "neither TER nor END": re.sub(r"^(?:TER|END).*\n", "", pdb_text(PLAIN), flags=re.MULTILINE),
    "CR LF": pdb_text(PLAIN).replace("\n", "\r\n"),
    "anisotropic displacements": anisou(pdb_text(PLAIN)),
    "a header, remarks and bonds": "REMARK 465   M RES C SSSEQI\nSEQRES   1 A    7  ALA LYS SER LEU GLY PRO ALA\n"
    + pdb_text(PLAIN).replace("END\n", "CONECT    1    2\nMASTER        0    0\nEND\n"),
    "no elements": pdb_text([replace(a, element="") for a in PLAIN]),
    "lines of eighty columns": lines(lambda line: f"{line.rstrip():<80}\n", pdb_text(PLAIN)),
    "segments": lines(lambda line: line[:72] + "PROA" + line[76:], pdb_text(PLAIN)),
    "coordinates at both ends of their columns": pdb_text(
        [replace(a, xyz=(round(a.xyz[0] - 980.0, 3), round(a.xyz[1] + 9980.0, 3), a.xyz[2])) for a in PLAIN]
    ),
}  # fmt: skip


def cif(atoms: Sequence[Atom]) -> str:
    """With the column that Biopython asks for."""
    head, _, rest = cif_text(atoms).partition("_atom_site.pdbx_PDB_model_num\n")
    rows = "".join(f"{line} 20.00\n" for line in rest.splitlines() if line)
    return f"{head}_atom_site.pdbx_PDB_model_num\n_atom_site.B_iso_or_equiv\n{rows}"


CIF: dict[str, str] = {
    "plain": cif(PLAIN),
    "chains of several letters": cif(
        [*(replace(a, chain="AAA") for a in PLAIN), *(replace(a, chain="B2") for a in OTHER)]
    ),
    "author numbers with insertion codes": cif(
        numbered((59, ""), (60, ""), (60, "A"), (60, "B"), (61, "B"), (61, "A"), (61, ""))
    ),
    "author numbers under zero": cif(numbered(*((k, "") for k in range(-3, 4)))),
    "numbers of five digits": cif(numbered(*((k, "") for k in range(99998, 100005)))),
    "conformers": cif(split("AB", (0.3, 0.7))),
    "a modified residue": cif(named(3, "MSE")),
    "water and a ligand in the chain of the author": cif([*PLAIN, *ligand(), *water(3)]),
    "two models": cif([*PLAIN, *moved(PLAIN, 2.0, model=2)]),
    "a comment and a text field before the atoms": (
        "data_x\n_struct.title\n;ATOM 1 N\nloop_\n;\n# ATOM\n" + cif(PLAIN).partition("\n")[2]
    ),
    "names in quotes": re.sub(r" (CA|CB) ", r' "\1" ', cif(PLAIN)),
    "CR LF": cif(PLAIN).replace("\n", "\r\n"),
}  # fmt: skip

FILES = [("pdb", name) for name in PDB] + [("cif", name) for name in CIF]


def by_biopython(path: Path, form: str) -> list[tuple[str, str, str, np.ndarray]]:
    """(chain, number, name, CA in Å) of what has N, CA and C and is neither ligand nor water."""
    reader: Any = (BIO.PDBParser if form == "pdb" else BIO.MMCIFParser)(QUIET=False)
    model = next(iter(reader.get_structure("x", str(path))))
    return [
        (chain.id.strip(), f"{residue.id[1]}{residue.id[2].strip()}", residue.resname.strip(), residue["CA"].coord)
        for chain in model
        for residue in chain
        if all(name in residue for name in ("N", "CA", "C"))
    ]


@pytest.mark.parametrize(("form", "name"), FILES)
def test_residues_are_those_that_biopython_reads(tmp_path: Path, form: str, name: str) -> None:
    path = tmp_path / f"a.{form}"
    path.write_bytes((PDB if form == "pdb" else CIF)[name].encode())
    expected = by_biopython(path, form)
    structure = read_structure(path, dtype=torch.float64)
    valid = structure.mask.nonzero()[:, 0].tolist()
    found = [(structure.chains[k].strip(), structure.numbers[k], structure.residue_names[k]) for k in valid]
    assert len(expected) >= 4 and found == [row[:3] for row in expected]
    # Biopython keeps float32: half a unit of its coordinate, and that of a tenth of it in float64.
    ca = np.array([row[3] for row in expected], dtype=np.float64)
    limit = np.finfo(np.float32).eps * np.abs(ca).max()
    assert np.isfinite(ca).all()
    assert (np.abs(structure.gaussian.trans[valid].numpy() * 10 - ca) <= limit).all()
