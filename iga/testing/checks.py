"""The invariants of a layer: what each measures, in which unit, and on what.

Each module measures and hands values with limits to a Tally, which judges. Limits come from `iga.bounds`, by way of
`budgets`, or are bands and definitions stated in the module's first lines; none is taken from what was observed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from iga.testing.contract import PROFILES, Contract
from iga.testing.layer import accuracy, alive, gradients, growth, masks, symmetry
from iga.testing.layer.calls import batch_independence, determinism, permutations, small_sizes, state_dict_round_trip
from iga.testing.layer.cases import Case
from iga.testing.layer.gradient_values import gradient_values
from iga.testing.layer.gradients import gradient_bounds
from iga.testing.layer.modes import reduced_precision, transforms
from iga.testing.layer.second_derivatives import second_derivatives
from iga.testing.layer.subject import Subject
from iga.testing.layer.weights import attention_weights
from iga.testing.library.diagnostics import DIAGNOSTICS, diagnostics_agree
from iga.testing.library.frame_laws import FRAMES, frame_laws
from iga.testing.library.quaternion_sign import quaternion_sign
from iga.testing.tally import Tally

__all__ = ["INVARIANTS", "Invariant", "not_applicable"]

Measure = Callable[[Subject, list[Case], Contract, int, Tally], None]
ALWAYS = ("fast", "ci", "nightly")
THOROUGH = ("ci", "nightly")


@dataclass(frozen=True)
class Invariant:
    """`measure` runs on the focus structures (and on their degenerate perturbations if `degenerate`); None: the
    invariant is measured with the scores of all structures alone.

    needs     "output": any layer; "trace": a layer that shows its scores; "library": iga's own functions, not a layer
    profiles  those that run it
    dtype     one that the layer has to claim, None: any
    """

    unit: str
    measure: Measure | None
    degenerate: bool = False
    needs: str = "output"
    profiles: tuple[str, ...] = ALWAYS
    dtype: torch.dtype | None = None


def _library(measure: Callable[[Any, int, Tally], None], library: Any) -> Measure:
    """iga's own functions do not depend on the layer under test."""
    return lambda subject, cases, contract, seed, tally: measure(library, seed, tally)


INVARIANTS: dict[str, Invariant] = {
    "log_det_floor": Invariant("ln nm⁶", None, needs="trace"),
    "dist_sq_bound": Invariant("1", None, needs="trace"),
    "geometry_logit_bound": Invariant("nat", None, needs="trace"),
    "growth_with_points": Invariant("exponent of P", growth.growth_with_points, needs="trace"),
    "point_scaling_law": Invariant("nat", growth.point_scaling_law, needs="trace"),
    "geometry_is_alive": Invariant("see band", alive.geometry_is_alive, needs="trace"),
    "se3_invariance": Invariant("of the budget", symmetry.se3_invariance, degenerate=True),
    "mask_inertness": Invariant("output", masks.mask_inertness),
    "gradient_finiteness": Invariant("entries", gradients.gradient_finiteness, degenerate=True),
    "accuracy": Invariant("of the budget", accuracy.float64, degenerate=True, needs="trace"),
    "attention_weights": Invariant("see example", attention_weights, degenerate=True, needs="trace"),
    "permutations": Invariant("of the budget", permutations),
    "batch_independence": Invariant("of the budget", batch_independence),
    "determinism": Invariant("output", determinism),
    "small_sizes": Invariant("see example", small_sizes),
    "state_dict_round_trip": Invariant("output", state_dict_round_trip),
    "gradient_values": Invariant("of the budget", gradient_values, dtype=torch.float64),
    "gradient_bounds": Invariant("see example", gradient_bounds, degenerate=True, needs="trace"),
    "reduced_precision": Invariant(
        "of the budget", reduced_precision, degenerate=True, profiles=THOROUGH, dtype=torch.float32
    ),
    "second_derivatives": Invariant("entries", second_derivatives, profiles=THOROUGH, dtype=torch.float64),
    "transforms": Invariant("of the budget", transforms, profiles=THOROUGH),
    "frame_laws": Invariant("of the budget", _library(frame_laws, FRAMES), needs="library"),
    "quaternion_sign": Invariant("of the budget", _library(quaternion_sign, FRAMES), needs="library"),
    "diagnostics_agree": Invariant("of the budget", _library(diagnostics_agree, DIAGNOSTICS), needs="library"),
}


def not_applicable(invariant: Invariant, subject: Subject, profile: str) -> str:
    """Why the invariant does not apply to this subject in this profile; empty if it does."""
    if invariant.needs == "library" and subject.foreign:
        return "judges iga's own functions, not a layer: iga verify without a target runs it"
    wanted = torch.float32 if invariant.needs == "trace" else invariant.dtype
    if wanted is not None and wanted not in subject.dtypes:
        return f"needs {str(wanted).removeprefix('torch.')}, which the target does not claim"
    if invariant.needs == "trace" and not subject.traced:
        return "needs the scores: the layer offers no trace (iga.functional.Trace, with its IGAConfig as config)"
    if profile in PROFILES and profile not in invariant.profiles:
        return f"runs with --profile {' or '.join(invariant.profiles)}"
    return ""
