"""The result of a comparison, collected from the files of its runs (schema 1). The report is made of it alone."""

import math
from pathlib import Path
from typing import Any

from iga._runtime import environment
from iga.experiment.model.arms import load_arm
from iga.experiment.run import plan as plans
from iga.experiment.run.dataset import Dataset
from iga.experiment.run.evaluate import Evaluation
from iga.experiment.run.records import COLUMNS, HELD_OUT_COLUMNS, read_table
from iga.experiment.run.samples import not_written
from iga.experiment.run.train import status_of

__all__ = ["collect", "run_of"]

# Name in the result → the evaluation's. Nothing here is clamped.
BASELINE = {"trans_raw": "trans_loss_raw", "rots_vf": "rots_vf_loss", "se3_vf_raw": "se3_vf_loss_raw"}


def collect(folder: Path, dataset: Dataset, command: str) -> dict[str, Any]:
    """Everything measured so far. Numbers that are not finite become null, and what an arm does not have."""
    plan = plans.read(folder)
    evaluation = Evaluation(dataset.held_out, plan.any_settings())
    baselines = {"mean_frame": evaluation.mean_frame(), "input": evaluation.unchanged()}
    runs = [run_of(folder / plans.RUNS / name, arm, seed) for name, (arm, seed) in plan.runs().items()]
    return {
        "schema": 1,
        "document": "compare",
        "exit_code": int(any(run is None or run["status"] == "running" for run in runs)),
        "command": command,
        "environment": {**environment(plan.seed), "device": plan.device, "threads_a_run": plan.threads},
        "settings": {
            "size": plan.size,
            "steps": plan.steps,
            "seeds": plan.seeds,
            "seed": plan.seed,
            "gaussians": plan.gaussians,
            "stress": plan.stress,
            "structures": dataset.described,
            "arms": list(plan.arms),
            "overrides": list(plan.overrides),
        },
        "data": {
            "training_chains": len(dataset.training),
            "held_out_chains": len(dataset.held_out),
            "chains_with_breaks": dataset.breaks[0],
            "chain_breaks": dataset.breaks[1],
            "skipped": dataset.skipped,
            "unreadable": len(dataset.unreadable),
            "fingerprint": dataset.fingerprint,
        },
        "baselines": {
            kind: {name: _number(found[column]) for name, column in BASELINE.items()}
            for kind, found in baselines.items()
        },
        "runs": [run for run in runs if run is not None],
    }


def run_of(folder: Path, arm: str, seed: int) -> dict[str, Any] | None:
    """All of one run; None for one that has not begun."""
    if not (folder / "status.json").exists():
        return None
    steps, held_out = read_table(folder / "metrics.csv"), read_table(folder / "held_out.csv")
    return {
        "arm": arm,
        "label": load_arm(arm).label,
        "seed": seed,
        **status_of(folder),
        "samples_not_written": not_written(folder),
        "steps": {name: [_number(row[name]) for row in steps] for name in COLUMNS if name not in ("step", "seconds")},
        "held_out": [
            {name: int(row[name] or 0) if name == "step" else _number(row[name]) for name in HELD_OUT_COLUMNS}
            for row in held_out
        ],
    }


def _number(value: float | None) -> float | None:
    """Nine digits, which tell float32 numbers apart."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.9g}")
