"""Files of simulations, of refinement programs and of old: solvent without TER, conformers one after the other, columns
and categories that are used otherwise or left out.

Origin: each of these was refused as a whole, or gave a residue twice.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.structures import WRITERS, Atom, cif_text, each_format, moved, of, pdb_text, peptide, same, values
from iga.structure import Structure, StructureError, read_structure

PLAIN = peptide("ALA", "LYS", "SER", "LEU", "GLY", "ALA")


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Structure]:
    """read(text): float64."""

    def through_a_file(text: str) -> Structure:
        (tmp_path / "written").write_text(text)
        return read_structure(tmp_path / "written", dtype=torch.float64)

    return through_a_file


def without_ter(text: str) -> str:
    return re.sub(r"^TER.*\n", "", text, flags=re.MULTILINE)


# Solvent


def solvent(kind: str, count: int, number: int = 7) -> list[Atom]:
    names = {
        "HOH": ("O",),
        "WAT": ("O", "H1", "H2"),
        "SOL": ("OW", "HW1", "HW2", "MW"),
        "TIP": ("OH2", "H1", "H2"),
        "SPC": ("OW",),
        "NA": ("NA",),
        "CLA": ("CLA",),
        "POP": ("N", "C12", "P", "O13", "C1", "C2"),
        "URE": ("C", "O", "N1", "N2"),
    }[kind]
    return [
        Atom(name, (50.0 + 3 * i, 10.0 + j, 5.0), kind, number + i)
        for i in range(count)
        for j, name in enumerate(names)
    ]


@pytest.mark.parametrize("kind", ["HOH", "WAT", "SOL", "TIP", "SPC", "NA", "CLA", "POP", "URE"])
@pytest.mark.parametrize(("count", "first"), [(3, False), (150, True)])  # less than the protein's residues, and more
def test_protein_is_found_among_solvent_without_ter(
    read: Callable[[str], Structure], kind: str, count: int, first: bool
) -> None:
    around = solvent(kind, count)
    mixed = [*around, *PLAIN] if first else [*PLAIN, *around]
    assert same(read(without_ter(pdb_text(mixed))), read(pdb_text(PLAIN)))


@pytest.mark.parametrize("kind", ["HOH", "WAT", "SOL", "TIP", "POP"])
@pytest.mark.parametrize("first", [False, True])
def test_protein_is_found_among_solvent_in_mmcif_without_entities(
    read: Callable[[str], Structure], kind: str, first: bool
) -> None:
    around = solvent(kind, 60)
    _, names, rows = columns_of(cif_text([*around, *PLAIN] if first else [*PLAIN, *around]))
    kept = [k for k, name in enumerate(names) if name not in ("label_asym_id", "label_entity_id", "label_seq_id")]
    text = table([names[k] for k in kept], [[row[k] for k in kept] for row in rows])
    assert same(read(text), read(cif_text(PLAIN)))


@pytest.mark.parametrize("kind", ["HOH", "SOL", "NA"])
def test_solvent_before_the_one_ter_is_no_residue(read: Callable[[str], Structure], kind: str) -> None:
    assert same(read(pdb_text([*PLAIN, *solvent(kind, 50)])), read(pdb_text(PLAIN)))


def test_protein_goes_on_behind_what_stands_in_its_chain(read: Callable[[str], Structure]) -> None:
    atoms = [*of(PLAIN, 1), *of(PLAIN, 2), *of(PLAIN, 3), *solvent("POP", 9, 400), *of(PLAIN, 4), *of(PLAIN, 5)]
    structure = read(without_ter(pdb_text([*atoms, *of(PLAIN, 6), *solvent("TIP", 90, 500)])))
    assert structure.numbers == ("1", "2", "3", "4", "5", "6") and structure.mask.all()


def test_each_chain_is_found_in_its_own_solvent(read: Callable[[str], Structure]) -> None:
    b = [replace(atom, chain="B") for atom in moved(peptide("SER", "LYS", "ALA", seed=2), 40.0)]
    wet = [*PLAIN, *solvent("SOL", 40), *b, *(replace(atom, chain="B") for atom in solvent("TIP", 40))]
    structure = read(without_ter(pdb_text(wet)))
    assert structure.chains == ("A",) * 6 + ("B",) * 3 and structure.mask.all()


def test_solvent_alone_is_no_protein(read: Callable[[str], Structure]) -> None:
    free = [replace(atom, number=900) for atom in of(PLAIN, 2)]  # an amino acid in solution
    for atoms in (solvent("TIP", 50), [*solvent("TIP", 50), *free]):
        with pytest.raises(StructureError, match="no protein residue"):
            read(without_ter(pdb_text(atoms)))


# Conformers


@each_format
@pytest.mark.parametrize("shares", [(0.6, 0.4), (0.4, 0.6)])
@pytest.mark.parametrize("mutated", [False, True])
def test_conformers_block_by_block_are_one_residue_a_position(
    read: Callable[[str], Structure], form: str, shares: tuple[float, float], mutated: bool
) -> None:
    """All of A, then all of B; `mutated`: B has another residue in the middle."""
    names = ["ALA", "LYS", "PRO" if mutated else "SER", "LEU", "GLY", "ALA"]
    blocks = [
        moved(PLAIN, 0.0, altloc="A", occupancy=shares[0]),
        moved(peptide(*names, seed=3), 0.3, altloc="B", occupancy=shares[1]),
    ]
    alone = [replace(atom, altloc="", occupancy=1.0) for atom in blocks[shares[1] > shares[0]]]
    assert same(read(WRITERS[form](sum(blocks, []))), read(WRITERS[form](alone)))


def test_blocks_that_end_with_ter_are_one_residue_a_position(read: Callable[[str], Structure]) -> None:
    text = "".join(
        pdb_text(moved(PLAIN, shift, altloc=letter, occupancy=share)).replace("END\n", "")
        for letter, shift, share in (("A", 0.0, 0.3), ("B", 0.3, 0.7))
    )
    assert same(read(text + "END\n"), read(pdb_text(moved(PLAIN, 0.3))))


def test_blocks_with_a_segment_each_are_one_residue_a_position(read: Callable[[str], Structure]) -> None:
    lines = {
        segment: re.findall(r"^ATOM.*", pdb_text(moved(PLAIN, shift, altloc=letter, occupancy=share)), re.MULTILINE)
        for segment, letter, shift, share in (("AC1", "A", 0.0, 0.3), ("AC2", "B", 0.3, 0.7))
    }
    text = "\n".join(f"{line[:72]}{segment:<4}{line[76:]}" for segment, rows in lines.items() for line in rows)
    assert same(read(text + "\nEND\n"), read(pdb_text(moved(PLAIN, 0.3))))


# Columns 73 to 80


COUNTED = ("1ABC{k:4d}", "1ABC{k:04d}", "{k:8d}", "{k:08d}", "    {k:4d}", "PROA{k:4d}", "ABCD{k:<4d}", "        1F")
OTHERS = ("PROA C", "      N1+", "     AN", "    ", "      ", "PROA C  ", "PROTEINA")


def test_what_stands_in_the_last_columns_changes_nothing(read: Callable[[str], Structure]) -> None:
    """Old formats count lines there, without elements; others have segments, charges, or a word."""
    expected = read(pdb_text(PLAIN))
    for tails, atoms in ((COUNTED, [replace(atom, element="") for atom in PLAIN]), (OTHERS, PLAIN)):
        rows = [line[:72] for line in re.findall(r"^ATOM.*", pdb_text(atoms), re.MULTILINE)]
        for tail in tails:
            text = "\n".join(f"{line:<72}{tail.format(k=k)}" for k, line in enumerate(rows, 1))
            assert same(read(text + "\nEND\n"), expected), tail


# Models


@pytest.mark.parametrize("first", ["", "MODEL        1\n", "MODEL        1\nENDMDL\nMODEL        2\n"])
@pytest.mark.parametrize("between", ["MODEL        3\n", "ENDMDL\nMODEL        3\n", "ENDMDL\n"])
def test_the_first_model_with_atoms_is_taken_however_models_end(
    read: Callable[[str], Structure], first: str, between: str
) -> None:
    rows = re.findall(r"^(?:ATOM|TER).*\n", pdb_text(PLAIN), re.MULTILINE)
    others = re.findall(r"^(?:ATOM|TER).*\n", pdb_text(moved(PLAIN, 9.0)), re.MULTILINE)
    assert same(read("".join([first, *rows, between, *others, "END\n"])), read(pdb_text(PLAIN)))


# mmCIF


SIFTS = """loop_
_pdbx_sifts_xref_db.entity_id
_pdbx_sifts_xref_db.asym_id
_pdbx_sifts_xref_db.seq_id_ordinal
_pdbx_sifts_xref_db.seq_id
_pdbx_sifts_xref_db.observed
_pdbx_sifts_xref_db.unp_res
_pdbx_sifts_xref_db.unp_num
_pdbx_sifts_xref_db.unp_acc
1 PA 1 1 y A 70001 P00001
1 PX 1 2 y K 2 P00001
9 PA 1 3 y S 3 P00001
"""


@pytest.mark.parametrize("models", [1, 2])
def test_a_table_of_sequences_that_does_not_fit_is_passed_over(read: Callable[[str], Structure], models: int) -> None:
    atoms = [replace(atom, model=1 + k) for k in range(models) for atom in moved(PLAIN, 0.5 * k)]
    second = [atom for atom in atoms if atom.number > 2 or atom.model == 1]  # the second model lacks two residues
    assert same(read(cif_text(second) + SIFTS), read(cif_text(moved(PLAIN, 0.0))))


OPTIONAL = [
    ("type_symbol",),
    ("label_alt_id",),
    ("id",),
    ("group_PDB",),
    ("occupancy",),
    ("pdbx_PDB_ins_code", "pdbx_PDB_model_num"),
    ("label_entity_id",),
    ("label_asym_id", "label_entity_id"),
    ("label_seq_id", "label_entity_id"),
    ("label_asym_id", "label_seq_id", "label_entity_id", "label_alt_id", "type_symbol", "id", "group_PDB", "occupancy"),
    ("auth_asym_id", "auth_seq_id"),
]


def columns_of(text: str) -> tuple[str, list[str], list[list[str]]]:
    """(what stands before, names, rows) of the loop of atoms of `cif_text`."""
    head, _, loop = text.partition("loop_\n_atom_site.")
    lines = ("_atom_site." + loop).splitlines()
    names = [line.removeprefix("_atom_site.") for line in lines if line.startswith("_atom_site.")]
    return head, names, [line.split() for line in lines[len(names) :]]


def table(names: list[str], rows: list[list[str]]) -> str:
    return "\n".join(["data_x", "loop_", *(f"_atom_site.{name}" for name in names), *map(" ".join, rows), ""])


@pytest.mark.parametrize("left_out", OPTIONAL, ids=" ".join)
def test_columns_that_mmcif_may_lack_change_nothing(
    read: Callable[[str], Structure], left_out: tuple[str, ...]
) -> None:
    hydrogens = [replace(a, name=n, element="H") for a in of(PLAIN, 2, "CA") for n in ("HA", "HB2", "1HG", "H")]
    _, names, rows = columns_of(cif_text([*PLAIN, *hydrogens]))
    kept = [k for k, name in enumerate(names) if name not in left_out]
    structure = read(table([names[k] for k in kept], [[row[k] for k in kept] for row in rows]))
    chain = "PA" if "auth_asym_id" in left_out else "A"
    expected = read(cif_text(PLAIN))
    assert structure.chains == (chain,) * 6 and structure.numbers == expected.numbers
    assert structure.mask.all()
    assert all(torch.equal(a, b) for a, b in zip(values(structure), values(expected), strict=True))


@pytest.mark.parametrize("null", ["?", "."])
@pytest.mark.parametrize("name", ["type_symbol", "label_alt_id", "auth_asym_id", "auth_seq_id", "occupancy", "id"])
def test_values_that_are_not_known_change_nothing(read: Callable[[str], Structure], name: str, null: str) -> None:
    hydrogens = [replace(a, name="HA", element="H") for a in of(PLAIN, 2, "CA")]
    _, names, rows = columns_of(cif_text([*PLAIN, *hydrogens]))
    at = names.index(name)
    structure = read(table(names, [[*row[:at], null, *row[at + 1 :]] for row in rows]))
    expected = read(cif_text(PLAIN))
    assert structure.numbers == expected.numbers and structure.mask.all()
    assert all(torch.equal(a, b) for a, b in zip(values(structure), values(expected), strict=True))
