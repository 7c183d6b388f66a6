"""The invariants: what each measures, in which unit, and on what.

Each module measures and hands values with limits to a Tally, which judges. Limits come from `iga.bounds`, by way of
`budgets`, or are bands and definitions stated in the module's first lines; none is taken from what was observed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from iga.testing.cases import Case
from iga.testing.contract import Contract
from iga.testing.invariants import accuracy, alive, gradients, growth, masks, symmetry
from iga.testing.subject import Subject
from iga.testing.tally import Tally

__all__ = ["INVARIANTS", "Invariant"]

Measure = Callable[[Subject, list[Case], Contract, int, Tally], None]


@dataclass(frozen=True)
class Invariant:
    """`measure` runs on the focus structures (and on their degenerate perturbations if `degenerate`); None: the
    invariant is measured with the scores of all structures alone."""

    unit: str
    measure: Measure | None
    degenerate: bool = False


INVARIANTS: dict[str, Invariant] = {
    "log_det_floor": Invariant("ln nm⁶", None),
    "dist_sq_bound": Invariant("1", None),
    "geometry_logit_bound": Invariant("nat", None),
    "growth_with_points": Invariant("exponent of P", growth.growth_with_points),
    "point_scaling_law": Invariant("nat", growth.point_scaling_law),
    "geometry_is_alive": Invariant("see band", alive.geometry_is_alive),
    "se3_invariance": Invariant("of the budget", symmetry.se3_invariance, degenerate=True),
    "mask_inertness": Invariant("output", masks.mask_inertness),
    "gradient_finiteness": Invariant("entries", gradients.gradient_finiteness, degenerate=True),
    "accuracy": Invariant("of the budget", accuracy.other_dtypes, degenerate=True),
}
