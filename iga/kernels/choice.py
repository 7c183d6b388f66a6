"""The choice of the implementation that runs: what stands in the way of each, and the rule of "auto"."""

import builtins
import importlib.util
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from iga.kernels.trust import FORWARD, branch_of, distrust, known_wrong, say_wrong
from iga.presets import IGAConfig

__all__ = ["IMPLEMENTATIONS", "choose", "interpreted", "obstacle"]

logger = logging.getLogger("iga")

# In the order in which "auto" tries them.
IMPLEMENTATIONS = ("fused", "cpu", "reference")
# Where the caller does not say.
POINTS = 4


def obstacle(
    implementation: str, device: torch.device, dtype: torch.dtype, config: IGAConfig, points: int = POINTS
) -> str | None:
    """Why `implementation` cannot run on this device with geometry of this dtype and this config; None if it can.

    The kernels prove themselves before they are trusted: fused at this number of `points`, for which Triton compiles
    it (in a graph that is being compiled at POINTS).
    Raises ValueError for an unknown name. Source: docs/kernels.md.
    """
    if implementation not in IMPLEMENTATIONS:
        known = ", ".join(map(repr, IMPLEMENTATIONS))
        raise ValueError(f"implementation must be one of {known}; got {implementation!r}")
    if implementation == "reference":
        return None
    if config.form != "closed":
        return f'form={config.form!r} runs on the reference only; use a config with form="closed"'
    if implementation == "cpu":
        if device.type != "cpu":
            return f"the tensors are on {device}, and it runs on a CPU; move them, or take another implementation"
        return _numba_obstacle(dtype) or _distrusted("cpu", device, dtype, config, points)
    if dtype != torch.float32:
        return f"its geometry is float32, and the frames are {dtype}; convert them, or take reference or cpu"
    if importlib.util.find_spec("triton") is None:
        return 'triton is not installed: pip install "invariant-gaussian-attention[triton]"'
    if device.type != "cuda" and not (device.type == "cpu" and interpreted()):
        return f"the tensors are on {device}, and it runs on CUDA (on a CPU with TRITON_INTERPRET=1 only)"
    return _distrusted("fused", device, dtype, config, points)


def choose(
    implementation: str, device: torch.device, dtype: torch.dtype, config: IGAConfig, points: int = POINTS
) -> str:
    """The implementation that a call runs: the one named, or for "auto" the first of fused, cpu, reference that can.

    Interpreted Triton is for tests: "auto" never takes it. Where numba cannot serve, or kernels are found to be wrong,
    "auto" takes the next, and the logger "iga" says so once, with the reason and the remedy. Raises ValueError for an
    unknown name, and for a named one that cannot run, with the reason. Source: docs/kernels.md.
    """
    if implementation == "auto":
        names = IMPLEMENTATIONS if device.type == "cuda" else IMPLEMENTATIONS[1:]
        chosen = next(name for name in names if obstacle(name, device, dtype, config, points) is None)
        if chosen == "reference" and device.type == "cpu" and config.form == "closed":
            _say_once(dtype)
        if chosen != names[0] and config.form == "closed":
            _say_distrust(names[0], chosen, device, dtype, config, points)
        return chosen
    if implementation not in IMPLEMENTATIONS:
        known = ", ".join(map(repr, ("auto", *IMPLEMENTATIONS)))
        raise ValueError(f"implementation must be one of {known}; got {implementation!r}")
    reason = obstacle(implementation, device, dtype, config, points)
    if reason is not None:
        raise ValueError(f"implementation={implementation!r} cannot run here: {reason}")
    return implementation


def _distrusted(
    implementation: str, device: torch.device, dtype: torch.dtype, config: IGAConfig, points: int
) -> str | None:
    """The faults of the kernels on this device: of their values, and of their gradients where that is known."""
    if torch.compiler.is_compiling():
        points = POINTS  # the answer is a constant of the process, and so is what is asked
    branch = branch_of(config.score, config.dof, config.log_det_min is not None)
    asked = (implementation, device, dtype, branch, points)
    reason = distrust(*asked, FORWARD)
    if reason is None and torch.is_grad_enabled():
        reason = known_wrong(*asked)
    return reason


def _say_distrust(
    implementation: str, chosen: str, device: torch.device, dtype: torch.dtype, config: IGAConfig, points: int
) -> None:
    if implementation == "cpu" and _numba_obstacle(dtype) is not None:
        return  # said already
    if implementation == "fused" and (dtype != torch.float32 or importlib.util.find_spec("triton") is None):
        return
    reason = _distrusted(implementation, device, dtype, config, points)
    if reason is not None:
        say_wrong(implementation, f"{chosen} is", reason)


def _numba_obstacle(dtype: torch.dtype) -> str | None:
    """What keeps numba from serving, with the remedy: found out by compiling what a call needs anyway."""
    if not _installed("numba"):
        return "numba is not installed: pip install numba"
    try:
        if dtype not in _found:
            with _plain_python():
                _found[dtype] = _tried("float32" if dtype == torch.float32 else "float64")
    except (MemoryError, OSError) as error:  # of this moment: the next call tries again
        return f"numba cannot compile now ({_in_a_line(error)}): free memory, or room for files"
    return _found[dtype]


_found: dict[torch.dtype, str | None] = {}
_said: set[str] = set()
_PLAIN: dict[tuple[Any, str], Any] = {
    (builtins, "max"): builtins.max,
    (builtins, "min"): builtins.min,
    (math, "pow"): math.pow,
}


@contextmanager
def _plain_python() -> Iterator[None]:
    """Python's own max, min and pow meanwhile: torch.export puts others in their place, which numba cannot compile."""
    exchanged = [(module, name, getattr(module, name)) for module, name in _PLAIN]
    for (module, name), own in _PLAIN.items():
        setattr(module, name, own)
    try:
        yield
    finally:
        for module, name, other in exchanged:
            setattr(module, name, other)


def _tried(dtype: str) -> str | None:
    try:
        from iga.kernels.cpu import ready
    except Exception as error:  # of numba, llvmlite, their binaries or the numpy that they were built for
        return f"numba cannot be imported ({_in_a_line(error)}): pip install --upgrade --force-reinstall numba llvmlite"
    if not ready.compiles():
        return "numba's compiler is switched off: unset NUMBA_DISABLE_JIT"
    try:
        ready.ready(dtype, ready.FORWARD, soon=ready.BACKWARD if torch.is_grad_enabled() else ())
    except (MemoryError, OSError):
        raise
    except Exception as error:  # whatever numba or LLVM make of this machine
        return f"numba cannot compile here ({_in_a_line(error)}): look at NUMBA_* in the environment, or upgrade numba"
    return None


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module that stands in sys.modules without a spec, as None does
        return False


def _say_once(dtype: torch.dtype) -> None:
    reason = _numba_obstacle(dtype)
    if reason is not None and reason not in _said:
        _said.add(reason)
        logger.warning("iga: the CPU kernels cannot run, so the reference does, slowly and in dense memory: %s", reason)


# Asked while torch.compile traces, both are run as they are: their answers are constants of the process.
for _function in (_numba_obstacle, _say_once):
    _function._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess] - as torch.compiler does


def _in_a_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"


def interpreted() -> bool:
    """Whether Triton runs its kernels on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
