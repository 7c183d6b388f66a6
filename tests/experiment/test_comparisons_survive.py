"""Accidents that a comparison survives: killed workers, diverged samples, damaged files, a second command beside it.

Found where a sample that did not fit a PDB file cost the report of all runs, and where a damaged checkpoint or an empty
status file ended every later --resume.
"""

import math
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.training import SMALLEST, metrics
from iga.cli.app import main
from iga.experiment import compare as comparison
from iga.experiment.results.readings import read_result
from iga.experiment.run import checkpoint, samples, train, worker
from iga.experiment.run import plan as plans
from iga.experiment.run.dataset import load_dataset
from iga.experiment.run.hold import Hold
from iga.experiment.run.plan import ComparisonPlan
from iga.experiment.run.records import read_table
from iga.frame import Frame

pytestmark = [pytest.mark.training, pytest.mark.usefixtures("here", "nothing_integrated")]

in_processes = comparison._beside


@pytest.fixture
def nothing_integrated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "sample", lambda network, batch, **options: batch.gaussian)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison of one arm, to be copied and damaged."""
    folder = tmp_path_factory.mktemp("made") / "one"
    plan = replace(SMALLEST, arms=("bounded",), steps=4)
    folder.mkdir()
    plans.write(folder, plan)
    comparison._begun(plan, folder, True, Hold())
    worker.run(folder, next(iter(plan.runs())))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "one")


def run_of(folder: Path) -> Path:
    return next((folder / plans.RUNS).iterdir())


def again(folder: Path, **changes: object) -> dict[str, str]:
    return comparison.compare(replace(plans.read(folder), **changes), folder, resume=True)


# damaged files


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(512)),
    "text": lambda path: path.write_text("<html>no such page</html>", encoding="utf-8"),
    "a list": lambda path: path.write_text("[1, 2]", encoding="utf-8"),
    "another's": lambda path: torch.save({"weights": 1}, path),
}


@pytest.mark.parametrize(
    "damaged",
    [
        {"status.json": "empty"},
        {"status.json": "cut", "checkpoint.pt": "cut"},
        {"status.json": "zeros", "checkpoint.pt": "empty"},
        {"status.json": "a list", "checkpoint.pt": "another's"},
        {"status.json": "text", "checkpoint.pt": "zeros", "checkpoint_before.pt": "text"},
    ],
    ids=lambda damaged: "-".join(damaged.values()),
)
def test_a_damaged_file_of_a_run_is_named_and_the_run_goes_on_from_before_it(
    folder: Path, damaged: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    """To the same rows: what happens in a step is a function of the state and the step."""
    run = run_of(folder)
    before = metrics(run)
    assert len(before) == 4 and checkpoint.load(run / "checkpoint_before.pt")["step"] == 2
    for name, damage in damaged.items():
        DAMAGE[damage](run / name)
    again(folder, steps=6)
    err = capfd.readouterr().err
    for name in damaged:
        assert f"{run / name} is damaged" in err and (run / f"{name}.damaged").exists()
    assert metrics(run)[:4] == before and len(metrics(run)) == 6
    assert train.status_of(run)["status"] == "finished" and checkpoint.load(run / "checkpoint.pt")["step"] == 6
    assert (folder / "report.md").exists()


TABLES: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "empty": DAMAGE["empty"],
    "removed": Path.unlink,
    "without its head": lambda path: path.write_bytes(path.read_bytes().partition(b"\n")[2]),
    "without its first row": lambda path: path.write_text(
        re.sub(r"(?m)^\d.*\n", "", path.read_text(encoding="utf-8"), count=1), encoding="utf-8"
    ),
    "without its last row": lambda path: path.write_bytes(path.read_bytes()[:-1]),
}


@pytest.mark.parametrize(("damage", "steps"), [*((damage, 6) for damage in TABLES), ("cut", 4)])
@pytest.mark.parametrize("name", ["metrics.csv", "held_out.csv"])
def test_rows_that_are_lost_before_the_last_checkpoint_are_made_again(
    folder: Path, name: str, damage: str, steps: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """The tables are an undisturbed run's, that ended at step 4 or went on from there to 6."""
    run = run_of(folder)
    before, held_out = metrics(run), read_table(run / "held_out.csv")
    assert [row["step"] for row in held_out] == [4]
    TABLES[damage](run / name)
    left = (run / name).read_bytes() if damage != "removed" else None
    two_are_left = metrics(run)[:2] == before[:2]
    plan, dataset = replace(plans.read(folder), steps=steps), load_dataset(folder / plans.DATA)
    train.train(plan.any_settings(), dataset, run)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"{run / name} is {'lost' if left is None else 'damaged'}")
    assert left is None or (run / f"{name}.damaged").read_bytes() == left
    assert (run / "checkpoint_before.pt.ahead").exists() is not two_are_left  # it went on from step 2, else from 0
    assert metrics(run)[:4] == before and [row["step"] for row in metrics(run)] == list(range(1, steps + 1))
    assert read_table(run / "held_out.csv")[:1] == held_out
    assert [row["step"] for row in read_table(run / "held_out.csv")] == list(range(4, steps + 1, 2))
    train.train(plan.any_settings(), dataset, run)
    assert not capfd.readouterr().err


def test_a_finished_run_whose_last_weights_are_lost_is_sampled_from_those_weights_all_the_same(folder: Path) -> None:
    run = run_of(folder)
    weights = checkpoint.load(run / "checkpoint.pt")["network"]
    cut(run / "checkpoint.pt")
    again(folder, samples=1)
    found = checkpoint.load(run / "checkpoint.pt")
    assert found["step"] == 4 and all(torch.equal(found["network"][name], x) for name, x in weights.items())
    assert [path.suffix for path in (run / "samples" / "4_steps").iterdir()] == [".pdb"]


def test_a_power_cut_that_emptied_the_settings_of_a_run_stops_nothing(folder: Path) -> None:
    (run_of(folder) / "config.yaml").write_bytes(bytes(100))
    assert set(again(folder).values()) == {"finished"}


def test_a_damaged_table_is_named_with_its_line(folder: Path) -> None:
    for name in ("held_out.csv", "metrics.csv"):
        path = run_of(folder) / name
        head, first, *rest = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([head, b"\xff\x00,x" + first, *rest]))
        with pytest.raises(ValueError, match=rf"{name}, line 2, is damaged; remove"):
            again(folder, steps=6)


def test_damaged_chains_are_named_and_read_again_once_removed(folder: Path) -> None:
    for damage in ("cut", "empty", "another's"):
        DAMAGE[damage](folder / plans.DATA)
        with pytest.raises(ValueError, match="data.pt.*remove it"):
            again(folder)
    (folder / plans.DATA).unlink()
    assert set(again(folder).values()) == {"finished"}


# samples


@pytest.mark.parametrize(("scale", "written"), [(1.0, ".pdb"), (1e3, ".cif"), (1e30, ".cif"), (math.inf, None)])
def test_a_sample_that_no_pdb_file_holds_costs_nothing_else(
    scale: float, written: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverged(network: object, batch: object, **options: object) -> object:
        gaussian = batch.gaussian  # pyright: ignore[reportAttributeAccessIssue]
        return replace(gaussian, frame=Frame(gaussian.rot, gaussian.trans * scale))

    monkeypatch.setattr(samples, "sample", diverged)
    again(folder, samples=1)
    assert set(again(folder, samples=2).values()) == {"finished"}
    result = read_result(folder / "result.json")
    held_out = len(load_dataset(folder / plans.DATA).held_out)
    place = run_of(folder) / "samples" / "4_steps"
    found = [path.suffix for path in place.iterdir()]
    assert found == ([".txt"] if written is None else [written] * min(held_out, 2))
    assert result["runs"][0]["samples_not_written"] == (min(held_out, 2) if written is None else 0)


# processes


@pytest.mark.process
def test_a_killed_worker_is_named_and_no_other_run_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One at a time: where the first is killed the second must not begin, though its thread is free first."""
    begun = []
    words = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    real = comparison.subprocess.Popen

    def killed(command: list[str], **options: object) -> object:
        begun.append(command[4])
        return real([sys.executable, "-S", "-c", words], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(comparison.subprocess, "Popen", killed)
    plan = replace(SMALLEST, seeds=3)
    with pytest.raises(RuntimeError, match=r"was killed by SIGKILL \(out of memory\?\)"):
        in_processes(plan, tmp_path, 1, "off", lambda *step: None)
    assert begun == [next(iter(plan.runs()))]


def test_a_run_that_breaks_costs_no_report_of_those_that_are_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(plan: ComparisonPlan, folder: Path, *given: object) -> dict[str, str]:
        raise RuntimeError("run x ended 1")

    monkeypatch.setattr(comparison, "_beside", breaks)
    with pytest.raises(RuntimeError, match="run x"):
        again(folder, arms=("bounded", "ipa"))
    (run,) = read_result(folder / "result.json")["runs"]
    assert run["status"] == "finished" and (folder / "report.html").exists()


def test_a_folder_in_use_is_refused_and_free_again_when_its_holder_is_gone(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "--out", str(folder), "--resume", "--arms", "bounded"]
    with Hold() as hold:
        hold.take(folder)
        with pytest.raises(SystemExit) as leave:
            main(words)
        err = capfd.readouterr().err
        assert leave.value.code == 2 and "is in use by another iga compare" in err and len(err.splitlines()) == 1
        assert hold.number is not None
        child = os.fork()
        if not child:  # who shares the hold: it lasts as long as it does
            signal.pause()
        os.close(hold.number)
        hold.number = None
        with Hold() as other, pytest.raises(ValueError, match="in use"):
            other.take(folder)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert set(again(folder).values()) == {"finished"}
