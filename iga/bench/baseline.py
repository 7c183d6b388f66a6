"""A run against an earlier one, whose machine may have been another: ratios to a yardstick, not times, are compared.

Of every case that both runs timed: how many times the yardstick's time ours takes, then and now. The yardstick is the
dense closed form in plain torch, timed in the same run as ours.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iga.bench.implementations import OURS, YARDSTICK
from iga.bench.problem import Case
from iga.report.documents import Bench, Change
from iga.report.schema import read_as

__all__ = ["against", "check_common", "read_baseline"]


def read_baseline(path: Path) -> Bench:
    """A bench document. Raises ValueError for anything else, OSError where the file cannot be read."""
    document = read_as(path, Bench)
    if not all(0 < one["median"] < math.inf for one in document["ratios"]):
        raise ValueError(f"{path} is no whole bench document: a ratio must be above 0")
    return document


def check_common(cases: Sequence[Case], then: Bench) -> None:
    """Raises ValueError where no case of the plan was timed then."""
    planned = {(case.direction, case.residues, case.heads, case.points) for case in cases}
    if not any(key[1:] in planned for key in _to_yardstick(then)):
        ours = ", ".join(OURS)
        raise ValueError(
            f"the baseline and this run have no case in common that times {YARDSTICK} beside one of {ours}"
        )


def against(now: Bench, then: Bench, max_ratio: float) -> Bench:
    """`now` with the changes of our implementations in the cases that both runs timed; its exit code is 1 where one is
    slower than `max_ratio` allows, or none was timed in both."""
    before, after = _to_yardstick(then), _to_yardstick(now)
    changes: list[Change] = []
    for (name, direction, residues, heads, points), ratio in after.items():
        key = (name, direction, residues, heads, points)
        if key in before:
            case = Case(direction, residues, heads, points)
            changes.append({"implementation": name, **case.size, "ratio": ratio / before[key]})
    slower = not changes or any(change["ratio"] > max_ratio for change in changes)
    code = 1 if slower else now["exit_code"]
    return {**now, "exit_code": code, "baseline": {"max_ratio": max_ratio, "changes": changes}}


def _to_yardstick(result: Bench) -> dict[Any, float]:
    """ours / yardstick by (implementation, direction, N, H, P): paired ratios, in whichever way they were taken."""
    found: dict[Any, float] = {}
    for entry in result["ratios"]:
        case = (entry["direction"], entry["residues"], entry["heads"], entry["points"])
        if entry["of"] in OURS and entry["to"] == YARDSTICK:
            found[entry["of"], *case] = entry["median"]
        elif entry["of"] == YARDSTICK and entry["to"] in OURS:
            found[entry["to"], *case] = 1.0 / entry["median"]
    return found
