"""Every chosen check on its inputs: the run over a layer and the run over an overlap function.

A layer is run on structures, their degenerate perturbations, and every P; an overlap function on pairs of residues and
on degenerate ones.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from iga._runtime import Progress, threads
from iga.structure import Structure
from iga.structure.synthetic import synthetic_structures
from iga.testing.checks import INVARIANTS
from iga.testing.contract import Contract, Profile
from iga.testing.layer import scores
from iga.testing.layer.cases import PERTURBATIONS, Case, make_case, perturbed_case
from iga.testing.layer.subject import Subject
from iga.testing.overlap.checks import OVERLAP_INVARIANTS
from iga.testing.overlap.pairs import Inputs
from iga.testing.overlap.subject import OverlapSubject
from iga.testing.result import Finding, Report
from iga.testing.tally import Tally
from iga.testing.targets import TargetError, one_line

__all__ = ["LayerPlan", "OverlapPlan", "Plan"]


@dataclass
class Plan:
    """A run that is ready to start: what is judged, against which contract, by which invariants, on what."""

    subject: Any
    contract: Contract
    profile: Profile
    seed: int
    invariants: list[str]
    structures: list[Structure]
    records: list[dict[str, object]]
    skipped: dict[str, str] = field(default_factory=dict)
    expected_broken: Mapping[str, str] = field(default_factory=dict)

    def reported(self, findings: list[Finding], seconds: float, *, kind: str) -> Report:
        """The report of this run's findings."""
        return Report(
            self.subject.name,
            self.profile.name,
            self.seed,
            self.contract,
            seconds,
            findings,
            self.records,
            kind=kind,
            not_applicable=self.skipped,
            expected_broken=self.expected_broken,
            implementation=getattr(self.subject, "implementation", None),
        )


DRIVEN = 8.0  # gain of the parameters on degenerate structures
FEWEST_STRUCTURES = 4  # with fewer, more is drawn from each
SHORTEST_FOCUS = 16  # residues; the shortest proteins known to fold have about 20


@dataclass
class LayerPlan(Plan):
    """A run over a layer."""

    subject: Subject

    def run(self, on_progress: Progress | None = None) -> Report:
        """Measure and judge; `on_progress(what, done, total)` is told of each step."""
        with threads(1):  # a case's tensors are small: a second one waits more than it works
            return self._run(on_progress or (lambda what, done, total: None))

    def _run(self, report: Progress) -> Report:
        started = time.perf_counter()
        tallies = {name: Tally(name, INVARIANTS[name].unit) for name in self.invariants}
        self._scores({name: tally for name, tally in tallies.items() if name in scores.MEASURED_TOGETHER}, report)
        for name in self.invariants:
            self._one(name, tallies[name], report)
        seconds = time.perf_counter() - started
        findings = [tallies[name].finding() for name in self.invariants]
        return self.reported(findings, seconds, kind="layer")

    def _scores(self, tallies: dict[str, Tally], report: Progress) -> None:
        """The checks of every pair and point: each structure as it is, and degenerate, P in rotation."""
        if not tallies:
            return
        names, points = list(PERTURBATIONS), self.contract.points
        count = len(self.structures)
        few = count < FEWEST_STRUCTURES  # then all perturbations of each, and several draws
        every, rounds = (1, FEWEST_STRUCTURES // count) if few else (self.profile.perturb_every, 1)
        turn = 0
        for index in range(count * rounds):
            structure, seed = self.structures[index % count], self.seed + index
            report("scores of all structures", index, count * rounds)
            case = make_case(structure, self.profile, residues=self.profile.residues, seed=seed)
            if index < count:
                self._note_sample(structure, case, rounds)
            smaller = make_case(structure, self.profile, residues=self.profile.degenerate, seed=seed)
            for label in [None, *names[index % every :: every]]:
                one = case if label is None else perturbed_case(smaller, label, self.contract, seed=seed)
                # Degenerate scales have to reach the contract's ends: a gain drives u and d to their bounds.
                gain = 1.0 if label is None else DRIVEN
                try:
                    with torch.no_grad():
                        layer = self.subject.random(points[turn % len(points)], self.seed + turn, gain=gain)
                        scores.measure(self.subject, layer, one, self.contract, tallies)
                except TargetError as error:
                    for tally in tallies.values():
                        tally.fail(one.label, str(error))
                turn += 1
        report("scores of all structures", count * rounds, count * rounds)

    def _one(self, invariant: str, tally: Tally, report: Progress) -> None:
        """The checks that run on the focus structures only."""
        check = INVARIANTS[invariant]
        if check.measure is None:
            return
        report(invariant, 0, 1)
        cases, given = self._focus()
        if not given:
            tally.note(f"no structure has {SHORTEST_FOCUS} residues: measured on synthetic ones")
        if check.degenerate:
            cases = cases + [
                perturbed_case(case, label, self.contract, seed=self.seed)
                for case in cases[: 1 if self.profile.name == "fast" else len(cases)]
                for label in list(PERTURBATIONS)[:: self.profile.focus_perturb_every]
            ]
        try:
            check.measure(self.subject, cases, self.contract, self.seed, tally)
        except TargetError as error:
            tally.fail(self.subject.name, str(error))
        except RuntimeError as error:
            if not self.subject.foreign:  # the backward pass of somebody else's layer raises these
                raise
            tally.fail(self.subject.name, one_line(error))
        report(invariant, 1, 1)

    def _focus(self) -> tuple[list[Case], bool]:
        """Structures spread over the list by length, and whether they are the ones given.

        A handful of residues has no spread and no saturation to speak of: those under SHORTEST_FOCUS are passed over,
        and where no other is given, synthetic structures stand in.
        """
        structures = [s for s in self.structures if s.n_valid >= SHORTEST_FOCUS]
        given = bool(structures)
        structures = structures or synthetic_structures(self.profile.focus, seed=self.seed)
        ordered = sorted(range(len(structures)), key=lambda i: structures[i].n_valid)
        count = min(self.profile.focus, len(ordered))
        chosen = {ordered[round((i + 0.5) * len(ordered) / count - 0.5)] for i in range(count)}
        size = self.profile.focus_residues
        return [
            make_case(structures[i], self.profile, residues=size, seed=self.seed + i) for i in sorted(chosen)
        ], given

    def _note_sample(self, structure: Structure, case: Case, draws: int) -> None:
        used, valid = case.s.shape[-2], structure.n_valid
        for entry in self.records:
            if entry["path"] == structure.path and used < valid:
                masked = f"; {entry['reason']}" if entry["reason"] else ""
                entry["status"] = "sampled"
                several = f" ({draws} draws)" if draws > 1 else ""
                entry["reason"] = f"all pairs of {used} of {valid} residues{several}{masked}"


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
