"""Invariant Gaussian Attention with bounds that hold in floating point, and the suite that checks them.

Public names load on first use, so that `iga --help` and test plugins never wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name → the module that defines it
_PUBLIC = {
    "Frame": "iga.frame",
    "GaussianRigid": "iga.gaussian",
    "IGAConfig": "iga.presets",
    "InvariantGaussianAttention": "iga.attention",
    "InvariantPointAttention": "iga.ipa",
    "Monitor": "iga.diagnostics",
    "PRESETS": "iga.presets",
    "Structure": "iga.structure",
    "StructureError": "iga.structure",
    "Trace": "iga.functional",
    "gaussian_overlap": "iga.overlap",
    "gaussian_overlap_textbook": "iga.overlap",
    "preset": "iga.presets",
    "read_structure": "iga.structure",
    "read_structures": "iga.structure",
    "synthetic_structures": "iga.structure.synthetic",
    "verify": "iga.testing.verify",
    "watch": "iga.recording",
}

_MODULES = ("taps",)  # public as they are, by their name

__all__ = ["__version__", *sorted([*_PUBLIC, *_MODULES])]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from iga import taps as taps
    from iga.attention import InvariantGaussianAttention as InvariantGaussianAttention
    from iga.diagnostics import Monitor as Monitor
    from iga.frame import Frame as Frame
    from iga.functional import Trace as Trace
    from iga.gaussian import GaussianRigid as GaussianRigid
    from iga.ipa import InvariantPointAttention as InvariantPointAttention
    from iga.overlap import gaussian_overlap as gaussian_overlap
    from iga.overlap import gaussian_overlap_textbook as gaussian_overlap_textbook
    from iga.presets import PRESETS as PRESETS
    from iga.presets import IGAConfig as IGAConfig
    from iga.presets import preset as preset
    from iga.recording import watch as watch
    from iga.structure import Structure as Structure
    from iga.structure import StructureError as StructureError
    from iga.structure import read_structure as read_structure
    from iga.structure import read_structures as read_structures
    from iga.structure.synthetic import synthetic_structures as synthetic_structures
    from iga.testing.verify import verify as verify


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"iga.{name}")
    if name in _PUBLIC:
        value = getattr(import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'iga' has no attribute {name!r}; public names: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC, *_MODULES})
