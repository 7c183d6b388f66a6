"""The lock on a comparison's folder: one command works in it at a time, together with the processes that it starts."""

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["Hold"]


class Hold:
    """A lock on the folder itself, so that no file is left behind. It ends, in whatever way the processes end, with the
    last one that has `number` open. On a file system without locks nothing is locked."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __enter__(self) -> "Hold":
        return self

    def __exit__(self, *error: object) -> None:
        if self.number is not None:
            os.close(self.number)
            self.number = None

    def take(self, folder: Path) -> None:
        """Locks `folder` if it is there and nothing is locked yet. Raises ValueError where another command has it."""
        if self.number is not None or fcntl is None or not folder.is_dir():
            return
        number = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(number)
            raise ValueError(
                f"{folder} is in use by another iga compare or iga sweep, or by a run of one that has ended; "
                "wait for it, or name another folder"
            ) from error
        except OSError:
            os.close(number)
            return
        self.number = number
