"""The benches that faults are planted on: a clean subject, its checks, and a run small enough to be done often."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from iga._runtime import threads
from iga.presets import preset
from iga.structure import Structure
from iga.structure.synthetic import synthetic_structures
from iga.testing.checks import INVARIANTS
from iga.testing.contract import PROFILES, Contract, Profile
from iga.testing.faults.clean import CLEAN
from iga.testing.faults.fault import Fault
from iga.testing.layer.subject import Subject
from iga.testing.library.diagnostics import DIAGNOSTICS, diagnostics_agree
from iga.testing.library.frame_laws import FRAMES, frame_laws
from iga.testing.library.quaternion_sign import quaternion_sign
from iga.testing.overlap.checks import OVERLAP_INVARIANTS
from iga.testing.result import Finding
from iga.testing.run import LayerPlan, OverlapPlan
from iga.testing.tally import Tally

__all__ = ["CHECKS", "check", "clean_subject", "looks_at"]

# A profile of its own name runs every check, those of ci and nightly too.
SMALL: Profile = replace(
    PROFILES["fast"],
    name="faults",
    synthetic=4,
    residues=16,
    degenerate=12,
    focus=1,
    focus_residues=20,
    digits_pairs=8,
    perturb_every=6,
    focus_perturb_every=12,
    pairs=2000,
)
CONTRACT = Contract(points=(1, 4))
LIBRARIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "frames": (FRAMES, {"frame_laws": frame_laws, "quaternion_sign": quaternion_sign}),
    "diagnostics": (DIAGNOSTICS, {"diagnostics_agree": diagnostics_agree}),
}
# Compiled against eager, derivatives against differences: a value that is wrong throughout agrees with itself. Run on
# the kinds of faults that can show there; these checks cost more than all others together.
SMOOTH = ("gradients", "dtypes", "control flow")
COMPARE_WITH_ITSELF: dict[tuple[str, str], tuple[str, ...]] = {
    ("overlap", "transforms"): ("control flow",),
    ("layer", "transforms"): ("control flow",),
    ("overlap", "second_derivatives"): SMOOTH,
    ("layer", "second_derivatives"): SMOOTH,
    ("layer", "gradient_values"): SMOOTH,
}
CHECKS: dict[str, tuple[str, ...]] = {
    "overlap": tuple(OVERLAP_INVARIANTS),
    "layer": tuple(name for name, one in INVARIANTS.items() if one.needs != "library"),
    **{bench: tuple(checks) for bench, (_, checks) in LIBRARIES.items()},
}


def clean_subject(bench: str, name: str = "closed form") -> Any:
    """What a fault of this bench is planted in; `name` is one of `CLEAN` for overlaps."""
    if bench == "overlap":
        return CLEAN[name]
    if bench == "layer":
        return Subject("bounded", preset("bounded"), SMALL)
    return LIBRARIES[bench][0]


def looks_at(bench: str, check: str, fault: Fault) -> bool:
    """Whether the check is run: one that compares a function with itself is not where that shows nothing."""
    kinds = COMPARE_WITH_ITSELF.get((bench, check))
    return kinds is None or fault.kind in kinds


def check(bench: str, subject: Any, names: Sequence[str], seed: int) -> list[Finding]:
    """The findings of the named checks on a subject of the bench."""
    if bench in LIBRARIES:
        findings = []
        with threads(1):  # small tensors, as in a run over a layer
            for name in names:
                tally = Tally(name, "of the budget")
                LIBRARIES[bench][1][name](subject, seed, tally)
                findings.append(tally.finding())
        return findings
    plan = OverlapPlan if bench == "overlap" else LayerPlan
    return plan(subject, CONTRACT, SMALL, seed, list(names), _structures(seed), []).run().findings


@cache
def _structures(seed: int) -> list[Structure]:
    return synthetic_structures(SMALL.synthetic, seed=seed)
