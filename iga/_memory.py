"""How much memory this process has, and has had at most, in bytes."""

import contextlib
import resource
import sys
from pathlib import Path

__all__ = ["forget_peak", "peak", "resident"]


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


def _bytes(field: str) -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
