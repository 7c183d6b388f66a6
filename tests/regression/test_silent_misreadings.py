"""PDB files that a reader takes for something they are not, without a word. Origin: gemmi 0.7.5 reads coordinates that
are no numbers as 0, and lays chains of one name over each other; found on output of simulation software."""

from pathlib import Path

import numpy as np
import pytest

from helpers.geometry import chain
from iga.structure import Structure, StructureError, find_structures, read_structure

Atom = tuple[int, str, np.ndarray]


def helix(residues: int = 5, shift: float = 0.0) -> list[Atom]:
    """Residue number, atom name and place in Å of N, CA, C, CB of an ideal helix."""
    n, ca, c = (x.numpy() * 10.0 + [shift, 0.0, 0.0] for x in chain(residues))
    atoms = []
    for i in range(residues):
        atoms += [(i + 1, "N", n[i]), (i + 1, "CA", ca[i]), (i + 1, "C", c[i]), (i + 1, "CB", ca[i] + [0.9, 0.9, 0.9])]
    return atoms


def lines(atoms: list[Atom], name: str = " ") -> list[str]:
    return [
        f"ATOM  {i:5d}  {atom:<3} ALA {name}{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00           {atom[0]}\n"
        for i, (number, atom, (x, y, z)) in enumerate(atoms, start=1)
    ]


def read(folder: Path, text: str) -> Structure:
    path = folder / "a.pdb"
    path.write_text(text, encoding="ascii")
    return read_structure(path)


@pytest.mark.parametrize("field", ["********", "        "], ids=["overflowed", "blank"])
@pytest.mark.parametrize("column", [30, 38, 46])
@pytest.mark.parametrize("atom", [0, 1, 2])
def test_a_coordinate_that_is_no_number_is_not_zero(tmp_path, field, column, atom):
    text = lines(helix())
    text[8 + atom] = text[8 + atom][:column] + field + text[8 + atom][column + 8 :]
    assert read(tmp_path, "".join(text)).mask.tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("field", ["********", "        "], ids=["overflowed", "blank"])
def test_a_side_chain_does_not_reach_to_zero_for_want_of_a_number(tmp_path, field):
    text = lines(helix(shift=500.0))
    text[11] = text[11][:30] + field + text[11][38:]
    assert read(tmp_path, "".join(text)).gaussian.local_mean.abs().max() < 1.0


def test_chains_of_one_name_that_end_with_ter_are_all_read(tmp_path):
    s = read(tmp_path, "".join([*lines(helix()), "TER\n", *lines(helix(shift=50.0)), "TER\n"]))
    assert s.n_valid == 10
    assert s.gaussian.trans[5:, 0].min() - s.gaussian.trans[:5, 0].max() > 2.0


def test_chains_laid_over_each_other_are_refused(tmp_path):
    with pytest.raises(StructureError, match="atoms at two places.*TER"):
        read(tmp_path, "".join([*lines(helix()), *lines(helix(shift=50.0))]))


def test_one_atom_at_two_places_masks_its_residue_and_a_repeated_one_does_not(tmp_path):
    text = lines(helix())
    assert read(tmp_path, "".join([*text[:12], text[11], *text[12:]])).n_valid == 5
    elsewhere = text[11][:30] + "   9.000" + text[11][38:]
    s = read(tmp_path, "".join([*text[:12], elsewhere, *text[12:]]))
    assert s.mask.tolist() == [True, True, False, True, True] and s.masked == {"an atom at two places": 1}


@pytest.mark.parametrize("kept", [4, 13, 31, 45, 53])
def test_a_file_that_stops_within_a_record_is_read_up_to_it(tmp_path, kept):
    text = "".join(lines(helix()))
    assert read(tmp_path, text[: text.rindex("ATOM") + kept]).n_valid == 5


@pytest.mark.parametrize("names", [("OT1", "OT2"), ("O", "OXT")])
def test_terminal_oxygens_are_no_side_chain(tmp_path, names):
    atoms = helix()
    more = [(5, name, atoms[-2][2] + step) for name, step in zip(names, (1.2, -1.2), strict=True)]
    plain, terminal = read(tmp_path, "".join(lines(atoms))), read(tmp_path, "".join(lines([*atoms, *more])))
    assert plain.gaussian.local_mean.equal(terminal.gaussian.local_mean)


def test_a_glob_leaves_out_what_is_no_structure(tmp_path):
    for name in ("README.md", "._a.pdb", "a.pdb"):
        (tmp_path / name).write_text("".join(lines(helix())))
    assert [path.name for path in find_structures([f"{tmp_path}/*"])] == ["a.pdb"]
