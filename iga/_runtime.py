"""What a run asks of its machine: threads and denormals, memory, and a record of its environment.

Threads and denormals belong to the whole process and are put back. Memory is counted in bytes."""

import contextlib
import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

__all__ = ["available", "check_room", "environment", "flushed_denormals", "forget_peak", "peak", "resident", "threads"]


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


def resident() -> int:
    """What is in memory now; where there is no /proc, the most there ever was."""
    return _bytes("VmRSS")


def peak() -> int:
    """The most there was since `forget_peak`; where there is no /proc, since the process began."""
    return _bytes("VmHWM")


def forget_peak() -> None:
    """From now on `peak` counts from what is resident, where the system can do that; elsewhere it only rises."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may keep the file away
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def available() -> int:
    """What a computation on the CPU may still take; where there is no /proc, all that the machine has."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":") for line in meminfo.read_text(encoding="ascii").splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    return _of_machine()


def check_room(what: str, needed: int | float) -> None:
    """Raises ValueError, `what` first, where about `needed` bytes are more than the machine has.

    Not what is free just now: a call that is right must not be refused because of what runs beside it for a second.
    """
    there = _of_machine()
    if needed > there:
        raise ValueError(f"{what} would take about {needed / 1e9:.3g} GB, and this machine has {there / 1e9:.3g} GB")


def _of_machine() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _bytes(field: str) -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def environment(seed: int) -> dict[str, object]:
    """Versions, device and seed of this run."""
    import torch

    packages = {name: version(name) for name in ("torch", "numpy", "gemmi")}
    return {
        "iga": _own_version(),
        "python": platform.python_version(),
        **packages,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "seed": seed,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _own_version() -> str:
    from iga import __version__

    return __version__
