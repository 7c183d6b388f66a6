"""The other documents as sections of the page: the fault matrix, a search, a bench, a comparison."""

import base64
import math
from collections.abc import Sequence
from pathlib import Path

from iga.report.bench import blocks as bench_blocks
from iga.report.document import Block, Heading, Items, Paragraph, Picture, Table
from iga.report.documents import Bench, Compare, Faults, Fuzz
from iga.report.found import Counterexample
from iga.report.page import drawings
from iga.report.page.model import Cell, Drawing, Grid, Note, Part, Section, cells, number
from iga.report.replayed import Replay

__all__ = ["bench_sections", "compare_sections", "fault_sections", "fuzz_sections", "replay_sections"]

MARKS = {"alone": "◆", "caught": "●", "missed": "○", "not run": "–"}


def fault_sections(document: Faults) -> list[Section]:
    made = []
    for bench in dict.fromkeys(one["bench"] for one in document["invariants"]):
        names = [one["name"] for one in document["invariants"] if one["bench"] == bench]
        rows = [row for row in document["faults"] if row["bench"] == bench]
        heads = ("fault", "verdict", *names, "size", "region", "caught by")
        grid = tuple(
            (
                Cell(row["name"]),
                _verdict(row),
                *(_mark(row, name) for name in names),
                Cell("", 1.0) if row["size"] == 1.0 else number(row["size"], "g"),  # size 1: it has no knob
                Cell(row["region"]),
                Cell(", ".join(row["caught_by"])),
            )
            for row in rows
        )
        count = len(names)
        words, upright = (0, 1, count + 3, count + 4), tuple(range(2, count + 2))
        note = Paragraph("◆ caught by this check alone, ● caught, ○ missed though expected, – not run.")
        made.append(
            Section(f"Faults by checks: {bench}", [note, Grid(heads, grid, words=words, dense=True, upright=upright)])
        )
    made.append(Section("The smallest fault that each check detects", [_detections(document)]))
    alarms = tuple(cells(one["target"], str(one["seed"]), one["invariant"]) for one in document["false_alarms"])
    runs = f"{document['clean_runs']} clean runs, {len(alarms)} false alarms; {len(document['faults'])} of "
    parts: list[Part] = [Paragraph(f"{runs}{document['catalogue']} faults of the catalogue were planted.")]
    if alarms:
        parts.append(Grid(("target", "seed", "check"), alarms, words=(0, 2)))
    open_ones = tuple(f"{row['bench']}: {row['name']}: {row['missed']}" for row in document["faults"] if row["missed"])
    if open_ones:
        parts += [Paragraph("Missed, openly:"), Items(open_ones)]
    return [*made, Section("Clean runs, and what is missed openly", parts)]


def _detections(document: Faults) -> Grid:
    rows = tuple(
        (
            Cell(one["bench"]),
            Cell(one["name"]),
            Cell("–", math.inf) if one["smallest_detected"] is None else number(one["smallest_detected"], ".3g"),
            Cell(one["of_fault"] or "–"),
            Cell("; ".join(one["alone"]) or "none"),
        )
        for one in document["invariants"]
    )
    heads = ("judges", "check", "smallest size", "of the fault", "faults that it alone catches")
    return Grid(heads, rows, words=(0, 1, 3, 4), stacked=True)


def _verdict(row: object) -> Cell:
    fault: dict = row  # pyright: ignore[reportAssignmentType, reportMissingTypeArgument]
    if set(fault["expected"]) - set(fault["caught_by"]):
        return Cell("missed", tone="bad")
    return Cell("missed, openly", tone="open") if fault["missed"] else Cell("caught", tone="good")


def _mark(row: object, name: str) -> Cell:
    fault: dict = row  # pyright: ignore[reportAssignmentType, reportMissingTypeArgument]
    if name in fault["not_run"]:
        return Cell(MARKS["not run"], 1.0, "faint")
    if name in fault["caught_by"]:
        alone = len(fault["caught_by"]) == 1
        return Cell(MARKS["alone" if alone else "caught"], 4.0 if alone else 3.0, "good")
    return Cell(MARKS["missed"], 2.0, "bad") if name in fault["expected"] else Cell("", 0.0)


def fuzz_sections(document: Fuzz) -> list[Section]:
    made = []
    if document["findings"]:
        made.append(Section("Counterexamples", [_found(document["findings"]), *_pictures(document["findings"])]))
    if document["doubtful"]:
        words = Paragraph("Suspected, and not broken when they were judged again from their inputs alone.")
        made.append(Section("Suspected", [words, _found(document["doubtful"])]))
    reached = [(one["check"], math.inf if one["worst"] is None else one["worst"]) for one in document["worst"]]
    words = "largest value over limit that was met"
    grid = Grid(("check", words), tuple(cells(one["check"], number(one["worst"])) for one in document["worst"]))
    near = Drawing(drawings.nearness(reached, words), "How near each check came to its limit", grid)
    made.append(Section("How near each check came", [near] if reached else [Note("No check was measured.")]))
    return [*made, Section("Where the search has been", _coverage(document))]


_FOLDER = "reproduce.py in the folder of a counterexample's inputs shows what is wrong beside what is right."
_NO_PICTURE = "No picture.svg stood there when this page was made: of more than one pair there is none."
_MOST = 1_500_000  # bytes of all pictures on a page


def _pictures(found: Sequence[Counterexample]) -> list[Part]:
    """The pictures that stand in the folders of the inputs, where this page is made."""
    made: list[Part] = []
    left, without = _MOST, []
    for one in found:
        data = _svg(Path(one["inputs"]) / "picture.svg") if one["inputs"] else b""
        if not data or len(data) > left:
            without.append(one["check"])
            continue
        left -= len(data)
        uri = f"data:image/svg+xml;base64,{base64.b64encode(data).decode()}"
        made.append(Picture("picture.svg", uri, uri, f"{one['check']}: the two Gaussians of {one['where']}"))
    made.append(Note(_FOLDER))
    if without:
        made.append(Note(f"Not drawn: {', '.join(without)}. {_NO_PICTURE}"))
    return made


def _svg(file: Path) -> bytes:
    """The bytes of an SVG; none where there is no such file, or it is something else."""
    try:
        data = file.read_bytes() if file.is_file() and file.stat().st_size <= _MOST else b""
    except (OSError, ValueError):
        return b""
    return data if b"<svg" in data[:1000] else b""


def _found(found: Sequence[Counterexample]) -> Grid:
    rows = tuple(
        (
            Cell(one["check"]),
            Cell(one["verdict"], tone="bad" if one["verdict"] == "broken" else "open"),
            number(one["value"]),
            number(one["limit"]),
            Cell(one["unit"]),
            Cell(one["engine"]),
            number(round(one["seconds"], 1)),
            number(one["examples"]),
            Cell(" · ".join(part for part in (one["where"], one["note"]) if part)),
            Cell(one["inputs"], tone="code"),
        )
        for one in found
    )
    heads = ("check", "verdict", "value", "limit", "unit", "engine", "seconds", "examples", "where · note", "inputs")
    return Grid(heads, rows, words=(0, 1, 4, 5, 8, 9), stacked=True)


def _coverage(document: Fuzz) -> list[Part]:
    sites = document["sites"]
    taken = sum((one["true"] > 0) + (one["false"] > 0) for one in sites)
    shares = [
        ("sides of branches", float(taken), float(2 * len(sites))),
        ("cells of κ × angle × distance", float(document["cells"]), float(document["of_cells"])),
    ]
    rows = tuple(cells(name, int(value), int(whole)) for name, value, whole in shares)
    made: list[Part] = [
        Drawing(drawings.bars(shares, "What was met"), "Coverage", Grid(("what", "met", "of"), rows)),
    ]
    if sites:
        places = tuple(
            (
                Cell(one["place"]),
                Cell("both", tone="good") if one["true"] and one["false"] else Cell("one", tone="open"),
                number(one["true"]),
                number(one["false"]),
            )
            for one in sites
        )
        made.append(Grid(("branch", "sides taken", "true", "false"), places, words=(0, 1), stacked=True))
    else:
        made.append(Note("No branch of the function was seen: it has none that torch sees."))
    engines = tuple(cells(one["name"], one["rounds"], one["examples"]) for one in document["engines"])
    made.append(Grid(("engine", "rounds", "examples"), engines))
    rate = document["examples"] / max(document["seconds"], 1e-9)
    made.append(Paragraph(f"{document['examples']:,} pairs in {document['seconds']:.0f} s, {rate:,.0f} a second."))
    if document["blind"]:
        made += [Paragraph("Not followed:"), Items(tuple(document["blind"]))]
    return made


def bench_sections(document: Bench) -> list[Section]:
    curves = drawings.bench(document)
    parts: list[Part] = [Drawing(svg, f"Time, median and 95 %: {title}") for title, svg in curves]
    if not curves:
        parts.append(Note("No row was timed: there is nothing to draw."))
    rest = list(bench_blocks(document))
    times, others = rest[:1], rest[1:]
    return [
        Section("Curves", parts),
        Section("Times", [as_grid(one) for one in times]),
        Section("Ratios, exponents, noise, and what was left out", [as_grid(one) for one in others]),
    ]


def replay_sections(document: Replay) -> list[Section]:
    rows = tuple(
        (
            Cell(one["kind"]),
            Cell("crossed" if one["crossed"] else "kept", tone="bad" if one["crossed"] else "good"),
            number(one["limit"], ".6g"),
            number(one["then"], ".6g"),
            number(one["now"], ".6g") if one["where"] else Cell("not shown"),
            Cell(one["unit"]),
            Cell(" · ".join(part for part in (one["where"], ", ".join(one["names"])) if part)),
        )
        for one in document["crossed"]
    )
    heads = ("limit", "now", "limit at", "recorded", "run alone", "unit", "where · not finite")
    there, here = document["environment"]["recorded_versions"], document["environment"]["versions"]
    place = document["environment"]["recorded_device"], document["environment"]["recorded_date"]
    then = f"Recorded at step {document['step']}, rank {document['rank']}, on {place[0]}, {place[1]}."
    same = tuple(cells(name, version, here.get(name)) for name, version in there.items())
    metrics = tuple(cells(name, number(value, ".6g")) for name, value in document["metrics"].items())
    return [
        Section(
            "Limits that were crossed, and where", [Note(then), Grid(heads, rows, words=(0, 1, 5, 6), stacked=True)]
        ),
        Section("Metrics of the call, run alone", [Grid(("metric", "value"), metrics)]),
        Section(
            "Versions, and what is not as it was",
            [Grid(("package", "then", "now"), same, words=(0, 1, 2)), Items(tuple(document["notes"]))],
        ),
    ]


def compare_sections(document: Compare, blocks: Sequence[Block] | None) -> list[Section]:
    """The comparison's own tables, where whoever makes the page has them; a section a heading of level 2."""
    if blocks is None:
        rows = tuple(
            cells(run["arm"], str(run["seed"]), run["status"], run["steps_done"], run["parameters"])
            for run in document["runs"]
        )
        grid = Grid(("arm", "seed", "status", "steps", "parameters"), rows, words=(0, 2))
        return [Section("Runs", [grid, Note("The comparison's own tables were not made for this page.")])]
    found: list[tuple[str, list[Part]]] = []
    for block in blocks:
        if isinstance(block, Heading) and block.level == 2:
            found.append((block.text, []))
        elif found:  # the title, and what stands before the first section, is the page's own
            found[-1][1].append(as_grid(block))
    return [Section(title, parts) for title, parts in found if parts]


_TONES = {"supported": "good", "below": "good", "refuted": "bad", "not below": "bad", "undecided": "open"}


def as_grid(block: Block) -> Part:
    """A table of blocks as one that sorts and filters; other blocks as they are."""
    if not isinstance(block, Table):
        return block
    rows = tuple(
        tuple(
            Cell(text, None if column in block.words else _value(text), _TONES.get(text, ""))
            for column, text in enumerate(row)
        )
        for row in block.rows
    )
    return Grid(
        block.heads, rows, words=block.words, title=block.title, stacked=len(block.words) > len(block.heads) / 2
    )


def _value(text: str) -> float | None:
    """The number that a cell begins with."""
    head = text.replace(",", "").replace("−", "-").split(" ")[0].rstrip("×%↓↑")
    try:
        return float(head)
    except ValueError:
        return None
