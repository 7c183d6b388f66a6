"""`iga compare` from request to report: what it refuses, what it makes, and that nothing is overwritten."""

import gzip
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.training import TINY, metrics, tiny
from iga.cli.app import main
from iga.experiment import compare as comparison
from iga.experiment.results.page import main as page
from iga.experiment.results.readings import read_result
from iga.experiment.run import evaluate, tracking
from iga.experiment.run import plan as plans
from iga.experiment.run.plan import Plan, check_folder, chosen_arms
from iga.experiment.settings import ARMS

SMALLEST = Plan(arms=("ipa", "bounded"), steps=3, seeds=1, samples=1, overrides=(*TINY, "data.synthetic=6"))


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The smallest comparison, its runs in this process one after another."""

    def beside(
        plan: Plan, folder: Path, jobs: int, wandb: str, progress: comparison.Progress, hold: int | None
    ) -> dict[str, str]:
        return comparison._here(plan, folder, wandb, progress)

    monkeypatch.setattr(comparison, "_beside", beside)
    monkeypatch.setattr(evaluate, "SAMPLES", 2)
    return SMALLEST


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them takes longer than the runs."""

    def missing() -> None:
        raise ValueError("no matplotlib")

    monkeypatch.setattr(comparison, "check_plot", missing)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- what it makes -----------------------------------------------------------------------------------------------


def test_a_comparison_has_its_result_its_report_and_its_structures(plan: Plan, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    status = comparison.compare(plan, folder, command="iga compare --steps 3")
    assert set(status.values()) == {"finished"} and len(status) == 2
    result = read_result(folder / "result.json")
    assert result["command"] == "iga compare --steps 3"
    assert {run["arm"] for run in result["runs"]} == {"ipa", "bounded"}
    for run in result["runs"]:
        assert len(run["steps"]["trans_loss"]) == run["steps_done"] == 3
        assert run["held_out"][-1]["step"] == 3 and run["seconds_a_step"] > 0
        assert all(x is None for x in run["steps"]["log_det_min"]) == (run["arm"] == "ipa")
    assert result["baselines"]["mean_frame"]["se3_vf_raw"] == pytest.approx(
        result["baselines"]["mean_frame"]["trans_raw"] + result["baselines"]["mean_frame"]["rots_vf"]
    )
    assert "Verdicts" in (folder / "report.md").read_text(encoding="utf-8")
    assert "<table" in (folder / "report.html").read_text(encoding="utf-8")
    for name in status:
        (sample,) = (folder / plans.RUNS / name / "samples" / "3_steps").glob("*.pdb")
        atoms = [line for line in sample.read_text(encoding="ascii").splitlines() if line.startswith("ATOM")]
        assert len(atoms) == 4 * 20  # the crop
    # the page of the committed result is the page of the result
    packed = tmp_path / "result.json.gz"
    packed.write_bytes(gzip.compress((folder / "result.json").read_bytes()))
    page([str(packed), "--markdown", str(tmp_path / "a.md"), "--no-curves"])
    assert "Verdicts" in (tmp_path / "a.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_curves")
def test_denormals_are_flushed_in_a_run_and_nowhere_else(plan: Plan, tmp_path: Path) -> None:
    """Hypothesis, and whoever else computes in this process, needs them. Threads are put back too."""
    smallest, during, threads = sys.float_info.min, [], torch.get_num_threads()
    assert smallest / 2 > 0
    one = replace(plan, arms=("ipa",), steps=1, samples=0, threads=threads + 1)
    comparison.compare(one, tmp_path, on_progress=lambda run, done, *_: during.append((done, smallest / 2 > 0)))
    # before the run, with its only row, after it
    assert during == [(0, True), (1, False), (1, True)]
    assert smallest / 2 > 0 and torch.get_num_threads() == threads


@pytest.mark.usefixtures("no_curves")
def test_resume_adds_steps_seeds_and_arms_and_repeats_nothing(plan: Plan, tmp_path: Path) -> None:
    plan = replace(plan, steps=1, arms=("ipa",))
    whole = replace(plan, steps=2, seeds=2, arms=("ipa", "bounded"))
    comparison.compare(plan, tmp_path / "parts")
    first = metrics(tmp_path / "parts" / plans.RUNS / next(iter(plan.runs())))
    comparison.compare(whole, tmp_path / "parts", resume=True)
    comparison.compare(whole, tmp_path / "whole")
    for name in whole.runs():
        made = metrics(tmp_path / "parts" / plans.RUNS / name)
        assert made == metrics(tmp_path / "whole" / plans.RUNS / name) and len(made) == 2
    assert metrics(tmp_path / "parts" / plans.RUNS / next(iter(plan.runs())))[:1] == first
    before = files(tmp_path / "parts" / plans.RUNS)
    comparison.compare(whole, tmp_path / "parts", resume=True)
    assert files(tmp_path / "parts" / plans.RUNS) == before


@pytest.mark.usefixtures("no_curves")
def test_one_arm_that_goes_non_finite_leaves_the_others_alone(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from iga.experiment.run import train

    right = train.losses

    def wrong(predicted, x, mask):
        found = right(predicted, x, mask)
        return replace(found, rots_vf=found.rots_vf * float("nan")) if current[0].endswith("ipa_seed0") else found

    current = [""]
    monkeypatch.setattr(train, "losses", wrong)
    status = comparison.compare(plan, tmp_path, on_progress=lambda run, *_: current.__setitem__(0, run))
    assert sorted(status.values()) == ["finished", "non-finite"]
    (stopped,) = (run for run in read_result(tmp_path / "result.json")["runs"] if run["arm"] == "ipa")
    assert (stopped["status"], stopped["first_non_finite"]) == ("non-finite", 1)
    assert "rots_vf_loss" in stopped["what_non_finite"] and stopped["steps"]["rots_vf_loss"] == [None]
    assert "non-finite" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_runs_in_processes_of_their_own_survive_a_kill_and_end_as_if_nothing_had_been(tmp_path: Path) -> None:
    """kill -9 of the whole in mid-run; --resume loses at most the interval of the checkpoints."""
    words = ["compare", "--arms", "ipa", "--steps", "12", "--seeds", "2", "--samples", "0", "--jobs", "2"]
    for one in TINY:
        words += ["--set", one]
    command = [sys.executable, "-m", "iga", *words]
    whole = subprocess.run([*command, "--out", str(tmp_path / "whole")], capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    assert "report.md" in whole.stdout and "finished" in whole.stdout
    assert "no claim is judged: no run of logdet_clamp and of sigma_floor" in whole.stdout
    table = tmp_path / "killed" / plans.RUNS
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "killed")], stderr=subprocess.DEVNULL, start_new_session=True
    ) as child:
        while not any(len(metrics(run)) >= 3 for run in (table.iterdir() if table.exists() else ())):
            assert child.poll() is None
            time.sleep(0.01)
        os.killpg(child.pid, signal.SIGKILL)
    again = subprocess.run([*command, "--out", str(tmp_path / "killed"), "--resume"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    for run in (tmp_path / "whole" / plans.RUNS).iterdir():
        assert metrics(table / run.name) == metrics(run) and len(metrics(run)) == 12
        assert not (run / "errors.txt").exists()  # nothing was said


def test_a_run_that_breaks_is_told_by_its_last_words(tmp_path: Path) -> None:
    plan = replace(SMALLEST, arms=("bounded",), overrides=(*TINY, "model.c_hidden=4"))
    folder = tmp_path / "broken"
    folder.mkdir()
    (run,) = plan.runs()
    where = folder / plans.RUNS / run
    where.mkdir(parents=True)
    plans.write(folder, plan)
    (where / "config.yaml").write_text("name: other\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match="ended 1"):
        comparison.compare(plan, folder, resume=True)
    assert (where / "config.yaml").read_text(encoding="utf-8") == "name: other\n"


# --- what it refuses ---------------------------------------------------------------------------------------------


def test_an_unknown_arm_names_those_that_exist() -> None:
    assert chosen_arms(None) == ARMS and chosen_arms("ipa, bounded") == ("ipa", "bounded")
    with pytest.raises(ValueError, match="unknown arm 'iga'.*bounded_time_gate"):
        chosen_arms("ipa,iga")


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
        replace(Plan(), **changes)


def test_a_folder_that_holds_anything_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    other, made = tmp_path, tmp_path / "made"
    for resume in (False, True):
        with pytest.raises(ValueError, match="holds no comparison"):
            check_folder(other, Plan(), resume=resume)
    with pytest.raises(ValueError, match="is a file"):
        check_folder(tmp_path / "notes.txt", Plan(), resume=False)
    made.mkdir()
    plans.write(made, Plan(steps=100, arms=("ipa", "bounded")))
    with pytest.raises(ValueError, match="--resume"):
        check_folder(made, Plan(), resume=False)
    for changes, words in (
        ({"steps": 99}, "steps = 100"),
        ({"seeds": 2}, "seeds = 3"),
        ({"stress": True}, "stress = False"),
        ({"structures": ("a.pdb",)}, "structures"),
        ({"arms": ("ipa",)}, "the arm bounded"),
        ({"overrides": ("training.lr=1.0",)}, "overrides"),
    ):
        wanted = replace(Plan(steps=100, arms=("ipa", "bounded")), **changes)
        with pytest.raises(ValueError, match=words):
            check_folder(made, wanted, resume=True)
    assert plans.read(made) == Plan(steps=100, arms=("ipa", "bounded"))
    larger = Plan(steps=200, seeds=4, threads=7)
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


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as leave:
            main(["compare", *arguments])
        return int(str(leave.value.code)), capfd.readouterr().err

    return call


def test_bad_structures_are_misuse_in_one_line_and_no_folder_is_made(command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    one, long = backbone(tmp_path / "one.pdb", 1), backbone(tmp_path / "long.pdb", 20)
    nan = backbone(tmp_path / "nan.pdb", 1, "     nan")
    out = tmp_path / "out"
    for given, words in (
        (str(tmp_path / "empty"), "no file in this folder"),
        (str(tmp_path / "none.pdb"), "no such file"),
        (one, "no chain of at least 16 residues"),
        (nan, "nan.pdb"),
        (long, "at least 2 entries"),
    ):
        code, err = command("--structures", given, "--out", str(out))
        assert code == 2 and words in err and "Traceback" not in err, err
        assert len(err.strip().splitlines()) == 1, err
        assert not out.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--arms", "iga"), "bounded_time_gate"),
        (("--size", "huge"), "small, paper"),
        (("--set", "training.lr"), "KEY=VALUE"),
        (("--device", "cuda"), "CUDA"),
        (("--wandb", "maybe"), "offline"),
        (("--jobs", "0"), "jobs"),
    ],
)
def test_misuse_ends_2_with_one_line(words: tuple[str, ...], said: str, command, tmp_path: Path) -> None:
    code, err = command(*words, "--out", str(tmp_path / "out"))
    assert code == 2 and said in err and len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "out").exists()


# --- who else is told --------------------------------------------------------------------------------------------


def test_wandb_gets_the_rows_under_the_names_of_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, begun = [], {}

    class Run:
        def log(self, values: dict, step: int) -> None:
            said.append((step, values))

        def finish(self) -> None:
            said.append("finished")

    fake = types.ModuleType("wandb")
    fake.init = lambda **words: begun.update(words) or Run()  # pyright: ignore
    fake.__spec__ = types.SimpleNamespace(name="wandb")  # pyright: ignore
    monkeypatch.setitem(sys.modules, "wandb", fake)
    settings = tiny("sigma_floor", steps=1)
    with tracking.logger("offline", settings, tmp_path) as log:
        log({"step": 1.0, "trans_loss": 2.0, "log_det_min": -39.0}, False)
        log({"step": 1.0, "trans_loss": 3.0}, True)
    assert begun["mode"] == "offline" and begun["name"] == settings.run_name and "sigmaMin03nm_scaleP" in begun["name"]
    assert said == [
        (1, {"train/trans_loss": 2.0, "debug/iga/global/log_det_min": -39.0}),
        (1, {"held_out/trans_loss": 3.0}),
        "finished",
    ]


def test_wandb_that_is_not_installed_is_refused_before_anything_is_made(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install wandb"):
        comparison.compare(plan, tmp_path / "out", wandb="offline")
    assert not (tmp_path / "out").exists()
