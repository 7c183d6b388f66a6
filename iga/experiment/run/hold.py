"""A folder that one process works in at a time, together with the processes that it starts."""

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["Hold"]


class Hold:
    """A lock on a folder itself: no file is left, and it ends with the last process that has `number` open, however
    that ends. A file system without locks has none."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __enter__(self) -> "Hold":
        return self

    def __exit__(self, *error: object) -> None:
        if self.number is not None:
            os.close(self.number)
            self.number = None

    def take(self, folder: Path) -> None:
        """Once; nothing where the folder is not there yet. Raises ValueError where another has it."""
        if self.number is not None or fcntl is None or not folder.is_dir():
            return
        number = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(number)
            raise ValueError(
                f"{folder} is in use by another iga compare, or by a run of one that has ended; "
                "wait for it, or name another folder"
            ) from error
        except OSError:
            os.close(number)
            return
        self.number = number
