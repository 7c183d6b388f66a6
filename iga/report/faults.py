"""The matrix fault by check, as a table for a person and as JSON for a machine."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iga._files import write_text
from iga._runtime import environment

if TYPE_CHECKING:
    from iga.testing.faults.matrix import Matrix

__all__ = ["print_matrix", "write_matrix"]


def write_matrix(matrix: "Matrix", command: str, path: Path) -> None:
    """Write schema 1 of `iga faults --json`; OSError if that can't be done."""
    from iga.testing.faults.matrix import as_json as matrix_as_json

    document = matrix_as_json(matrix) | {"command": command, "environment": environment(matrix.seed)}
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def print_matrix(matrix: "Matrix", console: Console) -> None:
    """Which check caught which fault, then what each check detects at least, then the verdict in a line."""
    from iga.testing.faults.subjects import CHECKS

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
