"""The findings of several campaigns in one folder: of the same check each under a name of its own, the same once.

Two findings are the same if their cases are, byte by byte; without a case, if all they say of the accused is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iga._files import sweep_folders, write_folder

__all__ = ["Findings", "files_in"]

Fact = dict[str, Any]
SAID = ("check", "verdict", "value", "limit", "unit", "where", "note")


class Findings:
    """What is in DIR/found, and the facts that name it. named: what DIR is called in these facts."""

    def __init__(self, folder: Path, *, named: Path | None = None) -> None:
        self.folder, self.named = folder, folder if named is None else named
        self._places: dict[bytes, str] = {}  # a case → the name of its folder
        self._facts: dict[object, Fact] = {}
        sweep_folders(folder / "found")
        for case in sorted((folder / "found").glob("*/case.json")):
            if not case.parent.name.startswith("."):  # else it was never finished
                self._places.setdefault(case.read_bytes(), case.parent.name)

    def know(self, fact: Fact) -> Fact:
        """A finding that is in the folder already, as it was first told."""
        return self._facts.setdefault(_key(fact), fact)

    def add(self, fact: Fact, files: Mapping[str, bytes]) -> Fact:
        """The finding as it is kept, with its files written first: an earlier one where that is the same."""
        if not fact["inputs"]:
            return self._facts.setdefault(_key(fact), fact)
        case = files["case.json"]
        if case not in self._places:
            found = self.folder / "found"
            found.mkdir(parents=True, exist_ok=True)
            self._places[case] = write_folder(found / fact["check"], files).name
        kept = fact | {"inputs": str(self.named / "found" / self._places[case])}
        return self._facts.setdefault(_key(kept), kept)


def files_in(folder: Path) -> dict[str, bytes]:
    """The files of a counterexample by name."""
    return {one.name: one.read_bytes() for one in sorted(folder.iterdir()) if one.is_file() and not one.is_symlink()}


def _key(fact: Fact) -> object:
    return Path(fact["inputs"]).name if fact["inputs"] else tuple(fact[name] for name in SAID)
