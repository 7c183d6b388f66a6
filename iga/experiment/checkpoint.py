"""Checkpoints: files that are whole or not there, of tensors, numbers and strings alone.

They are read by torch's weights-only loader: a file from elsewhere cannot run code.
"""

import io
from pathlib import Path
from typing import Any

import torch

from iga._files import write_bytes

__all__ = ["load", "save"]


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
