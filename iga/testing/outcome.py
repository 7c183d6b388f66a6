"""A run of the suite before and after: its plan; its findings, what did not apply, and the exit code that follows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from iga.structure import Structure
from iga.testing.contract import Contract, Profile
from iga.testing.tally import Finding

__all__ = ["Plan", "Report"]


@dataclass(frozen=True)
class Report:
    """What a run found. `exit_code` is 0 if every invariant that applies holds (an expected failure: fails), else 1.

    not_applicable   invariant → why it did not run
    expected_broken  invariant → reason, as the target claims
    implementation   which of `iga.kernels` was judged, of a preset
    """

    target: str
    profile: str
    seed: int
    contract: Contract
    seconds: float
    findings: list[Finding]
    structures: list[dict[str, object]]
    kind: str = "layer"
    not_applicable: dict[str, str] = field(default_factory=dict)
    expected_broken: Mapping[str, str] = field(default_factory=dict)
    implementation: str | None = None

    def as_wanted(self, finding: Finding) -> bool:
        """Whether the finding lets the gate pass: it holds; or it is broken and the target says that it would be."""
        return finding.verdict == ("broken" if finding.name in self.expected_broken else "holds")

    @property
    def exit_code(self) -> int:
        return 0 if all(self.as_wanted(finding) for finding in self.findings) else 1

    def __getitem__(self, name: str) -> Finding:
        """The finding of the invariant `name`."""
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(f"no invariant {name!r}; there are {', '.join(f.name for f in self.findings)}")


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
