"""A verification report as a table for a person and as JSON for a machine. Formats only; judges nothing."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iga._files import write_text
from iga._runtime import environment
from iga._text import one_line

if TYPE_CHECKING:
    from iga.testing.result import Finding, Report

__all__ = ["as_json", "print_report", "write_json"]

WIDE = 130  # columns

_STYLE = {"holds": "green", "broken": "bold red", "vacuous": "yellow"}


def as_json(report: "Report", command: str) -> dict[str, Any]:
    """Schema 1 of `iga verify --json`. Numbers that are not finite become null: the verdict and note say so."""
    return {
        "schema": 1,
        "command": command,
        "target": report.target,
        "kind": report.kind,
        "exit_code": report.exit_code,
        "seconds": round(report.seconds, 3),
        "environment": environment(report.seed)
        | {
            "profile": report.profile,
            "implementation": report.implementation,
            "sigma_min_nm": report.contract.sigma_min,
            "sigma_max_nm": report.contract.sigma_max,
            "digits": report.contract.digits,
            "points": list(report.contract.points),
        },
        "invariants": [
            {
                "name": finding.name,
                "verdict": finding.verdict,
                "worst": _finite(finding.worst),
                "budget": _finite(finding.budget),
                "unit": finding.unit,
                "examples": finding.examples,
                "vacuous": finding.vacuous,
                "undecided": finding.undecided,
                "worst_example": finding.worst_example,
                "note": finding.note,
                "expected_broken": report.expected_broken.get(finding.name),
            }
            for finding in report.findings
        ],
        "not_applicable": [{"name": name, "reason": reason} for name, reason in report.not_applicable.items()],
        "structures": report.structures,
    }


def write_json(report: "Report", command: str, path: Path) -> None:
    """Write `as_json` to a file; OSError if that can't be done."""
    write_text(path, json.dumps(as_json(report, command), indent=2, allow_nan=False) + "\n")


def print_report(report: "Report", console: Console) -> None:
    """Structures that need a word, then the table, then the verdict in a line."""
    for record in report.structures:
        if record["status"] == "unreadable":
            console.print(f"unreadable: {one_line(record['path'])}: {record['reason']}", markup=False, highlight=False)
    sampled = [record for record in report.structures if record["status"] == "sampled"]
    read = [record for record in report.structures if record["status"] != "unreadable"]
    residues = sum(int(str(record["residues"])) for record in read)
    masked = sum(int(str(record["masked"])) for record in read)
    breaks = sum(int(str(record["chain_breaks"])) for record in read)
    console.print(
        f"{len(read)} structures, {residues} residues, {masked} masked, {breaks} chain breaks; "
        f"pairs sampled in {len(sampled)} of them",
        highlight=False,
    )
    if sampled:
        longest = max(sampled, key=lambda record: int(str(record["residues"])))
        console.print(
            f"longest: {one_line(longest['path'])}: {longest['reason']} (every structure's sample: see --json)",
            markup=False,
            highlight=False,
        )
    # On a narrow terminal the long column would fold into a ribbon: its text follows the table instead.
    wide = console.width >= WIDE
    claim = f"σ {report.contract.sigma_min:g} to {report.contract.sigma_max:g} nm"
    table = Table(title=f"{escape(one_line(report.target))}: {claim}", title_justify="left")
    for name, justify in (("invariant", "left"), ("verdict", "left"), ("worst", "right"), ("budget", "right")):
        table.add_column(name, justify=justify, no_wrap=True)  # pyright: ignore[reportArgumentType]
    table.add_column("examples", justify="right", no_wrap=True)
    if wide:
        table.add_column("where the worst was · note", overflow="fold")
    lines = []
    for finding in report.findings:
        verdict, style = _verdict(report, finding)
        cells = [finding.name, f"[{style}]{verdict}[/]", _number(finding.worst), _number(finding.budget)]
        where = " · ".join(part for part in (finding.worst_example, finding.note) if part)
        detail = escape(f"{where} [{finding.unit}]")
        table.add_row(*cells, f"{finding.examples:,}", *([detail] if wide else []))
        lines.append(f"{finding.name}: {detail}")
    console.print(table)
    if not wide:
        for line in lines:
            console.print(line, highlight=False)
    for name, reason in report.not_applicable.items():
        console.print(f"not applicable: {name}: {reason}", highlight=False, markup=False, soft_wrap=True)
    for name, reason in report.expected_broken.items():
        console.print(f"expected to be broken: {name}: {reason}", highlight=False, markup=False, soft_wrap=True)
    failed = [finding for finding in report.findings if not report.as_wanted(finding)]
    if failed:
        named = ", ".join(f"{finding.name} ({_verdict(report, finding)[0]})" for finding in failed)
        console.print(
            f"{report.target}: {len(failed)} of {len(report.findings)} do not hold: {named}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    else:
        broken = sum(finding.name in report.expected_broken for finding in report.findings)
        but = f", but for {broken} expected to be broken" if broken else ""
        line = f"{report.target}: all {len(report.findings)} invariants hold{but}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    by = "" if report.implementation is None else f", implementation {report.implementation}"
    console.print(f"{report.seconds:.1f} s, seed {report.seed}, profile {report.profile}{by}", highlight=False)


def _verdict(report: "Report", finding: "Finding") -> tuple[str, str]:
    """The word for the table, and its style: an expected failure that holds is a failure of the gate."""
    if finding.name in report.expected_broken:
        if finding.verdict == "broken":
            return "broken, as expected", "green"
        return f"{finding.verdict}, expected broken", "bold red"
    return finding.verdict, _STYLE.get(finding.verdict, "")


def _number(value: float) -> str:
    if math.isnan(value):
        return "not finite"
    return f"{value:.4g}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
