"""Geometry that chemistry excludes: it is masked, counted and named, and what the limits allow stays.

Origin: side-chain atoms 36 nm from their CA, at (0, 0, 0) and at 9999 were read as valid, and columns that had
overflowed gave CA–CA steps of 7·10⁵ nm in residues that were all valid.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.geometry import close, eps
from helpers.structures import (
    BACKBONE,
    Atom,
    Point,
    each_format,
    is_neutral,
    of,
    pdb_text,
    peptide,
    reader,
    same,
    values,
)
from iga.structure import Structure, StructureError, read_structure

BOND = "a bond of N, CA, C, O or CB under 0.5 or over 2.5 Å"
EXTENT = "a side-chain atom farther from CA than bonds reach"
ORIGIN = "an atom at (0, 0, 0), as if not placed"
FLAT = "N, CA and C fix no frame"
PLACE = "two atoms in one place"
PLAIN = peptide("ALA", "LYS", "SER", "LYS", "ALA", shift=(30.0, -20.0, 12.0))


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Structure]:
    """read(atoms, form="pdb", **options): the atoms through a file; float64 unless told."""
    return reader(tmp_path)


def placed(number: int, names: tuple[str, ...], xyz: Point, atoms: list[Atom] = PLAIN) -> list[Atom]:
    return [replace(a, xyz=xyz) if a.number == number and a.name in names else a for a in atoms]


def from_ca(number: int, name: str, distance: float) -> list[Atom]:
    """The atom at a distance from its CA, along x."""
    x, y, z = of(PLAIN, number, "CA")[0].xyz
    return placed(number, (name,), (round(x + distance, 3), y, z))


@each_format
@pytest.mark.parametrize(
    ("names", "xyz", "reason"),
    [
        (("CB",), (-132.571, -300.762, -140.696), BOND),
        (("CB",), (999.999, 999.999, 999.999), BOND),
        (("CE", "NZ"), (-132.571, -300.762, -140.696), EXTENT),
        (("NZ",), (9999.0, 9999.0, 9999.0), EXTENT),
        (("CG", "CD"), (0.0, 0.0, 0.0), ORIGIN),
        (("CB", "CG", "CD", "CE", "NZ"), (0.0, 0.0, 0.0), ORIGIN),
        ((*BACKBONE, "O", "CB", "CG", "CD", "CE", "NZ"), (0.0, 0.0, 0.0), ORIGIN),
        ((*BACKBONE, "O"), (9999.0, 9999.0, 9999.0), FLAT),
        (("N",), (60.0, 0.0, 0.0), BOND),
        (("CA",), (60.0, 0.0, 0.0), BOND),
        (("C",), (60.0, 0.0, 0.0), BOND),
        (("O",), (60.0, 0.0, 0.0), BOND),
        (("CD", "CE"), (31.0, -21.0, 13.0), PLACE),
    ],
)
def test_an_atom_that_cannot_be_there_masks_its_residue_by_name(
    read: Callable[..., Structure], form: str, names: tuple[str, ...], xyz: Point, reason: str
) -> None:
    structure = read(placed(2, names, xyz), form)
    assert structure.mask.tolist() == [True, False, True, True, True]
    assert structure.masked == {reason: 1}
    assert is_neutral(structure, 1)
    for a, b in zip(values(structure), values(read(PLAIN, form)), strict=True):
        assert a.isfinite().all() and torch.equal(a[structure.mask], b[structure.mask])


@each_format
@pytest.mark.parametrize(
    ("name", "reason", "farthest"),
    [("CB", BOND, 2.5), ("CG", EXTENT, 3.9), ("CD", EXTENT, 5.3), ("CE", EXTENT, 6.7), ("NZ", EXTENT, 8.1)],
)
def test_a_side_chain_atom_may_be_as_far_from_ca_as_its_bonds_reach(
    read: Callable[..., Structure], form: str, name: str, reason: str, farthest: float
) -> None:
    """2.5 Å for the first bond and 1.4 for each further one, which the Greek letter counts."""
    assert read(from_ca(4, name, farthest - 0.01), form).masked == {}
    assert read(from_ca(4, name, farthest + 0.01), form).masked == {reason: 1}


@each_format
@pytest.mark.parametrize(("distance", "reason"), [(0.49, BOND), (0.51, None), (2.49, None), (2.51, BOND)])
def test_a_bond_may_be_from_half_to_two_and_a_half_angstrom(
    read: Callable[..., Structure], form: str, distance: float, reason: str | None
) -> None:
    assert read(from_ca(1, "CB", distance), form).masked == ({reason: 1} if reason else {})


def test_a_modified_residue_may_be_as_long_as_its_atoms(read: Callable[..., Structure]) -> None:
    """Atoms in a row, 1.5 Å apart, of names without Greek letters: a lipid on a cysteine, say."""
    x, y, z = of(PLAIN, 3, "CA")[0].xyz
    tail = [Atom(f"C{k}", (round(x + 1.4 * k, 3), y, z), "PLM", 3) for k in range(1, 17)]
    long = [*of(PLAIN, 2), *(replace(a, residue="PLM") for a in of(PLAIN, 3, *BACKBONE)), *tail, *of(PLAIN, 4)]
    assert read(long).masked == {}
    far = [replace(a, xyz=(x + 60.0, y, z)) if a.name == "C16" else a for a in long]
    assert read(far).masked == {EXTENT: 1}


def test_one_atom_at_the_origin_may_have_been_put_there(read: Callable[..., Structure]) -> None:
    x, y, z = of(PLAIN, 3, "OG")[0].xyz
    centred = [replace(a, xyz=tuple(round(p - q, 3) for p, q in zip(a.xyz, (x, y, z), strict=True))) for a in PLAIN]
    assert (0.0, 0.0, 0.0) in {atom.xyz for atom in centred}
    assert read(centred).masked == {}


def test_a_backbone_is_not_judged_by_side_chains_that_are_not_read(read: Callable[..., Structure]) -> None:
    atoms = placed(2, ("NZ",), (9999.0, 9999.0, 9999.0))
    assert read(atoms, gaussians="backbone").masked == {}
    assert read(placed(2, ("O",), (60.0, 0.0, 0.0)), gaussians="backbone").masked == {BOND: 1}


def test_reasons_are_counted_one_a_residue(read: Callable[..., Structure]) -> None:
    atoms = placed(2, ("NZ",), (9999.0, 9999.0, 9999.0), placed(4, ("CB",), (200.0, 0.0, 0.0)))
    structure = read(placed(4, ("NZ",), (300.0, 0.0, 0.0), atoms))
    assert structure.masked == {BOND: 1, EXTENT: 1}
    assert structure.mask.tolist() == [True, False, True, False, True]


def test_where_nothing_is_possible_the_reasons_are_said(tmp_path: Path) -> None:
    """Coordinates times ten, as of a program that meant picometres."""
    path = tmp_path / "a.pdb"
    path.write_text(pdb_text([replace(a, xyz=tuple(round(10 * x, 3) for x in a.xyz)) for a in PLAIN]))
    with pytest.raises(StructureError, match=r"no residue is possible \(5 masked: a bond .*\); are the coordinates in"):
        read_structure(path)


# Columns


def as_printed(atoms: list[Atom], shift: Point, serial: int = 1, number: int = 0) -> str:
    """PDB as a program prints it that does not watch its columns."""
    lines = []
    for k, a in enumerate(atoms):
        x, y, z = (p + q for p, q in zip(a.xyz, shift, strict=True))
        lines.append(
            f"ATOM  {serial + k:5d}  {a.name:<3} {a.residue:>3} A{number + a.number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
            f"{1:6.2f}{20:6.2f}          {a.symbol:>2}"
        )
    return "\n".join([*lines, "END", ""])


@pytest.mark.parametrize(
    "shift",
    [
        (31256.0, 32685.0, 60403.0),
        (31256.0, 20.0, 30.0),
        (20.0, -1234.0, 30.0),
        (20.0, 30.0, 12345.0),
        (-1234.0, -2345.0, -3456.0),
        (-123456.0, 1234567.0, -10000.0),
        (9990.0, -990.0, 9990.0),
    ],
)
def test_numbers_wider_than_their_columns_are_read_as_printed(tmp_path: Path, shift: Point) -> None:
    """The last one is wide in some atoms alone."""
    path = tmp_path / "a.pdb"
    path.write_text(as_printed(PLAIN, shift))
    structure = read_structure(path, dtype=torch.float64)
    assert structure.masked == {} and structure.n_valid == 5
    expected = torch.tensor(
        [[round(p + q, 3) for p, q in zip(a.xyz, shift, strict=True)] for a in PLAIN if a.name == "CA"],
        dtype=torch.float64,
    )
    # Read, and divided by ten: two roundings of a coordinate of this size.
    assert close(structure.gaussian.trans, expected / 10, 4 * eps(torch.float64) * float(expected.abs().max()) / 10)
    assert not structure.chain_breaks.any()


@pytest.mark.parametrize(("serial", "number"), [(99_990, 0), (1_234_567, 0), (1, 9_997), (99_990, 9_997), (1, 20_000)])
def test_serial_and_residue_numbers_wider_than_their_columns_move_nothing(
    tmp_path: Path, serial: int, number: int
) -> None:
    for name, text in (("plain", as_printed(PLAIN, (0, 0, 0))), ("wide", as_printed(PLAIN, (0, 0, 0), serial, number))):
        (tmp_path / name).write_text(text)
    plain, wide = read_structure(tmp_path / "plain"), read_structure(tmp_path / "wide")
    assert wide.numbers == tuple(str(number + k) for k in range(1, 6))
    assert wide.masked == {} and all(torch.equal(a, b) for a, b in zip(values(plain), values(wide), strict=True))


@pytest.mark.parametrize("field", ["********", "        ", "     nan", "  1.2.30", "   1 234"])
def test_a_field_that_holds_no_number_masks_what_needs_it(tmp_path: Path, field: str) -> None:
    lines = as_printed(PLAIN, (0, 0, 0)).splitlines()
    row = next(k for k, line in enumerate(lines) if line[12:16].strip() == "C" and line[22:26] == "   3")
    lines[row] = lines[row][:38] + field + lines[row][46:]
    (tmp_path / "a.pdb").write_text("\n".join([*lines, ""]))
    structure = read_structure(tmp_path / "a.pdb")
    assert structure.masked == {"N, CA or C missing or not finite": 1} and not structure.mask[2]


def test_tabs_are_blanks_up_to_the_next_stop_or_refused(tmp_path: Path) -> None:
    text = as_printed(PLAIN, (0, 0, 0))
    (tmp_path / "plain").write_text(text)
    # `unexpand`: eight columns, those that end at a stop, become one tab where they are blank.
    stops = [[line[k : k + 8] for k in range(0, len(line), 8)] for line in text.splitlines()]
    lines = [
        "".join(cell.rstrip(" ") + "\t" if cell.endswith("  ") and len(cell) == 8 else cell for cell in c)
        for c in stops
    ]
    assert any("\t" in line for line in lines)
    (tmp_path / "unexpanded").write_text("\n".join(lines) + "\n")
    assert same(read_structure(tmp_path / "unexpanded"), read_structure(tmp_path / "plain"))
    (tmp_path / "split").write_text("\n".join("\t".join(line.split()) for line in text.splitlines()) + "\n")
    with pytest.raises(StructureError, match="tab characters stand in its columns"):
        read_structure(tmp_path / "split")


def test_the_extent_covers_the_longest_side_chain_stretched_out() -> None:
    """From CA through CB, CG, CD, NE, CZ to NH1 of arginine, all trans, by ideal bonds and angles."""
    bonds = [1.53, 1.52, 1.52, 1.46, 1.33, 1.33]
    angles = np.radians([114.1, 111.3, 112.0, 124.2, 120.0])
    at, direction, side = np.zeros(2), 0.0, 1.0
    for k, bond in enumerate(bonds):
        at = at + bond * np.array([np.cos(direction), np.sin(direction)])
        if k < len(angles):
            direction += side * (np.pi - angles[k])
            side = -side
    assert 7.0 < np.linalg.norm(at) < 2.5 + 5 * 1.4
