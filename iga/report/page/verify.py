"""A verification as sections of the page: verdicts, growth with P, error along κ, values beside bounds, what was left
out. A file of an older version lacks the figures: the page says so."""

from collections.abc import Sequence

from iga.report.document import Items, Paragraph
from iga.report.documents import Invariant, Verify
from iga.report.measured import Curve
from iga.report.page import drawings
from iga.report.page.model import Cell, Drawing, Grid, Note, Part, Section, cells, number
from iga.report.verify import PASSING, verdict

__all__ = ["bounds_of", "growth", "sections"]

TONES = {"holds": "good", "broken": "bad", "broken, as expected": "good", "not supported": "open"}
NO_FIGURES = (
    "This document has none of the numbers for it: it is of an older version of iga, or the check did not run here."
)


def sections(document: Verify) -> list[Section]:
    found = document["invariants"]
    made = [Section("Verdicts", [_table(found)])]
    made.append(Section("Growth with the number of points", _along(found, "P")))
    made.append(Section("Error against the condition κ", _along(found, "κ")))
    made.append(Section("Values beside their bounds", bounds_of(found) or [Note(NO_FIGURES)]))
    made.append(Section("What was judged, and what was not", _judged(document)))
    return made


def growth(documents: Sequence[tuple[str, Verify]]) -> list[Part]:
    """Growth with P of several runs on the same axes, a drawing a state of the layer; empty for fewer than two."""
    by: dict[str, list[tuple[str, Curve]]] = {}
    for name, document in documents:
        for curve in _curves(document["invariants"], "P"):
            state, _, scaling = curve["title"].partition(", scaling ")
            by.setdefault(state, []).append((f"{name} ({scaling})" if scaling else name, curve))
    made: list[Part] = []
    for state, curves in by.items():
        if len(curves) > 1:
            words = f"Growth of the largest geometry logit with P: {state}"
            made.append(_drawing(curves, words, "run"))
    return made


def _table(found: Sequence[Invariant]) -> Grid:
    heads = ("check", "verdict", "worst", "budget", "of the budget", "examples", "worst example · note", "alone")
    shown = len(heads) if any("reproduce" in one for one in found) else -1  # a run in Python has no command
    rows = tuple(_row(one)[:shown] for one in found)
    return Grid(heads[:shown], rows, words=(0, 1, 6, 7), stacked=True)


def _row(one: Invariant) -> tuple[Cell, ...]:
    words = verdict(one)
    tone = TONES.get(words, "good" if words in PASSING else "bad")
    where = " · ".join(part for part in (one["worst_example"], one["note"]) if part)
    worst, budget = one["worst"], one["budget"]
    limit = Cell(f"{'≥ ' if one.get('lower') else ''}{budget:.4g}", budget) if budget is not None else number(None)
    return (
        Cell(one["name"]),
        Cell(words, tone=tone),
        number(worst),
        limit,
        _share(one),
        number(one["examples"]),
        Cell(f"{where} [{one['unit']}]"),
        Cell(one.get("reproduce", ""), tone="code"),
    )


def _share(one: Invariant) -> Cell:
    """The worst value over its budget, of positive budgets from above: of others a share says nothing."""
    worst, budget = one["worst"], one["budget"]
    if one.get("lower", True) or worst is None or budget is None or budget <= 0:
        return Cell("–", -1.0)
    share = max(worst, 0.0) / budget
    return Cell(f"{100 * share:.3g} %", share, share=share)


def _curves(found: Sequence[Invariant], along: str) -> list[Curve]:
    return [curve for one in found for curve in one.get("curves", []) if curve["along"] == along]


def _along(found: Sequence[Invariant], along: str) -> list[Part]:
    curves = _curves(found, along)
    if not curves:
        return [Note(NO_FIGURES)]
    if along == "P":
        words = "Growth with P, beside what is allowed"
        made: list[Part] = [_drawing([("measured", curve)], f"{words}: {curve['title']}", "") for curve in curves]
        scalings = {curve["title"].partition(", scaling ")[2] for curve in curves} - {""}
        if scalings:
            text = f"This run has one scaling, {', '.join(scalings)}; documents of several runs on a page show others."
            made.append(Note(text))
        return made
    return [
        _drawing([("worst error", curve)], f"Worst error in each half decade of κ: {curve['title']}", "")
        for curve in curves
    ]


def _drawing(curves: list[tuple[str, Curve]], words: str, of: str) -> Drawing:
    unit, along = curves[0][1]["unit"], curves[0][1]["along"]
    heads = (*([of] if of else []), along, unit, "budget", "examples")
    rows = tuple(
        cells(*([name] if of else []), number(p["at"]), number(p["value"]), _limit(p["limit"]), p["examples"])
        for name, curve in curves
        for p in curve["points"]
    )
    svg = drawings.along(curves, words.rpartition(": ")[2])
    return Drawing(svg, words, Grid(heads, rows, words=(0,) if of else (), dense=True))


def _limit(value: float | None) -> Cell:
    return Cell("none", float("inf")) if value is None else number(value)


def bounds_of(found: Sequence[Invariant]) -> list[Part]:
    """A drawing of each histogram; none where the findings have none."""
    made: list[Part] = []
    for one in found:
        for histogram in one.get("histograms", []):
            words = f"{one['name']}: {histogram['title']}"
            if histogram["not_finite"]:
                words += f"; {histogram['not_finite']:,} more are not finite"
            power = (lambda x: 10.0**x) if histogram["log10"] else (lambda x: x)
            rows = tuple(
                cells(number(power(start)), number(power(start + histogram["width"])), count)
                for start, count in zip(histogram["start"], histogram["counts"], strict=True)
            )
            heads = (f"from, {histogram['unit']}", "below", "how many")
            svg = drawings.counted(histogram, bool(one.get("lower")))
            made.append(Drawing(svg, words, Grid(heads, rows, words=(), dense=True)))
    return made


def _judged(document: Verify) -> list[Part]:
    left_out = document["not_applicable"]
    made: list[Part] = []
    if left_out:
        rows = tuple(cells(one["name"], one["reason"], ", ".join(one.get("missing", []))) for one in left_out)
        made.append(Grid(("did not apply", "why", "what would have to be shown"), rows, words=(0, 1, 2), stacked=True))
    else:
        made.append(Paragraph("Every check that there is for this target applied."))
    expected = [one for one in document["invariants"] if one["expected_broken"]]
    if expected:
        made.append(Paragraph("Expected to be broken, as the target claims:"))
        made.append(Items(tuple(f"{one['name']}: {one['expected_broken']}" for one in expected)))
    structures = tuple(
        cells(one["path"], one["status"], one["residues"], one["masked"], one["chain_breaks"], one["reason"])
        for one in document["structures"]
    )
    heads = ("structure", "status", "residues", "masked", "chain breaks", "why")
    if structures:
        made.append(Grid(heads, structures, words=(0, 1, 5), stacked=True))
    taps = document.get("taps", {})
    if taps:
        made.append(Grid(("tap", "was"), tuple(cells(*one) for one in taps.items()), words=(0, 1)))
    return made
