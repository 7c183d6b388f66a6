"""Limits of what a training may show, with defaults that follow from float32 and from definitions.

log_det         3 ln(2 · 0.03²) = −18.96: the least of two Gaussians whose every σ is at least 0.03 nm (0.3 Å);
                docs/theory.md, section 3.1. Rounding may take it lower by `iga.bounds.log_det_floor_budget`
geometry_logit  51.6 nat, half of −ln 2⁻¹⁴⁹: two logits that lie twice as far apart leave the smaller a weight of
                exactly 0 in float32, and no gradient
saturated       0.5: more than half of the rows give over 0.9 of their weight to one key
entropy         0.325 nat, that of the row (0.9, 0.1): no row has less whose largest weight is at most 0.9
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from iga._arguments import check_number
from iga.bounds import REFERENCE, log_det_floor, log_det_floor_budget
from iga.diagnostics import SATURATION

__all__ = ["KINDS", "LimitCrossed", "Limits"]

# In the order in which one call of several kinds is reported: what is not finite explains the others.
KINDS = ("non_finite", "log_det", "geometry_logit", "saturated", "entropy")
UNITS = {"log_det": "ln nm⁶", "geometry_logit": "nat", "saturated": "of rows", "entropy": "nat"}

_SIGMA_MIN = 0.03  # nm, the floor of the preset `bounded`
_UNDERFLOW = 149 * math.log(2)  # e to the minus this is the least subnormal number of float32
_ENTROPY = -SATURATION * math.log(SATURATION) - (1 - SATURATION) * math.log(1 - SATURATION)
_RANGES = {
    "log_det": (3 * math.log(sys.float_info.min), 3 * math.log(sys.float_info.max)),
    "geometry_logit": (0.0, math.inf),
    "saturated": (0.0, 1.0),
    "entropy": (0.0, math.inf),
}


class LimitCrossed(RuntimeError):
    """A limit that was crossed where `watch` was asked to raise: its `kind`, and the `folder` that was written, or
    None."""

    def __init__(self, message: str, kind: str, folder: Path | None) -> None:
        super().__init__(message)
        self.kind, self.folder = kind, folder


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one call of a layer may show; None, of non_finite False, switches a limit off.

    non_finite      no NaN and no infinity at valid pairs and rows, or in the first tensor of the output
    log_det         ln nm⁶: the raw log_det of every valid pair and point is at least this, but for rounding
    geometry_logit  nat: the |geometry logit| of every valid pair is at most this
    saturated       the share of rows whose largest weight is over 0.9 is at most this, of rows with two keys or more
    entropy         nat: the mean entropy of the same rows is at least this

    Defaults: see the module. Raises ValueError for what is no number, or out of range.
    """

    non_finite: bool = True
    log_det: float | None = float(log_det_floor(_SIGMA_MIN))
    geometry_logit: float | None = _UNDERFLOW / 2
    saturated: float | None = 0.5
    entropy: float | None = _ENTROPY

    def __post_init__(self) -> None:
        if not isinstance(self.non_finite, bool):
            raise ValueError(f"non_finite must be True or False, got {self.non_finite!r}")
        for name, (low, high) in _RANGES.items():
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), low, high, remedy="; None switches it off")

    def of(self, kind: str) -> float | None:
        """The limit of a kind; of non_finite 0, the most numbers that are not finite. None where it is off."""
        if kind == "non_finite":
            return 0.0 if self.non_finite else None
        return getattr(self, kind)

    def crossed(self, values: dict[str, float]) -> list[str]:
        """The kinds whose limit these values (kind → value, as `iga.recording.reading` has them) cross, in order."""
        return [kind for kind in KINDS if kind in values and self._crosses(kind, values[kind])]

    def _crosses(self, kind: str, value: float) -> bool:
        limit = self.of(kind)
        if limit is None or math.isnan(value):  # NaN is a matter of non_finite
            return False
        if kind == "log_det":
            return value < limit - _rounding(limit)
        return value < limit if kind == "entropy" else value > limit


def _rounding(floor: float) -> float:
    """How far rounding may take log_det under 3 ln(2 σ²) = `floor`; kernels too take their logarithm by torch.

    That of float32 in every dtype: frames of float32 that are read in float64 leave as much, and it is no disease.
    """
    sigma = math.exp(floor / 6) / math.sqrt(2)
    return float(log_det_floor_budget(torch.float32, sigma, roundings=REFERENCE, as_given=True))
