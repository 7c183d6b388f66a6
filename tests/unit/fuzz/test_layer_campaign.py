"""`iga fuzz` on a layer: found, made simple, written so that it stands alone, and judged again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.command import called
from iga.fuzz.layer_counterexample import genome_in
from iga.fuzz.layer_genome import case_of
from iga.report.documents import Fuzz
from iga.report.schema import read_as
from iga.testing.cases_file import read_case

MINE = """
import torch
from torch import nn
import iga

class Right(nn.Module):
    def __init__(self, **sizes):
        super().__init__()
        self.inner = iga.InvariantGaussianAttention(*sizes.values(), config="bounded", implementation="reference")

    def forward(self, s, z, r, mask):
        return self.inner(s, z, r, mask)

class Wrong(Right):
    def forward(self, s, z, r, mask):
        output = super().forward(s, z, r, mask)
        return torch.cat([output[:2], 1.01 * output[2:]]) if s.ndim == 3 else output

def right(**sizes):
    return Right(**sizes)

def wrong(**sizes):
    return Wrong(**sizes)
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(MINE, encoding="utf-8")
    return file


def _run(script: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *words]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, timeout=240, check=False)


@pytest.mark.process
def test_a_wrong_layer_is_found_and_its_counterexample_stands_alone(
    mine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "out", tmp_path / "fuzz.json"
    common = ("--kind", "layer", "--workers", "1", "--only", "sample_alone")
    ended = called(
        capfd, "fuzz", f"{mine}:wrong", *common, "--max-examples", "40", "--out", str(out), "--json", str(report)
    )
    assert ended.code == 1 and "sample_alone" in ended.out and "calls in" in ended.out
    document = read_as(report, Fuzz)
    assert document["kind"] == "layer" and document["examples"] >= 10
    (finding,) = document["findings"]
    folder = Path(finding["inputs"])

    case = read_case(folder / "case.json")
    genome = genome_in(case)
    assert len(genome.samples) == 3 and genome.residues == 1 and genome.points == 1  # as small as it can be
    assert torch.equal(case.inputs["s"], case_of(genome).s)
    assert case.words["check"] == "sample_alone" and set(case.words["versions"]) == {"iga", "python", "torch"}

    wrong = _run(folder / "reproduce.py", tmp_path)
    assert wrong.returncode == 1 and "WRONG" in wrong.stdout and "sample_alone" in wrong.stdout, wrong
    right = _run(folder / "reproduce.py", tmp_path, f"{mine}:right")
    assert right.returncode == 0 and "right" in right.stdout, right
    gone = _run(folder / "reproduce.py", tmp_path, "gone.py:right")
    assert gone.returncode == 2 and "cannot be asked" in gone.stderr, gone

    again = called(capfd, "fuzz", f"{mine}:wrong", "--kind", "layer", "--replay", str(out))
    assert again.code == 1 and "1 still broken" in again.out
    fixed = called(capfd, "fuzz", f"{mine}:right", "--kind", "layer", "--replay", str(out))
    assert fixed.code == 0 and "1 fixed" in fixed.out

    file = folder / "case.json"
    spoiled = json.loads(file.read_text(encoding="utf-8"))
    spoiled["inputs"]["s"]["values"][0] = "0x1.8p+1"
    file.write_text(json.dumps(spoiled), encoding="utf-8")
    other = called(capfd, "fuzz", f"{mine}:right", "--kind", "layer", "--replay", str(out))
    assert other.code == 1 and "its features are not those" in other.out


@pytest.mark.process
def test_a_preset_is_searched_and_nothing_is_found(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "fuzz.json"
    only = ("--only", "masked_numbers,frames_moved,reference")
    ended = called(
        capfd, "fuzz", "--preset", "bounded", "--workers", "1", *only, "--max-examples", "19", "--json", str(report)
    )
    assert ended.code == 0 and "nothing found" in ended.out, ended
    found = {one["check"]: one["worst"] for one in read_as(report, Fuzz)["worst"]}
    assert set(found) == {"masked_numbers", "frames_moved", "reference"}
    assert all(worst is not None and worst <= 1 for worst in found.values())
