"""Objectives of a search: of each check the value over its limit, row by row, as the check hands it to its tally.

Any check of the registry is an objective with no code of its own: it is measured on the pairs of the search
(`GivenPairs`), and `Ratios`, a Tally, keeps each row's worst.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from iga._typing import Float, Tensor
from iga.testing import latest
from iga.testing.check import Check
from iga.testing.figures import Blank
from iga.testing.latest import Call
from iga.testing.overlap.pairs import GivenPairs, PairSource
from iga.testing.overlap.subject import OverlapSubject, Pair
from iga.testing.result import Finding
from iga.testing.tally import Row, Tally
from iga.testing.targets import TargetError, one_line

__all__ = ["Ratios", "Verdict", "judge_pairs", "measure"]


class Ratios(Tally):
    """A tally that keeps value/limit of each row of a batch: above 1 is broken, infinite what is not finite."""

    def __init__(self, name: str, unit: str, rows: int) -> None:
        super().__init__(name, unit)
        self.figures = Blank()
        self.ratio: Float[Tensor, " rows"] = torch.zeros(rows, dtype=torch.float64)

    def judged(self, severity: Tensor, where: str | Callable[[tuple[int, ...]], str]) -> None:
        ratio = (1.0 + severity.double()).clamp(min=0.0)
        if isinstance(where, Row) and ratio.ndim == 1:
            places = where.rows(len(self.ratio))
            if len(places) == len(ratio) and (len(places) == 0 or int(places.max()) < len(self.ratio)):
                self.ratio.scatter_reduce_(0, places, ratio, "amax")
                return
        self.ratio = self.ratio.clamp(min=float(ratio.max()))  # it is of no row: of all

    def fail(self, where: str, note: str) -> None:
        super().fail(where, note)
        self.ratio.fill_(torch.inf)


@dataclass(frozen=True, eq=False)
class Verdict:
    """A check's finding on given pairs, each row's value over limit, and the inputs of the worst, if it is broken."""

    finding: Finding
    ratio: Tensor
    call: Call | None


def measure(check: Check, subject: OverlapSubject, source: PairSource, seed: int, tally: Tally) -> None:
    """The check on pairs of the source; whatever the accused raises is a finding about it."""
    with latest.keeping(on=True):
        try:
            check(subject, source, seed, tally)
        except TargetError as error:
            tally.fail(subject.name, str(error))
        except Exception as error:  # the accused may raise anything
            tally.fail(subject.name, one_line(error))


def judge_pairs(
    checks: Iterable[Check],
    subject: OverlapSubject,
    given: Callable[[torch.dtype], Pair],
    rows: int,
    *,
    dtypes: Sequence[torch.dtype] | None = None,
    seed: int = 0,
    digits: int | None = 2,
    exact: int = 0,
    profile: str = "fast",
) -> dict[str, Verdict]:
    """What each check finds of `subject` on the pairs given(dtype), of which `exact` are judged against 50 digits.

    Each check has copies of its own: an accused that changes its inputs spoils neither the next check's nor the case.
    """

    def copies(dtype: torch.dtype) -> Pair:
        return tuple(x.clone() for x in given(dtype))  # pyright: ignore[reportReturnType] - six of them

    subject = replace(subject, dtypes=subject.dtypes if dtypes is None else tuple(dtypes))
    source = GivenPairs([], subject.sigma_range, rows, digits, exact, profile, given=copies, seed=seed)
    found: dict[str, Verdict] = {}
    for check in checks:
        if check.dtype is not None and check.dtype not in subject.dtypes:
            continue
        tally = Ratios(check.name, check.unit, rows)
        measure(check, subject, source, seed, tally)
        found[check.name] = Verdict(tally.finding(), tally.ratio, tally.call)
    return found
