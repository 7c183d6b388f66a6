"""The command that shows one finding alone, in seconds, for each row of a verification.

A run draws from its seed alone, and from a file as the file's name says (`layer.cases.own_number`); it chooses the
structures of the costlier checks by their lengths. So one check, on the files that its worst example needs, meets that
example again.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from iga.report.documents import Invariant, StructureRecord, Verify
from iga.testing.checks import LIBRARIES, checks_of
from iga.testing.contract import the_profile
from iga.testing.layer.cases import focused
from iga.testing.result import LOADS, PROCESS

__all__ = ["add_commands"]


def add_commands(document: Verify, words: Sequence[str], structures: Sequence[str]) -> None:
    """Gives each row the command that shows it alone, as `reproduce`.

    words       the command line as it was typed: what is judged and all options but --only, --seed, --structures and
                those that name files to be written
    structures  the values of --structures; none: synthetic ones
    """
    for row in document["invariants"]:
        files = _files(document, row) if structures else []
        chosen = [word for file in (structures if files is None else files) for word in ("--structures", file)]
        seed = str(document["environment"]["seed"])
        only = [] if row["name"] == LOADS else ["--only", row["name"]]
        row["reproduce"] = shlex.join(["iga", "verify", *words, *only, "--seed", seed, *chosen])


def _files(document: Verify, row: Invariant) -> list[str] | None:
    """The structures that the row's worst example needs; None: all that were given."""
    if row["worst_example"] == PROCESS:
        return None
    check = checks_of(document["kind"])[row["name"]]
    if check.kind in LIBRARIES:
        return []
    if check.kind == "overlap":  # pairs of residues are drawn from all structures, degenerate ones from none
        return None if row["worst_example"].startswith("residues") else []
    read = [one for one in document["structures"] if one["status"] != "unreadable"]
    lengths = [one["residues"] - one["masked"] for one in read]
    focus = [read[place] for place in focused(lengths, the_profile(document["environment"]["profile"]).focus)]
    # an example begins with the name of its file
    own = [one for one in read if row["worst_example"].startswith(Path(one["path"]).name)]
    if check.measure is None:
        return _paths(own) or None
    in_focus = not own or any(one in focus for one in own)
    return _paths(focus if in_focus else own) or None


def _paths(records: Sequence[StructureRecord]) -> list[str]:
    return [one["path"] for one in records]
