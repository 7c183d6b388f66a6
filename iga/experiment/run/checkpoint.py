"""Checkpoints: files of tensors, numbers and strings, each written whole or not at all.

torch's weights-only loader reads them, so that a file from elsewhere cannot run code. A run keeps the last two: where
the newest is damaged, the run goes on from the one before.
"""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from iga._files import write_bytes

__all__ = ["keep", "load", "newest", "save", "set_aside"]

NEWEST, BEFORE = "checkpoint.pt", "checkpoint_before.pt"
_OF_A_RUN = {"network", "optimizer", "step", "seconds", "peak_mb"}


def save(path: Path, state: dict[str, Any]) -> None:
    """`state`, of tensors, numbers, strings, lists and dicts, as a checkpoint."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote, on the CPU. Raises ValueError, naming the file, where it is none."""
    data = io.BytesIO(path.read_bytes())
    try:
        state = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle and zip raise what they like on a damaged file
        raise ValueError(f"{path} is no checkpoint of iga compare ({type(error).__name__}); remove it") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} is no checkpoint of iga compare; remove it")
    return state


def keep(folder: Path, state: dict[str, Any]) -> None:
    """`state` as the newest checkpoint of the run in `folder`, and the one that was newest as the one before."""
    if (folder / NEWEST).exists():
        os.replace(folder / NEWEST, folder / BEFORE)
    save(folder / NEWEST, state)


def newest(folder: Path, fits: Callable[[dict[str, Any]], bool] = lambda state: True) -> dict[str, Any] | None:
    """The last state of a run that can be read and `fits`; None where there is none. A damaged file is set aside; a
    state that does not fit is kept under the name `….ahead`."""
    for path in (folder / NEWEST, folder / BEFORE):
        if not path.exists():
            continue
        try:
            state = load(path)
        except ValueError:
            state = {}
        if not _OF_A_RUN <= state.keys():
            set_aside(path)
        elif fits(state):
            return state
        else:
            os.replace(path, path.with_name(f"{path.name}.ahead"))
    return None


def set_aside(path: Path, *, copy: bool = False) -> None:
    """Renames a damaged file to `….damaged`, or with copy = True copies it there, and says so on standard error."""
    kept = path.with_name(f"{path.name}.damaged")
    if not path.exists():
        print(f"{path} is lost: the run goes on from before it", file=sys.stderr)
        return
    if copy:
        write_bytes(kept, path.read_bytes())
    else:
        os.replace(path, kept)
    print(f"{path} is damaged, and kept as {kept.name}: the run goes on from before it", file=sys.stderr)
