"""The run over an overlap function: every invariant that applies, on pairs of residues and on degenerate ones."""

import time
from dataclasses import dataclass

from iga._process import threads
from iga.testing.layer_run import Progress
from iga.testing.outcome import Plan, Report
from iga.testing.overlaps import OVERLAP_INVARIANTS
from iga.testing.overlaps.inputs import Inputs
from iga.testing.overlaps.subject import OverlapSubject
from iga.testing.tally import Tally
from iga.testing.targets import TargetError

__all__ = ["OverlapPlan"]


@dataclass
class OverlapPlan(Plan):
    """A run over an overlap function."""

    subject: OverlapSubject

    def run(self, on_progress: Progress | None = None) -> Report:
        """Measure and judge; `on_progress(what, done, total)` is told of each step."""
        started = time.perf_counter()
        profile = self.profile
        inputs = Inputs(
            self.structures, self.subject.sigma_range, profile.pairs, self.contract.digits, profile.digits_pairs
        )
        findings = []
        with threads(1):  # small tensors, as in a run over a layer
            for done, name in enumerate(self.invariants):
                if on_progress is not None:
                    on_progress(name, done, len(self.invariants))
                check = OVERLAP_INVARIANTS[name]
                tally = Tally(name, check.unit)
                try:
                    check.measure(self.subject, inputs, self.seed, tally)
                except TargetError as error:
                    tally.fail(self.subject.name, str(error))
                findings.append(tally.finding())
        return self.reported(findings, time.perf_counter() - started, kind="overlap")
