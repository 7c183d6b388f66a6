"""`iga compare` from request to report: what it makes, in this process and in others, and who else is told."""

import gzip
import os
import signal
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.training import SMALLEST, TINY, metrics, tiny
from iga.experiment import compare as comparison
from iga.experiment.results.page import main as page
from iga.experiment.results.readings import read_result
from iga.experiment.run import plan as plans
from iga.experiment.run import tracking, train
from iga.report.schema import read

pytestmark = pytest.mark.training


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("here")
def test_a_comparison_has_its_result_its_report_and_its_structures(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    status = comparison.compare(replace(SMALLEST, samples=1), folder, command="iga compare --steps 3")
    assert set(status.values()) == {"finished"} and len(status) == 2
    result = read_result(folder / "result.json")
    assert result["command"] == "iga compare --steps 3" and read(folder / "result.json")["exit_code"] == 0
    assert {run["arm"] for run in result["runs"]} == {"ipa", "bounded"}
    for run in result["runs"]:
        assert len(run["steps"]["trans_loss"]) == run["steps_done"] == 3
        assert run["held_out"][-1]["step"] == 3 and run["seconds_a_step"] > 0
        assert all(x is None for x in run["steps"]["log_det_min"]) == (run["arm"] == "ipa")
    assert result["baselines"]["mean_frame"]["se3_vf_raw"] == pytest.approx(
        result["baselines"]["mean_frame"]["trans_raw"] + result["baselines"]["mean_frame"]["rots_vf"]
    )
    assert "What they mean" in (folder / "report.md").read_text(encoding="utf-8")
    assert "<table" in (folder / "report.html").read_text(encoding="utf-8")
    for name in status:
        (sample,) = (folder / plans.RUNS / name / "samples" / "3_steps").glob("*.pdb")
        atoms = [line for line in sample.read_text(encoding="ascii").splitlines() if line.startswith("ATOM")]
        assert len(atoms) == 4 * 20  # the crop
    # the page of the committed result is the page of the result
    packed = tmp_path / "result.json.gz"
    packed.write_bytes(gzip.compress((folder / "result.json").read_bytes()))
    page([str(packed), "--markdown", str(tmp_path / "a.md"), "--no-curves"])
    assert "What they mean" in (tmp_path / "a.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("here")
def test_denormals_are_flushed_in_a_run_and_nowhere_else(tmp_path: Path) -> None:
    """Hypothesis, and whoever else computes in this process, needs them. Threads are put back too."""
    smallest, during, threads = sys.float_info.min, [], torch.get_num_threads()
    assert smallest / 2 > 0
    one = replace(SMALLEST, arms=("ipa",), steps=1, threads=threads + 1)
    comparison.compare(one, tmp_path, on_progress=lambda run, done, *_: during.append((done, smallest / 2 > 0)))
    # before the run, with its only row, after it
    assert during == [(0, True), (1, False), (1, True)]
    assert smallest / 2 > 0 and torch.get_num_threads() == threads


@pytest.mark.usefixtures("here")
def test_resume_adds_steps_seeds_and_arms_and_repeats_nothing(tmp_path: Path) -> None:
    plan = replace(SMALLEST, steps=1, arms=("ipa",))
    whole = replace(SMALLEST, steps=2, seeds=2)
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


@pytest.mark.usefixtures("here")
def test_one_arm_that_goes_non_finite_leaves_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = train.losses

    def wrong(predicted, x, mask):
        found = right(predicted, x, mask)
        return replace(found, rots_vf=found.rots_vf * float("nan")) if current[0].endswith("ipa_seed0") else found

    current = [""]
    monkeypatch.setattr(train, "losses", wrong)
    status = comparison.compare(SMALLEST, tmp_path, on_progress=lambda run, *_: current.__setitem__(0, run))
    assert sorted(status.values()) == ["finished", "non-finite"]
    (stopped,) = (run for run in read_result(tmp_path / "result.json")["runs"] if run["arm"] == "ipa")
    assert (stopped["status"], stopped["first_non_finite"]) == ("non-finite", 1)
    assert "rots_vf_loss" in stopped["what_non_finite"] and stopped["steps"]["rots_vf_loss"] == [None]
    assert "non-finite" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.process
def test_runs_in_processes_of_their_own_survive_a_kill_and_end_as_if_nothing_had_been(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """kill -9 of the whole in mid-run; --resume loses at most the interval of the checkpoints."""
    words = ["compare", "--arms", "ipa", "--steps", "12", "--seeds", "2", "--samples", "0", "--jobs", "2"]
    for one in TINY:
        words += ["--set", one]
    table = tmp_path / "killed" / plans.RUNS
    with subprocess.Popen(
        [sys.executable, "-m", "iga", *words, "--out", str(tmp_path / "killed")],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as child:
        while not any(len(metrics(run)) >= 3 for run in (table.iterdir() if table.exists() else ())):
            assert child.poll() is None
            time.sleep(0.01)
        os.killpg(child.pid, signal.SIGKILL)
    plan = plans.read(tmp_path / "killed")
    assert set(comparison.compare(plan, tmp_path / "killed", resume=True, jobs=2).values()) == {"finished"}
    request.getfixturevalue("here")
    comparison.compare(plan, tmp_path / "whole")
    for run in (tmp_path / "whole" / plans.RUNS).iterdir():
        assert metrics(table / run.name) == metrics(run) and len(metrics(run)) == 12
        assert not (table / run.name / "errors.txt").exists()  # nothing was said


@pytest.mark.process
def test_a_run_that_breaks_is_told_by_its_last_words(tmp_path: Path) -> None:
    plan = replace(SMALLEST, arms=("bounded",))
    (run,) = plan.runs()
    where = tmp_path / plans.RUNS / run
    where.mkdir(parents=True)
    plans.write(tmp_path, plan)
    (where / "config.yaml").write_text("name: other\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match="ended 1.*config.yaml: arm is missing"):
        comparison.compare(plan, tmp_path, resume=True)
    assert (where / "config.yaml").read_text(encoding="utf-8") == "name: other\n"


# Weights & Biases


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install wandb"):
        comparison.compare(SMALLEST, tmp_path / "out", wandb="offline")
    assert not (tmp_path / "out").exists()
