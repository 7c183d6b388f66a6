"""The run behind `iga verify`: every invariant on structures, their degenerate perturbations, and every P.

`verify` is the command as a function; the command line only formats what it returns.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from iga.attention import InvariantGaussianAttention
from iga.presets import DEFAULT_PRESET, IGAConfig, preset
from iga.structure import Structure, read_structures, record
from iga.synthetic import synthetic_structures
from iga.testing.cases import PERTURBATIONS, Case, make_case, perturbed_case
from iga.testing.contract import DEFAULT_POINTS, PROFILES, Contract, Profile
from iga.testing.invariants import INVARIANTS, scores
from iga.testing.subject import LayerFactory, Subject
from iga.testing.tally import Finding, Tally

__all__ = ["Plan", "Report", "prepare", "verify"]

Progress = Callable[[str, int, int], None]

DRIVEN = 8.0  # gain of the parameters on degenerate structures
FEWEST_STRUCTURES = 4  # with fewer, more is drawn from each
SHORTEST_FOCUS = 16  # residues; the shortest proteins known to fold have about 20


@dataclass(frozen=True)
class Report:
    """What a run found. `exit_code` is 0 if every invariant holds, else 1."""

    target: str
    profile: str
    seed: int
    contract: Contract
    seconds: float
    findings: list[Finding]
    structures: list[dict[str, object]]

    @property
    def exit_code(self) -> int:
        return 0 if all(finding.verdict == "holds" for finding in self.findings) else 1

    def __getitem__(self, name: str) -> Finding:
        """The finding of the invariant `name`."""
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(f"no invariant {name!r}; there are {', '.join(f.name for f in self.findings)}")


def verify(
    target: str | IGAConfig = DEFAULT_PRESET,
    *,
    layer: LayerFactory = InvariantGaussianAttention,
    structures: Sequence[str | Path] | None = None,
    points: Sequence[int] = DEFAULT_POINTS,
    sigma_min: float = 0.03,
    profile: str | Profile = "fast",
    seed: int = 0,
    only: Sequence[str] | None = None,
    on_progress: Progress | None = None,
) -> Report:
    """Judge a preset, a config or a layer of your own against the product's contract.

    target       name of a preset, or an IGAConfig
    layer        called as layer(c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points, config=config); must offer
                 `trace` as InvariantGaussianAttention does
    structures   files, folders or globs; None: synthetic structures drawn from the seed
    points       the numbers of points P to examine; growth with P always looks at 1 and 64 as well
    sigma_min    the floor (nm) of the contract, and of a preset that has the product's floor
    profile      "fast", "ci", "nightly", or a Profile
    only         names of invariants; None: all
    on_progress  called as on_progress(what, done, total)

    Raises ValueError for misuse: an unknown preset, profile or invariant, no readable structure, a bad number.
    """
    plan = prepare(
        target,
        layer=layer,
        structures=structures,
        points=points,
        sigma_min=sigma_min,
        profile=profile,
        seed=seed,
        only=only,
    )
    return plan.run(on_progress)


def prepare(
    target: str | IGAConfig = DEFAULT_PRESET,
    *,
    layer: LayerFactory = InvariantGaussianAttention,
    structures: Sequence[str | Path] | None = None,
    points: Sequence[int] = DEFAULT_POINTS,
    sigma_min: float = 0.03,
    profile: str | Profile = "fast",
    seed: int = 0,
    only: Sequence[str] | None = None,
) -> "Plan":
    """Everything that misuse can stop, before anything is measured: arguments as for `verify`, ValueError likewise."""
    contract = Contract(sigma_min=sigma_min, points=tuple(points))
    if isinstance(profile, str):
        if profile not in PROFILES:
            raise ValueError(f"unknown profile {profile!r}; profiles: {', '.join(PROFILES)}")
        profile = PROFILES[profile]
    name, config = _config(target, contract)
    chosen = list(INVARIANTS) if only is None else list(only)
    for invariant in chosen:
        if invariant not in INVARIANTS:
            raise ValueError(f"unknown invariant {invariant!r}; invariants: {', '.join(INVARIANTS)}")
    if structures is None:
        entries = synthetic_structures(profile.synthetic, seed=seed)
        records = [record(structure) for structure in entries]
    else:
        entries, records = read_structures(list(structures))
    return Plan(Subject(name, config, profile, layer), contract, profile, seed, chosen, entries, records)


@dataclass
class Plan:
    """A run that is ready to start."""

    subject: Subject
    contract: Contract
    profile: Profile
    seed: int
    invariants: list[str]
    structures: list[Structure]
    records: list[dict[str, object]]

    def run(self, on_progress: Progress | None = None) -> Report:
        """Measure and judge; `on_progress(what, done, total)` is told of each step."""
        # A case's tensors are small: a second thread waits more than it works, and on a busy machine it waits long.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._run(on_progress or (lambda what, done, total: None))
        finally:
            torch.set_num_threads(threads)

    def _run(self, report: Progress) -> Report:
        started = time.perf_counter()
        tallies = {name: Tally(name, INVARIANTS[name].unit) for name in self.invariants}
        self._scores({name: tally for name, tally in tallies.items() if name in scores.MEASURED_TOGETHER}, report)
        for name in self.invariants:
            self._one(name, tallies[name], report)
        seconds = time.perf_counter() - started
        findings = [tallies[name].finding() for name in self.invariants]
        return Report(self.subject.name, self.profile.name, self.seed, self.contract, seconds, findings, self.records)

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
                with torch.no_grad():
                    # Degenerate scales have to reach the contract's ends: a gain drives u and d to their bounds.
                    gain = 1.0 if label is None else DRIVEN
                    layer = self.subject.random(points[turn % len(points)], self.seed + turn, gain=gain)
                    scores.measure(self.subject, layer, one, self.contract, tallies)
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
                for label in PERTURBATIONS
            ]
        check.measure(self.subject, cases, self.contract, self.seed, tally)
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


def _config(target: str | IGAConfig, contract: Contract) -> tuple[str, IGAConfig]:
    """The config under test. The contract's floor becomes that of every preset that has the product's floor."""
    if isinstance(target, IGAConfig):
        return "config", target
    config = preset(target)
    if config.sigma_min == IGAConfig().sigma_min:
        config = replace(config, sigma_min=contract.sigma_min)
    return target, config
