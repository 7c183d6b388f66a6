"""Every option of every command with values that nobody can mean: one line and exit code 2, before anything runs.

Found where `--json` to a full disk, seeds beyond 64 bits and P = 10⁹ ended in a traceback and 1, which means "broken".
"""

import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import iga.bench.run
import iga.experiment.compare
import iga.testing.faults.matrix
import iga.testing.preset_sweep
from iga.cli.app import main
from iga.testing.run import Run


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Misuse is told before a computation begins; and files of these names stand in the current folder."""

    def runs(*given: Any, **options: Any) -> None:
        raise AssertionError("it ran")

    monkeypatch.setattr(Run, "run", runs)
    monkeypatch.setattr(iga.testing.faults.matrix, "ProcessPoolExecutor", runs)
    monkeypatch.setattr(iga.testing.preset_sweep, "synthetic_structures", runs)
    monkeypatch.setattr("iga.kernels.cpu.ready.ready", runs)
    # Whether numba serves is found out once a process, by compiling: no later test must hear otherwise from here.
    monkeypatch.setattr("iga.kernels.choice._found", {torch.float32: None, torch.float64: None})
    monkeypatch.setattr(iga.bench.run, "_run", runs)
    monkeypatch.setattr(iga.experiment.compare, "prepare", runs)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text", encoding="utf-8")
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "loop.json").symlink_to("loop.json")
    (tmp_path / "wrong.json").write_text('{"schema": 1, "rows": [], "ratios": [{"of": "cpu"}]}', encoding="utf-8")
    (tmp_path / "other.json").write_text(json.dumps({"schema": 1, "rows": [], "ratios": [_RATIO]}), encoding="utf-8")
    (tmp_path / "deep.json").write_text("[" * 100_000, encoding="utf-8")


_RATIO = {"of": "cpu", "to": "dense", "direction": "forward", "residues": 7, "heads": 7, "points": 7, "median": 2.0}
NO_NUMBERS = ("", "x", "1e400", "nan")
NO_COUNTS = (*NO_NUMBERS, "0", "-1")
NO_SEEDS = (*NO_NUMBERS, "-1", "18446744073709551616", "9" * 5000)
NO_FILES = ("", "folder", "no/such/file.json", "file/file.json", "/dev/full", "loop.json", "n" * 300, "/proc/file.json")
NO_LENGTHS = ("", "x", "nan", "1e400", "0", "-1")
HUGE = "1000000000"

# command → option → values; verify and bench are given a target or sizes where they need one
MISUSE: dict[str, dict[str, tuple[str, ...]]] = {
    "verify": {
        "--json": NO_FILES,
        "--seed": NO_SEEDS,
        "--points": (*NO_COUNTS, HUGE, "1," + HUGE, "9" * 100),
        "--sigma-min": (*NO_LENGTHS, "150", "1e300"),
        "--digits": (*NO_COUNTS, "400"),
        "--structures": ("", "no/such.pdb", "no_*.pdb", "folder", "file", "binary", "/dev/null"),
        "--profile": ("", "x"),
        "--preset": ("", "x", "file.py:f"),
        "--only": ("", "x"),
        "--implementation": ("", "x"),
        "--kind": ("", "layer"),
        "": ("", "x", "missing.py:f", "file:f", "binary:f", ":f", "file.py:", "no.such.module:f", "json:dumps"),
    },
    "faults": {"--json": NO_FILES, "--seed": NO_SEEDS, "--profile": ("", "x")},
    "bounds": {
        "--sigma-min": NO_LENGTHS,
        "--sigma-max": (*NO_LENGTHS, "0.001"),
        "--extent": ("", "x", "nan", "1e400", "-1", "1e300"),
        "--points": (*NO_COUNTS, "9" * 400),
        "--residues": (*NO_COUNTS, "9" * 400),
        "--cap": NO_LENGTHS,
    },
    "warm": {"--dtype": ("", "x", "float16", "float32,float64"), "": ("x", "float32")},
    "picture": {"--json": NO_FILES, "--seed": NO_SEEDS, "": (*NO_FILES, "a", "a.txt", "a.json")},
    "bench": {
        "--json": NO_FILES,
        "--plot": (*NO_FILES, "a", "a.txt"),
        "--seed": NO_SEEDS,
        "--points": (*NO_COUNTS, HUGE),
        "--residues": (*NO_COUNTS, HUGE),
        "--heads": (*NO_COUNTS, HUGE),
        "--threads": (*NO_COUNTS, HUGE),
        "--repeats": NO_COUNTS,
        "--device": ("", "x", "cuda:99", "meta"),
        "--implementations": ("", "x", "cpu,"),
        "--max-ratio": NO_LENGTHS[:3] + ("0", "-1"),
        "--baseline": ("", "folder", "no.json", "file", "binary", "wrong.json", "other.json", "deep.json", "/dev/null"),
    },
}


def called(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as leave:
        main(list(arguments))
    out, err = capfd.readouterr()
    return leave.value.code, out, err


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command, options in MISUSE.items() for option in options]
)
def test_a_value_that_nobody_can_mean_is_one_line_and_2(
    command: str, option: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = sorted(os.listdir(tmp_path))
    for value in MISUSE[command][option]:
        code, out, err = called(capfd, command, *((option, value) if option else ("--", value)))
        lines = [line for line in err.splitlines() if not line.startswith("…")]
        assert (code, out) == (2, "") and len(lines) == 1, (value[:40], code, out, err)
        assert lines[0].startswith("iga: ") and lines[0].isprintable(), err
        if option:
            word = option.strip("-").replace("-", "_")
            assert word in lines[0].replace("-", "_") or value[:40] in lines[0], err
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_sizes_that_no_memory_holds_are_refused_with_the_memory_they_would_take(
    command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, _, err = called(capfd, command, "--points", HUGE)
    assert code == 2 and HUGE in err and " GB" in err, err


@pytest.mark.parametrize(("first", "second"), [*itertools.permutations(["a.png", "./a.png", "link.png"], 2)])
def test_two_outputs_of_one_name_are_misuse(first: str, second: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path("link.png").symlink_to("a.png")
    Path("a.png").touch()
    code, _, err = called(capfd, "picture", first, "--json", second)
    assert code == 2 and "OUTPUT" in err and "--json" in err, err


def test_what_may_not_be_written_is_misuse(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # for root too, who may write everywhere
    code, _, err = called(capfd, "verify", "--json", "file")
    assert code == 2 and "file: Permission denied" in err, err


def test_without_arguments_the_help_stands_as_it_is_and_the_code_is_2(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capfd)
    assert (code, out) == (2, "") and "Commands:" in err.splitlines()


def test_a_picture_without_matplotlib_is_refused_before_it_is_measured(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    code, _, err = called(capfd, "picture", "a.png")
    assert code == 2 and "[plot]" in err, err


def test_the_current_folder_by_its_name_is_no_empty_name(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "folder")
    code, _, err = called(capfd, "verify", "--structures", ".")
    assert code == 2 and "empty" not in err.split(":")[1], err
