"""A replayed call as blocks: its limits then and now, the place that crossed each, its metrics."""

from iga._text import one_line
from iga.report.document import Block, Items, Paragraph, Table
from iga.report.replayed import Replay

__all__ = ["blocks"]


def blocks(document: Replay) -> list[Block]:
    versions = document["environment"]["recorded_versions"]
    head = f"step {document['step']}, rank {document['rank']}, layer {one_line(document['target'])}; "
    head += f"torch {versions.get('torch')}, iga {versions.get('iga')}"
    rows, places = [], []
    for one in document["crossed"]:
        then, now = ("not finite" if x is None else f"{x:.6g}" for x in (one["then"], one["now"]))
        if not one["where"]:
            now = "not shown"
        rows.append((one["kind"], _verdict(one["crossed"]), f"{one['limit']:.6g}", then, now, one["unit"]))
        names = f" (in {', '.join(one['names'])})" if one["names"] else ""
        places.append(f"{one['kind']}{names}: {one['where'] or 'nothing of it is shown'}")
    metrics = tuple(
        (name, "not finite" if value is None else f"{value:.6g}") for name, value in document["metrics"].items()
    )
    return [
        Paragraph(head),
        Table(("limit", "now", "limit at", "recorded", "run alone", "unit"), tuple(rows), words=(0, 1, 5)),
        Items(tuple(places)),
        Table(("metric", "value"), metrics),
        *([Items(tuple(document["notes"]))] if document["notes"] else []),
    ]


def _verdict(crossed: bool) -> str:
    return "crossed" if crossed else "kept"
