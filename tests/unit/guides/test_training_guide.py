"""The training script of docs/guides/training.md: as it stands in two processes, and with OpenFold's calls in one."""

import csv
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.process import run_script

pytestmark = [pytest.mark.training, pytest.mark.process]

GUIDE = Path(__file__).resolve().parents[3] / "docs/guides/training.md"
SCRIPT, OPENFOLD, LIMITS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
STEPS = 12


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as text:
        return list(csv.DictReader(text))


@pytest.mark.parametrize("processes", [2, 1])
def test_the_training_script_runs_and_its_losses_fall(processes: int, tmp_path: Path) -> None:
    """The one process does not compile, and two without generated code, which takes minutes of two cores and which
    tests/regression/test_compiled_layers.py judges. Environment and threads are those of torchrun."""
    assert "torch.compile(D" in SCRIPT
    text = SCRIPT.replace("torch.compile(", "torch.compile(backend='aot_eager', model=")
    if processes == 1:
        definitions, main = SCRIPT.replace("torch.compile(", "(").split("if __name__")
        text = f"{definitions}{OPENFOLD}\nModel = OpenFoldModel\n\nif __name__{main}"
    script = tmp_path / "train.py"
    script.write_text(f"import torch\n\ntorch.set_num_threads(1)\n{text}", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}

    def run(rank: int):
        return run_script(script, str(STEPS), cwd=tmp_path, env=world | {"RANK": str(rank)}, timeout=600.0)

    with ThreadPoolExecutor(processes) as pool:
        for done in pool.map(run, range(processes)):
            assert done.returncode == 0, done.stderr
    for name in ("train", "adapt"):
        for rank in range(processes):
            found = [float(row["loss"]) for row in rows(tmp_path / f"{name}_{rank}.csv")]
            assert len(found) == STEPS and all(0 < loss < float("inf") for loss in found)
            # The pretraining starts from nothing: halves are compared, since single steps are noisy. Adapters begin
            # where the average left off, at random: they go down from their first steps.
            assert rank or sum(found[STEPS // 2 :]) < sum(found[: STEPS // 2]), name
    names = {"debug/iga/global/geo_scaled_absmax", "debug/iga/global/log_det_min", "debug/iga/l1/geo_raw_mean"}
    assert names <= set(rows(tmp_path / "train_0.csv")[0])


def test_the_example_of_limits_runs_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(LIMITS, names)
    assert names["limits"].log_det == -25.0 and list((tmp_path / "crossed").iterdir()) == []


def test_the_guide_states_the_limits_that_are_the_default() -> None:
    from iga.recording import KINDS, Limits

    stated = dict(re.findall(r"^\| `(\w+)` \| (\S+)", GUIDE.read_text(encoding="utf-8"), re.M))
    assert set(KINDS) <= set(stated)
    for kind in KINDS[1:]:
        limit = Limits().of(kind)
        assert limit is not None and abs(limit - float(stated[kind].strip(",;").replace("−", "-"))) < 0.05 * abs(limit)
