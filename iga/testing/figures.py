"""The figures behind a verdict: curves along κ or P, and histograms, which a check fills beside its Tally.

They judge nothing. A curve keeps the worst example of each place, by its share of the limit; a histogram counts.
"""

import math

import torch

from iga._typing import Tensor
from iga.report.measured import Curve, CurvePoint, Histogram

__all__ = ["Blank", "Figures", "half_decades"]

# A figure holds no more places than a page can show.
PLACES = 64
LEAST = 1e-30  # in place of 0 on an axis of decades


class Figures:
    """Curves and histograms by their titles, in the order in which they were begun."""

    def __init__(self) -> None:
        self._curves: dict[str, tuple[str, str, dict[float, CurvePoint]]] = {}
        self._counts: dict[str, tuple[str, bool, float, float | None, dict[int, int]]] = {}
        self._lost: dict[str, int] = {}

    def curve(self, title: str, along: str, unit: str, at: Tensor, values: Tensor, limits: Tensor | float) -> None:
        """Add examples at the places `at`, which are few; values, limits and places broadcast. NaN limits: none."""
        places = self._curves.setdefault(title, (along, unit, {}))[2]
        values = values.detach().double()
        at = at.detach().double().expand(values.shape).flatten()
        limits = torch.as_tensor(limits, dtype=torch.float64).detach().expand(values.shape).flatten()
        values = values.flatten()
        for place in at.unique().tolist():
            if place not in places and len(places) >= PLACES or not math.isfinite(place):
                continue
            here = (at == place).nonzero().flatten()
            share = (values[here] / limits[here].clamp(min=1e-300)).nan_to_num(nan=-math.inf, posinf=math.inf)
            share = torch.where(values[here].isfinite(), share, math.inf)
            # where nothing has a limit, the largest is the one to show
            share = torch.where(limits[here].isnan() & values[here].isfinite(), values[here], share)
            worst = here[int(share.argmax())]
            point: CurvePoint = {
                "at": place,
                "value": _finite(float(values[worst])),
                "limit": _finite(float(limits[worst])),
                "examples": len(here),
            }
            known = places.get(place)
            if known is not None:
                point = {
                    **(point if _share(point) > _share(known) else known),
                    "examples": known["examples"] + len(here),
                }
            places[place] = point

    def count(
        self, title: str, unit: str, values: Tensor, *, width: float, limit: float | None = None, log10: bool = False
    ) -> None:
        """Count the values in bins of `width`, in decades if `log10`, of which `limit` is then one too."""
        counts = self._counts.setdefault(title, (unit, log10, width, limit, {}))[4]
        flat = values.detach().double().flatten()
        finite = flat[flat.isfinite()]
        self._lost[title] = self._lost.get(title, 0) + len(flat) - len(finite)
        if log10:
            finite = finite.clamp(min=LEAST).log10()
        if not len(finite):
            return
        bins = (finite / width).floor().long()
        lowest = int(bins.min())
        if int(bins.max()) - lowest > 100 * PLACES:  # a few far away: as many bins as that would hold nothing
            bins = bins.clamp(min=(lowest := int(bins.median()) - 50 * PLACES), max=lowest + 100 * PLACES)
        for place, count in enumerate(torch.bincount(bins - lowest).tolist()):
            if count:
                counts[lowest + place] = counts.get(lowest + place, 0) + count

    def curves(self) -> list[Curve]:
        return [
            {"title": title, "along": along, "unit": unit, "points": [places[place] for place in sorted(places)]}
            for title, (along, unit, places) in self._curves.items()
        ]

    def histograms(self) -> list[Histogram]:
        return [
            {
                "title": title,
                "unit": unit,
                "log10": log10,
                "width": width,
                "start": [place * width for place in sorted(counts)],
                "counts": [counts[place] for place in sorted(counts)],
                "not_finite": self._lost.get(title, 0),
                "limit": limit,
            }
            for title, (unit, log10, width, limit, counts) in self._counts.items()
        ]


class Blank(Figures):
    """Takes no figures, for a search, which measures millions of examples a second."""

    def curve(self, *given: object) -> None: ...

    def count(self, *given: object, **options: object) -> None: ...


def half_decades(values: Tensor) -> Tensor:
    """Each value's place on an axis: the lower end of its half decade."""
    return 10.0 ** ((values.detach().double().clamp(min=1e-300).log10() * 2 + 1e-9).floor() / 2)


def _share(point: CurvePoint) -> float:
    value, limit = point["value"], point["limit"]
    if value is None:
        return math.inf
    return value if limit is None else value / max(limit, 1e-300)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
