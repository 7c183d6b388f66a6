"""Silence for calls that may fail loudly: a compiler logs, and prints, the whole graph of what it cannot take."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

__all__ = ["quiet"]


@contextmanager
def quiet() -> Iterator[None]:
    """No log record is handled and nothing reaches Python's standard error; afterwards all is as it was."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
