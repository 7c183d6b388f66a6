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
    layer_memory,
    layer_outputs,
    layer_scores,
    layer_sizes,
    layer_taps,
    layer_ways,
    overlap,
    overlap_gradients,
    overlap_sizes,
    overlap_ways,
    process,
)
from iga.testing.faults.fault import Fault

__all__ = ["FAULTS", "SLIPS", "Fault"]


def _with_checks(bench: str, faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
    """The faults; one that only a check could see which this package does not have is missed, and says so."""
    known = {check.name for check in CHECKS if check.kind == bench}
    lacking = {fault.name: ", ".join(set(fault.expected) - known) for fault in faults}
    return tuple(
        replace(fault, expected=(), missed=f"there is no check {lacking[fault.name]}") if lacking[fault.name] else fault
        for fault in faults
    )


SLIPS: dict[str, tuple[Fault, ...]] = {
    "overlap": _with_checks("overlap", overlap_sizes.FAULTS + overlap_ways.FAULTS + overlap_gradients.FAULTS),
    "layer": _with_checks("layer", layer_sizes.FAULTS + layer_ways.FAULTS + layer_memory.FAULTS),
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
