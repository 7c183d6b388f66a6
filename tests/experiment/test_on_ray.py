"""`iga sweep --ray`: runs on a cluster are the bits of runs here, also of a worker that is lost; what cannot be is one
line."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.command import called
from helpers.ray_tasks import tasks_of
from helpers.training import TINY, metrics
from iga import _ray_cluster as ray_cluster
from iga.experiment.run import on_ray
from iga.experiment.run import plan as plans
from iga.experiment.run.dataset import prepare, save_dataset
from iga.experiment.run.on_ray import OnRay, made
from iga.experiment.sweep.grid import SweepPlan
from iga.experiment.sweep.probe import FILE as PROBES
from iga.experiment.sweep.run import sweep
from iga.experiment.sweep.worker import run

pytestmark = pytest.mark.training

SMALLEST = (*(one for one in TINY if not one.startswith("model.points")), "data.synthetic=6")
GRID = SweepPlan(arms=("ipa", "bounded"), steps=4, seeds=1, points=(1,), stresses=("collapse",), overrides=SMALLEST)
WORDS = ["--arms", "ipa,bounded", "--points", "1", "--stress", "collapse"]
WORDS += [part for one in SMALLEST for part in ("--set", one)]


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A folder with plan and chains, and no run."""
    folder = tmp_path / "begun"
    folder.mkdir()
    plans.write(folder, GRID)
    save_dataset(folder / plans.DATA, prepare(GRID.any_settings()))
    return folder


def shared_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (GRID.FILE, plans.DATA)}


def numbers_of(where: Path) -> tuple[Any, bytes]:
    """The rows of a run without their seconds, and what its probe found."""
    return metrics(where), (where / PROBES).read_bytes()


def task(shared: dict[str, bytes], before: dict[str, bytes], name: str, **changes: str) -> dict[str, bytes]:
    versions = on_ray._versions() | changes
    return made(shared, before, name, GRID.WORKER, 1, versions, None)


# the task


def test_a_task_makes_the_files_of_a_run_here_also_from_the_middle_on(begun: Path, tmp_path: Path) -> None:
    name = "small_P1_lr0.001_collapse_bounded_seed0"
    run(begun, name)
    here = begun / plans.RUNS / name
    there, again = tmp_path / "there", tmp_path / "again"
    files = task(shared_of(begun), {}, name)
    on_ray._keep(there, files)
    assert numbers_of(there) == numbers_of(here)
    assert files.keys() == on_ray._files_of(here).keys() >= {"checkpoint.pt", "status.json", "metrics.csv"}
    half = {key: files[key] for key in ("config.yaml", "metrics.csv", PROBES)}
    half["metrics.csv"] = b"".join(half["metrics.csv"].splitlines(keepends=True)[:3])
    half["checkpoint.pt"] = files["checkpoint_before.pt"]  # of step 2
    on_ray._keep(again, task(shared_of(begun), half, name))
    assert numbers_of(again) == numbers_of(here)


def test_a_machine_with_another_torch_is_refused_by_both_versions(begun: Path) -> None:
    with pytest.raises(ValueError, match="a machine of the cluster has iga .* and torch .*, the command .* torch 1.0"):
        task(shared_of(begun), {}, "small_P1_lr0.001_collapse_ipa_seed0", torch="1.0")


def test_the_status_of_a_run_comes_last_and_what_it_does_not_have_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command may be killed as it writes: a run that is over has all its files."""
    (tmp_path / "errors.txt").touch()
    written: list[str] = []
    monkeypatch.setattr(on_ray, "write_bytes", lambda path, data: (written.append(path.name), path.write_bytes(data)))
    on_ray._keep(tmp_path, {"status.json": b"1", "a": b"2", "zz": b"3"})
    assert written[-1] == "status.json" and sorted(written) == ["a", "status.json", "zz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(written)


# the command, without a cluster


class FakeRay:
    """Ray that calls a task at once, in this process; the tasks of the arms in `lost` end with an error."""

    def __init__(self, *lost: str) -> None:
        self.lost, self.options = lost, {}
        self.begun: list[str] = []
        self.calls: list[Any] = []

    class exceptions:  # noqa: N801 - as Ray names it
        class RayError(Exception):
            pass

    def remote(self, **options: Any) -> Any:
        self.options = options

        def decorated(function: Any) -> Any:
            class Remote:
                def remote(_, *given: Any) -> Any:  # noqa: N805
                    self.begun.append(given[2])
                    self.calls.append((function, *given))
                    return len(self.calls) - 1

            return Remote()

        return decorated

    def put(self, value: Any) -> Any:
        return value

    def get(self, ref: Any) -> Any:
        function, *given = self.calls[ref]
        if any(arm in given[2] for arm in self.lost):
            raise self.exceptions.RayError("the worker died\nand more")
        return function(*given)

    def cancel(self, ref: Any, force: bool) -> None: ...

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}


@pytest.mark.usefixtures("here")
def test_a_grid_on_a_cluster_is_the_grid_here(tmp_path: Path) -> None:
    fake, said = FakeRay(), []
    status = sweep(GRID, tmp_path / "there", elsewhere=OnRay(fake), on_progress=lambda *one: said.append(one))
    assert status == dict.fromkeys(GRID.runs(), "finished") and fake.begun == list(GRID.runs())
    assert fake.options == {"num_cpus": 1, "max_retries": on_ray.RETRIES, "max_calls": 1}
    assert said == [(name, done, 4, None) for name in GRID.runs() for done in (0, 4)]
    sweep(GRID, tmp_path / "here")
    for name in GRID.runs():
        there, here = (numbers_of(tmp_path / at / plans.RUNS / name) for at in ("there", "here"))
        assert there == here


@pytest.mark.usefixtures("here")
def test_a_run_that_cannot_be_made_ends_the_grid_and_what_is_made_is_kept(
    tmp_path: Path,
) -> None:
    fake = FakeRay("bounded")
    grid = replace(GRID, arms=("ipa", "bounded", "clip"))
    with pytest.raises(RuntimeError, match="bounded_seed0 ended: RayError: the worker died"):
        sweep(grid, tmp_path, elsewhere=OnRay(fake))
    assert [name.split("_")[4] for name in fake.begun] == ["ipa", "bounded"]
    assert "runs made: 1 of 3" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert set(sweep(grid, tmp_path, resume=True, elsewhere=OnRay(FakeRay())).values()) == {"finished"}


def test_runs_on_gpus_and_several_processes_are_no_matter_of_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="no torchrun"):
        sweep(GRID, tmp_path / "out", elsewhere=OnRay(FakeRay()))
    assert not (tmp_path / "out").exists()


def test_without_ray_the_command_says_in_one_line_what_to_install(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    ended = called(capfd, "sweep", "--ray", "local", "--out", str(tmp_path / "out"))
    assert ended.code == 2 and "invariant-gaussian-attention[ray]" in ended.err and len(ended.lines) == 1
    assert not (tmp_path / "out").exists()


# with a cluster


@pytest.mark.process
def test_an_address_without_a_cluster_is_one_line_and_nothing_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(ray_cluster, "PATIENCE", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as server:  # somebody listens who never answers
        for address, line in (
            ("127.0.0.1:1", "nothing answers there"),
            ("nowhere", "expected local, auto"),
            (f"127.0.0.1:{server.getsockname()[1]}", "within 3 s"),
        ):
            ended = called(capfd, "sweep", *WORDS, "--ray", address, "--out", str(tmp_path / "out"))
            assert ended.code == 2 and line in ended.err and len(ended.lines) == 1, ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.process
def test_two_workers_of_which_one_is_killed_make_the_bits_that_are_made_here(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "iga", "sweep", *WORDS, "--steps", "40", "--seeds", "1", "--workers", "2"]
    there, here = tmp_path / "there", tmp_path / "here"
    process = subprocess.Popen(
        [*command, "--ray", "local", "--out", str(there)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        killed, last = 0, time.monotonic() + 300
        while not killed and process.poll() is None and time.monotonic() < last:
            killed = next(iter(tasks_of(process.pid, "made")), 0)
            time.sleep(0.02)
        assert killed
        os.kill(killed, signal.SIGKILL)
        printed, said = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0 and "2 of 2 runs made" in printed and "raylet" not in printed, said
    assert all(line.startswith("…") or "train on" in line for line in said.splitlines()), said
    subprocess.run([*command, "--out", str(here)], check=True, capture_output=True)
    for name in replace(GRID, steps=40).runs():
        one, other = (on_ray._files_of(at / plans.RUNS / name) for at in (there, here))
        assert one.keys() == other.keys() and one["held_out.csv"] == other["held_out.csv"]
        rows, same = (numbers_of(at / plans.RUNS / name) for at in (there, here))
        assert rows == same and len(rows[0]) == 40


@pytest.mark.process
def test_a_ctrl_c_ends_the_tasks_and_leaves_the_report_of_what_there_is(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    words = [*WORDS, "--steps", "4000", "--seeds", "1", "--workers", "2", "--ray", "local"]
    process = subprocess.Popen(
        [sys.executable, "-m", "iga", "sweep", *words, "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        last = time.monotonic() + 300
        while not tasks_of(process.pid, "made") and process.poll() is None and time.monotonic() < last:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        begun = time.monotonic()
        printed, said = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 130 and "interrupted; what was done is kept" in said, said
    assert "report.html" in printed and "runs made: 0 of 2" in (tmp_path / "out" / "report.md").read_text("utf-8")
    assert time.monotonic() - begun < 60.0 and not tasks_of(process.pid, "made")
