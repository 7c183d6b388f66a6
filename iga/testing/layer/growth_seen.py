"""Growth with P of a layer that shows no trace: of what it shows, or of the logits that its softmax was caught with.

Judged with points drawn anew for each P, at the start, with random parameters and driven, and with equal points where
they can be made equal. The points of a head have one law, so that their terms have a mean m and a variance v over the
draw, and the geometry logit has a mean square of

    sum  P²m² + Pv        1/√P  Pm² + v        mean  m² + v/P

Its exponent lies in [½, 1], [0, ½] and [−½, 0]: what a layer claims bounds it from above, whatever m and v are, and of
equal points it is the upper end itself. docs/theory.md, 7.

The claim   `@target(growth=…)`; else 0 of a layer that shows log_det, dist_sq or score of Gaussians, as the contract
            has it, and ½ of any other: the design of AlphaFold's IPA, whose weight is √(2/(9P)).
Magnitude   max |geometry logit| per head where it is shown. Of logits the content has to go, and what all keys of a row
            share: the frames are handed to other residues, which leaves the content as it is, and the difference of
            the two logits, centred by rows, is all that the frames do in the eyes of softmax; its root mean square.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import nn

from iga import diagnostics
from iga._typing import Tensor
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import cast, kept, native
from iga.testing.layer.guards import rolled
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally
from iga.testing.targets import TargetError

__all__ = ["GAUSSIANS", "SATURATED_ROWS", "SHELL", "caught_on", "growth_curve", "judge_growth", "moved_logits", "slope"]

# What only a layer of Gaussians has.
GAUSSIANS = ("log_det", "dist_sq", "score")
# Definitions of what a layer may be at the start of training, whatever P: a row is one-hot when w_max > 0.9, and where
# most rows are, attention is a switch that nothing has been learned for. Of residues without another within the first
# shell of Cα around them (nm) nothing is said: they may well attend to themselves.
SATURATED_ROWS = 0.5
SHELL = 1.0
# Two patterns of logits are multiples of one another if they are so but for a hundredth of their size.
MULTIPLE = 0.01
DRIVEN = 8.0
FEW = 20  # residues


def judge_growth(
    subject: Subject, cases: list[Case], points: list[int], room: float, errors: float, seed: int, tally: Tally
) -> None:
    """Exponents against the claim, `room` and `errors` standard errors over it; the share of saturated rows."""
    claim = subject.claims.growth
    if claim is None:
        claim = 0.0 if any(name in subject.taps for name in GAUSSIANS) else 0.5
    cases = caught_on(subject, [cast(case, native(subject)) for case in cases], points[0], tally)

    states: list[tuple[str, Callable[[int, int], nn.Module]]] = [
        ("initialisation", subject.fresh),
        ("random parameters", subject.random),
        ("driven", lambda p, s: subject.random(p, s, gain=DRIVEN)),
    ]
    for name, build in [*states, *_equal_points(subject, cases, points, seed, tally)]:
        # The start is what training meets, and looked at in full; of the others few residues and three P have to do.
        some, on = points, cases
        if name != "initialisation":
            some = sorted({points[0], points[len(points) // 2], points[-1]})
            on = [kept(case, torch.arange(min(case.s.shape[-2], FEW))) for case in cases]
        magnitude, share = _sweep(subject, build, on, some, seed)
        if not magnitude.isfinite().all():
            tally.fail(name, f"{name}: a logit is not finite")
            continue
        moved = magnitude[(magnitude > 0).all(dim=-1)]
        if len(points) < 2:
            tally.note("one number of points, as the target claims: no exponent")
        elif len(moved) < 2:
            tally.note(f"{name}: no logit depends on the frames")
        else:
            exponent, error = slope(moved.log2(), some)
            tally.add(exponent, claim + room + errors * error, f"magnitude of the logits, {name}")
            tally.highest(f"{name}: exponent", torch.tensor(round(exponent, 2)))
            growth_curve(tally, name, moved, some, claim + room + errors * error)
        if name == "initialisation":
            for p, one in zip(points, share.mean(dim=(0, 1)), strict=True):
                tally.add(one, SATURATED_ROWS, f"share of rows with w_max > {diagnostics.SATURATION}, P = {p}")
            tally.highest(f"share of saturated rows, P = {points[-1]}:", share[..., -1].mean())
    tally.note(f"claim: the logits grow at most as P^{claim:g}")


def caught_on(subject: Subject, cases: list[Case], points: int, tally: Tally, tap: str = "logits") -> list[Case]:
    """The cases; of a layer whose softmax is seen in small calls alone, as where keys go in blocks, FEW residues."""
    if subject.taps.get(tap) != "caught":
        return cases
    with torch.no_grad():
        if subject.seen(subject.fresh(points, 0).to(native(subject)), cast(cases[0], native(subject))).has(tap):
            return cases
    tally.note(f"softmax is not seen of {cases[0].s.shape[-2]} residues: judged on {FEW}")
    return [kept(case, torch.arange(min(case.s.shape[-2], FEW))) for case in cases]


def slope(values: Tensor, points: list[int]) -> tuple[float, float]:
    """Mean least-squares slope of `values` [..., point count] against log2 P, and its standard error over samples."""
    x = torch.tensor([math.log2(p) for p in points], dtype=torch.float64)
    x = x - x.mean()
    slopes = ((values * x).sum(dim=-1) / x.square().sum()).flatten()
    return float(slopes.mean()), float(slopes.std() / len(slopes) ** 0.5)


def growth_curve(tally: Tally, title: str, magnitude: Tensor, points: list[int], exponent: float) -> None:
    """The magnitude [..., point count] relative to that of the fewest points, its geometric mean over samples; its
    limit has the largest exponent that is allowed."""
    grown = magnitude.clamp(min=1e-30).log2()
    grown = (grown - grown[..., :1]).flatten(0, -2).mean(dim=0).exp2()
    at = torch.tensor(points, dtype=torch.float64)
    tally.figures.curve(title, "P", f"times that of P = {points[0]}", at, grown, (at / points[0]) ** exponent)


def _sweep(
    subject: Subject, build: Callable[[int, int], nn.Module], cases: list[Case], points: list[int], seed: int
) -> tuple[Tensor, Tensor]:
    """Magnitude and share of saturated rows, [case × seed, head, point count]."""
    magnitudes, shares = [], []
    for index, case in enumerate(cases):
        distance = torch.cdist(case.rigid.trans[0].double(), case.rigid.trans[0].double())
        near = ((distance <= SHELL).sum(dim=-1) > 1).nonzero().flatten()
        for repeat in range(subject.profile.seeds):
            made = []
            for p in points:
                layer = build(p, seed + 1000 * repeat + index).to(native(subject))
                with torch.no_grad():
                    made.append(_measured(subject, layer, case, near))
            magnitudes.append(torch.stack([one for one, _ in made], dim=-1))
            shares.append(torch.stack([one for _, one in made], dim=-1))
    return torch.stack(magnitudes), torch.stack(shares)


def _measured(subject: Subject, layer: nn.Module, case: Case, near: Tensor) -> tuple[Tensor, Tensor]:
    """Per head: the magnitude of what the frames do, and the share of saturated rows among those of `near`."""
    seen = subject.seen(layer, case)
    logits = seen.heads("logits")[0].double()
    saturated = (logits.softmax(dim=-1).amax(dim=-1) > diagnostics.SATURATION).double()[:, near].mean(dim=-1)
    if "geometry_logit" in subject.taps:
        return seen.heads("geometry_logit")[0].double().abs().amax(dim=(-1, -2)), saturated
    return moved_logits(logits, subject.seen(layer, rolled(case)).heads("logits")[0]).square().mean(
        dim=(-1, -2)
    ).sqrt(), saturated


def moved_logits(logits: Tensor, other: Tensor) -> Tensor:
    """What the frames do to logits, [h, q, k], in the eyes of softmax; 0 where one excludes the key (−∞)."""
    shut = logits.isneginf() | other.isneginf()
    difference = (logits.double() - other.double()).masked_fill(shut, 0.0)
    mean = difference.sum(dim=-1, keepdim=True) / (~shut).sum(dim=-1, keepdim=True).clamp(min=1)
    return (difference - mean).masked_fill(shut, 0.0)


def _equal_points(
    subject: Subject, cases: list[Case], points: list[int], seed: int, tally: Tally
) -> Iterator[tuple[str, Callable[[int, int], nn.Module]]]:
    """The state of equal points, if they can be made equal: what P points do is then a multiple of what one does."""

    def build(p: int, s: int) -> nn.Module:
        return subject.tied(subject.fresh(p, s), subject.fresh(1, s), p)

    try:
        with torch.no_grad():
            one, many = (_pattern(subject, build(p, seed), cases[0]) for p in (points[0], points[-1]))
    except TargetError:
        one = many = torch.zeros(())
    rest = many - (one * many).sum() / one.square().sum().clamp(min=1e-300) * one
    if len(points) > 1 and bool(rest.norm() < MULTIPLE * many.norm()):
        yield "equal points", build
    else:
        tally.note(
            "points were not made equal: @target(tie_points=…) says how"
            if subject.claims.tie_points is None
            else "tie_points: its points are not equal"
        )


def _pattern(subject: Subject, layer: nn.Module, case: Case) -> Tensor:
    layer = layer.to(native(subject))
    return moved_logits(*(subject.seen(layer, one).heads("logits")[0] for one in (case, rolled(case))))
