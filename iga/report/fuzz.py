"""A search as blocks: what was found, how near each check came, where it has been, and the verdict in a line."""

from iga._text import one_line
from iga.report.document import Block, Items, Paragraph, Table
from iga.report.documents import Fuzz
from iga.report.found import Counterexample

__all__ = ["blocks"]

SHOWN = 12  # sites of which a side was never taken


def blocks(document: Fuzz) -> list[Block]:
    """Findings first, the line that counts last."""
    made: list[Block] = []
    if document["findings"]:
        made.append(_table("found", document["findings"]))
    if document["doubtful"]:
        made.append(_table("suspected, and not broken when judged again, or not judged", document["doubtful"]))
    if rows := tuple((one["check"], _figure(one["worst"])) for one in document["worst"]):
        made.append(Table(("check", "worst value over limit"), rows))
    if engines := tuple((one["name"], f"{one['rounds']:,}", f"{one['examples']:,}") for one in document["engines"]):
        made.append(Table(("engine", "rounds", "examples"), engines))
    lines = _coverage(document)
    return [*made, *([Items(lines)] if lines else []), Paragraph(_summary(document))]


def _table(title: str, found: list[Counterexample]) -> Table:
    heads = ("check", "verdict", "value", "limit", "engine", "after", "where · note · inputs")
    return Table(heads, tuple(_row(one) for one in found), words=(0, 1, 4, 6), title=title, long=6)


def _row(one: Counterexample) -> tuple[str, ...]:
    words = " · ".join(part for part in (one["where"], one["note"], one["inputs"]) if part)
    numbers = (_figure(one["value"]), _figure(one["limit"]))
    return one["check"], one["verdict"], *numbers, one["engine"], f"{one['seconds']:.0f} s", words


def _figure(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _coverage(document: Fuzz) -> tuple[str, ...]:
    sites = document["sites"]
    taken = sum((one["true"] > 0) + (one["false"] > 0) for one in sites)
    lines = [f"sides of branches taken: {taken} of {2 * len(sites)}, at {len(sites)} sites"] if sites else []
    never = [one for one in sites if not (one["true"] and one["false"])]
    lines += [f"never {'false' if one['true'] else 'true'}: {one_line(one['place'])}" for one in never[:SHOWN]]
    lines += [f"… and {len(never) - SHOWN} more" for _ in range(len(never) > SHOWN)]
    cells = "sizes (N, P, H, channels, samples)" if document["kind"] == "layer" else "cells of κ × angle × distance"
    lines += [f"{cells} met: {document['cells']} of {document['of_cells']}"] if document["of_cells"] else []
    return (*lines, *(f"not followed: {one_line(words)}" for words in document["blind"]))


def _summary(document: Fuzz) -> str:
    found = ", ".join(dict.fromkeys(one["check"] for one in document["findings"]))
    rate = document["examples"] / max(document["seconds"], 1e-9)
    what = "calls" if document["kind"] == "layer" else "pairs"
    seeds = document.get("seeds", [document["environment"]["seed"]])
    waiting = ", ".join(dict.fromkeys(one["check"] for one in document["doubtful"] if one["verdict"] == "not judged"))
    if found:
        said = f"broken: {found}"
    elif waiting:
        said = f"suspected, and not judged yet: {waiting}"
    elif not document["worst"]:
        said = "nothing was judged, and nothing is known of it"
    else:
        said = "nothing found where it was searched, and a part was not" if document["exit_code"] else "nothing found"
    return (
        f"{one_line(document['target'])}: {said}; {document['examples']:,} {what} in {document['seconds']:.0f} s "
        f"({rate:,.0f} a second){_pair_points(document)}, seed {', '.join(map(str, seeds))}, "
        f"streams {', '.join(document['streams'])}"
    )


def _pair_points(document: Fuzz) -> str:
    count = document.get("pair_points")
    return f", {count:.3g} pair-points" if count else ""
