"""Planted faults: wrong on purpose, each in one way, to prove of every check that it can fail.

`FAULTS` maps a bench, what is under test, to its faults: "overlap" functions, "layer"s, "frames" and "diagnostics"
(iga's own functions). `iga faults` runs every check of a bench on each of them (`matrix`).
"""

from iga.testing.faults import diagnostics, frames, layer_outputs, layer_scores, overlap
from iga.testing.faults.fault import Fault

__all__ = ["FAULTS", "Fault"]

FAULTS: dict[str, tuple[Fault, ...]] = {
    "overlap": overlap.FAULTS,
    "layer": layer_scores.FAULTS + layer_outputs.FAULTS,
    "frames": frames.FAULTS,
    "diagnostics": diagnostics.FAULTS,
}
