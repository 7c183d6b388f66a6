"""benches/gpu_round.py, rehearsed on a CPU: its checks pass, and a step that fails does not end the round."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.scripts import load_script
from iga.bench.implementations import IMPLEMENTATIONS


@pytest.fixture(scope="module")
def gpu_round() -> Any:
    return load_script("benches/gpu_round.py")


def test_the_checks_of_the_gpu_round_run_on_a_cpu_and_pass(gpu_round: Any) -> None:
    for check in (gpu_round.check_correctness, gpu_round.check_determinism):
        result = check(torch.device("cpu"), True)
        assert result["passed"] and len(result["checks"]) >= 2, result
    assert set(gpu_round.CHECKS) == {one.name for one in gpu_round.steps(False) if one.bench is None}


def test_the_steps_of_the_gpu_round_fit_their_nine_minutes_and_name_what_is_known(gpu_round: Any) -> None:
    for dry in (False, True):
        for one in gpu_round.steps(dry):
            if one.bench is not None:
                names = one.bench[one.bench.index("--implementations") + 1].split(",")
                assert set(names) <= set(IMPLEMENTATIONS)
    assert gpu_round.TOTAL <= 540.0


@pytest.mark.process
def test_a_step_of_the_gpu_round_that_fails_is_recorded_and_the_round_goes_on(gpu_round: Any, tmp_path: Path) -> None:
    bad = gpu_round.Step("bad", 20.0, ("--device", "cpu", "--points", "none"))
    late = gpu_round.Step("late", 0.2, ("--device", "cpu", "--quick"))
    assert gpu_round.run_round(tmp_path, "cpu", True, [bad, late]) == 1
    found = json.loads((tmp_path / "round.json").read_text())
    assert [entry["code"] for entry in found["steps"]] == [2, None]
    assert "out of time" in found["steps"][1]["note"] and not found["passed"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_gpu_round_refuses_with_one_line_where_there_is_no_device(
    gpu_round: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_round.main([str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
