"""The result of a sweep, collected from the files of its runs (schema 1). Verdicts and page are made of it alone."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iga._runtime import environment
from iga.experiment.results.collect import run_of
from iga.experiment.results.readings import reached, window_length
from iga.experiment.results.verdicts import CLAMP
from iga.experiment.run import plan as plans
from iga.experiment.run.dataset import Dataset
from iga.experiment.run.evaluate import Evaluation
from iga.experiment.sweep.grid import SweepPlan
from iga.experiment.sweep.probe import EDGES, WIDTH, read_probes

__all__ = ["collect", "summed"]

_BINS = 25
# Series → how a bin of it is summed up.
_SERIES = {
    "trans_loss": statistics.fmean,
    "rots_vf_loss": statistics.fmean,
    "geo_scaled_absmax": statistics.median,
    "wmax_sat_frac": statistics.fmean,
    "log_det_min": min,
    "grad_norm": statistics.median,
}


def collect(folder: Path, dataset: Dataset, command: str) -> dict[str, Any]:
    """Everything measured so far. Numbers that are not finite become null, and what an arm does not have."""
    plan = plans.read(folder, SweepPlan)
    unchanged = Evaluation(dataset.held_out, plan.any_settings()).unchanged()["se3_vf_loss_raw"]
    runs = []
    for name, cell in plan.runs().items():
        where = folder / plans.RUNS / name
        found = run_of(where, cell.arm, cell.seed)
        if found is not None:
            place = {"stress": cell.stress, "dose": cell.dose, "points": cell.points}
            runs.append({**place, "learning_rate": cell.learning_rate, **summed(found, plan.steps), **_probed(where)})
    made = [run for run in runs if run["status"] != "running"]
    return {
        "schema": 1,
        "document": "sweep",
        "exit_code": int(len(made) < len(plan.runs())),
        "command": command,
        "environment": {**environment(plan.seed), "device": plan.device, "threads_a_run": plan.threads},
        "settings": {
            "size": plan.size,
            "steps": plan.steps,
            "seeds": plan.seeds,
            "seed": plan.seed,
            "gaussians": plan.gaussians,
            "stresses": list(plan.stresses),
            "doses": list(plan.doses),
            "points": list(plan.points),
            "learning_rates": list(plan.learning_rates),
            "structures": dataset.described,
            "arms": list(plan.arms),
            "overrides": list(plan.overrides),
        },
        "data": {
            "training_chains": len(dataset.training),
            "held_out_chains": len(dataset.held_out),
            "fingerprint": dataset.fingerprint,
        },
        "input_loss": _finite(unchanged),
        "planned": len(plan.runs()),
        "runs": runs,
    }


def summed(run: dict[str, Any], planned: int) -> dict[str, Any]:
    """A run of a comparison's result with its series as totals and in bins; what was not finite counts as the worst."""
    made = reached(run)
    steps = {name: values[:made] for name, values in run["steps"].items()}
    late = steps["geo_scaled_absmax"][planned - window_length(planned) :]
    totals = {
        "steps": made,
        "samples": _count(steps["samples"]),
        "clamped_samples": _count(steps["clamped_samples"]),
        "clamped_steps": sum(value is not None and value >= CLAMP for value in steps["trans_loss"]),
        "geo_scaled_absmax": _over(steps["geo_scaled_absmax"], statistics.median, math.inf),
        "geo_scaled_absmax_late": _over(late, statistics.median, math.inf),
        "wmax_sat_frac": _over(steps["wmax_sat_frac"], statistics.fmean, 1.0),
        "log_det_min": _over(steps["log_det_min"], min, -math.inf),
    }
    width = max(1, -(-planned // _BINS))
    ends = [min(start + width, made) for start in range(0, made, width)]
    series: dict[str, list[float | None]] = {"step": [float(end) for end in ends]}
    for name, by in _SERIES.items():
        worst = -math.inf if name == "log_det_min" else math.inf
        series[name] = [_over(steps[name][end - 1 - (end - 1) % width : end], by, worst) for end in ends]
    rest = {name: value for name, value in run.items() if name not in ("steps", "samples_not_written")}
    return {**rest, "totals": totals, "series": series}


def _probed(folder: Path) -> dict[str, Any]:
    found = read_probes(folder)
    left = found["left"]
    if left is not None:
        left = {"width": WIDTH, "start": {name: low for name, (low, _) in EDGES.items()}, **left}
    return {"entropy": found["rows"], "left": left}


def _over(values: Sequence[float | None], by: Any, worst: float) -> float | None:
    """A summary with `worst` for null; None where there is no number at all, and where it is not finite."""
    if all(value is None for value in values):
        return None
    return _finite(float(by([worst if value is None else value for value in values])))


def _count(values: Sequence[float | None]) -> int:
    return int(math.fsum(value for value in values if value is not None))


def _finite(value: float) -> float | None:
    return float(f"{value:.9g}") if math.isfinite(value) else None
