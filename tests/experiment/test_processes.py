"""Two processes (torchrun, gloo), each with half of every batch, against one with all of it.

Tolerance. The two differ in the order of sums alone, over samples, residues and gradients: an evaluation with p
roundings along its longest chain of sums is that of weights moved by p·u relative, u = 2⁻⁵³ (docs/theory.md, 13.1). In
each step p ≤ 2¹³: 4 samples of 20² pairs and a network of 16 channels have fewer. So what the losses of one process
change when its weights start moved by 2⁻⁴⁰ = 2¹³ u, doubled for each step that moves them again, is what they may.
"""

import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed.run

from helpers.process import run_iga, run_script
from helpers.training import TINY, metrics
from iga.experiment.run import processes

pytestmark = [
    pytest.mark.training,
    pytest.mark.process,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed"),
]
SCRIPT = Path(__file__).parents[1] / "helpers" / "two_processes.py"
STEPS = 4
LOSSES = ("trans_loss", "trans_loss_raw", "rots_vf_loss", "se3_vf_loss", "grad_norm")


def in_two(start: Callable[..., "subprocess.CompletedProcess[str]"]) -> "list[subprocess.CompletedProcess[str]]":
    """start(env=…) twice at once, in the environment that torchrun makes for each of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    with ThreadPoolExecutor(2) as pool:
        ranks = [shared | {"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
        return list(pool.map(lambda env: start(env=env), ranks))


def test_the_command_of_two_processes_says_things_once_and_can_be_resumed(tmp_path: Path) -> None:
    words = ["compare", "--arms", "ipa", "--seeds", "1", "--samples", "0", "--out", str(tmp_path / "out")]
    for one in (*TINY, "data.synthetic=4"):
        words += ["--set", one]
    for more in (["--steps", "1"], ["--steps", "2", "--resume"]):
        done = in_two(partial(run_iga, *words, *more))
        assert all(one.returncode == 0 for one in done), done
        assert sum(one.stdout.count("report.md") for one in done) == 1, done
        assert sum(one.stderr.count("to train on") for one in done) == 1, done
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    assert len(metrics(folder)) == 2 and "parts: 2" in (folder / "config.yaml").read_text(encoding="utf-8")


def test_every_process_has_a_gpu_of_its_own_and_what_is_logged_moves_by_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes of NCCL on one GPU stop at their first sum, and NCCL refuses what is on the CPU."""
    said: list[object] = []
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "3"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", said.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", said.append)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: said.append("left"))
    gpus = 2
    with processes.initialised("cuda"):
        assert said == [1, "cpu:gloo,cuda:nccl"]
    assert said.pop() == "left"
    said.clear()
    with processes.initialised("cpu"):
        assert said == ["gloo"]
    said.clear()
    gpus = 1
    with pytest.raises(ValueError, match="process 2 has no GPU: there are 1"), processes.initialised("cuda"):
        pass
    assert said == []


def worst(rows: list, others: list, name: str) -> list[float]:
    return [abs(a[name] - b[name]) for a, b in zip(rows, others, strict=True)]


def test_two_processes_train_as_one_does_with_the_whole_batch(tmp_path: Path) -> None:
    def run(name: str, shake: float, *torchrun: str) -> list[dict[str, float | None]]:
        words = [str(tmp_path / name), str(STEPS), str(shake)]
        script, *words = [*torchrun, str(SCRIPT), *words]
        done = run_script(Path(script), *words)
        assert done.returncode == 0, done.stderr[-3000:]
        return metrics(tmp_path / name)

    two = run("two", 0.0, str(torch.distributed.run.__file__), "--standalone", "--nproc-per-node", "2")
    one, shaken = run("one", 0.0), run("shaken", 2.0**-40)
    assert len(two) == len(one) == STEPS
    assert [row["samples"] for row in two] == [row["samples"] for row in one]
    for name in LOSSES:
        off, allowed = worst(two, one, name), worst(shaken, one, name)
        size = abs(one[0][name] or 0.0)
        for step, error in enumerate(off):
            # the first rows hold the input's own losses, which no weight moves: there 2¹³ roundings of the sum itself
            limit = 2.0 ** (step + 1) * max(allowed[: step + 1]) + 2.0**-40 * size
            assert error <= limit, (name, step, error, limit)
    assert worst(two, one, "geo_scaled_absmax")[0] <= 2.0**-40 * (one[0]["geo_scaled_absmax"] or 0)
    # and that is little: four steps make a shake of 2⁻⁴⁰ not 2²⁰ times as large, and halves of a batch differ by 10⁻³
    assert max(worst(shaken, one, "trans_loss_raw")) < 2.0**-20 * (one[0]["trans_loss_raw"] or 0)
