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

if TYPE_CHECKING:
    from iga.testing.verify import Report

__all__ = ["as_json", "environment", "print_report", "write_json"]

WIDE = 130  # columns

_STYLE = {"holds": "green", "broken": "bold red", "vacuous": "yellow", "ill-conditioned": "yellow"}


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
        "exit_code": report.exit_code,
        "seconds": round(report.seconds, 3),
        "environment": environment(report.seed)
        | {
            "profile": report.profile,
            "sigma_min_nm": report.contract.sigma_min,
            "sigma_max_nm": report.contract.sigma_max,
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
            }
            for finding in report.findings
        ],
        "structures": report.structures,
    }


def write_json(report: "Report", command: str, path: Path) -> None:
    """Write `as_json` to a file; OSError if that can't be done."""
    path.write_text(json.dumps(as_json(report, command), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def print_report(report: "Report", console: Console) -> None:
    """Structures that need a word, then the table, then the verdict in a line."""
    for record in report.structures:
        if record["status"] == "unreadable":
            console.print(f"unreadable: {record['path']}: {record['reason']}", markup=False, highlight=False)
    sampled = [record for record in report.structures if record["status"] == "sampled"]
    read = [record for record in report.structures if record["status"] != "unreadable"]
    residues = sum(int(str(record["residues"])) for record in read)
    masked = sum(int(str(record["masked"])) for record in read)
    console.print(
        f"{len(read)} structures, {residues} residues, {masked} masked; pairs sampled in {len(sampled)} of them",
        highlight=False,
    )
    if sampled:
        longest = max(sampled, key=lambda record: int(str(record["residues"])))
        console.print(
            f"longest: {longest['path']}: {longest['reason']} (every structure's sample: see --json)",
            markup=False,
            highlight=False,
        )
    # On a narrow terminal the long column would fold into a ribbon: its text follows the table instead.
    wide = console.width >= WIDE
    table = Table(title=f"{report.target}: σ_min {report.contract.sigma_min:g} nm, float32", title_justify="left")
    for name, justify in (("invariant", "left"), ("verdict", "left"), ("worst", "right"), ("budget", "right")):
        table.add_column(name, justify=justify, no_wrap=True)  # pyright: ignore[reportArgumentType]
    table.add_column("examples", justify="right", no_wrap=True)
    if wide:
        table.add_column("where the worst was · note", overflow="fold")
    lines = []
    for finding in report.findings:
        style = _STYLE.get(finding.verdict, "")
        cells = [finding.name, f"[{style}]{finding.verdict}[/]", _number(finding.worst), _number(finding.budget)]
        where = " · ".join(part for part in (finding.worst_example, finding.note) if part)
        detail = escape(f"{where} [{finding.unit}]")
        table.add_row(*cells, f"{finding.examples:,}", *([detail] if wide else []))
        lines.append(f"{finding.name}: {detail}")
    console.print(table)
    if not wide:
        for line in lines:
            console.print(line, highlight=False)
    failed = [finding for finding in report.findings if finding.verdict != "holds"]
    if failed:
        named = ", ".join(f"{finding.name} ({finding.verdict})" for finding in failed)
        console.print(
            f"{report.target}: {len(failed)} of {len(report.findings)} do not hold: {named}",
            highlight=False,
            soft_wrap=True,
        )
    else:
        console.print(f"{report.target}: all {len(report.findings)} invariants hold", highlight=False)
    console.print(f"{report.seconds:.1f} s, seed {report.seed}, profile {report.profile}", highlight=False)


def _number(value: float) -> str:
    if math.isnan(value):
        return "not finite"
    return f"{value:.4g}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _own_version() -> str:
    from iga import __version__

    return __version__
