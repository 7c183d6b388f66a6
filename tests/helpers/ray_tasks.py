"""The tasks of a Ray cluster that a command has started, as processes."""

import os
from pathlib import Path

__all__ = ["tasks_of"]


def tasks_of(session: int, function: str) -> list[int]:
    """The processes of this session that run a task of Ray's, by the name of its function."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(f"ray::{function}".encode()):
                found.append(int(folder.name))
        except OSError:  # it has ended
            continue
    return [pid for pid in found if os.getsid(pid) == session]
