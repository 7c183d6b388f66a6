"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed."""

import os
from pathlib import Path

__all__ = ["write_bytes", "write_text"]


def write_bytes(path: Path, data: bytes) -> None:
    """The file `path` with `data`; whoever is interrupted leaves what was there before. OSError if it can't be done."""
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
