"""Needs of a run that the machine serves: threads and denormals, memory, and a record of its environment.

Threads and denormals belong to the whole process and are put back. Memory is counted in bytes."""

import contextlib
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from iga import __version__
from iga.report.documents import Environment, Machine

__all__ = [
    "Progress",
    "available",
    "check_room",
    "environment",
    "flushed_denormals",
    "forget_peak",
    "machine",
    "peak",
    "resident",
    "threads",
]

# The call by which a long run reports: its step, the number of parts done, and the number of all.
Progress = Callable[[str, int, int], None]


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
    """Memory of this process now; where there is no /proc, the most there ever was."""
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
    """Memory that a computation on the CPU may still take; where there is no /proc, all that the machine has."""
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


def environment(seed: int) -> Environment:
    """Versions, device and seed of this run."""
    return {
        "iga": __version__,
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "gemmi": version("gemmi"),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "seed": seed,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def machine() -> Machine:
    """The ground of a timing: processor, versions, date, and the checkout's commit."""
    versions = {"python": platform.python_version(), "iga": __version__}
    for name in ("torch", "triton", "numba", "numpy", "pykeops"):
        with contextlib.suppress(PackageNotFoundError):  # an extra that is not installed has no version
            versions[name] = version(name)
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": _commit(),
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The checkout's commit, with "+" where it was changed; None outside one."""
    here = Path(__file__).resolve().parents[1]
    if not (here / ".git").exists():
        return None

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
