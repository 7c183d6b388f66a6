"""Laws of which atoms count: conformers, residues at one position, modified residues, models and chains.

The judge is a file that holds the counted atoms alone: the results are the same bits. Labels, and more of what is read,
are judged by Biopython: tests/regression/test_reader_agrees_with_biopython.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.geometry import close
from helpers.structures import (
    BACKBONE,
    MISSING,
    WRITERS,
    Atom,
    each_format,
    expected_row,
    moved,
    of,
    peptide,
    reader,
    same,
    values,
    without,
)
from iga.structure import Structure, StructureError


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Structure]:
    """read(atoms, form="pdb", **options): the atoms through a file; float64 unless told."""
    return reader(tmp_path)


# Conformers


PLAIN = peptide("ALA", "LYS", "SER")
OTHER = peptide("ALA", "PRO", "SER", seed=1)


def lysine(place: float, *names: str, **fields: object) -> list[Atom]:
    """The second residue of PLAIN, all of it or atoms of these names, at a place of its own."""
    return moved(of(PLAIN, 2, *names), 0.3 * place, **fields)


def proline(place: float, *names: str, **fields: object) -> list[Atom]:
    return moved(of(OTHER, 2, *names), 0.3 * place, **fields)


def lettered(shares: Sequence[float]) -> list[list[Atom]]:
    return [lysine(k, altloc="ABC"[k], occupancy=share) for k, share in enumerate(shares)]


def mixed(*conformers: list[Atom]) -> list[Atom]:
    return [atom for atoms in zip(*conformers, strict=True) for atom in atoms]


OCCUPANCIES = [
    ((0.7, 0.3), 0),
    ((0.3, 0.7), 1),
    ((0.5, 0.5), 0),
    ((0.3, 0.4, 0.3), 1),
    ((0.3, 0.3, 0.4), 2),
    ((0.0, 0.0), 0),
]


def surer(names: Sequence[str], atoms: Sequence[Atom]) -> list[Atom]:
    return [replace(atom, occupancy=0.9) if atom.name in names else atom for atom in atoms]


COMMON, TIP = lysine(0, *BACKBONE, "O", "CB"), ("CG", "CD", "CE")
SHARED = of(PLAIN, 2, "N", "C", "O")
# What stands in the file between the first residue and the last, and what of it counts.
CONFORMERS: dict[str, tuple[list[Atom], list[Atom]]] = {
    # The highest occupancy is taken whole, and the first on a tie, one conformer after the other or atom by atom.
    **{
        f"{shares}, {order}": (
            sum(lettered(shares), []) if order == "apart" else mixed(*lettered(shares)),
            lysine(chosen),
        )
        for shares, chosen in OCCUPANCIES
        for order in ("apart", "mixed")
    },
    # N, CA and CB are surer in B; the mean of the residue is not.
    "occupancies that differ from atom to atom": (
        surer(("N", "CA", "CB"), lysine(1, altloc="B", occupancy=0.2)) + lysine(0, altloc="A", occupancy=0.5),
        lysine(0),
    ),
    # Atoms without a letter belong to every conformer; NZ is not seen in B.
    "atoms without a letter": (
        [*COMMON, *lysine(0, *TIP, "NZ", altloc="A", occupancy=0.3), *lysine(2, *TIP, altloc="B", occupancy=0.7)],
        [*COMMON, *lysine(2, *TIP)],
    ),
    # A conformer without a letter is one too where a letter repeats its atoms.
    **{
        f"a blank of {blank}, {order}": (
            sum([lysine(0, occupancy=blank), lysine(1, altloc="B", occupancy=1 - blank)][::step], []),
            lysine(0 if blank > 0.5 else 1),
        )
        for blank in (0.6, 0.4)
        for order, step in (("first", 1), ("last", -1))
    },
    # A conformer without a backbone gives way to one that has it.
    **{
        f"{missing} missing in the surer one": (
            lysine(0, altloc="A", occupancy=0.2) + without(lysine(1, altloc="B", occupancy=0.8), 2, missing),
            lysine(0),
        )
        for missing in BACKBONE
    },
    # Of several residues at one position one is taken whole, by the same rules.
    **{
        f"lysine of {share} as {letters[0]}, proline as {letters[1]}": (
            lysine(0, altloc=letters[0], occupancy=share) + proline(1, altloc=letters[1], occupancy=1 - share),
            lysine(0) if share >= 0.5 else proline(1),
        )
        for share in (0.6, 0.5, 0.4)
        for letters in ("AB", "BA")
    },
    "a surer proline without CA": (
        lysine(0, altloc="A", occupancy=0.4) + without(proline(1, altloc="B", occupancy=0.6), 2, "CA"),
        lysine(0),
    ),
    # As the archive writes it: N, C and O once, under the first name. CB has no letter either, but is that name's.
    **{
        f"a backbone that lysine of {share} and proline share": (
            [
                *(replace(a, altloc="A", occupancy=share) if a.name in ("CA", *TIP, "NZ") else a for a in of(PLAIN, 2)),
                *proline(1, "CA", "CG", "CD", altloc="B", occupancy=1 - share),
            ],
            of(PLAIN, 2)
            if share > 0.5
            else [*(replace(a, residue="PRO") for a in SHARED), *proline(1, "CA", "CG", "CD")],
        )
        for share in (0.6, 0.4)
    },
}


@each_format
@pytest.mark.parametrize("gaussians", ["sidechain", "backbone"])
def test_one_conformer_of_a_residue_is_taken_whole(read: Callable[..., Structure], form: str, gaussians: str) -> None:
    for name, (atoms, counted) in CONFORMERS.items():
        found, alone = (
            read([*of(PLAIN, 1), *middle, *of(PLAIN, 3)], form, gaussians=gaussians) for middle in (atoms, counted)
        )
        assert same(found, alone), name


@each_format
def test_each_residue_takes_its_own_conformer(read: Callable[..., Structure], form: str) -> None:
    plain = peptide("ALA", "LYS", "SER", "LEU")
    shares = {1: (0.7, 0.3), 2: (0.2, 0.8), 3: (0.5, 0.5), 4: (0.49, 0.51)}
    atoms, alone = [], []
    for number, pair in shares.items():
        both = [moved(of(plain, number), 0.3 * k, altloc="AB"[k], occupancy=o) for k, o in enumerate(pair)]
        atoms += sum(both, [])
        alone += moved(of(plain, number), 0.3 if pair[1] > pair[0] else 0.0)
    assert same(read(atoms, form), read(alone, form))


@each_format
def test_a_backbone_is_not_put_together_from_two_conformers(read: Callable[..., Structure], form: str) -> None:
    a = without(lysine(0, altloc="A", occupancy=0.5), 2, "N")
    b = without(lysine(1, altloc="B", occupancy=0.5), 2, "C")
    structure = read([*of(PLAIN, 1), *a, *b, *of(PLAIN, 3)], form)
    assert structure.mask.tolist() == [True, False, True]
    assert structure.masked == {MISSING: 1}


# Residues, chains and models


@each_format
@pytest.mark.parametrize("position", [1, 3, 5])
def test_modified_residues_written_as_hetatm_stay_in_the_chain(
    read: Callable[..., Structure], form: str, position: int
) -> None:
    names = ["ALA", "LYS", "SER", "LEU", "ALA"]
    names[position - 1] = "MSE"
    atoms = [replace(atom, het=atom.residue == "MSE") for atom in peptide(*names)]
    assert ("HETATM" in WRITERS[form](atoms)) and any(atom.name == "SE" for atom in atoms)
    structure = read(atoms, form)
    assert structure.residue_names == tuple(names)
    assert structure.mask.all()
    expected = expected_row(of(atoms, position), "sidechain", 0.4, "alphafold")
    assert close(structure.gaussian.local_mean[position - 1], expected[2], 1e-12)
    for a, b in zip(values(structure), values(read([replace(a, het=False) for a in atoms], form)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("form", "stated", "gaussians"),
    [("pdb", True, "backbone"), ("pdb", False, "sidechain"), ("cif", True, "sidechain")],
)
@pytest.mark.parametrize("element", ["H", "D"])
def test_hydrogen_and_deuterium_are_ignored(
    read: Callable[..., Structure], form: str, gaussians: str, element: str, stated: bool
) -> None:
    heavy = peptide("LYS", "GLY", "SER")
    names = (f"{element}", f"{element}A", f"{element}B2", f"{element}G11")
    atoms = []
    for number in (1, 2, 3):
        place_of = of(heavy, number)[0]
        light = [replace(place_of, name=name, xyz=(9.0, number, k), element=element) for k, name in enumerate(names)]
        # Those of a conformer that holds nothing else, and surer than all, don't count either.
        light.append(replace(light[0], altloc="A", occupancy=1.0, xyz=(5.0, 5.0, 5.0)))
        atoms += [*light[:2], *of(heavy, number), *light[2:]]
    if not stated:
        atoms = [replace(atom, element="") for atom in atoms]
    assert same(read(atoms, form, gaussians=gaussians), read(heavy, form, gaussians=gaussians))


@each_format
def test_ligands_water_and_nucleic_acid_are_no_residues(read: Callable[..., Structure], form: str) -> None:
    protein = peptide("ALA", "LYS", "SER")
    nucleotide = ("P", "C1'", "C2'", "C3'", "C4'", "C5'", "O3'", "O5'", "N1", "C2", "N3", "C4")
    # TCY, a modified deoxycytidine, is in no table of common residues: its chain is what tells.
    dna = [
        Atom(name, (20.0 + k, 5.0 * number, 0.5 * k), residue, number, chain="D", het=residue == "TCY")
        for number, residue in enumerate(("DA", "DC", "TCY", "DG", "DT"), 1)
        for k, name in enumerate(nucleotide)
    ]
    # A free amino acid has a backbone of its own and is still a ligand.
    free = [replace(atom, number=301, kind="ligand", het=True) for atom in moved(of(protein, 2), 15.0)]
    others = [
        *free,
        Atom("NA", (1.0, 20.0, 3.0), "NA", 302, kind="ligand"),
        Atom("C1", (4.0, 20.0, 3.0), "GOL", 303, kind="ligand"),
        *(Atom("O", (float(k), 30.0, 3.0), "HOH", 400 + k, kind="water") for k in range(3)),
    ]
    structure = read([*protein, *dna, *others], form)
    assert structure.numbers == ("1", "2", "3")
    assert same(structure, read(protein, form))
    with pytest.raises(StructureError, match="no protein residue"):
        read([*dna, *others], form)


@each_format
def test_all_protein_chains_are_read_in_the_order_of_the_file(read: Callable[..., Structure], form: str) -> None:
    b, a = peptide("ALA", "LYS", chain="B"), peptide("SER", "GLY", "LEU", chain="A", shift=(40.0, 0.0, 0.0))
    structure = read([*b, *a], form)
    assert structure.chains == ("B", "B", "A", "A", "A")
    assert structure.numbers == ("1", "2", "1", "2", "3")
    assert structure.residue_names == ("ALA", "LYS", "SER", "GLY", "LEU")
    alone = [values(read(atoms, form)) for atoms in (b, a)]
    for whole, parts in zip(values(structure), zip(*alone, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(parts))
