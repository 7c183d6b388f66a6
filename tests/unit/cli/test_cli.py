"""The command line as a user meets it: exit codes, one line for misuse, and a report that is never lost."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from iga.cli.app import main


@dataclass(frozen=True)
class Result:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """The command line in this process, which has loaded torch already."""

    def call(*arguments: str) -> Result:
        with pytest.raises(SystemExit) as leave:
            main(list(arguments))
        out, err = capfd.readouterr()
        assert isinstance(leave.value.code, int)
        return Result(leave.value.code, out, err)

    return call


Run = Callable[..., Result]


def test_help_names_every_command_and_leaves_with_0(run: Run) -> None:
    result = run("--help")
    assert result.returncode == 0
    for command in ("verify", "bounds", "picture"):
        assert command in result.stdout
    assert run("verify", "--help").returncode == 0


def test_the_module_runs_as_a_process_of_its_own_and_hands_on_its_exit_code() -> None:
    command = [sys.executable, "-W", "error", "-m", "iga"]
    version = subprocess.run([*command, "--version"], capture_output=True, text=True)
    assert (version.returncode, version.stderr) == (0, "") and version.stdout.startswith("iga ")
    misuse = subprocess.run([*command, "verify", "--points", "x"], capture_output=True, text=True)
    assert misuse.returncode == 2 and len(misuse.stderr.splitlines()) == 1


MISUSE = {
    "an unknown command": (["verfy"], "verfy"),
    "an unknown option": (["verify", "--presets", "bounded"], "--presets"),
    "an unknown preset": (["verify", "--preset", "bounde"], "sigma_floor"),
    "an unknown profile": (["verify", "--profile", "quick"], "nightly"),
    "points that are no numbers": (["verify", "--points", "1,two"], "1,two"),
    "no points": (["verify", "--points", "0"], "--points"),
    "a floor that is no length": (["verify", "--sigma-min", "-0.03"], "sigma_min"),
    "a seed that is no number": (["verify", "--seed", "x"], "--seed"),
    "no such file": (["verify", "--structures", "no/such.pdb"], "no/such.pdb"),
    "a glob without a match": (["verify", "--structures", "no_such_*.cif"], "no_such_*.cif"),
    "a report into no folder": (["verify", "--json", "no/such/folder/report.json"], "folder"),
    "bounds that contradict themselves": (["bounds", "--sigma-min", "1", "--sigma-max", "0.1"], "sigma_m"),
    "a picture into no folder": (["picture", "no/such/folder/a.png"], "folder"),
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse_ends_2_with_one_clear_line_and_no_traceback(case: str, run: Run) -> None:
    arguments, word = MISUSE[case]
    result = run(*arguments)
    assert result.returncode == 2, result
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("…")]
    assert len(lines) == 1 and lines[0].startswith("iga: ") and word in lines[0]


def test_nothing_readable_is_misuse_that_names_the_file_and_the_reason(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.pdb").write_text("")
    result = run("verify", "--structures", str(tmp_path))
    assert result.returncode == 2 and result.stdout == ""
    assert "empty.pdb" in result.stderr and "no atoms" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_broken_preset_ends_1_with_table_and_json_and_goes_on_past_an_unreadable_file(
    run: Run, tmp_path: Path, structures_dir: Path
) -> None:
    report = tmp_path / "report.json"
    (tmp_path / "empty.pdb").write_text("")
    arguments = ["--preset", "pre_fix", "--points", "1,8", "--json", str(report)]
    files = ["--structures", str(tmp_path / "empty.pdb"), "--structures", str(structures_dir / "1ubi.pdb")]
    result = run("verify", *arguments, *files)
    assert result.returncode == 1, result.stderr
    assert "log_det_floor" in result.stdout and "broken" in result.stdout
    assert "unreadable" in result.stdout and "empty.pdb" in result.stdout
    data = json.loads(report.read_text())
    assert data["exit_code"] == 1 and data["target"] == "pre_fix" and "iga verify --preset pre_fix" in data["command"]
    verdicts = {row["name"]: row["verdict"] for row in data["invariants"]}
    assert verdicts["log_det_floor"] == verdicts["dist_sq_bound"] == verdicts["growth_with_points"] == "broken"
    status = {Path(row["path"]).name: row["status"] for row in data["structures"]}
    assert status == {"empty.pdb": "unreadable", "1ubi.pdb": "sampled"}


def test_bounds_prints_the_floor_and_what_follows(run: Run) -> None:
    result = run("bounds", "--cap", "50")
    assert result.returncode == 0
    assert "-18.9599" in result.stdout and "fp16" in result.stdout


def test_the_picture_is_a_png_and_its_numbers_are_kept(run: Run, tmp_path: Path) -> None:
    result = run("picture", str(tmp_path / "a.png"), "--json", str(tmp_path / "a.json"))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    data = json.loads((tmp_path / "a.json").read_text())
    growth = data["presets"]["pre_fix"]["growth"]
    assert abs(growth[-1] / growth[0] / 64 - 1) <= 128 * 2**-24
    assert min(data["presets"]["bounded"]["log_det_min"]) > -18.961
    assert min(data["presets"]["sigma_floor"]["log_det_min"]) < -20
