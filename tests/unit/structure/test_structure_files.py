"""Laws of the files that the reader takes: errors of one line, many spellings of one content, folders and records.

What can't be read is named with its reason; the rest comes in order, and does not depend on how it was packed.
"""

import gzip
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.geometry import close, eps
from helpers.structures import (
    HEIGHT,
    MISSING,
    NAN,
    WRITERS,
    Atom,
    cif_text,
    each_format,
    pdb_text,
    peptide,
    reader,
    rounded,
    same,
    values,
    without,
)
from iga.structure import Structure, StructureError, find_structures, read_structure, read_structures

GOOD = peptide("ALA", "LYS", "SER", "LEU", "ALA", "GLY", "SER", "LYS", "LEU", "ALA")
DNA = [Atom(name, (float(k), 5.0 * i, 0.0), "DA", i) for i in (1, 2, 3) for k, name in enumerate(("P", "C1'", "N9"))]
LINE = [replace(atom, xyz=(float(k), 0.0, 0.0)) for k, atom in enumerate(GOOD)]


def in_nm(atoms: Iterable[Atom]) -> list[Atom]:
    return [replace(atom, xyz=rounded(np.array(atom.xyz) / 10)) for atom in atoms]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Structure]:
    """read(atoms, form="pdb", **options): the atoms through a file; float64 unless told."""
    return reader(tmp_path)


# What can't be read


UNREADABLE: dict[str, tuple[str, str | bytes | None, str]] = {
    "empty PDB": ("a.pdb", "", "no atoms"),
    "empty mmCIF": ("a.cif", "", "no atoms"),
    "blank lines": ("a.cif", "\n \n", "no atoms"),
    "empty gzip": ("a.cif.gz", gzip.compress(b""), "no atoms"),
    "header alone": ("a.pdb", "HEADER    TEST\nEND\n", "no atoms"),
    "mmCIF without atoms": ("a.cif", "data_x\n_cell.length_a 1\n", "no atoms"),
    "mmCIF comment alone": ("a.cif", "# nothing\n", "not readable as PDB or mmCIF"),
    "prose": ("a.pdb", "Not a structure.\n", "no atoms"),
    "noise": ("a.cif", np.random.default_rng(0).bytes(1000), "no atoms"),
    "broken loop": ("a.cif", cif_text(GOOD).rstrip().rsplit(" ", 1)[0], "Wrong number of values in loop"),
    "two entries in one file": ("a.cif", cif_text(GOOD) + cif_text(GOOD).replace("TEST", "TWO"), "2+ blocks are ok"),
    "no such file": ("a.pdb", None, "No such file"),
    "nucleic acid": ("a.pdb", pdb_text(DNA), "no protein residue in the first model"),
    "water": ("a.cif", cif_text([Atom("O", (1.0, 2.0, 3.0), "HOH", kind="water")]), "no protein residue"),
    "CA alone": ("a.cif", cif_text([a for a in GOOD if a.name == "CA"]), "none of 10 residues has N, CA and C"),
    "no numbers": ("a.pdb", pdb_text([replace(a, xyz=NAN) for a in GOOD]), "none of 10 residues has N, CA and C"),
    "on a line": ("a.pdb", pdb_text(LINE), "on one line, or in one place, in every residue"),
    "nm in PDB": ("a.pdb", pdb_text(in_nm(GOOD)), 'must be in the named unit, "angstrom", but look like "nm"'),
    "nm in mmCIF": ("a.cif", cif_text(in_nm(GOOD)), "PDB and mmCIF are in ångström, multiply by 10"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_one_line_with_the_file_and_the_reason(tmp_path: Path, case: str) -> None:
    name, content, reason = UNREADABLE[case]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(StructureError) as caught:
        read_structure(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert reason in message.removeprefix(f"{path}: ")


def test_a_folder_is_one_line_too(tmp_path: Path) -> None:
    with pytest.raises(StructureError, match="^[^\n]*: not readable: Is a directory$"):
        read_structure(tmp_path)


@pytest.mark.parametrize("residues", [3, 10])
def test_a_few_residues_in_nm_are_noticed_and_the_same_in_angstrom_pass(
    read: Callable[..., Structure], residues: int
) -> None:
    atoms = [atom for atom in GOOD if atom.number <= residues]
    assert read(atoms).n_valid == residues
    with pytest.raises(StructureError, match='look like "nm"') as caught:
        read(in_nm(atoms))
    # from_backbone's remedy is an argument that the reader doesn't have.
    assert "pass unit" not in str(caught.value)


# One content, many files


@pytest.mark.parametrize("gaussians", ["sidechain", "backbone"])
def test_pdb_and_mmcif_of_the_same_atoms_agree(read: Callable[..., Structure], gaussians: str) -> None:
    atoms = without(peptide("LYS", "GLY", "MSE", "SER", "LEU"), 4, "C")
    atoms = [replace(a, het=a.residue == "MSE", number=a.number + 58, insertion="") for a in atoms]
    atoms = [replace(a, number=60, insertion="A") if a.number == 61 else a for a in atoms]
    atoms += [replace(a, chain="B", number=a.number + 10) for a in peptide("ALA", "SER", shift=(30.0, 0.0, 0.0))]
    atoms += [Atom("O", (1.0, 30.0, 3.0), "HOH", 400, kind="water")]
    pdb, cif = read(atoms, "pdb", gaussians=gaussians), read(atoms, "cif", gaussians=gaussians)
    assert pdb.numbers == cif.numbers == ("59", "60", "60A", "62", "63", "11", "12")
    assert pdb.chains == cif.chains == ("A",) * 5 + ("B",) * 2
    assert pdb.residue_names == cif.residue_names
    assert torch.equal(pdb.mask, cif.mask) and pdb.masked == cif.masked == {MISSING: 1}
    # The two readers of numbers may differ by 4 eps m at a coordinate; see test_structure_gaussians.
    m = float(pdb.gaussian.trans.abs().max()) + 0.5
    point = 2 * math.sqrt(3) * 4 * eps(torch.float64) * m
    turn = 8 * eps(torch.float64) + 2 * point / HEIGHT
    local = point + 0.5 * (turn + 8 * eps(torch.float64))
    for a, b, limit in zip(values(pdb), values(cif), (turn, point, local, local / 0.04), strict=True):
        assert close(a, b, limit)


@each_format
def test_names_change_nothing(tmp_path: Path, form: str) -> None:
    text = WRITERS[form](GOOD)
    plain = tmp_path / f"a.{form}"
    plain.write_text(text)
    expected = read_structure(plain)
    assert expected.n_valid == 10
    variants = {
        f"c.{form.upper()}.GZ": gzip.compress(text.encode()),
        f"not_packed.{form}.gz": text.encode(),
        f"packed.{form}": gzip.compress(text.encode()),
        "other.ent": text.encode(),
        "other.mmcif": text.encode(),
        "no_ending": text.encode(),
    }
    for name, content in variants.items():
        (tmp_path / name).write_bytes(content)
        assert same(read_structure(tmp_path / name), expected), name


# Files, folders, globs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """b.pdb (10 residues), a.cif.gz (3), c.pdb (unreadable), C.ENT (2), notes.txt, sub/d.pdb (1)."""
    (tmp_path / "b.pdb").write_text(pdb_text(GOOD))
    (tmp_path / "a.cif.gz").write_bytes(gzip.compress(cif_text(peptide("ALA", "LYS", "SER")).encode()))
    (tmp_path / "c.pdb").write_text("")
    (tmp_path / "C.ENT").write_text(pdb_text(peptide("ALA", "GLY")))
    (tmp_path / "notes.txt").write_text("data_notes\nloop_\n_one\n_two\n1\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.pdb").write_text(pdb_text(peptide("SER")))
    (tmp_path / "folder.pdb").mkdir()
    return tmp_path


def test_a_file_a_folder_and_a_glob_name_structures(folder: Path) -> None:
    def found(*names: str) -> list[str]:
        return [str(path.relative_to(folder)) for path in find_structures([folder / name for name in names])]

    assert found("b.pdb") == ["b.pdb"]
    assert found("notes.txt") == ["notes.txt"]  # named by itself: the reader says what is wrong with it
    assert found("") == ["C.ENT", "a.cif.gz", "b.pdb", "c.pdb"]
    assert found("*.pdb") == ["b.pdb", "c.pdb"]
    assert found("**/*.pdb") == ["b.pdb", "c.pdb", "sub/d.pdb"]
    assert found("[bc].pdb") == ["b.pdb", "c.pdb"]
    assert found("sub", "c.pdb", "*.cif.gz") == ["sub/d.pdb", "c.pdb", "a.cif.gz"]
    assert find_structures([str(folder / "b.pdb")]) == [folder / "b.pdb"]


def test_a_file_named_twice_is_read_once(folder: Path) -> None:
    names: list[str | Path] = [folder / "b.pdb", folder, str(folder / "*.pdb"), f"{folder}/./b.pdb"]
    assert [path.name for path in find_structures(names)] == ["b.pdb", "C.ENT", "a.cif.gz", "c.pdb"]
    assert len(read_structures(names)[1]) == 4


def test_a_bracket_in_the_name_of_a_file_is_no_glob(folder: Path) -> None:
    (folder / "x[1].pdb").write_text(pdb_text(GOOD))
    assert find_structures([folder / "x[1].pdb"]) == [folder / "x[1].pdb"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.pdb", "no such file, folder or match"),
        ("*.xyz", "no such file, folder or match"),
        ("folder.pdb", "no file in this folder ends in .pdb, .ent, .cif, .mmcif, or these with .gz, .bz2, .xz, .zst"),
    ],
)
def test_what_names_nothing_is_an_error_that_repeats_it(folder: Path, name: str, message: str) -> None:
    for call in (find_structures, read_structures):
        with pytest.raises(StructureError) as caught:
            call([folder / "b.pdb", folder / name])
        assert str(caught.value).startswith(f"{folder / name}: {message}")
        assert "\n" not in str(caught.value)


def test_no_paths_and_a_bare_string_are_misuse() -> None:
    for call in (find_structures, read_structures):
        with pytest.raises(StructureError, match="no structure was named; pass files, folders or globs"):
            call([])
        # Letter by letter "./a.pdb" would name the working folder and then the root.
        with pytest.raises(ValueError, match=r"paths must be a list of names, got the string './a.pdb'"):
            call("./a.pdb")


def test_structures_and_records_come_in_order_and_go_on_past_what_cannot_be_read(folder: Path) -> None:
    structures, records = read_structures([folder / "c.pdb", folder / "sub", folder, folder / "notes.txt"])
    assert [Path(structure.path).name for structure in structures] == ["d.pdb", "C.ENT", "a.cif.gz", "b.pdb"]
    assert [structure.n_residues for structure in structures] == [1, 2, 3, 10]
    assert [Path(str(entry["path"])).name for entry in records] == [
        *("c.pdb", "d.pdb", "C.ENT", "a.cif.gz", "b.pdb", "notes.txt")
    ]
    for entry in records:
        assert list(entry) == ["path", "residues", "masked", "chain_breaks", "status", "reason"]
        assert [type(value) for value in entry.values()] == [str, int, int, int, str, str]
    assert [entry["status"] for entry in records] == ["unreadable", *["read"] * 4, "unreadable"]
    assert [entry["residues"] for entry in records] == [0, 1, 2, 3, 10, 0]
    assert records[1]["reason"] == "" and records[1]["path"] == str(folder / "sub" / "d.pdb")
    assert records[0]["reason"] == "no atoms; the file is empty or holds no coordinates: zero bytes; download it again"
    assert str(records[5]["reason"]).startswith("not readable as PDB or mmCIF: ")


def test_options_reach_every_file(folder: Path) -> None:
    options = {"gaussians": "backbone", "base_thickness": 1.0, "convention": "openfold", "dtype": torch.float64}
    for structure in read_structures([folder], **options)[0]:
        assert same(structure, read_structure(structure.path, **options))  # type: ignore[arg-type]
        assert structure.gaussian.dtype == torch.float64


def test_nothing_readable_is_an_error_with_files_and_reasons(folder: Path) -> None:
    with pytest.raises(StructureError) as caught:
        read_structures([folder / "c.pdb", folder / "notes.txt"])
    message = str(caught.value)
    assert message.startswith("none of 2 files is readable: ") and "\n" not in message
    assert f"{folder / 'c.pdb'}: no atoms" in message and f"{folder / 'notes.txt'}: not readable" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_thickness": 0.0}, "base_thickness must be a positive number of ångström, got 0.0"),
        ({"base_thickness": -0.4}, "base_thickness must be a positive number"),
        ({"base_thickness": math.nan}, "base_thickness must be a positive number"),
        ({"base_thickness": math.inf}, "base_thickness must be a positive number"),
        ({"convention": "openfolded"}, "convention must be 'alphafold' or 'openfold', got 'openfolded'"),
        ({"dtype": torch.float16}, "dtype must be torch.float32 or torch.float64, got torch.float16"),
        ({"dtype": torch.int64}, "dtype must be torch.float32 or torch.float64, got torch.int64"),
    ],
)
def test_a_bad_option_is_the_caller_s_error_and_not_the_file_s(
    folder: Path, options: dict[str, object], message: str
) -> None:
    for call in (
        lambda: read_structure(folder / "b.pdb", **options),  # type: ignore[arg-type]
        lambda: read_structures([folder], **options),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert not isinstance(caught.value, StructureError)
