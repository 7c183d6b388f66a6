"""A check: one invariant, and all that is stated of it, beside the function that measures it.

The decorator states the facts and registers nothing: `iga.testing.checks` lists the checks, in the order of the table.
A check hands values with their limits to a Tally, which judges. Limits come from `iga.bounds`, by way of `budgets`, or
are bands and definitions stated in the module's first lines; none is taken from what was observed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from iga.testing.contract import PROFILES
from iga.testing.targets import Claims

__all__ = ["REFERENCE", "SMOOTH", "THOROUGH", "TRACE", "Check", "check"]

THOROUGH = ("ci", "nightly")
# The kinds of faults that a comparison of a function with its own derivatives can see.
SMOOTH = ("gradients", "dtypes", "control flow")

TRACE, REFERENCE = ("trace",), ("reference",)
Measure = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One invariant: how it is measured, on what, and when. At least one of `measure` and `each_trace` is there.

    kind         what it judges: a "layer", an "overlap" function, or this package's own "frames" or "diagnostics"
    unit         of the values in the report
    measure      of a layer, on the focus structures: measure(subject, cases, contract, seed, tally)
                 of an overlap function, on pairs: measure(function, inputs, seed, tally)
                 of a library: measure(library, seed, tally)
    each_trace   of a layer, on each trace of all structures, once for all such checks: each_trace(observation, tally)
    degenerate   whether the focus structures come with their degenerate perturbations
    needs        of a layer, the taps that it has to show, or that are caught; `TRACE`: all of them, in an
                 iga.functional.Trace, which shows every tap; `REFERENCE`: that it names what it equals.
                 Empty: any layer
    profiles     those that run it
    dtype        one that the target has to claim; None: any
    seen_faults  the kinds of planted faults that can show in it; None: all. What compares a function with itself sees
                 nothing of a value that is wrong throughout, and such checks cost more than all others together
    every        a costly check runs on every n-th seed of a clean target only
    requires     what it asks the target to support, by the names of `Claims.unsupported`; "gradients" is what
                 `inference_only` lacks
    claims       further such names, each of which excuses a part of it
    score        of a layer: the score that its config names, where the invariant is one of that score alone
    """

    name: str
    kind: str
    unit: str
    measure: Measure | None = None
    each_trace: Measure | None = None
    degenerate: bool = False
    needs: tuple[str, ...] = ()
    profiles: tuple[str, ...] = tuple(PROFILES)
    dtype: torch.dtype | None = None
    seen_faults: tuple[str, ...] | None = None
    every: int = 1
    requires: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    score: str = ""

    def __call__(self, *arguments: Any) -> None:
        """Measure, as a run does: arguments as `measure` takes them."""
        if self.measure is not None:
            self.measure(*arguments)

    def not_applicable(self, subject: Any, profile: str) -> str:
        """Why it does not apply to what is judged, in this profile; empty if it does."""
        if self.kind not in ("layer", "overlap") and subject.foreign:
            return "judges iga's own functions, not a layer: iga verify without a target runs it"
        wanted = torch.float32 if self.needs == TRACE else self.dtype
        if wanted is not None and wanted not in subject.dtypes:
            return f"needs {str(wanted).removeprefix('torch.')}, which the target does not claim"
        if self.needs == TRACE and not subject.traced:
            return "needs the scores: the layer offers no trace (iga.functional.Trace, with its IGAConfig as config)"
        if self.score and (own := subject.iga_config.score) != self.score:
            return f"is of score={self.score!r} (docs/theory.md, 9.4); the layer's config has score={own!r}"
        if self.needs == REFERENCE and subject.reference is None:
            return 'needs what the layer has to equal: @target(reference="ipa", "iga:PRESET" or "file.py:factory")'
        if missing := self.missing(subject):
            return f"nothing shows {', '.join(missing)}: iga.taps.show, or @target(taps=…), does"
        if profile in PROFILES and profile not in self.profiles:
            return f"runs with --profile {' or '.join(self.profiles)}"
        return ""

    def missing(self, subject: Any) -> tuple[str, ...]:
        """The taps that it needs and nothing shows."""
        if self.kind != "layer" or self.needs in (TRACE, REFERENCE) or subject.traced:
            return ()
        return tuple(name for name in self.needs if name not in subject.taps)

    def not_supported(self, claims: Claims) -> str:
        """What it asks for and the target claims not to support; empty if nothing."""
        lacking = claims.lacking
        return ", ".join(name for name in self.requires if name in lacking)


def check(kind: str, unit: str, *, on_traces: bool = False, **facts: Any) -> Callable[[Measure], Check]:
    """Decorator that makes a function the check of its name; `facts` are further fields of `Check`.

    With `on_traces` the function is the check's `each_trace`, else its `measure`.
    """

    def stated(function: Measure) -> Check:
        measured = {"each_trace" if on_traces else "measure": function}
        return Check(name=function.__name__, kind=kind, unit=unit, **measured, **facts)

    return stated
