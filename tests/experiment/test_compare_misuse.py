"""Misuse of `iga compare`, refused in one line that says what to do, with exit code 2, before anything is written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from iga.cli.app import main
from iga.experiment import compare as comparison
from iga.experiment.run import plan as plans
from iga.experiment.run.plan import ComparisonPlan, check_folder, chosen_arms
from iga.experiment.settings import ARMS

Command = Callable[..., str]


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Command:
    """refused(arguments…) is the one line that `iga compare arguments…` ends with, code 2 and nothing printed."""

    def call(*arguments: str) -> str:
        with pytest.raises(SystemExit) as leave:
            main(["compare", *arguments])
        out, err = capfd.readouterr()
        assert (leave.value.code, out) == (2, "") and len(err.strip().splitlines()) == 1, (arguments, out, err)
        return err

    return call


def test_all_arms_are_meant_unless_some_are_named() -> None:
    assert chosen_arms(None) == ARMS and chosen_arms("ipa, bounded") == ("ipa", "bounded")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "steps must be"),
        ({"seeds": 0}, "seeds must be"),
        ({"arms": ()}, "at least one of"),
        ({"arms": ("ipa", "ipa")}, "once each"),
        ({"size": "large"}, "unknown size"),
        ({"gaussians": "frozen"}, "fixed, learned"),
        ({"overrides": ("training.steps=3",)}, "option of its own"),
        ({"overrides": ("training.rate=3",)}, "rate"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_by_name(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(ComparisonPlan(), **changes)


def test_a_folder_that_holds_anything_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    for resume in (False, True):
        with pytest.raises(ValueError, match="holds no comparison"):
            check_folder(tmp_path, ComparisonPlan(), resume=resume)
    with pytest.raises(ValueError, match="is a file"):
        check_folder(tmp_path / "notes.txt", ComparisonPlan(), resume=False)
    made, plan = tmp_path / "made", ComparisonPlan(steps=100, arms=("ipa", "bounded"))
    made.mkdir()
    plans.write(made, plan)
    with pytest.raises(ValueError, match="--resume"):
        check_folder(made, ComparisonPlan(), resume=False)
    for changes, words in (
        ({"steps": 99}, "steps = 100"),
        ({"seeds": 2}, "seeds = 3"),
        ({"stress": True}, "stress = False"),
        ({"structures": ("a.pdb",)}, "structures"),
        ({"arms": ("ipa",)}, "the arm bounded"),
        ({"overrides": ("training.lr=1.0",)}, "overrides"),
    ):
        with pytest.raises(ValueError, match=words):
            check_folder(made, replace(plan, **changes), resume=True)
    assert plans.read(made) == plan
    larger = ComparisonPlan(steps=200, seeds=4, threads=7)
    assert check_folder(made, larger, resume=True) == replace(larger, threads=1)


BACKBONE = "ATOM  {:>5}  {:<3} GLY A{:>4}    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00           {}\n"


def backbone(path: Path, residues: int, number: str = "") -> str:
    lines = []
    for i in range(residues):
        for k, (name, x, y) in enumerate((("N", -0.5, 1.4), ("CA", 0.0, 0.0), ("C", 1.5, 0.0))):
            lines.append(BACKBONE.format(3 * i + k + 1, name, i + 1, x + 3.8 * i, y, 0.3 * i, name[0]))
    text = "".join(lines)
    path.write_text(text if not number else text.replace(text[30:38], number), encoding="utf-8")
    return str(path)


def test_bad_structures_are_misuse_in_one_line_and_no_folder_is_made(refused: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for given, words in (
        (str(tmp_path / "empty"), "no file in this folder"),
        (str(tmp_path / "none.pdb"), "no such file"),
        (backbone(tmp_path / "one.pdb", 1), "no chain of at least 16 residues"),
        (backbone(tmp_path / "nan.pdb", 1, "     nan"), "nan.pdb"),
        (backbone(tmp_path / "long.pdb", 20), "at least 2 entries"),
    ):
        assert words in refused("--arms", "ipa", "--structures", given, "--out", str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()


PLANS = {
    "a list": "[]",
    "null": "null",
    "a number": "1",
    "nothing": "",
    "zeros": "\0" * 100,
    "no json": "{",
    "deep": "[" * 100_000,
    "text for a number": '{"steps": "many"}',
    "a number for text": '{"arms": [1, 2]}',
    "text for a list": '{"arms": "ipa"}',
    "a number in a list of text": '{"overrides": [1]}',
    "null for a number": '{"seeds": null}',
    "truth for a number": '{"seeds": true}',
    "a reference": '{"size": "${oc.env:HOME}"}',
    "another release": '{"shape": 3}',
    "out of range": '{"seeds": 1000000000}',
    "not UTF-8": "\udcff",
}


def test_a_plan_that_is_none_is_one_line_and_2(refused: Command, tmp_path: Path) -> None:
    for text in PLANS.values():
        (tmp_path / plans.PLAN).write_text(text, encoding="utf-8", errors="surrogateescape")
        assert "plan.json" in refused("--arms", "bounded", "--seeds", "1", "--out", str(tmp_path), "--resume")


# Values that nobody can mean, and a word of what is said of the first.
MISUSE = {
    "--steps": ("steps", "0", "", "x", "-1", "1e400", "9" * 30),
    "--seeds": ("seeds", "0", "", "-1", "1000000000"),
    "--seed": ("seed", "-1", "", "4294967296", "18446744073709551616"),
    "--samples": ("samples", "-1", "9" * 30),
    "--threads": ("threads", "0", "-1", "1000000000"),
    "--jobs": ("jobs", "0", "-1", "x"),
    "--arms": ("bounded_time_gate", "iga", "", ",", "ipa,ipa"),
    "--size": ("small, paper", "huge", ""),
    "--gaussians": ("fixed, learned", "x", ""),
    "--device": ("CUDA", "cuda:99", "", "x", "meta", "mps"),
    "--wandb": ("offline", "maybe", ""),
    "--structures": ("no/such.pdb", "no/such.pdb", ""),
    "--out": ("is a file", "file", "", "file/folder", "/dev/full", "/proc/folder"),
    "--set": (
        *("KEY=VALUE", "training.lr", "", "x", "=", "training.lr=", "training.lr=nan", "training.lr=.inf"),
        *("training.lr=1e400", "training.lr=0", "training.lr=-1", "training.steps=3", "training.rate=1"),
        *("model.heads=1000000000", "model.c_z=65536", "model.blocks=1000000000", "model.points=0"),
        *("data.synthetic=1000000000", "training.held_out=nan", "training.lr=${oc.env:HOME}", "training.lr=???"),
        *("name=../up", "name=''", "arm.label=/x", "name=" + "n" * 300),
    ),
}


@pytest.mark.parametrize("option", MISUSE)
def test_an_option_of_compare_that_nobody_can_mean_is_one_line_and_2(
    option: str, refused: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def runs(*given: object, **options: object) -> None:
        raise AssertionError("it ran")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison, "_beside", runs)
    monkeypatch.setattr("iga.experiment.run.dataset.synthetic_structures", runs)
    (tmp_path / "file").touch()
    few = () if option == "--arms" else ("--arms", "bounded")
    said, *values = MISUSE[option]
    assert said in [refused(*few, option, value) for value in values][0]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
