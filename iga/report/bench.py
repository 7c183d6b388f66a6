"""A result of `iga bench` as a table for a person, and as a file. Formats only."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from iga._files import write_text
from iga.bench.baseline import Change
from iga.bench.probe import OPERATIONS

__all__ = [
    "COLUMNS",
    "describe",
    "digits",
    "print_changes",
    "print_result",
    "row_cells",
    "write_json",
]

COLUMNS = ("implementation", "direction", "N", "H", "P", "median ms", "95 %", "M pair-points/s", "peak MB", "of limit")
# Under this share of their cores, threads are held up by other processes, or by heat.
_BUSY = 0.8
_PACKAGES = ("torch", "triton", "numba", "numpy", "pykeops")


def describe() -> dict[str, Any]:
    """The environment that does not depend on the run: versions, machine, date, commit where there is one."""
    versions = {"python": platform.python_version()}
    for name in ("iga", *_PACKAGES):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": _commit(),
        "operations_per_pairpoint": OPERATIONS,
    }


def write_json(result: dict[str, Any], path: Path) -> None:
    """All of the file or nothing."""
    write_text(path, json.dumps(result, indent=1, allow_nan=False) + "\n")


def row_cells(row: dict[str, Any]) -> list[str]:
    """The cells under `COLUMNS`."""
    cells = [row["implementation"], row["direction"].replace("_", " + ")]
    cells += [str(row[name]) for name in ("residues", "heads", "points")]
    if row["median_ms"] is None:
        return [*cells, "FAILED", "–", "–", "–", "–"]
    low, high = row["interval_ms"]
    return [
        *cells,
        digits(row["median_ms"]),
        f"{digits(low)} – {digits(high)}",
        digits(row["mpairpoints_per_s"]),
        "–" if row["peak_mb"] is None else digits(row["peak_mb"]),
        "–" if row["share_of_limit"] is None else f"{100 * row['share_of_limit']:.2g} %",
    ]


def ratio_line(entry: dict[str, Any]) -> list[str]:
    low, high = entry["interval"]
    size = [str(entry[name]) for name in ("residues", "heads", "points")]
    times = [f"{digits(entry['median'])}×", f"{digits(low)} – {digits(high)}"]
    return [entry["of"], entry["to"], entry["direction"].replace("_", " + "), *size, *times]


def noise_line(noise: dict[str, Any]) -> str:
    low, high = noise["interval"]
    return (
        f"A/A: {noise['implementation']} against itself (N = {noise['residues']}, P = {noise['points']}): ratio "
        f"{noise['ratio']:.3f}, 95 % in {low:.3f} – {high:.3f}; one sample is off its median by "
        f"{100 * noise['deviation']:.1f} % (median)"
    )


def exponent_lines(exponents: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Of every implementation and direction the fit at the largest fixed size; the file has them all."""
    made = []
    for along, letter, fixed, other in (("points", "P", "residues", "N"), ("residues", "N", "points", "P")):
        largest = {}
        for entry in exponents.get(along, []):
            key = (entry["implementation"], entry["direction"], entry["heads"])
            largest[key] = max(largest.get(key, entry), entry, key=lambda fit: fit[fixed])
        for entry in largest.values():
            interval = entry["interval"]
            shown = "" if interval is None else f" ({interval[0]:.2f} – {interval[1]:.2f})"
            over = f"{letter} = {', '.join(map(str, entry['over']))}"
            made.append(
                f"time ∝ {letter}^{entry['exponent']:.2f}{shown}: {entry['implementation']}, "
                f"{entry['direction'].replace('_', ' + ')}, {other} = {entry[fixed]}, {over}"
            )
    return made


def limit_line(environment: dict[str, Any]) -> str:
    limit = environment.get("limit")
    if limit is None:
        return "machine's limit: not measured (numba is not installed)"
    need = environment["operations_per_pairpoint"]
    line = (
        f"machine's limit: {limit['goperations_per_s']:.0f}·10⁹ operations a second ({limit['how']}); assumed a "
        f"pair-point: {need['forward']:.0f} forward, {need['forward_backward']:.0f} forward + backward"
    )
    scaling = limit["scaling"]
    if scaling < _BUSY:
        line += (
            f"; THE MACHINE IS BUSY: {environment['threads']} threads together reached {100 * scaling:.0f} % of as "
            "many times what one reached. Threads that wait for each other make these times useless"
        )
    return line


def left_out_lines(environment: dict[str, Any]) -> list[str]:
    """Who is absent, and which cases were not run, one line a reason."""
    made = [f"{name}: {reason}" for name, reason in environment["absent"].items()]
    grouped: dict[tuple[str, str], list[str]] = {}
    for entry in environment["left_out"]:
        size = f"N={entry['residues']} P={entry['points']} {entry['direction'].replace('_', ' + ')}"
        grouped.setdefault((entry["implementation"], entry["reason"]), []).append(size)
    for (name, reason), sizes in grouped.items():
        shown = "; ".join(sizes) if len(sizes) <= 3 else f"{sizes[0]} … {sizes[-1]} ({len(sizes)} cases)"
        made.append(f"{name}: {reason}: {shown}")
    return made


def print_result(result: dict[str, Any], console: Console) -> None:
    """The table, ratios, exponents, and what the numbers rest on."""
    environment = result["environment"]
    table = Table(title=f"{environment['device']}, {environment['threads']} threads, seed {environment['seed']}")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("implementation", "direction") else "right", no_wrap=True)
    for row in result["rows"]:
        table.add_row(*row_cells(row), style="bold red" if row["median_ms"] is None else None)
    console.print(table)
    for row in result["rows"]:
        if row["median_ms"] is None:
            error = "not finite" if row["error"] is None else f"{row['error']:.1e}"
            words = f"FAILED {row['implementation']} P={row['points']}: error {error}, budget {row['error_budget']:.1e}"
            console.print(words, style="bold red", highlight=False)
    if result["ratios"]:
        ratios = Table(title="times as long as")
        for name in ("of", "to", "direction", "N", "H", "P", "median", "95 %"):
            ratios.add_column(name, no_wrap=True, justify="left" if name in ("of", "to", "direction") else "right")
        for entry in result["ratios"]:
            ratios.add_row(*ratio_line(entry))
        console.print(ratios)
    lines = [*exponent_lines(result["exponents"]), noise_line(result["noise"]), limit_line(environment)]
    for line in [*lines, *(f"left out: {line}" for line in left_out_lines(environment))]:
        console.print(line, highlight=False, soft_wrap=True)


def print_changes(changes: Sequence[Change], max_ratio: float, console: Console) -> None:
    for change in changes:
        direction, n, h, p = change.case
        verdict = "ok" if change.ratio <= max_ratio else f"SLOWER than {max_ratio:g} allows"
        console.print(
            f"baseline: {change.implementation}, {direction.replace('_', ' + ')}, N={n} H={h} P={p}: "
            f"{change.ratio:.2f}× the time relative to dense: {verdict}",
            highlight=False,
            soft_wrap=True,
        )


def digits(x: float) -> str:
    """Three significant digits, no exponent."""
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.3g}"


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The checkout's commit, with "+" where it was changed; None outside one."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")
