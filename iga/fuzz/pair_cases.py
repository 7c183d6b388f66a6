"""A candidate of an overlap function's, judged again from its exact inputs alone, and made as small and simple as it
can be."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from iga._typing import Bool, Tensor
from iga.fuzz.objectives import Ratios, Verdict, judge_pairs, measure
from iga.fuzz.stream import Candidate, Judgement
from iga.search.pairs import Pairs
from iga.search.shrink import shrink, smallest_batch
from iga.testing import latest
from iga.testing.check import Check
from iga.testing.judges.rigorous import SingularError, ill_conditioned
from iga.testing.overlap.pairs import PairSource
from iga.testing.overlap.subject import ARGUMENTS, OverlapSubject
from iga.testing.result import Finding
from iga.testing.state.watch import Watch, watching

__all__ = ["CLEARLY", "DRAWN", "drawn", "judged_again", "own_source", "shrunk"]

CLEARLY = 2.0  # value over limit that a simpler pair keeps, where the first has as much: double what is allowed

OWN, EXACT = 2000, 5  # pairs that a check draws itself, and those of them against 50 digits
DRAWN = "drawn"  # in a call's `layer`: the seed with which a check drew its inputs itself


def own_source(subject: OverlapSubject, digits: int | None) -> PairSource:
    """What a check draws its inputs of, as a run has it."""
    return PairSource([], subject.sigma_range, OWN, digits, EXACT, "fast")


def drawn(subject: OverlapSubject, check: Check, seed: int, digits: int) -> tuple[Finding, latest.Call | None, float]:
    """A check on inputs of its own: its finding, what it called where it broke, and its largest value over limit."""
    tally = Ratios(check.name, check.unit, 1)
    with watching(Watch()):
        measure(check, subject, own_source(subject, digits), seed, tally)
    return tally.finding(), tally.call, float(tally.ratio)


def judged_again(subject: OverlapSubject, check: Check, candidate: Candidate, digits: int) -> Judgement:
    """The check on the candidate's inputs alone: broken, ill-conditioned in its dtype, or not reproducible.

    Ill-conditioned is one pair with a finite answer whose inputs, each moved by one rounding, are certified to have
    answers that agree in fewer than `digits` digits (`iga.testing.judges.rigorous`).
    """
    if DRAWN in candidate.call.layer:
        finding, _, _ = drawn(subject, check, int(candidate.call.layer[DRAWN]), digits)
    else:
        pairs = _pairs(candidate)
        finding = _verdict(subject, check, pairs, digits).finding
        if finding.verdict == "broken" and len(pairs[0]) == 1 and math.isfinite(finding.worst) and _ill(pairs, digits):
            return _judgement("ill-conditioned", finding)
    return _judgement("broken" if finding.verdict == "broken" else "not reproducible", finding)


def shrunk(subject: OverlapSubject, check: Check, candidate: Candidate, seconds: float, digits: int) -> Candidate:
    """One pair if one shows it, else the smallest batch; then its numbers. The candidate as it is, if it is not broken,
    or its inputs were drawn by the check.

    What is simpler has to break as clearly: by `CLEARLY`, or by as much as the first, if that is less. Else the descent
    ends just over the limit, where a counterexample convinces nobody.
    """
    if DRAWN in candidate.call.layer:
        return candidate
    last, pairs = time.monotonic() + seconds, _pairs(candidate)

    least = 1.0

    def measured(given: Pairs) -> Tensor:
        return _verdict(subject, check, given, digits).ratio.nan_to_num(nan=math.inf)

    def fails(given: Pairs) -> Bool[Tensor, " n"]:
        ratio = measured(given)
        low, high = subject.sigma_range
        sigma = torch.cat([given[2], given[5]], dim=-1).double()
        slack = 1 + 1e-6  # the ends themselves, rounded
        within = ((sigma >= low / slack) & (sigma <= high * slack)).all(-1)  # nothing is claimed outside
        return (ratio > 1.0) & (ratio >= least) & within

    rows = fails(pairs)
    if not bool(rows.any()):
        return candidate
    # the clearest first
    order = measured(pairs).argsort(descending=True).tolist()
    alone = next((k for k in [k for k in order if bool(rows[k])][:8] if bool(fails(_rows(pairs, [k])).all())), None)
    if alone is not None:
        least = min(float(measured(_rows(pairs, [alone]))[0]), CLEARLY)
        one: Pairs = tuple(x[alone] for x in pairs)  # pyright: ignore[reportAssignmentType] - six of them
        simple = shrink(one, fails, last - time.monotonic())
        found: Pairs = tuple(x[None] for x in simple)  # pyright: ignore[reportAssignmentType]
        inputs = dict(zip(ARGUMENTS, simple, strict=True))
    else:
        least = min(float(measured(pairs).max()), CLEARLY)
        found = _smaller_batch(pairs, next(k for k in order if bool(rows[k])), fails, last)
        inputs = dict(zip(ARGUMENTS, found, strict=True))
    finding = _verdict(subject, check, found, digits).finding
    call = replace(candidate.call, inputs=inputs)
    ratio = finding.worst / finding.budget if finding.budget else math.inf
    return replace(candidate, call=call, ratio=ratio, where=finding.worst_example, note=finding.note)


def _smaller_batch(pairs: Pairs, row: int, fails: Callable[[Pairs], Tensor], last: float) -> Pairs:
    """A batch that still fails: of as few pairs as may be, all of them one if that does, a readable one if it does."""

    def broken(given: Pairs) -> bool:
        return bool(fails(given).any())

    def cut(of: Pairs) -> Pairs:
        size = smallest_batch(len(of[0]), lambda n: time.monotonic() < last and broken(_first(of, n)))
        return _first(of, size)

    same = _rows(pairs, [row] * len(pairs[0]))
    small = cut(same if broken(same) else pairs)
    count = len(small[0])
    plain = (torch.eye(3), torch.tensor([1.0, 0.0, 0.0]), torch.ones(3), torch.eye(3), torch.zeros(3), torch.ones(3))
    simple = tuple(x.to(y).expand(count, *x.shape).clone() for x, y in zip(plain, small, strict=True))
    return simple if broken(simple) else small  # pyright: ignore[reportArgumentType, reportReturnType]


def _first(pairs: Pairs, count: int) -> Pairs:
    return tuple(x[:count].clone() for x in pairs)  # pyright: ignore[reportReturnType] - six of them


def _rows(pairs: Pairs, index: list[int]) -> Pairs:
    return tuple(x[index] for x in pairs)  # pyright: ignore[reportReturnType] - six of them


def _pairs(candidate: Candidate) -> Pairs:
    """The candidate's pairs, [n]; those of a batch that broadcasts, each for itself."""
    given = [candidate.call.inputs[name] for name in ARGUMENTS]
    cores = (2, 1, 1, 2, 1, 1)
    batch = torch.broadcast_shapes(*(x.shape[: x.ndim - c] for x, c in zip(given, cores, strict=True)))
    full = (x.expand(*batch, *x.shape[x.ndim - c :]) for x, c in zip(given, cores, strict=True))
    return tuple(x.reshape(-1, *(3,) * c) for x, c in zip(full, cores, strict=True))  # pyright: ignore[reportReturnType]


def _verdict(subject: OverlapSubject, check: Check, pairs: Pairs, digits: int) -> Verdict:
    dtype = pairs[0].dtype
    with watching(Watch()):
        found = judge_pairs(
            [check], subject, lambda wanted: pairs, len(pairs[0]), dtypes=[dtype], digits=digits, exact=EXACT
        )
    return found[check.name]


def _ill(pairs: Pairs, digits: int) -> bool:
    try:
        found = ill_conditioned([x[0].double() for x in pairs], pairs[0].dtype, digits=digits)
    except (ValueError, SingularError):  # numbers that are not finite, or no Gaussian: no excuse
        return False
    return found.dist_sq.verdict == "ill" and found.log_det.verdict == "ill"


def _judgement(verdict: str, finding: Finding) -> Judgement:
    return Judgement(verdict, finding.worst, finding.budget, finding.unit, finding.worst_example, finding.note)
