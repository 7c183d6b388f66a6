"""The invariants of an overlap function: what each measures and which profile runs it.

Each is measured by calling the function; errors and derived limits go to a Tally (`budgets`, docs/theory.md, 14).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from iga.testing.contract import PROFILES
from iga.testing.overlap import accuracy, calls, gradients, laws, modes
from iga.testing.overlap.pairs import Inputs
from iga.testing.overlap.subject import OverlapSubject
from iga.testing.tally import Tally

__all__ = ["OVERLAP_INVARIANTS", "OverlapInvariant"]

ALWAYS = ("fast", "ci", "nightly")
THOROUGH = ("ci", "nightly")


@dataclass(frozen=True)
class OverlapInvariant:
    """`measure(function, inputs, seed, tally)`, run by `profiles`, if `dtype` is claimed (None: any)."""

    unit: str
    measure: Callable[[OverlapSubject, Inputs, int, Tally], None]
    profiles: tuple[str, ...] = ALWAYS
    dtype: torch.dtype | None = None

    def not_applicable(self, function: OverlapSubject, profile: str) -> str:
        """Why it does not run on this function in this profile; empty if it does."""
        if self.dtype is not None and self.dtype not in function.dtypes:
            return f"needs {str(self.dtype).removeprefix('torch.')}, which the target does not claim"
        if profile in PROFILES and profile not in self.profiles:
            return f"runs with --profile {' or '.join(self.profiles)}"
        return ""


OVERLAP_INVARIANTS: dict[str, OverlapInvariant] = {
    "accuracy": OverlapInvariant("of the budget", accuracy.accuracy),
    "coincident_means": OverlapInvariant("1", laws.coincident_means),
    "score_laws": OverlapInvariant("of the budget", laws.score_laws),
    "gradient_values": OverlapInvariant("of the budget", gradients.gradient_values),
    "gradient_finiteness": OverlapInvariant("entries", gradients.gradient_finiteness),
    "gradient_bounds": OverlapInvariant("of the bound", gradients.gradient_bounds),
    "batch_independence": OverlapInvariant("of the budget", calls.batch_independence),
    "determinism": OverlapInvariant("entries", calls.determinism),
    "second_derivatives": OverlapInvariant("failures", gradients.second_derivatives, THOROUGH, torch.float64),
    "reduced_precision": OverlapInvariant("of the budget", modes.reduced_precision, THOROUGH, torch.float32),
    "transforms": OverlapInvariant("of the budget", modes.transforms, THOROUGH),
}
