"""A result of the comparison, read and matched: which runs there are, which steps are compared, and means over seeds.

Steps are counted from 1: step k is the k-th entry of a series. JSON holds no NaN or infinity; null stands for both.
"""

import gzip
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iga._statistics import student

__all__ = [
    "SeedMean",
    "check_result",
    "estimate",
    "held_out_values",
    "matched_steps",
    "reached",
    "read_result",
    "runs_of",
    "seeds_of",
    "series",
    "went_non_finite",
    "window_length",
]

_SERIES = ("trans_loss", "rots_vf_loss", "se3_vf_loss")
_STATUS = ("finished", "non-finite", "running")

Run = Mapping[str, Any]
Result = Mapping[str, Any]


def read_result(path: Path) -> dict[str, Any]:
    """The result in a .json or .json.gz file. Raises ValueError, naming the file, for anything else."""
    try:
        data = path.read_bytes()
        result = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (ValueError, RecursionError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    try:
        check_result(result)
    except ValueError as error:
        raise ValueError(f"{path} is no result of iga compare (schema 1): {error}") from error
    return result


def check_result(result: Any) -> None:
    """Raises ValueError where `result` is not of schema 1, or holds an arm twice with one seed."""
    if not isinstance(result, dict) or result.get("schema") != 1:
        raise ValueError('expected an object with "schema": 1')
    if not isinstance(result.get("settings"), dict) or not isinstance(result["settings"].get("steps"), int):
        raise ValueError("settings.steps, the number of steps planned, is missing")
    if not isinstance(result.get("runs"), list) or not result["runs"]:
        raise ValueError("it has no runs")
    seen = set()
    for run in result["runs"]:
        if not isinstance(run, dict) or not {"arm", "seed", "status", "steps"} <= run.keys():
            raise ValueError("a run lacks arm, seed, status or steps")
        where = f"run {run['arm']}, seed {run['seed']}"
        if (run["arm"], run["seed"]) in seen:
            raise ValueError(f"{where} is there twice")
        seen.add((run["arm"], run["seed"]))
        if run["status"] not in _STATUS:
            raise ValueError(f"{where}: status must be one of {', '.join(_STATUS)}; got {run['status']!r}")
        lengths = {name: len(series(run, name)) for name in run["steps"]}
        if not set(_SERIES) <= lengths.keys():
            raise ValueError(f"{where} lacks one of the series {', '.join(_SERIES)}")
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{where}: its series are of different lengths: {lengths}")


def series(run: Run, name: str) -> list[float | None]:
    """One number a step, None where it was not finite. The one door to a run's series.

    Raises ValueError for a series that is no list: counts and the worst step cannot be had from a thinned one.
    """
    values = run["steps"].get(name, [])
    if not isinstance(values, list):
        raise ValueError(
            f"run {run['arm']}, seed {run['seed']}: series {name} must be a list with one number a step, "
            f"got {type(values).__name__}; keep all steps (gzip makes a .json.gz of it)"
        )
    try:
        if all(map(math.isfinite, values)):
            return [*map(float, values)]
    except TypeError:  # a null among them
        pass
    return [_finite(value) for value in values]


def held_out_values(run: Run, name: str, steps: int) -> list[float | None]:
    """`name` at the evaluations that fall into the window of the first `steps` steps."""
    first = steps - window_length(steps)
    return [_finite(row.get(name)) for row in run.get("held_out", []) if first < row["step"] <= steps]


def runs_of(result: Result) -> dict[str, dict[int, Run]]:
    """{arm: {seed: run}}, arms in the order of settings.arms. A run that is listed but has not begun is left out."""
    made: dict[str, dict[int, Run]] = {arm: {} for arm in result["settings"].get("arms", [])}
    for run in result["runs"]:
        if run["status"] != "running" or series(run, "trans_loss"):
            made.setdefault(run["arm"], {})[run["seed"]] = run
    return {arm: dict(sorted(by_seed.items())) for arm, by_seed in made.items() if by_seed}


def seeds_of(result: Result) -> list[int]:
    return sorted({seed for by_seed in runs_of(result).values() for seed in by_seed})


def reached(run: Run) -> int:
    """Steps before the first whose losses are not all finite."""
    columns = [series(run, name) for name in _SERIES]
    return min(column.index(None) if None in column else len(column) for column in columns)


def went_non_finite(run: Run) -> bool:
    return run["status"] == "non-finite" or reached(run) < len(series(run, "trans_loss"))


def matched_steps(result: Result) -> dict[int, int]:
    """{seed: the steps that every arm of that seed reached}; arms that went non-finite do not shorten it.

    One that stops early would leave no comparison among the others. Where all went non-finite: the longest.
    """
    made = {}
    for seed in seeds_of(result):
        runs = [by_seed[seed] for by_seed in runs_of(result).values() if seed in by_seed]
        sound = [reached(run) for run in runs if not went_non_finite(run)]
        made[seed] = min(sound) if sound else max(map(reached, runs))
    return made


def window_length(steps: int) -> int:
    """The last quarter of `steps` steps, rounded up."""
    return -(-steps // 4)


@dataclass(frozen=True)
class SeedMean:
    """A mean over seeds and its interval: None where there is one seed, or a value that is not finite."""

    mean: float
    interval: tuple[float, float] | None
    values: tuple[float, ...]

    @property
    def low(self) -> float:
        """Lower end; −inf without an interval, so that no comparison with it holds."""
        return -math.inf if self.interval is None else self.interval[0]

    @property
    def high(self) -> float:
        """Upper end; +inf without an interval."""
        return math.inf if self.interval is None else self.interval[1]


def estimate(values: Sequence[float]) -> SeedMean:
    """Mean ± t·s/√K of K values, t of K − 1 degrees of freedom. Raises ValueError for none."""
    count = len(values)
    if not count:
        raise ValueError("an estimate needs at least one value, got none")
    if not all(map(math.isfinite, values)):
        worst = next(value for value in values if not math.isfinite(value))
        return SeedMean(float(worst), None, tuple(values))
    mean = math.fsum(values) / count
    if count == 1:
        return SeedMean(mean, None, tuple(values))
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = student(count - 1) * math.sqrt(variance / count)
    return SeedMean(mean, (mean - half, mean + half), tuple(values))


def _finite(value: Any) -> float | None:
    """As float; None for null, and for NaN and infinity should a file hold them."""
    return None if value is None or not math.isfinite(value) else float(value)
