"""Planted faults: wrong on purpose, each in one way, to prove of every check that it can fail.

`FAULTS` maps a bench, what is under test, to its faults: "overlap" functions, "layer"s, "frames" and "diagnostics"
(iga's own functions). `iga faults` runs every check of a bench on each of them (`matrix`). `SLIPS` are those of them
that are right but for one mistake that people make, in a region that is stated (docs/faults.md).
"""

from dataclasses import replace

from iga.testing.checks import CHECKS
from iga.testing.faults import (
    diagnostics,
    frames,
    layer_calls,
    layer_features,
    layer_held,
    layer_masks,
    layer_memory,
    layer_outputs,
    layer_scores,
    layer_sizes,
    layer_states,
    layer_taps,
    layer_ways,
    overlap,
    overlap_gradients,
    overlap_held,
    overlap_sizes,
    overlap_ways,
    process,
)
from iga.testing.faults.fault import Fault
from iga.testing.faults.missed import MISSED

__all__ = ["FAULTS", "SLIPS", "Fault"]


def _judged(bench: str, faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
    """The faults; those of `MISSED`, and those of a check that this package does not have, say why they are missed."""
    known = {check.name for check in CHECKS if check.kind == bench}
    made = []
    for fault in faults:
        lacking = ", ".join(sorted(set(fault.expected) - known))
        why = MISSED[bench].get(fault.name) or (f"there is no check {lacking}" if lacking else "")
        made.append(replace(fault, expected=(), missed=why) if why else fault)
    return tuple(made)


SLIPS: dict[str, tuple[Fault, ...]] = {
    "overlap": _judged(
        "overlap", overlap_sizes.FAULTS + overlap_ways.FAULTS + overlap_gradients.FAULTS + overlap_held.FAULTS
    ),
    "layer": _judged(
        "layer",
        layer_sizes.FAULTS
        + layer_masks.FAULTS
        + layer_ways.FAULTS
        + layer_memory.FAULTS
        + layer_states.FAULTS
        + layer_features.FAULTS
        + layer_held.FAULTS,
    ),
}
FAULTS: dict[str, tuple[Fault, ...]] = {
    "overlap": overlap.FAULTS + process.OVERLAP + SLIPS["overlap"],
    "layer": layer_scores.FAULTS
    + layer_taps.FAULTS
    + layer_outputs.FAULTS
    + layer_calls.FAULTS
    + process.LAYER
    + SLIPS["layer"],
    "frames": frames.FAULTS,
    "diagnostics": diagnostics.FAULTS,
}
