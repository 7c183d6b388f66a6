"""Measured values against their limits: what a check counts, and the verdict that follows.

Measuring and judging are apart: a check hands `Tally.add` values and limits; `Tally.finding` judges them.
A value that is not finite is broken whatever the limit, and is looked at first.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from iga._typing import Tensor
from iga.testing.figures import Figures
from iga.testing.latest import Call, taken
from iga.testing.result import Finding

__all__ = ["VACUOUS_SHARE", "Row", "Said", "Tally"]

# Under this share of examples that could have failed, a check that found nothing has shown nothing.
VACUOUS_SHARE = 0.5
FAILURES = 3  # failures without a number whose words are kept: the first few say what there is to say


@runtime_checkable
class Row(Protocol):
    """A name of examples, each of which has inputs of its own: those of a row of a batch."""

    def __call__(self, index: tuple[int, ...]) -> str: ...

    def inputs(self, index: tuple[int, ...]) -> dict[str, Tensor]: ...

    def rows(self, count: int) -> Tensor:
        """Places in the batch of `count` examples, which need not be all of it."""
        ...


@dataclass(frozen=True)
class Said:
    """What the accused says in one example, and what is right."""

    where: str
    accused: list[float]
    right: list[float]


class Tally:
    """Accumulates one invariant's measurements over many calls of `add`."""

    def __init__(self, name: str, unit: str) -> None:
        self.name, self.unit = name, unit
        self.examples = 0
        self.vacuous = 0
        self.undecided = 0
        self.broken = 0
        self.worst = math.nan
        self.limit = math.nan
        self.lower = False
        self.worst_example = ""
        self.notes: list[str] = []
        self._void = False
        self._failures = 0
        self._unsupported: list[str] = []
        self._highest: dict[str, float] = {}
        self._severity = -math.inf
        self.figures = Figures()
        self.call: Call | None = None  # that of the worst example, where it is broken and calls are kept
        self.said: Said | None = None  # of the worst example that has numbers, where that is broken

    def add(
        self,
        value: Tensor | float,
        limit: Tensor | float,
        where: str | Callable[[tuple[int, ...]], str],
        *,
        lower: bool = False,
        could_fail: Tensor | bool = True,
        says: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Judge `value ≤ limit` (`value ≥ limit` if `lower`), element by element; the two broadcast.

        `where` names the example, from its index in `value` if it is a function. `could_fail` is False for examples
        that no implementation could get wrong; they are counted as vacuous. `says` are what the accused says and what
        is right, of `value`'s shape and perhaps further dimensions, for whoever reads of the worst example.
        """
        value = torch.as_tensor(value, dtype=torch.float64).detach()
        limit = torch.as_tensor(limit, dtype=torch.float64).detach().expand(value.shape)
        if value.numel() == 0:
            return
        self.examples += value.numel()
        # An infinite limit claims nothing: past the reach of the derivation only finiteness is left to judge.
        boundless = limit.isinf()
        able = torch.as_tensor(could_fail).expand(value.shape) & ~boundless
        self.vacuous += int((~able).sum())
        excess = limit - value if lower else value - limit
        # Relative to the limit, so that examples with different limits compare.
        severity = torch.where(value.isfinite(), excess / limit.abs().clamp(min=1e-300), math.inf)
        severity = torch.where(severity.isnan(), math.inf, severity)  # a limit that is not a number judges nothing
        # an exact 0 against a limit of 0 is the weakest evidence: it is never the worst example
        least = boundless | ((limit == 0) & (excess <= 0))
        severity = torch.where(least & value.isfinite(), -1.0, severity)
        self.judged(severity, where)
        failed = severity > 0
        self.broken += int(failed.sum())
        worst = int(severity.flatten().argmax())
        top = float(severity.flatten()[worst])
        if top > self._severity:
            self._severity = top
            self.worst = float(value.flatten()[worst])
            self.limit = float(limit.flatten()[worst])
            self.lower = lower
            index = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), value.shape)) if value.ndim else ()
            self.worst_example = where if isinstance(where, str) else where(index)
            if top > 0 and says is not None:
                self.said = _said(self.worst_example, says, index)
            if top > 0:
                self.call = taken(where.inputs(index)) if isinstance(where, Row) else taken()

    def judged(self, severity: Tensor, where: "str | Callable[[tuple[int, ...]], str]") -> None:
        """Told of each example's excess over its limit, as a share of the limit: for a search, which goes up it."""

    def leave_out(self, count: int) -> None:
        """Examples that no implementation in this dtype could decide: counted, not judged."""
        self.examples += count
        self.undecided += count

    def fail(self, where: str, note: str) -> None:
        """An example that is broken without a number: `note` says why."""
        self.examples += 1
        self.broken += 1
        if self._failures < FAILURES:
            self.note(note)
        self._failures += 1
        if self._severity < math.inf:
            self._severity, self.worst_example, self.call = math.inf, where, taken()

    def void(self, note: str) -> None:
        """What was examined cannot show this invariant at all: vacuous unless broken, whatever else was added."""
        self._void = True
        self.note(note)

    def not_supported(self, what: str) -> None:
        """Something the target claims not to support: not run, and the verdict where nothing else was."""
        if what not in self._unsupported:
            self._unsupported.append(what)

    def highest(self, what: str, values: Tensor) -> None:
        """Keep the largest of `values` for the note: a figure that users ask for, judged or not."""
        if values.numel():
            value = float(values.detach().amax())
            known = self._highest.get(what, -math.inf)
            self._highest[what] = known if math.isnan(known) or value <= known else value

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def finding(self) -> Finding:
        """The verdict: broken if any example is; vacuous if too few could have been; else holds, or not supported."""
        able = self.examples - self.vacuous - self.undecided
        if self.broken:
            verdict = "broken"
        elif self._unsupported and self.examples == 0:
            verdict = "not supported"
        elif self._void or self.examples == 0 or able < VACUOUS_SHARE * self.examples:
            verdict = "vacuous"
        else:
            verdict = "holds"
        claimed = [f"not supported, as the target claims: {', '.join(self._unsupported)}"] if self._unsupported else []
        note = "; ".join([*claimed, *self.notes, *(f"{what} {value:.3g}" for what, value in self._highest.items())])
        if self.undecided:
            left_out = f"{self.undecided} of {self.examples} examples are ill-conditioned in their dtype and left out"
            note = left_out + (f"; {note}" if note else "")
        if self.broken:
            note = f"broken in {self.broken} of {self.examples} examples" + (f"; {note}" if note else "")
        elif verdict == "vacuous" and not self._void:
            note = f"only {able} of {self.examples} examples could have failed" + (f"; {note}" if note else "")
        return Finding(
            name=self.name,
            verdict=verdict,
            worst=self.worst,
            budget=self.limit,
            unit=self.unit,
            examples=self.examples,
            vacuous=self.vacuous,
            undecided=self.undecided,
            worst_example=self.worst_example,
            note=note,
            lower=self.lower,
            curves=self.figures.curves(),
            histograms=self.figures.histograms(),
        )


def _said(where: str, says: tuple[Tensor, Tensor], index: tuple[int, ...]) -> Said:
    accused, right = (x.detach()[index].double().flatten().tolist() for x in says)
    return Said(where, accused, right)
