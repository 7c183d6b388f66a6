"""Findings that can be run again: the command of a broken row shows that row alone, and worse it may be, but broken."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from helpers.command import called

Capture = pytest.CaptureFixture[str]

WRONG = """
import iga

def values(*pair):
    dist_sq, log_det = iga.gaussian_overlap(*pair)
    return dist_sq * 1.01, log_det
"""


def broken_rows(capfd: Capture, file: Path, *words: str) -> dict[str, dict]:
    ended = called(capfd, "verify", *words, "--json", str(file))
    assert ended.code == 1, ended.err
    rows = {row["name"]: row for row in json.loads(file.read_text(encoding="utf-8"))["invariants"]}
    for row in rows.values():
        assert (row["verdict"] in ("broken", "vacuous")) == (row["reproduce"] in ended.out.splitlines())
    return rows


def again(capfd: Capture, row: dict, file: Path) -> dict:
    """The row that its own command gives, alone."""
    words = shlex.split(row["reproduce"])
    assert words[:2] == ["iga", "verify"] and "--json" not in words
    (found,) = broken_rows(capfd, file, *words[2:]).values()
    return found


def files_of(row: dict) -> list[str]:
    words = shlex.split(row["reproduce"])
    return [Path(value).name for word, value in zip(words, words[1:], strict=False) if word == "--structures"]


@pytest.fixture
def folder(tmp_path: Path, structures_dir: Path) -> Path:
    """Five files, in a folder whose name a shell has to be told to take as it is."""
    made = tmp_path / "it's a folder"
    made.mkdir()
    for name in sorted(path.name for path in structures_dir.iterdir() if path.stat().st_size < 200_000)[:5]:
        shutil.copy(structures_dir / name, made / name)
    return made


def test_a_broken_row_of_many_structures_is_met_again_with_the_files_of_its_worst_example(
    capfd: Capture, tmp_path: Path, folder: Path
) -> None:
    checks = ("log_det_floor", "growth_with_points", "accuracy", "determinism")
    words = ["--preset", "sigma_floor", "--points", "1,2", "--seed", "3"]
    words += [word for name in checks for word in ("--only", name)]
    rows = broken_rows(capfd, tmp_path / "all.json", *words, "--structures", str(folder))
    assert {name for name, row in rows.items() if row["verdict"] == "broken"} >= set(checks[:3])
    for name in checks[:3]:
        found = again(capfd, rows[name], tmp_path / "one.json")
        assert found["name"] == name and found["verdict"] == "broken"
        sign = -1 if name == "log_det_floor" else 1  # the same example is met, others beside it
        assert sign * found["worst"] >= sign * rows[name]["worst"]
    (file,) = files_of(rows["log_det_floor"])
    assert rows["log_det_floor"]["worst_example"].startswith(file)
    assert len(files_of(rows["growth_with_points"])) == 2, "the structures of the costlier checks"


def test_the_command_of_an_overlap_says_all_that_mattered_and_leaves_structures_out_where_none_is_needed(
    capfd: Capture, tmp_path: Path, folder: Path
) -> None:
    target = tmp_path / "a target.py"
    target.write_text(WRONG, encoding="utf-8")
    words = [f"{target}:values", "--kind", "overlap", "--digits", "3", "--sigma-min", "0.05", "--profile", "fast"]
    checks = ["--only", "accuracy", "--only", "coincident_means", "--only", "gradient_values"]
    rows = broken_rows(capfd, tmp_path / "all.json", *words, *checks, "--structures", str(folder))
    assert {name for name, row in rows.items() if row["verdict"] == "broken"} == {"accuracy", "gradient_values"}
    assert files_of(rows["gradient_values"]) == []
    found = again(capfd, rows["gradient_values"], tmp_path / "one.json")
    assert found["worst"] == rows["gradient_values"]["worst"]
    given = shlex.split(rows["accuracy"]["reproduce"])
    assert sorted(given[2 : 2 + len(words)]) == sorted(words) and given[2] == words[0]
