"""The choice of the implementation that runs: what stands in the way of each, and the rule of "auto"."""

import importlib.util
import logging
import os

import torch

from iga.presets import IGAConfig

__all__ = ["IMPLEMENTATIONS", "choose", "interpreted", "obstacle"]

logger = logging.getLogger("iga")

# In the order in which "auto" tries them.
IMPLEMENTATIONS = ("fused", "cpu", "reference")


def obstacle(implementation: str, device: torch.device, dtype: torch.dtype, config: IGAConfig) -> str | None:
    """Why `implementation` cannot run on this device with geometry of this dtype and this config; None if it can.

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
        return _numba_obstacle(dtype)
    if dtype != torch.float32:
        return f"its geometry is float32, and the frames are {dtype}; convert them, or take reference or cpu"
    if importlib.util.find_spec("triton") is None:
        return 'triton is not installed: pip install "invariant-gaussian-attention[triton]"'
    if device.type != "cuda" and not (device.type == "cpu" and interpreted()):
        return f"the tensors are on {device}, and it runs on CUDA (on a CPU with TRITON_INTERPRET=1 only)"
    return None


def choose(implementation: str, device: torch.device, dtype: torch.dtype, config: IGAConfig) -> str:
    """The implementation that a call runs: the one named, or for "auto" the first of fused, cpu, reference that can.

    Interpreted Triton is for tests: "auto" never takes it. Where numba cannot serve, "auto" takes the reference, and
    the logger "iga" says so once, with the reason and the remedy. Raises ValueError for an unknown name, and for a
    named one that cannot run, with the reason. Source: docs/kernels.md.
    """
    if implementation == "auto":
        names = IMPLEMENTATIONS if device.type == "cuda" else IMPLEMENTATIONS[1:]
        chosen = next(name for name in names if obstacle(name, device, dtype, config) is None)
        if chosen == "reference" and device.type == "cpu" and config.form == "closed":
            _say_once(dtype)
        return chosen
    if implementation not in IMPLEMENTATIONS:
        known = ", ".join(map(repr, ("auto", *IMPLEMENTATIONS)))
        raise ValueError(f"implementation must be one of {known}; got {implementation!r}")
    reason = obstacle(implementation, device, dtype, config)
    if reason is not None:
        raise ValueError(f"implementation={implementation!r} cannot run here: {reason}")
    return implementation


def _numba_obstacle(dtype: torch.dtype) -> str | None:
    """What keeps numba from serving, with the remedy: found out by compiling what a call needs anyway."""
    if not _installed("numba"):
        return "numba is not installed: pip install numba"
    try:
        if dtype not in _found:
            _found[dtype] = _tried("float32" if dtype == torch.float32 else "float64")
    except (MemoryError, OSError) as error:  # of this moment: the next call tries again
        return f"numba cannot compile now ({_in_a_line(error)}): free memory, or room for files"
    return _found[dtype]


_found: dict[torch.dtype, str | None] = {}
_said: set[str] = set()


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
