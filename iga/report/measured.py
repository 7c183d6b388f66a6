"""The types of the figures behind a verdict, and of where the accused stands: parts of the documents."""

from typing import TypedDict

__all__ = ["Curve", "CurvePoint", "Histogram", "Source"]


class CurvePoint(TypedDict):
    """The worst example at one place of a curve; null where it was not finite, or where no limit is claimed."""

    at: float
    value: float | None
    limit: float | None
    examples: int


class Curve(TypedDict):
    """How a check's figure goes along κ, P, …; `title` tells the curves of one check apart."""

    title: str
    along: str
    unit: str
    points: list[CurvePoint]


class Histogram(TypedDict):
    """How many examples fell from each of `start` on, in bins of one `width`; `limit` in the same unit, null where
    there is none. `log10`: start, width and limit are decades."""

    title: str
    unit: str
    log10: bool
    width: float
    start: list[float]
    counts: list[int]
    not_finite: int
    limit: float | None


class Source(TypedDict):
    """The file of the accused, from the folder of the run where it lies below it, and its line, null where unknown."""

    file: str
    line: int | None
