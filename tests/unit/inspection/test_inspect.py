"""`iga inspect`: numbers of a protein as they are, whoever shows them, from whichever file the parameters come."""

import json
import pickle
from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from safetensors.torch import save_file
from torch import nn

import iga
from helpers.command import called
from helpers.documents import inspection
from helpers.structures import pdb_text, peptide
from iga.inspection.checkpoint import read_checkpoint, sizes_of, state_of_layer
from iga.inspection.extremes import extremes, rows_saturated
from iga.inspection.layer import the_layer
from iga.inspection.protein import CONTACT, look
from iga.inspection.run import inspected
from iga.report.formats import rendered
from iga.report.inspected import Protein
from iga.structure import read_structure

Capture = pytest.CaptureFixture[str]
SHOWN = """
from torch import nn
from iga import InvariantGaussianAttention
from iga.testing import target

class Own(nn.Module):
    def __init__(self, **sizes):
        super().__init__()
        self.inner = InvariantGaussianAttention(**sizes, config="bounded", implementation="reference")

    def forward(self, s, z, r, mask):
        return self.inner(s, z, r, mask)

@target(kind="layer")
def layer(**sizes):
    return Own(**sizes)

class Dumb(nn.Module):
    def forward(self, s, z, r, mask):
        return s * r.mean.sum(-1, keepdim=True)

@target(kind="layer")
def dumb(**sizes):
    return Dumb()
"""


@pytest.fixture(scope="module")
def crambin(structures_dir: Path) -> Path:
    return structures_dir / "1crn.pdb"


@pytest.fixture(scope="module")
def bounded(crambin: Path) -> Protein:
    return inspected([crambin], points=(4, 1, 2)).proteins[0][1]


def test_every_quantity_is_within_its_bound_in_the_default_and_pre_fix_is_over_them(
    bounded: Protein, crambin: Path
) -> None:
    names = ["sigma_range", "condition_range", "log_det_floor", "dist_sq_bound", "geometry_logit_bound", "accuracy"]
    assert [one["name"] for one in bounded["invariants"]] == names
    assert {one["verdict"] for one in bounded["invariants"]} == {"holds"}
    before = inspected([crambin], preset="pre_fix", points=(4,)).proteins[0][1]
    verdicts = {one["name"]: one["verdict"] for one in before["invariants"]}
    assert [name for name in names if verdicts[name] == "broken"] == [
        name for name in names if name != "condition_range"
    ]
    for one in before["invariants"]:
        assert "query A " in one["worst_example"] or "key A " in one["worst_example"] or one["name"] == "accuracy"
    assert all(head["saturated"] > 0.5 for head in before["heads"]) and before["saturated"]
    assert all(head["saturated"] < 0.1 for head in bounded["heads"])


def test_contacts_are_those_of_the_files_own_atoms(bounded: Protein, crambin: Path) -> None:
    atoms = [residue.get_ca() for residue in gemmi.read_structure(str(crambin))[0]["A"].get_polymer()]
    ca = np.array([atom.pos.tolist() for atom in atoms if atom is not None]) / 10.0
    near = np.linalg.norm(ca[:, None] - ca[None], axis=-1) < CONTACT
    np.fill_diagonal(near, False)
    assert np.array_equal(np.array(bounded["contacts"]), near.astype(float))  # 46 residues: a cell is a pair
    assert [one["contacts"] for one in bounded["shown"]] == near.sum(axis=1).tolist()
    for head in bounded["heads"]:
        # maps keep three digits of each weight, so that their sums do
        on = (np.array(head["map"]) * near).sum(axis=1).mean()
        assert head["on_contacts"] == pytest.approx(on, rel=1e-2)
        assert head["by_chance"] == pytest.approx(near.mean(), rel=1e-12)


def test_a_residues_sigma_mean_and_covariance_are_those_of_the_structure(bounded: Protein, crambin: Path) -> None:
    r = read_structure(crambin).gaussian
    for row, one in enumerate(bounded["shown"]):
        assert one["sigma"] == pytest.approx(r.sigma[row].tolist(), abs=1e-5)
        assert one["mean"] == pytest.approx(r.mean[row].tolist(), abs=1e-5)
        xx, yy, zz, *_ = one["covariance"]
        assert xx + yy + zz == pytest.approx(float(r.sigma[row].square().sum()), rel=1e-4)
    assert bounded["shown"][0]["name"] == "A 1 THR" and bounded["how"] == "all 46 residues that have a frame"


def test_the_worst_pairs_and_the_residues_in_many_of_them_are_found() -> None:
    n, names = 30, [f"A {i} GLY" for i in range(30)]
    log_det = torch.rand(2, 3, n, n)
    log_det[1, 2, 7, :] = -5.0 - torch.arange(n) / n  # residue 7 is in all of the worst pairs
    log_det[1, 2, 7, 9] = -9.0
    dist_sq = torch.rand(2, 3, n, n)
    dist_sq[0, 1, 4, 5] = torch.nan
    distance = torch.arange(n * n, dtype=torch.float64).reshape(n, n)
    pairs, often = extremes({"log_det": log_det, "dist_sq": dist_sq}, names, distance)
    first = pairs[0]
    assert (first["quantity"], first["value"], first["head"], first["point"]) == ("log_det", -9.0, 1, 2)
    assert (first["query"], first["key"], first["distance"]) == ("A 7 GLY", "A 9 GLY", 7 * n + 9)
    assert (often[0]["residue"], often[0]["count"]) == ("A 7 GLY", often[0]["of"])
    lost = next(one for one in pairs if one["quantity"] == "dist_sq")
    assert lost["value"] is None and (lost["query"], lost["key"], lost["head"]) == ("A 4 GLY", "A 5 GLY", 0)
    constant, _ = extremes({"log_det": torch.ones(1, 1, n, n)}, names, distance)
    assert constant == []


def test_saturated_rows_are_those_of_which_one_key_holds_more_than_nine_tenths() -> None:
    weights = torch.full((2, 4, 4), 0.25)
    weights[1, 2] = torch.tensor([0.02, 0.95, 0.02, 0.01])
    weights[0, 0] = torch.tensor([0.9, 0.1, 0.0, 0.0])  # not more
    (row,) = rows_saturated(weights, ["a", "b", "c", "d"], torch.eye(4))
    assert (row["head"], row["query"], row["key"]) == (1, "c", "b") and row["weight"] == pytest.approx(0.95)


def test_equal_points_do_not_grow_in_the_mean_and_grow_as_p_in_the_sum(bounded: Protein, crambin: Path) -> None:
    for preset, exponent in (("bounded", 0.0), ("pre_fix", 1.0)):
        protein = bounded if preset == "bounded" else inspected([crambin], preset=preset, points=(1, 2)).proteins[0][1]
        rows = {one["points"]: one["largest"] for one in protein["grown"] if one["state"] == "all points equal"}
        assert rows[1] is not None and rows[2] == pytest.approx(rows[1] * 2**exponent, rel=1e-4)


def test_a_long_structure_is_sampled_and_says_so(structures_dir: Path) -> None:
    layer = the_layer(None, "bounded", (2,), seed=0)
    protein = look(layer, read_structure(structures_dir / "1aon.pdb.gz"), 40, (1,), 0)
    assert protein["residues"] == 8015 and protein["looked_at"] == len(protein["shown"]) == 40
    assert protein["how"].startswith("a sample, 40 of 8015 residues")


def test_insertion_codes_and_chains_name_residues(structures_dir: Path) -> None:
    layer = the_layer(None, "bounded", (1,), seed=0)
    protein = look(layer, read_structure(structures_dir / "awkward/insertion_codes_1a4w.pdb.gz"), 300, (1,), 0)
    names = [one["name"] for one in protein["shown"]]
    assert {"L 1A ASP", "H 60A TYR"} <= set(names) and len(set(names)) == len(names)
    assert len(protein["contacts"]) == -(-len(names) // protein["cell"]) <= 96


# --- checkpoints -------------------------------------------------------------------------------------------------


def trained() -> iga.InvariantGaussianAttention:
    torch.manual_seed(5)
    layer = iga.InvariantGaussianAttention(12, 6, 4, 2, 3, 5, config="bounded")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return layer


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_a_checkpoint_of_either_kind_gives_its_own_layer_with_its_sizes(ending: str, tmp_path: Path) -> None:
    model = nn.ModuleDict({"trunk": nn.ModuleList([trained(), nn.Linear(2, 2)])})
    file = tmp_path / f"a{ending}"
    if ending == ".pt":
        torch.save({"state_dict": model.state_dict(), "step": 3}, file)
    else:
        save_file(model.state_dict(), file)
    found = the_layer(None, "bounded", (8,), 0, file)
    assert found.points == 3 and found.trained and "trunk.0" in found.words
    own = trained().state_dict()
    loaded = found.module.state_dict()
    assert set(own) == set(loaded) and all(torch.equal(own[name], loaded[name]) for name in own)


def test_a_multimers_layer_without_pair_features_is_found_by_its_parameters(tmp_path: Path, crambin: Path) -> None:
    layer = iga.InvariantGaussianAttention(12, 0, 4, 2, 3, 5, is_multimer=True)
    save_file(layer.state_dict(), tmp_path / "a.safetensors")
    name, state = state_of_layer(read_checkpoint(tmp_path / "a.safetensors"))
    assert name == "" and sizes_of(state)["is_multimer"] and sizes_of(state)["c_z"] == 0
    protein = inspected([crambin], checkpoint=tmp_path / "a.safetensors").proteins[0][1]
    assert protein["grown"] == [] and len(protein["heads"]) == 2


def test_of_several_layers_one_is_named_and_the_error_lists_them(tmp_path: Path) -> None:
    save_file(nn.ModuleList([trained(), trained()]).state_dict(), file := tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="holds 2 layers, choose with --layer: 0, 1"):
        the_layer(None, "bounded", (8,), 0, file)
    assert "layer 1 of" in the_layer(None, "bounded", (8,), 0, file, "1").words
    with pytest.raises(ValueError, match="no layer '2'"):
        the_layer(None, "bounded", (8,), 0, file, "2")


class Runs:
    """A pickle of it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1), "b": Runs(tmp_path / "ran")}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(ValueError, match=f"{name} holds more than tensors"):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"a": torch.ones(2)}, "no layer of Gaussians"),
        ({"linear_q_scales.weight": torch.ones(6, 2), "geo_scale": torch.ones(2)}, "is not whole"),
    ],
)
def test_a_checkpoint_without_a_whole_layer_says_so(state: dict, words: str, tmp_path: Path) -> None:
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=words):
        the_layer(None, "bounded", (8,), 0, tmp_path / "a.safetensors")


# --- a target, and the command -----------------------------------------------------------------------------------


def test_a_layer_that_shows_its_taps_gives_the_numbers_of_the_one_inside(
    tmp_path: Path, crambin: Path, bounded: Protein
) -> None:
    (tmp_path / "mine.py").write_text(SHOWN, encoding="utf-8")
    found = inspected([crambin], target=f"{tmp_path / 'mine.py'}:layer", points=(4, 1, 2))
    protein = found.proteins[0][1]
    own, other = ({one["name"]: one for one in some["invariants"]} for some in (bounded, protein))
    for name in ("sigma_range", "condition_range", "log_det_floor"):
        assert other[name]["worst"] == own[name]["worst"] and other[name]["worst_example"] == own[name]["worst_example"]
    assert [one["map"] for one in protein["heads"]] == [one["map"] for one in bounded["heads"]]
    assert protein["extremes"] == bounded["extremes"]


def test_a_layer_that_shows_nothing_says_what_is_missing(tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "mine.py").write_text(SHOWN, encoding="utf-8")
    (tmp_path / "six.pdb").write_text(pdb_text(peptide(*["ALA", "LYS"] * 3)), encoding="utf-8")
    words = ("inspect", str(tmp_path / "six.pdb"), "--target", f"{tmp_path / 'mine.py'}:dumb")
    ended = called(capfd, *words, "--report", str(tmp_path / "a.html"), "--points", "2")
    assert ended.code == 1 and "nothing shows log_det, dist_sq" in ended.out and "nothing was judged" in ended.out
    assert "The layer shows nothing of it" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_the_command_writes_every_file_and_ends_1_where_a_number_is_over_its_bound(
    tmp_path: Path, capfd: Capture, crambin: Path
) -> None:
    reports = [part for name in ("a.html", "a.md", "a.sarif", "a.xml") for part in ("--report", str(tmp_path / name))]
    words = ("--out", str(tmp_path / "out"), "--json", str(tmp_path / "a.json"), "--points", "2", *reports)
    ended = called(capfd, "inspect", str(crambin), "--preset", "pre_fix", *words)
    assert ended.code == 1 and "5 numbers are over their bounds" in ended.out
    document = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    schema = json.loads((Path(iga.__file__).parent / "report/schemas/inspect.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(document)
    assert document["exit_code"] == 1 and document["proteins"][0]["files"] == [
        str(tmp_path / "out" / f"1crn_gaussians{ending}") for ending in (".pdb", ".cif")
    ]
    assert all(Path(file).is_file() for file in document["proteins"][0]["files"])
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == page.count("<svg") == page.count("<summary>the numbers</summary>") > 10
    assert all((tmp_path / name).stat().st_size for name in ("a.md", "a.sarif", "a.xml"))


def test_a_page_of_many_proteins_draws_the_worst_and_stays_small(bounded: Protein, tmp_path: Path) -> None:
    document = inspection("bounded")
    red = inspection("pre_fix")["proteins"][0]
    document["proteins"] = [bounded | {"path": f"{number}.pdb"} for number in range(60)] + [red]
    page = rendered(".html", [document | {"exit_code": 1}]).decode()
    assert len(page) < 3_000_000 and page.count("A page shows 2 proteins in full") == 59
    assert page.count("the Gaussians</h3>") == 2 and f"{Path(red['path']).name}: the Gaussians" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("no.pdb",), "no such file"),
        (("1crn.pdb", "--preset", "bounde"), "preset"),
        (("1crn.pdb", "--preset", "bounded", "--target", "a.py:b"), "exclude each other"),
        (("1crn.pdb", "--layer", "0"), "--checkpoint"),
        (("1crn.pdb", "--residues", "1"), "from 2 to 2048"),
        (("1crn.pdb", "--checkpoint", "1crn.pdb"), "more than tensors"),
        (("1crn.pdb", "--target", "iga.overlap:gaussian_overlap"), "cannot be called as a layer"),
        (("1crn.pdb", "--report", "a.docx"), "ending"),
        (("1crn.pdb", "--points", "0"), "whole numbers"),
    ],
)
def test_misuse_is_one_line_and_2(
    words: tuple[str, ...], said: str, capfd: Capture, monkeypatch: pytest.MonkeyPatch, structures_dir: Path
) -> None:
    monkeypatch.chdir(structures_dir)
    ended = called(capfd, "inspect", *words)
    assert ended.code == 2 and len([line for line in ended.lines if line.startswith("iga:")]) == 1
    assert said in ended.err
