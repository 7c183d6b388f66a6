"""Laws of which atoms count: conformers, residues at one position, modified residues, models and chains.

The judge is a file that holds the counted atoms alone: the results are the same bits.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
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


@each_format
@pytest.mark.parametrize(  # in pairs
    ("occupancies", "chosen", "gaussians", "interleaved"),
    [
        ((0.7, 0.3), 0, "sidechain", True),
        ((0.3, 0.7), 1, "backbone", False),
        ((0.5, 0.5), 0, "sidechain", False),
        ((0.3, 0.4, 0.3), 1, "backbone", True),
        ((0.3, 0.3, 0.4), 2, "sidechain", True),
        ((0.0, 0.0), 0, "backbone", False),
    ],
)
def test_the_conformer_of_highest_occupancy_is_taken_whole_and_the_first_on_a_tie(
    read: Callable[..., Structure],
    form: str,
    occupancies: tuple[float, ...],
    chosen: int,
    gaussians: str,
    interleaved: bool,
) -> None:
    plain = peptide("ALA", "LYS", "SER")
    conformers = [moved(of(plain, 2), 0.3 * k, altloc="ABC"[k], occupancy=o) for k, o in enumerate(occupancies)]
    mixed = [a for atoms in zip(*conformers, strict=True) for a in atoms] if interleaved else sum(conformers, [])
    structure = read([*of(plain, 1), *mixed, *of(plain, 3)], form, gaussians=gaussians)
    alone = [replace(atom, altloc="", occupancy=1.0) for atom in conformers[chosen]]
    assert same(structure, read([*of(plain, 1), *alone, *of(plain, 3)], form, gaussians=gaussians))


@each_format
def test_conformers_are_not_mixed_where_occupancies_differ_from_atom_to_atom(
    read: Callable[..., Structure], form: str
) -> None:
    plain = peptide("ALA", "LYS", "SER")
    first = moved(of(plain, 2), 0.0, altloc="A", occupancy=0.5)
    second = moved(of(plain, 2), 0.3, altloc="B", occupancy=0.2)
    # N, CA and CB are surer in B; the mean of the residue is not.
    second = [replace(atom, occupancy=0.9) if atom.name in ("N", "CA", "CB") else atom for atom in second]
    assert np.mean([atom.occupancy for atom in second]) < 0.5
    structure = read([*of(plain, 1), *second, *first, *of(plain, 3)], form)
    assert same(structure, read([*of(plain, 1), *moved(of(plain, 2), 0.0), *of(plain, 3)], form))


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
def test_atoms_without_a_letter_belong_to_every_conformer(read: Callable[..., Structure], form: str) -> None:
    plain = peptide("ALA", "LYS", "SER")
    common = of(plain, 2, *BACKBONE, "O", "CB")
    a = moved(of(plain, 2, "CG", "CD", "CE", "NZ"), 0.0, altloc="A", occupancy=0.3)
    b = moved(of(plain, 2, "CG", "CD", "CE"), 0.5, altloc="B", occupancy=0.7)  # NZ is not seen in B
    structure = read([*of(plain, 1), *common, *a, *b, *of(plain, 3)], form)
    alone = [*common, *moved(of(plain, 2, "CG", "CD", "CE"), 0.5)]
    assert same(structure, read([*of(plain, 1), *alone, *of(plain, 3)], form))


@each_format
@pytest.mark.parametrize(("shares", "chosen"), [((0.6, 0.4), "blank"), ((0.4, 0.6), "B")])
@pytest.mark.parametrize("letter_first", [True, False])
def test_a_conformer_without_a_letter_is_one_too_where_a_letter_repeats_its_atoms(
    read: Callable[..., Structure], form: str, shares: tuple[float, float], chosen: str, letter_first: bool
) -> None:
    plain = peptide("ALA", "SER", "ALA")
    blank = moved(of(plain, 2), 0.0, occupancy=shares[0])
    b = moved(of(plain, 2), 0.3, altloc="B", occupancy=shares[1])
    both = [*b, *blank] if letter_first else [*blank, *b]
    alone = moved(of(plain, 2), 0.0 if chosen == "blank" else 0.3)
    structure = read([*of(plain, 1), *both, *of(plain, 3)], form)
    assert same(structure, read([*of(plain, 1), *alone, *of(plain, 3)], form))


@each_format
@pytest.mark.parametrize("missing", BACKBONE)
def test_a_conformer_without_a_backbone_gives_way_to_one_that_has_it(
    read: Callable[..., Structure], form: str, missing: str
) -> None:
    plain = peptide("ALA", "LYS", "SER")
    a = moved(of(plain, 2), 0.0, altloc="A", occupancy=0.2)
    b = without(moved(of(plain, 2), 0.3, altloc="B", occupancy=0.8), 2, missing)
    structure = read([*of(plain, 1), *a, *b, *of(plain, 3)], form)
    assert same(structure, read([*of(plain, 1), *moved(of(plain, 2), 0.0), *of(plain, 3)], form))


@each_format
def test_a_backbone_is_not_put_together_from_two_conformers(read: Callable[..., Structure], form: str) -> None:
    plain = peptide("ALA", "LYS", "SER")
    a = without(moved(of(plain, 2), 0.0, altloc="A", occupancy=0.5), 2, "N")
    b = without(moved(of(plain, 2), 0.3, altloc="B", occupancy=0.5), 2, "C")
    structure = read([*of(plain, 1), *a, *b, *of(plain, 3)], form)
    assert structure.mask.tolist() == [True, False, True]
    assert structure.masked == {MISSING: 1}


@each_format
@pytest.mark.parametrize(
    ("shares", "missing", "name"),
    [((0.6, 0.4), None, "SER"), ((0.4, 0.6), None, "PRO"), ((0.5, 0.5), None, "SER"), ((0.4, 0.6), "CA", "SER")],
)
@pytest.mark.parametrize("letters", ["AB", "BA"])
def test_of_several_residues_at_one_position_one_is_taken_whole(
    read: Callable[..., Structure],
    form: str,
    shares: tuple[float, float],
    missing: str | None,
    name: str,
    letters: str,
) -> None:
    plain, other = peptide("ALA", "SER", "LYS"), peptide("ALA", "PRO", "LYS", seed=1)
    serine = moved(of(plain, 2), 0.0, altloc=letters[0], occupancy=shares[0])
    proline = moved(of(other, 2), 0.3, altloc=letters[1], occupancy=shares[1])
    proline = without(proline, 2, missing) if missing else proline
    structure = read([*of(plain, 1), *serine, *proline, *of(plain, 3)], form)
    alone = moved(of(plain, 2), 0.0) if name == "SER" else moved(of(other, 2), 0.3)
    assert structure.residue_names == ("ALA", name, "LYS")
    assert same(structure, read([*of(plain, 1), *alone, *of(plain, 3)], form))


@each_format
@pytest.mark.parametrize(("shares", "name"), [((0.6, 0.4), "SER"), ((0.4, 0.6), "PRO")])
def test_residues_at_one_position_share_the_backbone_atoms_without_a_letter(
    read: Callable[..., Structure], form: str, shares: tuple[float, float], name: str
) -> None:
    """As the archive writes it: N, C and O once, under the first name. CB has no letter either, but is that name's."""
    plain, other = peptide("ALA", "SER", "LYS"), peptide("ALA", "PRO", "LYS", seed=1)
    serine = [
        replace(atom, altloc="A", occupancy=shares[0]) if atom.name in ("CA", "OG") else atom for atom in of(plain, 2)
    ]
    proline = moved(of(other, 2, "CA", "CG", "CD"), 0.3, altloc="B", occupancy=shares[1])
    common = [replace(atom, residue=name) for atom in of(plain, 2, "N", "C", "O")]
    alone = of(plain, 2) if name == "SER" else [*common, *moved(of(other, 2, "CA", "CG", "CD"), 0.3)]
    structure = read([*of(plain, 1), *serine, *proline, *of(plain, 3)], form)
    assert same(structure, read([*of(plain, 1), *alone, *of(plain, 3)], form))


# Residues, chains and models


@each_format
def test_insertion_codes_are_kept_in_the_order_of_the_file(read: Callable[..., Structure], form: str) -> None:
    plain = peptide("ALA", "LYS", "SER", "LEU", "GLY", "ALA", "SER")
    labels = [(-1, ""), (0, ""), (60, "B"), (60, "A"), (60, ""), (61, ""), (61, "Z")]
    atoms = [replace(a, number=n, insertion=i) for k, (n, i) in enumerate(labels, 1) for a in of(plain, k)]
    structure = read(atoms, form)
    assert structure.numbers == ("-1", "0", "60B", "60A", "60", "61", "61Z")
    assert structure.residue_names == ("ALA", "LYS", "SER", "LEU", "GLY", "ALA", "SER")
    assert structure.mask.all()
    for a, b in zip(values(structure), values(read(plain, form)), strict=True):
        assert torch.equal(a, b)


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
@pytest.mark.parametrize("place_of_protein", [1, 2])
def test_the_first_model_is_taken(read: Callable[..., Structure], form: str, place_of_protein: int) -> None:
    first, second = peptide("ALA", "LYS", "SER"), peptide("ALA", "LYS", "SER", "LEU", seed=1, shift=(5.0, 0.0, 0.0))
    # The second model is also the surer one, and has more residues.
    first = [replace(atom, occupancy=0.5) for atom in first]
    models = (first, second) if place_of_protein == 1 else (second, first)
    structure = read([replace(atom, model=k) for k, atoms in enumerate(models, 1) for atom in atoms], form)
    assert same(structure, read(models[0], form))


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


def test_residues_that_share_number_and_name_in_two_chains_stay_apart(read: Callable[..., Structure]) -> None:
    one = [replace(atom, chain=chain, number=7) for chain in "ABC" for atom in peptide("SER")]
    structure = read(one)
    assert structure.chains == ("A", "B", "C") and structure.numbers == ("7", "7", "7")
    assert structure.n_valid == 3
