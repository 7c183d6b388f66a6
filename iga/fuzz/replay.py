"""Counterexamples judged again: which are fixed, which are still broken, and which cannot be run.

The function that is asked is the one that the caller names, never the one that a case names: a case from a stranger
runs no code of its own.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iga.fuzz.layer_counterexample import genome_in
from iga.fuzz.messages import LOADING, TO, Lost
from iga.testing.cases_file import read_case
from iga.testing.gate.start import forkable
from iga.testing.gate.watched import Ending, Watched, ready_among

__all__ = ["cases_in", "cases_under", "replayed"]

Fact = dict[str, Any]


def cases_in(folders: Sequence[Path]) -> list[Path]:
    """The case files under these folders, in order. Raises ValueError, one line, for a folder without one."""
    found: list[Path] = []
    for folder in folders:
        here = [folder] if folder.is_file() else cases_under(folder)
        if not here:
            raise ValueError(f"{os.fspath(folder)}: no case.json there")
        found += here
    return found


def cases_under(folder: Path) -> list[Path]:
    """The case files below a folder, in order; not those in hidden folders, which a killed writer has left."""
    found = sorted(folder.rglob("case.json"))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def replayed(
    target: str, options: dict[str, Any], cases: Sequence[Path], limit: float, *, fork: bool | None = None
) -> list[Fact]:
    """One fact a case, in order: `inputs` (its file) and `verdict`, "broken", "fixed" or "cannot run", and the words of
    the judgement. Raises Lost where the target does not load.

    A child judges one case after another; where it ends, the case cannot be run, and the others go on in a new one.
    fork  whether it is forked from this process; None: where that is safe
    """
    facts = {path: _unreadable(path) for path in cases}
    left = [path for path in cases if facts[path] is None]
    fork, loaded = forkable() if fork is None else fork, False
    while left:
        request = {"serve": "iga.fuzz.worker:replaying", "target": target, "options": options}
        request |= {"cases": [str(path) for path in left]}
        watched = Watched(request, fork=fork, allowed=limit + LOADING, to=TO)
        taken = _Taken(watched, left, limit)
        ended: Ending | None = None
        try:
            while left and ended is None:
                ended = watched.look(ready_among([watched]), taken.take)
        finally:
            watched.close()
        loaded = loaded or taken.loaded
        facts |= taken.facts
        if ended is not None and left:
            if not loaded:
                raise Lost(f"{target} cannot be loaded: {ended.words}")
            path = left.pop(0)
            facts[path] = _cannot(path, ended.words)
    return [one for path in cases if (one := facts[path]) is not None]


@dataclass
class _Taken:
    """What one child has said of the cases that are left, of which it takes one after another."""

    watched: Watched
    left: list[Path]
    limit: float
    facts: dict[Path, Fact | None] = field(default_factory=dict)
    loaded: bool = False

    def take(self, message: Fact) -> bool:
        match message:
            case {"misuse": str(words)} | {"unloadable": str(words)}:
                raise Lost(words)
            case {"plan": dict()}:
                self.loaded, self.watched.allowed = True, self.limit
            case {"replayed": dict(fact)} if self.left:
                self.facts[self.left.pop(0)] = fact
        return True


def _unreadable(path: Path) -> Fact | None:
    """Why a file is no case; None where it is one."""
    try:
        found = read_case(path)
        if found.words["kind"] == "layer":
            genome_in(found)
    except (ValueError, OSError) as error:
        return _cannot(path, str(error))
    return None


def _cannot(path: Path, words: str) -> Fact:
    numbers = {"value": None, "limit": None, "unit": ""}
    return {"inputs": str(path), "check": "", "verdict": "cannot run", **numbers, "where": words, "note": ""}
