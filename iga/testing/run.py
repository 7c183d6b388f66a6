"""Every chosen check on its inputs: one run, whatever is judged.

A layer is run on structures, their degenerate perturbations, and every P; an overlap function on pairs of residues and
on degenerate ones; a library of this package's own functions on what its checks draw.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from iga._runtime import Progress, threads
from iga.structure import Structure
from iga.structure.synthetic import synthetic_structures
from iga.testing import latest
from iga.testing.cases_file import write_case
from iga.testing.check import Check
from iga.testing.checks import LIBRARIES, checks_of
from iga.testing.contract import Contract, Profile
from iga.testing.layer.cases import (
    PERTURBATIONS,
    SHORTEST_FOCUS,
    Case,
    focused,
    make_case,
    own_number,
    perturbed_case,
)
from iga.testing.layer.edits import observed
from iga.testing.modes import real_interrupts
from iga.testing.overlap.pairs import PairSource
from iga.testing.result import Finding, Report
from iga.testing.state.watch import Watch, left_alone, watching
from iga.testing.tally import Tally
from iga.testing.targets import TargetError, one_line

__all__ = ["Run"]

DRIVEN = 8.0  # gain of the parameters on degenerate structures
FEWEST_STRUCTURES = 4  # with fewer, more is drawn from each


@dataclass
class Run:
    """A run that is ready to start: what is judged, against which contract, by which checks, on what.

    kind             of the subject: "layer" (a Subject), "overlap" (an OverlapSubject), or one of `LIBRARIES`
    records          what is reported of each structure
    skipped          invariant → why it does not apply
    expected_broken  invariant → reason, as the target claims
    on_progress      called as on_progress(what, done, total)
    save             a folder, to which the inputs of the worst example of each broken check are written
    watch            what calls did to the process: those of the run, and before it those of its preparation
    """

    kind: str
    subject: Any
    contract: Contract
    profile: Profile
    seed: int
    checks: list[Check]
    structures: list[Structure] = field(default_factory=list)
    records: list[dict[str, object]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    expected_broken: Mapping[str, str] = field(default_factory=dict)
    on_progress: Progress | None = None
    save: Path | None = None
    watch: Watch = field(default_factory=Watch)
    _interrupted: Callable[[], bool] = field(default=lambda: False, init=False, repr=False)

    def run(self, on_progress: Progress | None = None) -> Report:
        """Measure and judge; `on_progress(what, done, total)` is told of each step."""
        started = time.perf_counter()
        found = {finding.name: finding for finding in self.findings(on_progress)}
        return Report(
            self.name,
            self.profile.name,
            self.seed,
            self.contract,
            time.perf_counter() - started,
            [found[check.name] for check in self.checks],
            self.records,
            kind=self.kind,
            not_applicable=self.skipped,
            expected_broken=self.expected_broken,
            implementation=self.implementation,
            taps=self.taps,
            missing=self.missing,
        )

    def findings(
        self, on_progress: Progress | None = None, on_start: Callable[[list[str]], None] | None = None
    ) -> Iterator[Finding]:
        """The finding of each check as soon as it is there; on_start(names) is told of those that are measured next.

        The checks of traces are measured together, before the others.
        """
        report = on_progress or self.on_progress or (lambda what, done, total: None)
        start = on_start or (lambda names: None)
        tallies = {check.name: Tally(check.name, check.unit) for check in self.checks}
        keeping = latest.keeping(on=self.save is not None)
        # small tensors: a second thread waits more than it works
        with keeping, watching(self.watch), threads(1), real_interrupts() as self._interrupted:
            traced = [check for check in self.checks if check.each_trace is not None]
            if traced:
                start([check.name for check in traced])
                with left_alone("checks of traces", whole=True):
                    self._traces(tallies, report)
                yield from (self._finding(tallies[check.name]) for check in traced if check.measure is None)
            for check in self.checks:
                if check.measure is not None:
                    start([check.name])
                    self._measure(check, tallies[check.name], report)
                    yield self._finding(tallies[check.name])

    def _finding(self, tally: Tally) -> Finding:
        """The verdict; with `save`, what it was called with is written, and the note says where to, or why not."""
        finding = tally.finding()
        if self.save is None or finding.verdict != "broken":
            return finding
        path = self.save / finding.name / "case.json"
        facts = {"check": finding.name, "unit": finding.unit, "where": finding.worst_example, "note": finding.note}
        numbers = {"target": self.name, "value": finding.worst, "limit": finding.budget, "seed": self.seed}
        try:
            if tally.call is None:
                raise ValueError("it is not known which call it was")
            write_case(path, tally.call, facts | numbers)
            words = f"inputs: {path}"
        except (ValueError, OSError) as error:
            words = f"inputs not written: {error}"
        return replace(finding, note="; ".join(part for part in (finding.note, words) if part))

    def _measure(self, check: Check, tally: Tally, report: Progress) -> None:
        if self._unsupported(check, tally):
            return
        assert check.measure is not None
        report(check.name, 0, 1)
        for inputs in self._inputs(check, tally):
            with self._failing(self.name, tally), left_alone(check.name, whole=True):
                check.measure(*inputs, self.seed, tally)
        report(check.name, 1, 1)

    @property
    def implementation(self) -> str | None:
        """Which of `iga.kernels` is judged, of this package's layer."""
        return getattr(self.subject, "implementation", None)

    @property
    def taps(self) -> dict[str, str]:
        """Each tap of a layer with how it is seen: "shown", "caught" or "missing"."""
        return getattr(self.subject, "all_taps", {})

    @property
    def missing(self) -> dict[str, tuple[str, ...]]:
        """Checks that are not run for want of taps, with these."""
        known = checks_of(self.kind)
        return {name: taps for name in self.skipped if (taps := known[name].missing(self.subject))}

    @property
    def name(self) -> str:
        """What is judged, for the report."""
        return getattr(self.subject, "name", self.kind)

    @contextmanager
    def _failing(self, where: str, *tallies: Tally) -> Iterator[None]:
        """What the subject raises, or returns wrongly, is a finding of the tallies."""
        try:
            yield
        except BaseException as error:
            # anything may come of somebody else's layer: of its backward pass, of a trace that is not as it should be;
            # a call of sys.exit too, but not the user's Ctrl-C
            if isinstance(error, KeyboardInterrupt) and self._interrupted():
                raise
            if not isinstance(error, TargetError) and not getattr(self.subject, "foreign", False):
                raise
            note = str(error) if isinstance(error, TargetError) else one_line(error)
            for tally in tallies:
                tally.fail(where, note)

    def _unsupported(self, check: Check, tally: Tally) -> bool:
        """Whether the target claims not to support what the check asks for; its verdict then says so."""
        claims = getattr(self.subject, "claims", None)
        lacking = "" if claims is None or check.kind in LIBRARIES else check.not_supported(claims)
        if lacking:
            tally.not_supported(lacking)
        return bool(lacking)

    def _inputs(self, check: Check, tally: Tally) -> Iterator[tuple[Any, ...]]:
        """What the check's `measure` takes before seed and tally: once, of a layer once for each set of sizes."""
        if check.kind in LIBRARIES:
            yield (self.subject if self.kind == check.kind else LIBRARIES[check.kind],)
        elif check.kind == "overlap":
            sizes = self.profile.pairs, self.contract.digits, self.profile.digits_pairs
            yield self.subject, PairSource(self.structures, self.subject.sigma_range, *sizes, self.profile.name)
        else:
            for profile, cases in self._focus(check, tally):
                yield replace(self.subject, profile=profile), cases, self.contract

    def _traces(self, tallies: dict[str, Tally], report: Progress) -> None:
        """The checks of every pair and point: each structure as it is, and degenerate, P in rotation."""
        checks = [
            check
            for check in self.checks
            if check.each_trace is not None and not self._unsupported(check, tallies[check.name])
        ]
        if not checks:
            return
        subjects = [replace(self.subject, profile=profile) for profile in self.profile.sets()]
        names, points = list(PERTURBATIONS), self.contract.points
        count = len(self.structures)
        few = count < FEWEST_STRUCTURES  # then all perturbations of each, and several draws
        every, rounds = (1, FEWEST_STRUCTURES // count) if few else (self.profile.perturb_every, 1)
        for index in range(count * rounds):
            structure = self.structures[index % count]
            number = own_number(structure, index % count) + index // count * count
            seed = self.seed + number
            report("scores of all structures", index, count * rounds)
            subject = subjects[number % len(subjects)]
            case = make_case(structure, subject.profile, residues=self.profile.residues, seed=seed)
            if index < count:
                self._note_sample(structure, case, rounds)
            smaller = make_case(structure, subject.profile, residues=self.profile.degenerate, seed=seed)
            for place in [0, *range(1 + number % every, len(names) + 1, every)]:
                label = None if place == 0 else names[place - 1]
                one = case if label is None else perturbed_case(smaller, label, self.contract, seed=seed)
                # Degenerate scales have to reach the contract's ends: a gain drives u and d to their bounds.
                gain = 1.0 if label is None else DRIVEN
                with self._failing(one.label, *(tallies[check.name] for check in checks)), torch.no_grad():
                    # so that every perturbation meets every P, whichever structures there are
                    p = points[(number + place + place // len(points)) % len(points)]
                    layer = subject.random(p, seed + number * len(names) + place, gain=gain)
                    seen = observed(subject, layer, one, self.contract, p)
                    for check in checks:
                        assert check.each_trace is not None
                        check.each_trace(seen, tallies[check.name])
        report("scores of all structures", count * rounds, count * rounds)

    def _focus(self, check: Check, tally: Tally) -> Iterator[tuple[Profile, list[Case]]]:
        """Structures spread over the list by length, in turn with each set of sizes; degenerate if the check asks.

        Where all are too short, synthetic structures stand in.
        """
        structures = self.structures
        chosen = focused([structure.n_valid for structure in structures], self.profile.focus)
        if not chosen:
            tally.note(f"no structure has {SHORTEST_FOCUS} residues: measured on synthetic ones")
            structures = synthetic_structures(self.profile.focus, seed=self.seed)
            chosen = list(range(len(structures)))
        size, sets = self.profile.focus_residues, self.profile.sets()
        if len(chosen) < len(sets):  # one structure serves them all
            chosen = [chosen[turn % len(chosen)] for turn in range(len(sets))]
        fast = self.profile.name == "fast"
        for turn, profile in enumerate(sets):
            cases = [
                make_case(structures[i], profile, residues=size, seed=self.seed + own_number(structures[i], i))
                for i in chosen[turn :: len(sets)]
            ]
            if check.degenerate:
                # of the fast profile each set of sizes sees every second perturbation
                labels = list(PERTURBATIONS)[turn :: len(sets)] if fast else list(PERTURBATIONS)
                cases += [
                    perturbed_case(case, label, self.contract, seed=self.seed)
                    for case in (cases[:1] if fast else list(cases))
                    for label in labels[:: self.profile.focus_perturb_every]
                ]
            yield profile, cases

    def _note_sample(self, structure: Structure, case: Case, draws: int) -> None:
        used, valid = case.s.shape[-2], structure.n_valid
        for entry in self.records:
            if entry["path"] == structure.path and used < valid:
                masked = f"; {entry['reason']}" if entry["reason"] else ""
                entry["status"] = "sampled"
                several = f" ({draws} draws)" if draws > 1 else ""
                entry["reason"] = f"all pairs of {used} of {valid} residues{several}{masked}"
