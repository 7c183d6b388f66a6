"""The trust in a kernel: at its first use on a device it proves itself against the reference, or is not taken.

The proof (`iga.kernels.proof`) is made once a device, form and version, and remembered: in the process, and on disk
where it was passed (`iga.kernels.verdicts`). It runs in a thread of its own, where none of the caller's modes is on: a
compiler's tracing, vmap, inference mode, autocast, a default device. The forward pass proves itself when an
implementation is chosen, the backward pass when the first gradient is asked for: nobody waits for what he does not use.
"""

import logging
import math
import os
import platform
import threading
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from iga.kernels import verdicts

__all__ = ["BACKWARD", "BRANCHES", "FORWARD", "branch_of", "distrust", "known_wrong", "say_wrong"]

logger = logging.getLogger("iga")

FORWARD, BACKWARD = "forward", "backward"
# ν beyond which kernels take another logarithm; and a score of each branch: its kind, ν and log_det_min.
DOF_MAX = 8.0
BRANCHES = {
    "gaussian": ("gaussian", 4.0, -math.inf),
    "gaussian, clamped": ("gaussian", 4.0, -5.0),
    "student_t": ("student_t", 4.0, -math.inf),
    "student_t, clamped": ("student_t", 4.0, -5.0),
    "student_t, large ν": ("student_t", 30.0, -math.inf),
    "student_t, large ν, clamped": ("student_t", 30.0, -5.0),
}

# what is asked → why it is not to be trusted, None where it proved itself
_verdicts: dict[tuple[Any, ...], str | None] = {}
_said: set[str] = set()
_lock = threading.RLock()


def branch_of(score: str, dof: float, clamped: bool) -> str:
    """The branch that a score takes in kernels: a name of `BRANCHES`."""
    name = "gaussian" if score == "gaussian" else "student_t, large ν" if dof > DOF_MAX else "student_t"
    return f"{name}, clamped" if clamped else name


def distrust(
    implementation: str, device: torch.device, dtype: torch.dtype, branch: str, points: int, part: str
) -> str | None:
    """Why the forward or backward pass of "cpu" or "fused" is not to be trusted here; None where it proved itself.

    The score's branch and the number of points count for "fused", which Triton compiles for them. While a CUDA graph is
    being captured nothing can be proved: None, and the next call asks.
    """
    asked = (*_wanted(implementation, device, dtype, branch, points), part)
    asked = (*asked, torch.get_float32_matmul_precision())
    if asked in _verdicts:
        return _verdicts[asked]
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return None
    with _lock:
        if asked not in _verdicts:
            try:
                verdict = _proved(implementation, device, dtype, (branch, points), part)
            except (MemoryError, OSError, torch.OutOfMemoryError) as error:  # of this moment: the next call asks again
                return f"it could not prove itself now ({type(error).__name__}): free memory, or room for files"
            except _NoThread:
                return None
            _verdicts[asked] = verdict
        return _verdicts[asked]


def known_wrong(implementation: str, device: torch.device, dtype: torch.dtype, branch: str, points: int) -> str | None:
    """Why gradients of this implementation are not to be trusted, where that was found already: nothing is run."""
    wanted = _wanted(implementation, device, dtype, branch, points)
    return _verdicts.get((*wanted, BACKWARD, torch.get_float32_matmul_precision()))


def say_wrong(implementation: str, instead: str, reason: str) -> None:
    """One warning of the logger "iga" for a reason, with what is done instead."""
    if reason not in _said:
        _said.add(reason)
        logger.warning("iga: the %s kernels are not used, %s: %s", implementation, instead, reason)


# Asked while torch.compile traces, they are run as they are: their answers are constants of the process.
for _function in (distrust, known_wrong, say_wrong):
    _function._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess] - as torch.compiler does


def _wanted(implementation: str, device: torch.device, dtype: torch.dtype, branch: str, points: int) -> tuple[Any, ...]:
    """What a verdict is of: the CPU kernels are compiled once for all scores."""
    wanted = (implementation, device, dtype)
    return wanted if implementation == "cpu" else (*wanted, branch, points)


class _NoThread(RuntimeError):
    """No thread can be started: the interpreter is ending, or the system has no room for one."""


def _proved(
    implementation: str, device: torch.device, dtype: torch.dtype, form: tuple[str, int], part: str
) -> str | None:
    key = _key(implementation, device, dtype, form, part)
    if verdicts.passed(key):
        return None
    wrong = _apart(lambda: _disagreement(implementation, device, dtype, form, part))
    if wrong:
        return f"{wrong} (the {part} pass on {key['device']}, against the reference in float64; docs/kernels.md, Proof)"
    verdicts.remember(key)
    return None


def _disagreement(
    implementation: str, device: torch.device, dtype: torch.dtype, form: tuple[str, int], part: str
) -> str:
    from iga.kernels.proof import CPU_FORMS, Form, disagreement

    try:
        branch, points = form
        for each in CPU_FORMS if implementation == "cpu" else (Form(*BRANCHES[branch], points),):
            wrong = disagreement(implementation, device, dtype, each, gradients=part == BACKWARD)
            if wrong:
                return wrong
    except (MemoryError, OSError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a compiler or a driver make of this device
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def _apart(function: Callable[[], str]) -> str:
    """What the function returns, or raises, in a thread of its own."""
    found: list[str] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            before = torch.get_num_threads()
            torch.set_num_threads(1)  # of this thread: a team of its own would cost more than it computes
            try:
                found.append(function())
            finally:
                torch.set_num_threads(before)
        except BaseException as error:  # of another thread: raised below, in the caller's
            raised.append(error)

    thread = threading.Thread(target=run, name="iga-proof", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise _NoThread(str(error)) from error
    thread.join()
    if raised:
        raise raised[0]
    return found[0]


def _key(
    implementation: str, device: torch.device, dtype: torch.dtype, form: tuple[str, int], part: str
) -> dict[str, str]:
    """All that a verdict depends on."""
    key = {"implementation": implementation, "part": part, "dtype": str(dtype), "sources": verdicts.sources()}
    key["products"] = torch.get_float32_matmul_precision()
    key["python"] = platform.python_version()
    for package in ("torch", "triton") if implementation == "fused" else ("torch", "numba", "llvmlite"):
        try:
            key[package] = version(package)
        except PackageNotFoundError:
            key[package] = ""
    if implementation == "cpu":
        triple, name, features = _processor()
        return key | {"device": f"{name}, {triple}", "features": features}
    key["form"] = "{}, {} points".format(*form)
    key["interpreted"] = os.environ.get("TRITON_INTERPRET", "")
    if device.type != "cuda":
        return key | {"device": f"{platform.machine()}, interpreted"}
    facts = torch.cuda.get_device_properties(device)
    return key | {"device": f"{facts.name}, sm_{facts.major}{facts.minor}", "cuda": str(torch.version.cuda)}


def _processor() -> tuple[str, str, str]:
    """The system, the processor and its features for which numba compiles."""
    from numba.core.registry import cpu_target

    target: Any = cpu_target.target_context
    triple, name, features = target.codegen().magic_tuple()
    return str(triple), str(name), str(features)


def _forked() -> None:
    """In a process that was forked away nobody holds the lock."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
