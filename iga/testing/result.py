"""The result of a run: a finding for each check, and the report with the exit code that follows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from iga._runtime import environment
from iga.report.documents import Invariant, StructureRecord, Verify
from iga.report.measured import Curve, Histogram
from iga.report.schema import SCHEMA
from iga.testing.contract import Contract

__all__ = ["LOADS", "PROCESS", "Finding", "Report"]

LOADS = "loads"  # the row of a target that could not be loaded: no check has this name
PROCESS = "the process"  # in place of a worst example, where the accused ended the process or did not come back


@dataclass(frozen=True)
class Finding:
    """One row of the table. `verdict` is "holds", "broken", "vacuous" or, as the target claims, "not supported".

    worst and budget are in `unit` at the worst example, which `worst_example` names; `examples` were judged, of which
    `vacuous` could not have failed and `undecided` could not be judged. `lower`: the budget is a floor.
    """

    name: str
    verdict: str
    worst: float
    budget: float
    unit: str
    examples: int
    vacuous: int
    undecided: int
    worst_example: str
    note: str
    lower: bool = False
    curves: list[Curve] = field(default_factory=list)
    histograms: list[Histogram] = field(default_factory=list)

    @property
    def shown(self) -> bool:
        """Whether an example was judged that could have failed."""
        return self.verdict == "broken" or self.examples > self.vacuous + self.undecided


@dataclass(frozen=True)
class Report:
    """What a run found. `exit_code` is 0 if every invariant that applies holds (an expected failure: fails), else 1, as
    it is where nothing was judged.

    not_applicable   invariant → why it did not run
    expected_broken  invariant → reason, as the target claims
    implementation   which of `iga.kernels` was judged, of a preset
    taps             tap → "shown", "caught" or "missing", of a layer
    missing          invariant → the taps that it was not judged for want of
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
    taps: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def as_wanted(self, finding: Finding) -> bool:
        """Whether the finding lets the gate pass: it holds, or is not supported as claimed; or broken as claimed."""
        wanted = ("broken",) if finding.name in self.expected_broken else ("holds", "not supported")
        return finding.verdict in wanted

    @property
    def exit_code(self) -> int:
        return 0 if self.findings and all(self.as_wanted(finding) for finding in self.findings) else 1

    def __getitem__(self, name: str) -> Finding:
        """The finding of the invariant `name`."""
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(f"no invariant {name!r}; there are {', '.join(f.name for f in self.findings)}")

    def document(self, command: str) -> Verify:
        """The document of `iga verify`. Numbers that are not finite become null: the verdict and note say so."""
        return {
            "schema": SCHEMA,
            "document": "verify",
            "command": command,
            "target": self.target,
            "kind": self.kind,
            "exit_code": self.exit_code,
            "seconds": round(self.seconds, 3),
            "environment": {
                **environment(self.seed),
                "profile": self.profile,
                "implementation": self.implementation,
                "sigma_min_nm": self.contract.sigma_min,
                "sigma_max_nm": self.contract.sigma_max,
                "digits": self.contract.digits,
                "points": list(self.contract.points),
            },
            "invariants": [
                cast(
                    Invariant,
                    vars(finding)
                    | {
                        "worst": _finite(finding.worst),
                        "budget": _finite(finding.budget),
                        "expected_broken": self.expected_broken.get(finding.name),
                    },
                )
                for finding in self.findings
            ],
            "not_applicable": [
                {"name": name, "reason": reason, "missing": list(self.missing.get(name, ()))}
                for name, reason in self.not_applicable.items()
            ],
            "taps": dict(self.taps),
            "structures": cast(list[StructureRecord], self.structures),
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
