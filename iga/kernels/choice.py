"""Which implementation runs: what stands in the way of each, and the rule of "auto"."""

import importlib.util
import os

import torch

from iga.presets import IGAConfig

__all__ = ["IMPLEMENTATIONS", "choose", "interpreted", "obstacle"]

# In the order in which "auto" tries them.
IMPLEMENTATIONS = ("fused", "cpu", "reference")


def obstacle(implementation: str, device: torch.device, dtype: torch.dtype, config: IGAConfig) -> str | None:
    """Why `implementation` cannot run on this device with geometry of this dtype and this config; None if it can."""
    if implementation == "reference":
        return None
    if config.form != "closed":
        return f'form={config.form!r} runs on the reference only; use a config with form="closed"'
    if implementation == "cpu":
        if device.type != "cpu":
            return f"the tensors are on {device}, and it runs on a CPU; move them, or take another implementation"
        if importlib.util.find_spec("numba") is None:
            return "numba is not installed: pip install numba"
        return None
    if dtype != torch.float32:
        return f"its geometry is float32, and the frames are {dtype}; convert them, or take reference or cpu"
    if importlib.util.find_spec("triton") is None:
        return 'triton is not installed: pip install "iga[triton]"'
    if device.type != "cuda" and not (device.type == "cpu" and interpreted()):
        return f"the tensors are on {device}, and it runs on CUDA (on a CPU with TRITON_INTERPRET=1 only)"
    return None


def choose(implementation: str, device: torch.device, dtype: torch.dtype, config: IGAConfig) -> str:
    """The implementation that a call runs: the one named, or for "auto" the first of fused, cpu, reference that can.

    Interpreted Triton is for tests: "auto" never takes it. Raises ValueError for an unknown name, and for a named one
    that cannot run, with the reason.
    """
    if implementation == "auto":
        names = IMPLEMENTATIONS if device.type == "cuda" else IMPLEMENTATIONS[1:]
        return next(name for name in names if obstacle(name, device, dtype, config) is None)
    if implementation not in IMPLEMENTATIONS:
        known = ", ".join(map(repr, ("auto", *IMPLEMENTATIONS)))
        raise ValueError(f"implementation must be one of {known}; got {implementation!r}")
    reason = obstacle(implementation, device, dtype, config)
    if reason is not None:
        raise ValueError(f"implementation={implementation!r} cannot run here: {reason}")
    return implementation


def interpreted() -> bool:
    """Whether Triton runs its kernels on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
