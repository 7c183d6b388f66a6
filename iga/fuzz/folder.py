"""The folder of a campaign: what it is of, each stream after its last whole round, and what was found.

    DIR/lock               held while a campaign runs: a second one is refused
    DIR/campaign.json      target and options; a campaign of others is refused
    DIR/streams/I-of-N.json  state, counts and coverage of a stream, in one file, so that they never part
    DIR/found/CHECK/       a counterexample
    DIR/new/               a counterexample that is being written: it gets its place once the stream's record names it

Files are replaced whole. Whoever is killed loses the round that was running, which is then run again: no count is lost,
and none counts twice. The state is null before a stream's first whole round, of which there may be findings already.
"""

import fcntl
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from iga._files import write_text

__all__ = ["Folder", "new_record"]

SCHEMA = 1
RECORD = {
    "schema": int, "state": dict | None, "counts": dict, "next": int, "seconds": float, "found": list, "findings": list,
    "waiting": list,
}  # fmt: skip
COUNTS = {"examples", "rounds", "engines", "worst"}


def new_record() -> dict[str, Any]:
    """The record of a stream that has done nothing yet."""
    counts = {"examples": 0, "rounds": {}, "engines": {}, "worst": {}}
    return {
        "schema": SCHEMA, "state": None, "counts": counts, "next": 0, "seconds": 0.0,
        "found": [], "findings": [], "waiting": [], "covered": None,
    }  # fmt: skip


class Folder:
    """Raises ValueError, one line, for a folder that another campaign has, or that is of another; OSError as usual."""

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise ValueError(f"{path}: another campaign is running there") from None
        try:
            self._same(facts)
        except BaseException:  # an interrupt too: the lock must not outlive what never began
            self.close()
            raise

    def _same(self, facts: dict[str, Any]) -> None:
        file = self.path / "campaign.json"
        known = _read(file, {"schema", "facts"})["facts"] if file.exists() else None
        # of a target that could not be searched the folder has nothing but this file
        if known is not None and any((self.path / name).exists() for name in ("streams", "found")):
            for name, value in facts.items():
                if known.get(name) != value:
                    other = f"a campaign with {name} {known.get(name)!r}, not {value!r}"
                    raise ValueError(f"{self.path} is of {other}: name another folder")
        else:
            write_text(file, json.dumps({"schema": SCHEMA, "facts": facts}, ensure_ascii=False) + "\n")

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._lock)

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def stream(self, index: int, count: int) -> Path:
        """The file of a stream."""
        return self.path / "streams" / f"{index}-of-{count}.json"

    def save(self, index: int, count: int, record: dict[str, Any]) -> None:
        """A stream's record: its state, and what it has counted."""
        file = self.stream(index, count)
        file.parent.mkdir(exist_ok=True)
        write_text(file, json.dumps(record, ensure_ascii=False) + "\n")

    def load(self, index: int, count: int) -> dict[str, Any] | None:
        """The record; None where there is none yet. ValueError, which names the file, for what is no record."""
        file = self.stream(index, count)
        if not file.exists():
            return None
        found = _read(file, set(RECORD))
        counts = found["counts"]
        if not all(isinstance(found[name], kind) for name, kind in RECORD.items()) or not COUNTS <= set(counts):
            raise ValueError(f"{file} is no record of a campaign; take it away to begin anew")
        return found

    def place(self, check: str) -> Path:
        """A folder that is still free, for a counterexample of a check."""
        base = self.path / "found"
        names = (check, *(f"{check}-{number}" for number in range(2, 10**6)))
        return next(base / name for name in names if not (base / name).exists())

    def fresh(self) -> Path:
        """The empty folder in which a counterexample is written."""
        new = self.path / "new"
        shutil.rmtree(new, ignore_errors=True)
        return new

    def settle(self, place: Path) -> None:
        """What was written in `fresh` gets its place, unless it has it: it may have been killed before, or after."""
        if (self.path / "new").exists() and not place.exists():
            place.parent.mkdir(exist_ok=True)
            (self.path / "new").replace(place)


def _read(file: Path, keys: set[str]) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}; take it away to begin anew") from error
    if not isinstance(found, dict) or not keys <= set(found) or found["schema"] != SCHEMA:
        raise ValueError(f"{file} is no record of a campaign; take it away to begin anew")
    return found
