"""The commands as a user meets them: what they print and write, and the codes that they end with."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from helpers.command import called
from iga import __version__
from iga.cli.terminal import Bars
from iga.testing import preset_sweep
from iga.testing.faults import matrix

Capture = pytest.CaptureFixture[str]


def test_help_names_every_command_and_the_version_is_the_packages(capfd: Capture) -> None:
    ended = called(capfd, "--help")
    assert ended.code == 0
    for command in ("verify", "faults", "bounds", "picture", "bench", "compare", "sweep", "warm"):
        assert command in ended.out
        assert called(capfd, command, "--help").code == 0
    assert called(capfd, "--version") == (0, f"iga {__version__}\n", "")
    assert __version__ == "0.1.0"


@pytest.mark.process
def test_the_module_runs_as_a_process_of_its_own_and_hands_on_its_exit_code() -> None:
    command = [sys.executable, "-W", "error", "-m", "iga"]
    version = subprocess.run([*command, "--version"], capture_output=True, text=True)
    assert (version.returncode, version.stdout, version.stderr) == (0, f"iga {__version__}\n", "")
    misuse = subprocess.run([*command, "verify", "--points", "x"], capture_output=True, text=True)
    assert misuse.returncode == 2 and len(misuse.stderr.splitlines()) == 1


def test_a_broken_preset_ends_1_with_table_and_json_and_goes_on_past_an_unreadable_file(
    capfd: Capture, tmp_path: Path, structures_dir: Path
) -> None:
    report = tmp_path / "report.json"
    (tmp_path / "empty.pdb").write_text("")
    checks = ("log_det_floor", "dist_sq_bound", "growth_with_points")
    words = ["--preset", "pre_fix", "--points", "1,8", *(word for name in checks for word in ("--only", name))]
    files = ["--structures", str(tmp_path / "empty.pdb"), "--structures", str(structures_dir / "1ubi.pdb")]
    ended = called(capfd, "verify", *words, *files, "--json", str(report))
    assert ended.code == 1, ended.err
    for word in ("log_det_floor", "broken", "unreadable", "empty.pdb", "3 of 3 do not hold"):
        assert word in ended.out
    data = json.loads(report.read_text(encoding="utf-8"))
    assert data["exit_code"] == 1 and data["target"] == "pre_fix"
    assert data["command"].startswith("iga verify --preset pre_fix --points 1,8 --only")
    assert {row["name"]: row["verdict"] for row in data["invariants"]} == dict.fromkeys(checks, "broken")
    status = {Path(row["path"]).name: row["status"] for row in data["structures"]}
    assert status == {"empty.pdb": "unreadable", "1ubi.pdb": "sampled"}


def test_the_matrix_of_faults_is_printed_and_written_and_its_code_is_the_commands(
    capfd: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen = matrix.Row("layer", "unseen", "layer", 0.5, (), ("accuracy",), {})
    monkeypatch.setattr(matrix, "measure_matrix", lambda **_: matrix.Matrix([unseen], clean_runs=1))
    ended = called(capfd, "faults", "--json", str(tmp_path / "a.json"))
    assert ended.code == 1 and "missed: layer: unseen: not seen by accuracy" in ended.out and "○" in ended.out
    assert "something is to be mended" in ended.out
    data = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert (data["document"], data["exit_code"], data["faults"][0]["name"]) == ("faults", 1, "unseen")
    assert data["command"] == f"iga faults --json {tmp_path / 'a.json'}"


def test_bounds_prints_the_floor_and_what_follows(capfd: Capture) -> None:
    ended = called(capfd, "bounds", "--cap", "50")
    assert ended.code == 0 and "-18.9599" in ended.out and "fp16" in ended.out


def test_bounds_takes_the_drift_of_the_frames(capfd: Capture) -> None:
    ended = called(capfd, "bounds", "--drift", "26")
    assert ended.code == 0 and "26 u" in ended.out and "(219 + 297.6 κ) u" in ended.out
    ended = called(capfd, "bounds", "--drift", "-1")
    assert ended.code == 2 and "drift must be at least 0" in ended.err


def test_the_picture_is_a_png_and_its_numbers_are_kept(
    capfd: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = partial(preset_sweep.measure, sigma_max=(0.3, 150.0), points=(1, 64))
    monkeypatch.setattr(preset_sweep, "measure", few)
    ended = called(capfd, "picture", str(tmp_path / "a.png"), "--json", str(tmp_path / "a.json"))
    assert ended.code == 0, ended.err
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    data = json.loads((tmp_path / "a.json").read_text())
    growth = data["presets"]["pre_fix"]["growth"]
    assert abs(growth[-1] / growth[0] / 64 - 1) <= 128 * 2**-24
    assert min(data["presets"]["bounded"]["log_det_min"]) > -18.961
    assert min(data["presets"]["sigma_floor"]["log_det_min"]) < -20


def test_a_run_that_trains_is_over_when_it_says_so_and_not_at_its_last_loss(capfd: Capture) -> None:
    with Bars() as bars:
        for done, loss in ((0, None), (1, 0.5), (2, 0.25)):
            bars.training("a run", done, 2, loss)
        assert capfd.readouterr().err == "… a run\n"
        bars.training("a run", 2, 2, None)
    assert capfd.readouterr().err == "… a run: done\n"
