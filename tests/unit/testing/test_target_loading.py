"""Targets by name: what loads, what is refused with one line, and what the command line makes of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from iga.attention import InvariantGaussianAttention
from iga.cli import app
from iga.overlap import gaussian_overlap
from iga.testing.contract import PROFILES
from iga.testing.targets import Target, as_target, load_target, target
from iga.testing.verify import prepare

MINE = """
import torch
import iga
from iga.testing import target

def overlap(*pair):
    return iga.gaussian_overlap(*pair)

@target(kind="overlap", sigma_range=(0.05, 10.0), dtypes=(torch.float32,))
def narrow(*pair):
    return iga.gaussian_overlap(*pair)

@target(kind="overlap", dtypes=(torch.float64,))
def double(*pair):
    return iga.gaussian_overlap(*pair)

@target(kind="overlap", expected_broken={"accuracy": "a thousandth off"})
def known(*pair):
    dist_sq, log_det = iga.gaussian_overlap(*pair)
    return dist_sq * 1.001, log_det

@target(kind="overlap", expected_broken={"no_such_check": "?"})
def misnamed(*pair):
    return iga.gaussian_overlap(*pair)

def wrong(*pair):
    dist_sq, log_det = iga.gaussian_overlap(*pair)
    return dist_sq * 1.001, log_det

def two_arguments(a, b):
    return a, b

def one_value(*pair):
    return iga.gaussian_overlap(*pair)[0]

def changed(change):
    return lambda *pair: tuple(change(x) for x in iga.gaussian_overlap(*pair))

wrong_shape = changed(lambda x: x[..., None])
wrong_device = changed(lambda x: x.to("meta"))
whole_numbers = changed(lambda x: x.long())

def layer(*, c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points):
    return iga.InvariantGaussianAttention(c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points)

def positional(c_s):
    return torch.nn.Linear(c_s, c_s)

def no_module(**sizes):
    return lambda s, z, r, mask: s

class Applied(torch.nn.Module):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, s, z, r, mask):
        return self.change(s)

def transposed(**sizes):
    return Applied(lambda s: s.mT)

def elsewhere(**sizes):
    return Applied(lambda s: s.to("meta"))

class Squeezed(Applied):
    def forward(self, s, z, r, mask):
        return s[0] if len(s) == 1 else s

class Long(Applied):
    def forward(self, s, z, r, mask):
        return s.unfold(-2, 16, 1)[..., 0].repeat_interleave(s.shape[-2], -2)[..., : s.shape[-2], :]

def squeezed(**sizes):
    return Squeezed(None)

def long(**sizes):
    return Long(None)

def no_broadcasting(*pair):
    return tuple(x if x.ndim == 1 else x[..., :1] for x in iga.gaussian_overlap(*pair))

number = 3
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(MINE, encoding="utf-8")
    (tmp_path / "broken.py").write_text("import no_such_package_at_all\n", encoding="utf-8")
    return file


def run(arguments: list[str], capsys: pytest.CaptureFixture) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        app.main(arguments)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


# --- loading ----------------------------------------------------------------------------------------------------


def test_a_file_and_a_package_are_loaded_by_their_names(mine: Path) -> None:
    assert load_target(f"{mine}:overlap", kind="overlap").kind == "overlap"
    assert load_target("iga.overlap:gaussian_overlap", kind="overlap").function is gaussian_overlap
    assert load_target("iga:InvariantGaussianAttention", kind="layer").function is InvariantGaussianAttention


def test_the_decorator_leaves_the_function_as_it_is_and_its_claims_arrive(mine: Path) -> None:
    found = load_target(f"{mine}:narrow")
    assert (found.kind, found.sigma_range, found.dtypes) == ("overlap", (0.05, 10.0), (torch.float32,))
    plan = prepare(found)
    assert (plan.contract.sigma_min, plan.contract.sigma_max) == (0.05, 10.0)

    def plain():
        return 1

    assert target(kind="layer")(plain) is plain and plain() == 1


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"kind": "attention"}, "overlap, layer"),
        ({"kind": "layer", "sigma_range": (1.0, 0.1)}, "sigma_range"),
        ({"kind": "layer", "dtypes": (torch.float16,)}, "float32 and torch.float64"),
        ({"kind": "layer", "dtypes": ()}, "dtypes"),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused(options: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        target(**options)(lambda: None)


def test_kinds_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match="declared as kind 'overlap'"):
        as_target(Target("f", "overlap", gaussian_overlap), kind="layer")
    with pytest.raises(ValueError, match="say what it is"):
        as_target(gaussian_overlap)


# --- the command line -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spec", "kind"), [("squeezed", "layer"), ("long", "layer"), ("no_broadcasting", "overlap")])
def test_what_answers_in_one_shape_alone_is_broken_and_not_misused(
    spec: str, kind: str, mine: Path, capsys: pytest.CaptureFixture
) -> None:
    file = mine.parent / "found.json"
    code, out, _ = run(["verify", f"{mine}:{spec}", "--kind", kind, "--json", str(file)], capsys)
    (row,) = json.loads(file.read_text())["invariants"]
    assert (code, row["name"], row["verdict"]) == (1, "loads", "broken") and "cannot be called" in out


MISUSE = [
    ("no_such_package:f", "overlap", "does not import"),
    ("no/such/file.py:f", "overlap", "no file"),
    ("broken.py:f", "overlap", "no_such_package_at_all"),
    ("mine.py:absent", "overlap", "no attribute 'absent'"),
    ("mine.py:number", "overlap", "not callable"),
    ("mine.py:overlap", None, "say what it is"),
    ("mine.py:overlap", "attention", "overlap, layer"),
    ("mine.py:narrow", "layer", "declared as kind 'overlap'"),
    ("mine.py:misnamed", None, "no_such_check"),
    ("mine.py:two_arguments", "overlap", "TypeError"),
    ("mine.py:one_value", "overlap", "two tensors"),
    ("mine.py:wrong_shape", "overlap", "shape [4]"),
    ("mine.py:wrong_device", "overlap", "meta"),
    ("mine.py:whole_numbers", "overlap", "floating point"),
    ("mine.py:positional", "layer", "TypeError"),
    ("mine.py:no_module", "layer", "torch.nn.Module"),
    ("mine.py:transposed", "layer", "shape"),
    ("mine.py:elsewhere", "layer", "meta"),
    ("mine.py", "layer", "names no target"),
]


@pytest.mark.parametrize(("spec", "kind", "word"), MISUSE)
def test_misuse_ends_2_with_one_clear_line(
    spec: str, kind: str | None, word: str, mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(mine.parent)
    code, out, err = run(["verify", spec, *([] if kind is None else ["--kind", kind])], capsys)
    assert code == 2 and out == ""
    (line,) = err.splitlines()
    assert line.startswith("iga: ") and word in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "mine.py:overlap", "--kind", "overlap", "--preset", "bounded"],
        ["verify", "--kind", "overlap"],
        ["verify", "mine.py:narrow", "--points", "1,2"],
        ["verify", "mine.py:narrow", "--digits", "0"],
        ["verify", "mine.py:double", "--only", "reduced_precision"],
        ["faults", "--profile", "slow"],
        ["faults", "--json", "no/such/folder/m.json"],
    ],
)
def test_options_that_do_not_go_together_end_2(
    arguments: list[str], mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(mine.parent)
    code, _, err = run(arguments, capsys)
    assert code == 2
    assert len(err.splitlines()) == 1


def test_a_right_function_ends_0_a_wrong_one_1_and_a_known_failure_0(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(PROFILES, "fast", replace(PROFILES["fast"], pairs=2000))
    report = tmp_path / "report.json"
    only = ["--only", "accuracy", "--only", "determinism"]
    assert run(["verify", f"{mine}:overlap", "--kind", "overlap", *only], capsys)[0] == 0
    assert run(["verify", f"{mine}:wrong", "--kind", "overlap", *only], capsys)[0] == 1
    code, out, _ = run(["verify", f"{mine}:known", *only, "--json", str(report)], capsys)
    assert code == 0
    assert "broken, as expected" in out and "a thousandth off" in out
    data = json.loads(report.read_text())
    assert data["kind"] == "overlap" and data["exit_code"] == 0
    row = {row["name"]: row for row in data["invariants"]}["accuracy"]
    assert row["verdict"] == "broken" and row["expected_broken"] == "a thousandth off"


def test_a_layer_with_a_trace_gets_the_invariants_of_scores_and_one_without_says_why_not(mine: Path) -> None:
    traced = prepare(load_target(f"{mine}:layer", kind="layer"))
    assert "accuracy" in [check.name for check in traced.checks]
    assert set(traced.skipped) >= {"frame_laws", "reduced_precision"}
    plain = prepare("iga:InvariantPointAttention", kind="layer")
    assert "se3_invariance" in [check.name for check in plain.checks]
    assert "no trace" in plain.skipped["accuracy"]
