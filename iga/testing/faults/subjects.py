"""Clean subjects, in which faults are planted, with their checks and a run small enough to be done often."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from iga.presets import preset
from iga.structure import Structure
from iga.structure.synthetic import synthetic_structures
from iga.testing.check import Check
from iga.testing.checks import CHECKS as ALL
from iga.testing.checks import LIBRARIES
from iga.testing.contract import PROFILES, Contract, Profile
from iga.testing.faults.accused import bare_layer
from iga.testing.faults.clean import CLEAN, CLOSED
from iga.testing.faults.fault import Fault
from iga.testing.layer.subject import Subject
from iga.testing.result import Finding
from iga.testing.run import Run

__all__ = ["CHECKS", "JUDGES", "LAYERS", "applies", "clean_subject", "looks_at", "run_checks"]

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
CONTRACT = Contract(points=(1, 3, 4))
JUDGES: dict[str, tuple[Check, ...]] = {
    kind: tuple(check for check in ALL if check.kind == kind) for kind in ("overlap", "layer", *LIBRARIES)
}
CHECKS: dict[str, tuple[str, ...]] = {kind: tuple(one.name for one in checks) for kind, checks in JUDGES.items()}


# Right layers, and which share of a clean run's seeds each sees: one in twenty.
LAYERS: dict[str, int] = {"bounded": 20, "untraced": 20}
# What a fault is like beside its kind, by the names in `Check.seen_faults`.
THROUGHOUT = ("geometry", "laws")  # kinds that are wrong in the same way however the function is called
LIKE: dict[str, Callable[[Fault], bool]] = {
    "calls": lambda fault: bool(fault.region) and fault.kind not in THROUGHOUT,
    "control flow": lambda fault: fault.kind == "transforms",
    "compiled": lambda fault: fault.region.startswith(("torch.compile", "torch.export")),
    "untraced": lambda fault: not fault.traced,
}


def clean_subject(bench: str, name: str | None = None) -> Any:
    """What a fault of this bench is planted in, or another right target: one of `CLEAN` for overlaps, of `LAYERS`."""
    if bench == "overlap":
        return CLEAN[name or CLOSED]
    if bench == "layer":
        layer = Subject("bounded", preset("bounded"), SMALL)
        return bare_layer(layer) if name == "untraced" else layer
    return LIBRARIES[bench]


def applies(check: Check, subject: Any) -> bool:
    """Whether a check can be asked of the subject at all."""
    return not (isinstance(subject, Subject) and check.not_applicable(subject, SMALL.name))


def looks_at(check: Check, fault: Fault, planted: Any = None) -> bool:
    """Whether the check is run on what was planted: one that compares a function with itself is not where that shows
    nothing, nor one that calls eagerly where what is compiled alone is wrong."""
    if LIKE["compiled"](fault):
        return check.name in fault.expected and applies(check, planted)
    seen = {fault.kind, *(like for like, are in LIKE.items() if are(fault))}
    return (check.seen_faults is None or bool(seen & {*check.seen_faults})) and applies(check, planted)


def run_checks(bench: str, subject: Any, checks: Sequence[Check], seed: int) -> list[Finding]:
    """The findings of the checks on a subject of the bench."""
    return Run(bench, subject, CONTRACT, SMALL, seed, list(checks), _structures(seed)).run().findings


@cache
def _structures(seed: int) -> list[Structure]:
    return synthetic_structures(SMALL.synthetic, seed=seed)
