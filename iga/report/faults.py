"""The matrix fault × check as blocks: a table a bench, what each check detects, and the verdict in a line."""

from iga.report.document import Block, Items, Paragraph, Table
from iga.report.documents import Fault, Faults

__all__ = ["blocks"]


def blocks(document: Faults) -> list[Block]:
    """Which check caught which fault, then what each check detects at least, then the verdict in a line."""
    made: list[Block] = []
    faults, checks = document["faults"], document["invariants"]
    missed, idle = [], []
    for bench in dict.fromkeys(one["bench"] for one in checks):
        rows = [row for row in faults if row["bench"] == bench]
        own = [one for one in checks if one["bench"] == bench]
        names = [one["name"] for one in own]
        made.append(
            Table(
                ("fault", "size", *(str(number) for number, _ in enumerate(names, start=1))),
                tuple((row["name"], _size(row), *(_mark(row, name) for name in names)) for row in rows),
                title=f"{bench}: faults by checks (● caught, ◆ by it alone, ○ missed, – not run)",
            )
        )
        lines = []
        for number, one in enumerate(own, start=1):
            caught = sum(one["name"] in row["caught_by"] for row in rows)
            size = one["smallest_detected"]
            detects = "" if size is None else f"; smallest detected {size:.3g} ({one['of_fault']})"
            lines.append(f"{number:3} {one['name']}: catches {caught}{detects}")
            if not caught:
                idle.append(f"catches nothing: {bench}: {one['name']}")
        made.append(Items(tuple(lines)))
    for row in faults:
        if lost := ", ".join(sorted(set(row["expected"]) - set(row["caught_by"]))):
            missed.append(f"missed: {row['bench']}: {row['name']}: not seen by {lost}")
    alarms = [
        f"false alarm: {one['target']}, seed {one['seed']}: {one['invariant']}" for one in document["false_alarms"]
    ]
    open_ones = [f"missed, openly: {row['bench']}: {row['name']}: {row['missed']}" for row in faults if row["missed"]]
    without = [f"no fault of its own: {one['bench']}: {one['name']}" for one in checks if not one["alone"]]
    bad = "something is to be mended"
    verdict = bad if document["exit_code"] else "every check can fail, and none fails for nothing"
    return [
        *made,
        Items((*missed, *idle, *without, *open_ones, *alarms)),
        Paragraph(
            f"{_planted(document)}, {len(missed)} missed; {len(checks)} checks, {len(idle)} idle; "
            f"{document['clean_runs']} clean runs, {len(alarms)} false alarms: {verdict}"
        ),
        Paragraph(f"{document['seconds']:.1f} s, seed {document['environment']['seed']}"),
    ]


def _planted(document: Faults) -> str:
    """How many faults were planted, of how many."""
    count, all_of_them = len(document["faults"]), document["catalogue"]
    return f"{count} faults" if count == all_of_them else f"{count} of {all_of_them} faults (all: --profile ci)"


def _size(row: Fault) -> str:
    """A fault of size 1 is one that has no knob."""
    return "" if row["size"] == 1.0 else f"{row['size']:g}"


def _mark(row: Fault, name: str) -> str:
    if name in row["not_run"]:
        return "–"
    if name in row["caught_by"]:
        return "◆" if len(row["caught_by"]) == 1 else "●"
    return "○" if name in row["expected"] else ""
