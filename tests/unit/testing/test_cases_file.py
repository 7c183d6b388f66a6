"""Saved inputs of findings: exact, complete enough to break the check again, and refused where they are not whole."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import iga
from helpers.command import called as run
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.presets import preset
from iga.testing import latest
from iga.testing.cases_file import read_case, write_case
from iga.testing.contract import PROFILES
from iga.testing.faults.subjects import SMALL
from iga.testing.judges.overlap import overlap_reference
from iga.testing.latest import Call
from iga.testing.layer.cases import Case
from iga.testing.layer.subject import Subject
from iga.testing.overlap.accuracy import judge_values
from iga.testing.tally import Tally
from iga.testing.targets import Target
from iga.testing.verify import verify

FAST = replace(SMALL, name="fast")
FACTS = {"target": "t.py:f", "check": "c", "value": 2.0, "limit": 1.0, "unit": "", "where": "", "note": "", "seed": 3}


def off_where_wide(*pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    dist_sq, log_det = iga.gaussian_overlap(*pair)
    return torch.where(pair[2].amax(-1) > 10.0, 1.01, 1.0).to(dist_sq) * dist_sq, log_det


def test_a_saved_pair_breaks_the_check_again_by_itself_and_by_the_same_amount(tmp_path: Path) -> None:
    accused = Target("off", "overlap", off_where_wide)
    found = verify(accused, profile=FAST, only=["accuracy", "coincident_means"], save=tmp_path)["accuracy"]
    assert found.verdict == "broken" and str(tmp_path / "accuracy" / "case.json") in found.note
    assert [folder.name for folder in tmp_path.iterdir()] == ["accuracy"], "what holds is not saved"
    case = read_case(tmp_path / "accuracy" / "case.json")
    pair: Any = tuple(case.inputs[name][None] for name in ("q_rot", "q_mean", "q_sigma", "k_rot", "k_mean", "k_sigma"))
    assert [x.shape for x in pair] == [(1, 3, 3), (1, 3), (1, 3)] * 2, "the one pair"
    tally = Tally("accuracy", "")
    dtype = {"float32": torch.float32, "float64": torch.float64}[case.words["dtype"]]
    judge_values(pair, off_where_wide(*pair), overlap_reference(*pair), dtype, "again", tally)
    assert tally.finding().worst == float.fromhex(case.words["value"]) == found.worst
    assert (case.words["kind"], case.words["target"], case.words["layer"]) == ("overlap", "off", None)


def test_a_saved_layer_can_be_built_again_and_gives_the_same_value(tmp_path: Path) -> None:
    found = verify("sigma_floor", profile=FAST, points=(1, 4), only=["log_det_floor"], save=tmp_path)["log_det_floor"]
    case = read_case(tmp_path / "log_det_floor" / "case.json")
    facts, given = case.words["layer"], case.inputs
    assert facts is not None and facts["made"] == "random"
    sizes = {name: facts[name] for name in ("c_s", "c_z", "c_hidden", "no_heads", "no_v_points")}
    subject = Subject("again", preset(case.words["target"]), replace(PROFILES["fast"], **sizes))
    layer = subject.random(facts["no_qk_points"], facts["seed"], gain=facts["gain"])
    rigid = GaussianRigid(Frame(given["rot"], given["trans"]), given["local_mean"], given["log_scale"])
    with torch.no_grad():
        trace = subject.trace(layer, Case("again", rigid, given["s"], given["z"], given["mask"]))
    assert float(trace.log_det.min()) == float.fromhex(case.words["value"]) == found.worst


def test_what_is_saved_is_what_was_called_whatever_happens_to_the_inputs_later() -> None:
    assert latest.taken() is None
    x, tally = torch.ones(2), Tally("c", "")
    with latest.keeping(on=True):
        latest.called("layer", {"s": x, "z": None})
        tally.add(2.0, 1.0, "broken")
        x.zero_()
        tally.add(0.5, 1.0, "holds")
    assert tally.call is not None and tally.call.inputs["s"].tolist() == [1.0, 1.0] and set(tally.call.inputs) == {"s"}
    latest.called("layer", {"s": x})
    assert latest.taken() is None, "nothing is kept where nothing is to be saved"


def test_every_number_comes_back_to_the_bit(tmp_path: Path) -> None:
    odd = torch.tensor([0.1, -0.0, math.inf, math.nan, 5e-324, 1.7e308, 2.0**-149], dtype=torch.float64)
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    inputs = {str(dtype): odd.to(dtype) for dtype in dtypes}
    inputs |= {"mask": torch.tensor([[True], [False]]), "many": torch.tensor([2**62, -1]), "none": torch.zeros(0, 3)}
    write_case(tmp_path / "a" / "case.json", Call("overlap", inputs), FACTS)
    back = read_case(tmp_path / "a" / "case.json").inputs
    for name, x in inputs.items():
        assert back[name].dtype == x.dtype and back[name].shape == x.shape
        assert torch.equal(back[name].nan_to_num(7.0), x.nan_to_num(7.0))
        assert not x.is_floating_point() or torch.equal(back[name].signbit(), x.signbit())


def spoiled(change: Any) -> Any:
    def made(document: dict) -> None:
        change(document, document["inputs"]["x"])

    return made


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoiled(lambda d, x: d.pop("check")), "check is missing"),
        (spoiled(lambda d, x: d.update(schema=2)), "schema must be 1"),
        (spoiled(lambda d, x: d.update(kind="module")), "kind must be"),
        (spoiled(lambda d, x: d.update(value="much")), "value: 'much' is no number"),
        (spoiled(lambda d, x: x.update(shape=[3])), "2 values for the shape [3]"),
        (spoiled(lambda d, x: x.update(shape=[-1, -2])), "for the shape [-1, -2]"),
        (spoiled(lambda d, x: x.update(dtype="object")), "dtype must be one of"),
        (spoiled(lambda d, x: x.update(values=["0x1p0", "__import__('os')"])), "is no number of float32"),
        (spoiled(lambda d, x: x.update(values=["0x1p0", "0x1.0000000000001p0"])), "that float32 does not have"),
        (spoiled(lambda d, x: x.update(dtype="int64", values=["1", str(2**63)])), "is no number of int64"),
        (spoiled(lambda d, x: d["inputs"].update(x=[1.0])), "inputs.x must be an object"),
    ],
)
def test_a_case_that_is_not_whole_is_refused_in_one_line(tmp_path: Path, spoil: Any, words: str) -> None:
    path = tmp_path / "case.json"
    write_case(path, Call("overlap", {"x": torch.ones(2)}), FACTS)
    document = json.loads(path.read_text())
    spoil(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError) as refused:
        read_case(path)
    assert words in str(refused.value) and "\n" not in str(refused.value)
    path.write_bytes(b"\x80\x04not json")
    with pytest.raises(ValueError, match="is no JSON"):
        read_case(path)


def test_a_folder_that_cannot_be_written_to_is_misuse_before_anything_runs(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for name in ("file", "file/inside"):
        ended = run(capfd, "verify", "--only", "log_det_floor", "--save", str(tmp_path / name))
        assert ended.code == 2 and len(ended.err.splitlines()) == 1 and "--save" in ended.err
