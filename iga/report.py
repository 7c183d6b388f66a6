"""A verification report as a table for a person and as JSON for a machine. Formats only; judges nothing."""

import json
import math
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iga._files import write_text
from iga._text import one_line

if TYPE_CHECKING:
    from iga.testing.faults.matrix import Matrix
    from iga.testing.outcome import Report
    from iga.testing.tally import Finding

__all__ = ["as_json", "environment", "print_matrix", "print_report", "write_json", "write_matrix"]

WIDE = 130  # columns

_STYLE = {"holds": "green", "broken": "bold red", "vacuous": "yellow"}


def environment(seed: int) -> dict[str, object]:
    """Versions, device and seed of this run."""
    import torch

    packages = {name: version(name) for name in ("torch", "numpy", "gemmi")}
    return {
        "iga": _own_version(),
        "python": platform.python_version(),
        **packages,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "seed": seed,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


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


def write_matrix(matrix: "Matrix", command: str, path: Path) -> None:
    """Write schema 1 of `iga faults --json`; OSError if that can't be done."""
    from iga.testing.faults.matrix import as_json as matrix_as_json

    document = matrix_as_json(matrix) | {"command": command, "environment": environment(matrix.seed)}
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def print_matrix(matrix: "Matrix", console: Console) -> None:
    """Which check caught which fault, then what each check detects at least, then the verdict in a line."""
    from iga.testing.faults.benches import CHECKS

    for bench, checks in CHECKS.items():
        rows = [row for row in matrix.rows if row.bench == bench]
        table = Table(
            title=f"{bench}: faults by checks (● caught, ◆ by it alone, ○ missed, – not run)", title_justify="left"
        )
        table.add_column("fault", overflow="fold")
        table.add_column("size", justify="right")
        for number in range(1, len(checks) + 1):
            table.add_column(str(number), justify="center", min_width=2)
        for row in rows:
            marks = ["–" if name in row.not_run else _mark(row.caught_by, row.expected, name) for name in checks]
            sized = row.smallest or row.size != 1.0
            table.add_row(escape(row.name), f"{row.size:g}" if sized else "", *marks)
        console.print(table)
        for number, name in enumerate(checks, start=1):
            caught = sum(name in row.caught_by for row in rows)
            smallest = matrix.smallest(bench, name)
            detects = f"; smallest detected {smallest[0]:.3g} ({smallest[1]})" if smallest else ""
            console.print(
                f"{number:3} {name}: catches {caught}{detects}", markup=False, highlight=False, soft_wrap=True
            )
    for row in matrix.missed:
        lost = ", ".join(sorted(set(row.expected) - set(row.caught_by)))
        console.print(f"missed: {row.bench}: {row.name}: not seen by {lost}", markup=False, highlight=False)
    for bench, name in matrix.idle:
        console.print(f"catches nothing: {bench}: {name}", markup=False, highlight=False)
    for bench, name in matrix.without_fault_of_their_own:
        console.print(f"no fault of its own: {bench}: {name}", markup=False, highlight=False)
    for target, seed, name in matrix.false_alarms:
        console.print(f"false alarm: {target}, seed {seed}: {name}", markup=False, highlight=False)
    console.print(
        f"{len(matrix.rows)} faults, {len(matrix.missed)} missed; {sum(map(len, CHECKS.values()))} checks, "
        f"{len(matrix.idle)} idle; {matrix.clean_runs} clean runs, {len(matrix.false_alarms)} false alarms: "
        + ("something is to be mended" if matrix.exit_code else "every check can fail, and none fails for nothing"),
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"{matrix.seconds:.1f} s, seed {matrix.seed}", highlight=False)


def _mark(caught: tuple[str, ...], expected: tuple[str, ...], name: str) -> str:
    if name in caught:
        return "◆" if len(caught) == 1 else "●"
    return "[bold red]○[/]" if name in expected else ""


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


def _own_version() -> str:
    from iga import __version__

    return __version__
