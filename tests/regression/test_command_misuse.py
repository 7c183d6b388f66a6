"""Every option of every command with values that nobody can mean: one line and exit code 2, before anything runs.

Found where `--json` to a full disk, seeds beyond 64 bits and P = 10⁹ ended in a traceback and 1, which means "broken".
"""

import itertools
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import iga.bench.run
import iga.experiment.compare
import iga.testing.faults.matrix
import iga.testing.preset_sweep
from helpers.command import called
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
SAME_FILE = ("a.png", "./a.png", "link.png")
Capture = pytest.CaptureFixture[str]

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


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command, options in MISUSE.items() for option in options]
)
def test_a_value_that_nobody_can_mean_is_one_line_and_2(command: str, option: str, capfd: Capture) -> None:
    before = sorted(os.listdir())
    for value in MISUSE[command][option]:
        ended = called(capfd, command, *((option, value) if option else ("--", value)))
        assert (ended.code, ended.out) == (2, "") and len(ended.lines) == 1, (value[:40], ended)
        line = ended.lines[0]
        assert line.startswith("iga: ") and line.isprintable(), line
        if option:
            word = option.strip("-").replace("-", "_")
            assert word in line.replace("-", "_") or value[:40] in line, line
    assert sorted(os.listdir()) == before


# What the line must name beside the option or its value.
WORDS: dict[str, tuple[str, ...]] = {
    "verfy": ("verfy",),
    "verify --presets bounded": ("--presets",),
    "verify --preset bounde": ("sigma_floor",),
    "verify --profile quick": ("nightly",),
    "verify --json no/such/folder/report.json": ("folder",),
    "verify --structures folder": ("empty.pdb", "no atoms"),
    f"verify --points {HUGE}": (HUGE, " GB"),
    f"bench --points {HUGE}": (HUGE, " GB"),
    "bench --implementations cpu,denes": ("textbook_compiled",),
    "bench --threads 1000000": ("cores",),
    "bench --quick --implementations closed_compiled": ("nothing is left",),
    **{f"picture {a} --json {b}": ("OUTPUT", "--json") for a, b in itertools.permutations(SAME_FILE, 2)},
}


def test_the_line_names_what_would_be_right(capfd: Capture) -> None:
    Path("folder/empty.pdb").touch()
    Path("link.png").symlink_to("a.png")
    Path("a.png").touch()
    for command, words in WORDS.items():
        ended = called(capfd, *command.split())
        assert (ended.code, ended.out) == (2, "") and len(ended.lines) == 1, (command, ended)
        assert all(word in ended.lines[0] for word in words), (command, ended.lines)


def test_what_may_not_be_written_is_misuse(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # for root too, who may write everywhere
    ended = called(capfd, "verify", "--json", "file")
    assert ended.code == 2 and "file: Permission denied" in ended.err, ended


def test_without_arguments_the_help_stands_as_it_is_and_the_code_is_2(capfd: Capture) -> None:
    ended = called(capfd)
    assert (ended.code, ended.out) == (2, "") and "Commands:" in ended.err.splitlines()


def test_a_picture_without_matplotlib_is_refused_before_it_is_measured(
    monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    ended = called(capfd, "picture", "a.png")
    assert ended.code == 2 and "[plot]" in ended.err, ended


def test_the_current_folder_by_its_name_is_no_empty_name(capfd: Capture) -> None:
    shutil.rmtree("folder")
    ended = called(capfd, "verify", "--structures", ".")
    assert ended.code == 2 and "empty" not in ended.err.split(":")[1], ended
