"""Structures written as PDB and mmCIF files: what is written reads back, in ideal geometry and the formats' columns."""

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.geometry import close
from iga.frame import Frame
from iga.structure import Structure, read_structure
from iga.structure.mmcif import write_mmcif
from iga.structure.synthetic import synthetic_structures
from iga.structure.write import write_pdb


@pytest.fixture(scope="module")
def chains() -> list[Structure]:
    return synthetic_structures(3, seed=6, lengths=(16, 30))


def written(path: Path, source: Structure, index: torch.Tensor | None = None, **options: object) -> list[str]:
    index = torch.arange(source.n_residues) if index is None else index
    write_pdb(path, source.gaussian.frame, index, source.residue_names, **options)  # type: ignore[arg-type]
    return path.read_text(encoding="ascii").splitlines()


def angle_between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Radians, from the chord: ‖a − b‖_F = √8 sin(θ/2)."""
    return 2 * torch.arcsin(((a - b).square().sum(dim=(-2, -1)).sqrt() / math.sqrt(8)).clamp(max=1))


def atoms_of(lines: Sequence[str]) -> dict[tuple[int, str], np.ndarray]:
    """(residue number, atom) → Å, by the format's columns."""
    atoms = [line for line in lines if line.startswith("ATOM")]
    return {
        (int(a[22:26]), a[12:16].strip()): np.array([float(a[30:38]), float(a[38:46]), float(a[46:54])]) for a in atoms
    }


def dihedral(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> float:
    """Degrees, clockwise positive, cis 0."""
    before, axis, after = b - a, c - b, d - c
    m, n = np.cross(before, axis), np.cross(axis, after)
    return math.degrees(math.atan2((before * n).sum() * np.linalg.norm(axis), (m * n).sum()))


def test_what_is_written_reads_back_to_the_same_frames(chains: list[Structure], tmp_path: Path) -> None:
    # A coordinate is off by half of 10⁻³ Å, an atom by √3 of that, a difference of two by twice: the direction of C
    # turns by that over CA–C; that of N over its height, by the turn of C too, over N's share along C.
    off = math.sqrt(3) * 1e-3
    height, along = 1.458 * math.sin(math.radians(111.2)), -1.458 * math.cos(math.radians(111.2))
    limit = off / 1.525 + (off + along * off / 1.525) / height
    for chain in chains:
        written(tmp_path / "out.pdb", chain)
        back = read_structure(tmp_path / "out.pdb", dtype=torch.float64)
        assert bool(back.mask.all()) and back.n_residues == chain.n_residues
        assert back.residue_names == chain.residue_names and set(back.chains) == {"A"}
        assert back.numbers == tuple(str(i + 1) for i in range(chain.n_residues))
        # Half of 10⁻³ Å is 5·10⁻⁵ nm.
        assert close(back.gaussian.trans, chain.gaussian.trans.double().numpy(), 5e-5 * (1 + 1e-9))
        assert close(angle_between(back.gaussian.rot, chain.gaussian.rot.double()), 0.0, limit)


def test_random_frames_that_are_no_chain_read_back_too(tmp_path: Path) -> None:
    frame = Frame.random(40, generator=torch.Generator().manual_seed(3), extent_nm=5.0)
    write_pdb(tmp_path / "noise.pdb", frame, torch.arange(40), ["ALA"] * 40)
    back = read_structure(tmp_path / "noise.pdb", dtype=torch.float64)
    assert bool(back.mask.all()) and close(back.gaussian.trans, frame.trans.double().numpy(), 5e-5 * (1 + 1e-6))


def test_gaps_keep_their_numbers_and_the_chain_its_name(chains: list[Structure], tmp_path: Path) -> None:
    index = torch.arange(chains[0].n_residues)
    index = index + (index > 5) * 12
    written(tmp_path / "gap.pdb", chains[0], index, chain="q")
    back = read_structure(tmp_path / "gap.pdb")
    assert back.numbers == tuple(str(i + 1) for i in index.tolist()) and set(back.chains) == {"q"}


def test_oxygen_completes_the_peptide_plane(chains: list[Structure], tmp_path: Path) -> None:
    chain = chains[0]
    atoms = atoms_of(written(tmp_path / "o.pdb", chain))
    # Differences of rounded atoms are off by √3 · 10⁻³ Å, bonds are longer than 1.2 Å: angles by three such.
    off = math.sqrt(3) * 1e-3
    turn = math.degrees(3 * 2 * off / 1.2)
    for i in range(1, chain.n_residues):
        n, ca, c, o = (atoms[i, name] for name in ("N", "CA", "C", "O"))
        following = atoms[i + 1, "N"]
        assert abs(np.linalg.norm(o - c) - 1.231) <= off
        # O and the next N lie on either side of the bond from CA, in one plane.
        apart = (dihedral(n, ca, c, o) - dihedral(n, ca, c, following)) % 360
        assert abs(apart - 180) <= 2 * turn
        # In the synthetic chains CA–C–N has 116.2°, and O halves what is left.
        cosine = (o - c) @ (ca - c) / np.linalg.norm(o - c) / np.linalg.norm(ca - c)
        assert abs(math.degrees(math.acos(cosine)) - (180 - 116.2 / 2)) <= 2 * turn


@pytest.mark.parametrize("case", ["end", "gap", "far"])
def test_oxygen_without_a_bonded_neighbour_stands_as_in_a_helix(
    chains: list[Structure], tmp_path: Path, case: str
) -> None:
    chain = chains[0]
    frame, index, at = chain.gaussian.frame, torch.arange(chain.n_residues), chain.n_residues
    if case == "gap":
        index, at = index + (index > 4) * 1, 5
    if case == "far":
        frame, at = Frame(frame.rot, frame.trans + (index[:, None] > 4) * 1.0), 5
    write_pdb(tmp_path / "o.pdb", frame, index, chain.residue_names)
    atoms = atoms_of((tmp_path / "o.pdb").read_text().splitlines())
    four = [atoms[at, name] for name in ("N", "CA", "C", "O")]
    turn = math.degrees(3 * 2 * math.sqrt(3) * 1e-3 / 1.2)
    assert abs(dihedral(*four) - (180 - 43)) <= turn
    assert abs(np.linalg.norm(four[3] - four[2]) - 1.231) <= math.sqrt(3) * 1e-3


def test_lines_have_the_formats_columns_and_remarks_are_wrapped(chains: list[Structure], tmp_path: Path) -> None:
    lines = written(tmp_path / "r.pdb", chains[0], remarks=["ångström " * 20, "short\nATOM  injected", ""])
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("REMARK  99 ?ngstr?m") and "REMARK  99 short ATOM  injected" in " ".join(lines)
    records = [line[:6].strip() for line in lines]
    assert records == ["REMARK"] * records.count("REMARK") + ["ATOM"] * (4 * chains[0].n_residues) + ["TER", "END"]
    serials = [int(line[6:11]) for line in lines if line.startswith("ATOM")]
    assert serials == list(range(1, 4 * chains[0].n_residues + 1))
    assert [line[76:78] for line in lines if line.startswith("ATOM")][:4] == [" N", " C", " C", " O"]


def test_a_name_that_the_columns_cannot_hold_is_unknown_and_said_to_be(chains: list[Structure], tmp_path: Path) -> None:
    chain = replace(chains[0], residue_names=("A1ABC", *chains[0].residue_names[1:]))
    lines = written(tmp_path / "long.pdb", chain)
    assert [line for line in lines if line.startswith("REMARK")] == [
        "REMARK  99 written as UNK, having more than three characters: A1ABC"
    ]
    back = read_structure(tmp_path / "long.pdb")
    assert back.residue_names == ("UNK", *chain.residue_names[1:])


def test_a_file_is_written_whole_or_not_at_all(
    chains: list[Structure], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept.pdb"
    path.write_text("old")

    def broken(beside: Path, target: Path) -> None:
        assert target == path and beside.parent == tmp_path and beside.stat().st_size > 1000
        raise OSError("disk gone")

    with monkeypatch.context() as patch:
        patch.setattr("iga._files.os.replace", broken)
        with pytest.raises(OSError, match="disk gone"):
            written(path, chains[0])
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["kept.pdb"]
    written(path, chains[0])
    assert path.read_text().startswith("ATOM") and os.listdir(tmp_path) == ["kept.pdb"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": Frame.identity(2, 3)}, r"frame must be \[n\], .* got \[2, 3\]"),
        ({"frame": Frame.identity(0), "index": torch.arange(0), "residue_names": []}, r"frame must be \[n\]"),
        ({"index": torch.arange(2)}, "index and residue_names must have one entry per frame, 3"),
        ({"residue_names": ["ALA"]}, "index and residue_names must have one entry per frame, 3"),
        ({"index": torch.tensor([0, 2, 2])}, "index must rise"),
        ({"index": torch.tensor([-1, 0, 1])}, "index must rise"),
        ({"index": torch.tensor([0, 1, 9999])}, "index must rise"),
        ({"chain": "AB"}, "chain must be one letter or digit, got 'AB'"),
        ({"chain": ""}, "chain must be one letter or digit, got ''"),
        ({"residue_names": ["ALA", "", "GLY"]}, "residue_names must be of letters and digits, got ''"),
        ({"frame": Frame(torch.eye(3).expand(3, 3, 3), torch.full((3, 3), math.nan))}, "frame must be finite"),
        ({"frame": Frame(torch.eye(3).expand(3, 3, 3), torch.full((3, 3), 100.0))}, "frame must lie within 99 nm"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_by_name_and_writes_nothing(
    tmp_path: Path, change: dict, message: str
) -> None:
    arguments = {"frame": Frame.identity(3), "index": torch.arange(3), "residue_names": ["ALA"] * 3} | change
    with pytest.raises(ValueError, match=message):
        write_pdb(tmp_path / "no.pdb", **arguments)
    assert not os.listdir(tmp_path)


def test_an_mmcif_sample_holds_what_pdb_can_not_and_reads_back(tmp_path: Path) -> None:
    n = 20
    trans = torch.zeros(n, 3, dtype=torch.float64)
    trans[:, 0] = 0.38 * torch.arange(n) + 200.0  # nm; PDB ends at 99
    frame = Frame(torch.eye(3, dtype=torch.float64).expand(n, 3, 3), trans)
    names = ["ALA"] * (n - 1) + ["GLY"]
    write_mmcif(tmp_path / "far.cif", frame, torch.arange(n) + 20_000, names, remarks=("a\nb", "\x1b"))
    structure = read_structure(tmp_path / "far.cif")
    assert structure.n_residues == n and list(structure.residue_names) == names
    # three decimals of an ångström at least, and float32's rounding of 208 nm on the way
    assert (structure.gaussian.trans.double() - trans).abs().max() <= 0.5e-4 + 208 * 2.0**-24
