"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed.

A checkpoint holds tensors, numbers and strings alone, and is read by torch's weights-only loader: a file from elsewhere
cannot run code.
"""

import io
import os
from pathlib import Path
from typing import Any

import torch

__all__ = ["load", "save", "write_bytes", "write_text"]


def write_bytes(path: Path, data: bytes) -> None:
    """The file `path` with `data`; who is interrupted leaves what was there before."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """The same of text, in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def save(path: Path, state: dict[str, Any]) -> None:
    """`state`, of tensors, numbers, strings, lists and dicts, as a checkpoint."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote, on the CPU. Raises ValueError, naming the file, where it is none."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # pickle and zip raise what they like on a damaged file
        raise ValueError(f"{path} is no checkpoint of iga compare ({type(error).__name__}); remove it") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} is no checkpoint of iga compare; remove it")
    return state
