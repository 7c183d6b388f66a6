"""The training script of docs/guides/training.md, as it stands: processes, compiled, on the kernels, loss falling."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT, OPENFOLD = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs/guides/training.md").read_text(encoding="utf-8"), re.S
)
STEPS = 12


def losses(file: Path) -> list[float]:
    with file.open(encoding="utf-8") as rows:
        return [float(row["loss"]) for row in csv.DictReader(rows)]


@pytest.mark.parametrize("processes", [2, 1])
def test_the_training_script_runs_and_its_losses_fall(processes: int, tmp_path: Path) -> None:
    """As it stands in two processes; in one with OpenFold's call shapes, not compiled, which takes the time."""
    text = SCRIPT
    if processes == 1:
        definitions, main = SCRIPT.replace("torch.compile(", "(").split("if __name__")
        text = f"{definitions}{OPENFOLD}\nModel = OpenFoldModel\n\nif __name__{main}"
    (tmp_path / "train.py").write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, *launch, "train.py", str(STEPS)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name in ("train", "adapt"):
        for rank in range(processes):
            found = losses(tmp_path / f"{name}_{rank}.csv")
            assert len(found) == STEPS and all(0 < loss < float("inf") for loss in found)
    # The pretraining starts from nothing: halves are compared, since single steps are noisy. Adapters begin where the
    # average left off, at random: they go down from their first steps.
    for name in ("train", "adapt"):
        found = losses(tmp_path / f"{name}_0.csv")
        assert sum(found[STEPS // 2 :]) < sum(found[: STEPS // 2]), name
    with (tmp_path / "train_0.csv").open(encoding="utf-8") as rows:
        names = set(next(csv.reader(rows)))
    assert {"debug/iga/global/geo_scaled_absmax", "debug/iga/global/log_det_min", "debug/iga/l1/geo_raw_mean"} <= names
