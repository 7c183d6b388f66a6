"""A run against an earlier one, whose machine may have been another: ratios to a yardstick, not times, are compared.

Of every case that both runs timed: how many times the yardstick's time ours takes, then and now. The yardstick is the
dense closed form in plain torch, timed in the same run as ours.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from iga.bench.implementations import OURS, YARDSTICK
from iga.bench.problem import Case

__all__ = ["Change", "check_common", "compare", "read_result"]

_CASE = ("of", "to", "direction", "residues", "heads", "points", "median")
_NOTHING_COMMON = (
    f"the baseline and this run have no case in common that times {YARDSTICK} beside one of {', '.join(OURS)}"
)


class Change(NamedTuple):
    """One case: `ratio` is (ours / yardstick now) / (ours / yardstick then), above 1 where ours became slower."""

    implementation: str
    case: tuple[str, int, int, int]
    ratio: float


def read_result(path: Path) -> dict[str, Any]:
    """A result of schema 1. Raises ValueError for anything else, OSError where the file cannot be read."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    known = isinstance(result, dict) and result.get("schema") == 1
    if not known or not isinstance(result.get("rows"), list) or not isinstance(result.get("ratios"), list):
        raise ValueError(f"{path} is no result of iga bench --json (schema 1)")
    for entry in result["ratios"]:
        lacks = set(_CASE) - set(entry) if isinstance(entry, dict) else set(_CASE)
        if lacks or not isinstance(entry["median"], (int, float)) or not 0 < entry["median"] < math.inf:
            raise ValueError(f"{path} is no result of iga bench --json (schema 1): a ratio lacks {', '.join(_CASE)}")
    return result


def check_common(cases: Sequence[Case], then: dict[str, Any]) -> None:
    """Raises ValueError where `compare` would, whatever becomes of the run: no case is in both."""
    planned = {(case.direction, case.residues, case.heads, case.points) for case in cases}
    if not any(key[1:] in planned for key in _to_yardstick(then)):
        raise ValueError(_NOTHING_COMMON)


def compare(now: dict[str, Any], then: dict[str, Any]) -> list[Change]:
    """The changes of our implementations in the cases that both runs timed. Raises ValueError where there is none."""
    before, after = _to_yardstick(then), _to_yardstick(now)
    common = [key for key in after if key in before]
    if not common:
        raise ValueError(_NOTHING_COMMON)
    return [Change(key[0], key[1:], after[key] / before[key]) for key in common]


def _to_yardstick(result: dict[str, Any]) -> dict[Any, float]:
    """ours / yardstick by (implementation, direction, N, H, P): paired ratios, in whichever way they were taken."""
    found: dict[Any, float] = {}
    for entry in result["ratios"]:
        case = (entry["direction"], entry["residues"], entry["heads"], entry["points"])
        if entry["of"] in OURS and entry["to"] == YARDSTICK:
            found[(entry["of"], *case)] = entry["median"]
        elif entry["of"] == YARDSTICK and entry["to"] in OURS:
            found[(entry["to"], *case)] = 1.0 / entry["median"]
    return found
