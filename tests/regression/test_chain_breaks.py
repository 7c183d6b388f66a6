"""Chain breaks: where the way from one CA to the next is longer than a peptide bond reaches, and nowhere else.

Origin: a loop that is not modelled left no trace in what was read: the residues on its two sides looked bonded.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.geometry import chain as ideal_chain
from helpers.structures import Atom, Point, each_format, of, pdb_text, peptide, reader, rounded, without
from iga.structure import Structure, chemistry, read_structure, read_structures, record
from iga.structure.synthetic import synthetic_structures

PLAIN = peptide(*["ALA", "LYS", "SER", "GLY"] * 3)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Structure]:
    """read(atoms, form="pdb", **options): the atoms through a file; float64 unless told."""
    return reader(tmp_path)


def shifted(atoms: list[Atom], since: int, by: Point) -> list[Atom]:
    """The residues from `since` on, moved together."""
    return [replace(a, xyz=rounded(np.array(a.xyz) + np.array(by))) if a.number >= since else a for a in atoms]


def rows(structure: Structure) -> list[str]:
    breaks = structure.chain_breaks
    assert breaks.dtype == torch.bool and breaks.shape == structure.mask.shape
    return [structure.numbers[row] for row in breaks.nonzero()[:, 0].tolist()]


@each_format
@pytest.mark.parametrize("convention", ["alphafold", "openfold"])
@pytest.mark.parametrize("gaussians", ["sidechain", "backbone"])
def test_a_gap_is_a_break_at_its_far_side(
    read: Callable[..., Structure], form: str, convention: str, gaussians: str
) -> None:
    assert rows(read(PLAIN, form, convention=convention, gaussians=gaussians)) == []
    # The residues keep their numbers, or count on over the gap.
    gap = shifted(PLAIN, 6, (9.0, 0.0, 0.0))
    assert rows(read(gap, form, convention=convention, gaussians=gaussians)) == ["6"]
    unmodelled = [atom for atom in PLAIN if atom.number not in (6, 7)]
    assert rows(read(unmodelled, form, convention=convention, gaussians=gaussians)) == ["8"]


@pytest.mark.parametrize(("step", "broken"), [(2.95, False), (3.80, False), (4.30, False), (4.32, True), (20.0, True)])
def test_a_break_begins_where_a_peptide_bond_ends(read: Callable[..., Structure], step: float, broken: bool) -> None:
    """CA–C, C–N and N–CA on a straight line: 1.525 + 1.329 + 1.458 = 4.31 Å; a cis bond has 2.95, a trans bond 3.80."""
    before, after = (np.array(of(PLAIN, k, "CA")[0].xyz) for k in (5, 6))
    along = (after - before) / np.linalg.norm(after - before)
    x, y, z = before + step * along - after
    assert rows(read(shifted(PLAIN, 6, (x, y, z)))) == (["6"] if broken else [])
    assert chemistry.BREAK == pytest.approx(1.525 + 1.329 + 1.458, abs=0.005)


def test_residues_without_a_frame_are_passed_over(read: Callable[..., Structure]) -> None:
    """Each of them is there, and its bonds reach as far once more."""
    assert rows(read(without(without(PLAIN, 6, "N"), 7, "CA"))) == []
    far = shifted(without(PLAIN, 6, "CA"), 7, (30.0, 0.0, 0.0))
    structure = read(far)
    assert rows(structure) == ["7"] and not structure.mask[5]
    assert rows(read(without(PLAIN, 1, "N"))) == []


@each_format
def test_a_chain_that_ends_is_no_break(read: Callable[..., Structure], form: str) -> None:
    far = shifted([replace(a, chain="A" if a.number < 6 else "B") for a in PLAIN], 6, (50.0, 0.0, 0.0))
    assert rows(read(far, form)) == []


def test_chains_that_share_a_name_are_broken_where_one_ends(tmp_path: Path) -> None:
    """Nothing else in a structure tells them apart."""
    text = pdb_text(PLAIN).replace("END\n", "") + pdb_text(shifted(PLAIN, 0, (60.0, 0.0, 0.0)))
    (tmp_path / "a.pdb").write_text(text)
    structure = read_structure(tmp_path / "a.pdb")
    assert structure.n_residues == 24 and structure.chain_breaks.nonzero()[:, 0].tolist() == [12]


def test_breaks_are_counted_in_the_record(tmp_path: Path) -> None:
    (tmp_path / "a.pdb").write_text(pdb_text(shifted(shifted(PLAIN, 4, (9.0, 0.0, 0.0)), 9, (0.0, 9.0, 0.0))))
    (tmp_path / "b.pdb").write_text(pdb_text(PLAIN))
    (tmp_path / "c.pdb").write_text("")
    _, records = read_structures([tmp_path])
    assert [(entry["status"], entry["chain_breaks"]) for entry in records] == [
        ("read", 2),
        ("read", 0),
        ("unreadable", 0),
    ]


def test_synthetic_backbones_have_none() -> None:
    for structure in synthetic_structures(3, seed=5):
        assert not structure.chain_breaks.any() and record(structure)["chain_breaks"] == 0


def test_one_residue_and_no_frame_have_none() -> None:
    n, ca, _ = ideal_chain(1)
    assert not chemistry.breaks(ca, torch.ones(1, dtype=torch.bool), ("A",)).any()
    assert not chemistry.breaks(n.new_zeros(3, 3), torch.zeros(3, dtype=torch.bool), ("A",) * 3).any()


def test_a_loop_that_is_not_modelled_is_found_in_a_real_structure(structures_dir: Path) -> None:
    path = structures_dir / "awkward" / "missing_atoms_and_residues_6pp9.pdb.gz"
    if not path.is_file():
        pytest.skip("no folder awkward among the structures")
    structure = read_structure(path)
    found = [(structure.chains[k], structure.numbers[k]) for k in structure.chain_breaks.nonzero()[:, 0].tolist()]
    assert ("B", "307") in found
