"""The parts of a page: runs, their sections, and in these tables, drawings, notes and red rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from iga.report.document import Heading, Items, Paragraph, Picture, Table
from iga.report.outcomes import Outcome

__all__ = ["Cell", "Drawing", "Grid", "Note", "Part", "Reds", "Run", "Section", "cells", "number"]


@dataclass(frozen=True)
class Cell:
    """Text; the number that it sorts by, if it is one; a tone of the page's ("good", "bad", "open", "code"); and a
    share of a budget, from 0 up, that is drawn as a bar."""

    text: str
    sort: float | None = None
    tone: str = ""
    share: float | None = None


@dataclass(frozen=True)
class Grid:
    """A table that sorts and filters. `stacked`: on a narrow screen each row is a card; else the table scrolls.

    words    columns of words; the others are numbers, on the right
    upright  columns of signs, whose heads stand upright to keep them narrow
    tall     many rows that few will read: they scroll within a window of their own, but not on paper
    """

    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: tuple[int, ...] = (0,)
    title: str = ""
    stacked: bool = False
    dense: bool = False
    upright: tuple[int, ...] = ()
    tall: bool = False


@dataclass(frozen=True)
class Drawing:
    """An SVG with its words, and the numbers behind it."""

    svg: str
    words: str
    data: Grid | None = None


@dataclass(frozen=True)
class Note:
    """A sentence beside the figures, as of numbers that a document lacks."""

    text: str


@dataclass(frozen=True)
class Reds:
    """Outcomes that fail, one below the other."""

    outcomes: tuple[Outcome, ...]


Part = Grid | Drawing | Note | Reds | Heading | Paragraph | Items | Picture | Table


@dataclass(frozen=True)
class Section:
    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Run:
    """A document on the page. `name` is its anchor, `kind` the document's."""

    name: str
    kind: str
    title: str
    command: str
    red: int
    holds: int
    skipped: int
    facts: tuple[str, ...]
    sections: list[Section] = field(default_factory=list)


def cells(*texts: object) -> tuple[Cell, ...]:
    """A row: numbers as cells that sort as numbers, the rest as words; None is a dash."""
    return tuple(map(_cell, texts))


def number(value: float | int | None, form: str = ".4g") -> Cell:
    """A number that sorts as what it is; one that is not there is not finite."""
    if value is None:
        return Cell("not finite", float("inf"))
    return Cell(f"{value:,}" if isinstance(value, int) else format(value, form), float(value))


def _cell(one: object) -> Cell:
    if isinstance(one, Cell):
        return one
    return number(one) if isinstance(one, float | int) else Cell("–" if one is None else str(one))
