"""What a computation sets for the whole process, and puts back: threads, and what becomes of denormal numbers."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["flushed_denormals", "threads"]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch's threads inside an operator are `count` meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Denormal numbers are zero meanwhile, where the processor can do that."""
    before = sys.float_info.min / 2 == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
