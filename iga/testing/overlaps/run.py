"""The run over an overlap function: every invariant that applies, on pairs of residues and on degenerate ones."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from iga.structure import Structure
from iga.testing.contract import Contract, Profile
from iga.testing.layer_run import Progress, one_thread
from iga.testing.outcome import Report
from iga.testing.overlaps import OVERLAP_INVARIANTS
from iga.testing.overlaps.inputs import Inputs
from iga.testing.overlaps.subject import OverlapSubject
from iga.testing.tally import Tally
from iga.testing.targets import TargetError

__all__ = ["OverlapPlan"]


@dataclass
class OverlapPlan:
    """A run that is ready to start."""

    subject: OverlapSubject
    contract: Contract
    profile: Profile
    seed: int
    invariants: list[str]
    structures: list[Structure]
    records: list[dict[str, object]]
    skipped: dict[str, str] = field(default_factory=dict)
    expected_broken: Mapping[str, str] = field(default_factory=dict)

    def run(self, on_progress: Progress | None = None) -> Report:
        """Measure and judge; `on_progress(what, done, total)` is told of each step."""
        started = time.perf_counter()
        profile = self.profile
        inputs = Inputs(
            self.structures, self.subject.sigma_range, profile.pairs, self.contract.digits, profile.digits_pairs
        )
        findings = []
        with one_thread():
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
        return Report(
            self.subject.name,
            profile.name,
            self.seed,
            self.contract,
            time.perf_counter() - started,
            findings,
            self.records,
            kind="overlap",
            not_applicable=self.skipped,
            expected_broken=self.expected_broken,
        )
