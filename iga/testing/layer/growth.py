"""Checks of how attention grows with the number of points: `growth_with_points` and `point_scaling_law`.

Measured on fresh layers (the start of training) over real frames, and in the coherent worst case, all points equal,
where the sum of P scores is P times one score and nothing averages out.
"""

import math

import torch

from iga import bounds, diagnostics
from iga.testing.check import TRACE, check
from iga.testing.contract import Contract
from iga.testing.layer import budgets
from iga.testing.layer.cases import Case
from iga.testing.layer.equal_points import judge_other_points
from iga.testing.layer.growth_seen import growth_curve, judge_growth, slope
from iga.testing.layer.scores import varies
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally

__all__ = ["GROWTH_LIMIT", "SATURATION_LIMIT", "growth_with_points", "point_scaling_law"]

# No growth means: over the whole range of P (64-fold unless told) the magnitude grows by less than a tenth, and fewer
# than one row in fifty more saturates. Both are definitions of the contract, far under what sum (×64) and 1/√P (×8)
# do to equal points, and far over rounding (64 terms: 4e-6).
GROWTH_LIMIT = 1.10
SATURATION_LIMIT = 0.02
# One-sided: a layer that does not grow is called broken once in 740 (normal scatter of the slopes).
STANDARD_ERRORS = 3.0


@check("layer", "exponent of P", needs=("logits",))
def growth_with_points(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Exponents of max |geometry logit| in P, and the change of the saturated share, against "does not grow"."""
    most = subject.claims.max_points
    points = sorted({1, 64 if most is None else min(64, most), *contract.points})
    octaves = math.log2(points[-1] / points[0]) or math.inf
    limit = math.log2(GROWTH_LIMIT) / octaves
    if not subject.traced:
        judge_growth(subject, cases, points, limit, STANDARD_ERRORS, seed, tally)
        judge_other_points(subject, cases[0], seed, tally)
        return
    scaling = subject.iga_config.point_scaling
    for name, build in (("equal points", subject.coherent), ("initialisation", subject.fresh)):
        magnitude, share, able = _sweep(subject, build, cases, points, seed)  # [sample, head, point count]
        if not magnitude.isfinite().all():
            tally.fail(name, "a geometry logit is not finite")
            continue
        exponent, error = slope(magnitude.clamp(min=1e-30).log2(), points)
        tally.add(exponent, limit + STANDARD_ERRORS * error, f"max |geometry logit|, {name}", could_fail=able)
        tally.note(f"{name}: max |geometry logit| grows as P^{round(exponent, 2) + 0.0:.2f}")
        growth_curve(tally, f"{name}, scaling {scaling}", magnitude, points, limit + STANDARD_ERRORS * error)
        change, error = slope(share, points)
        tally.add(
            change,
            SATURATION_LIMIT / octaves + STANDARD_ERRORS * error,
            f"share of rows with w_max > {diagnostics.SATURATION} per doubling of P, {name}",
            could_fail=able,
        )
        first, last = float(share[..., 0].mean()), float(share[..., -1].mean())
        tally.note(f"saturated rows {first:.2f} at P = {points[0]}, {last:.2f} at P = {points[-1]}")
    judge_other_points(subject, cases[0], seed, tally)


@check("layer", "nat", needs=TRACE)
def point_scaling_law(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Equal points: G(P) = P^e G(1) with the exponent of the scaling in force; and |geometry logit| ≤ c under a cap."""
    exponent = {"sum": 1.0, "rsqrt": 0.5, "mean": 0.0}[subject.iga_config.point_scaling]
    for case in cases:
        single = subject.trace(subject.coherent(1, seed), case)
        rounding = budgets.geometry_logit(single, subject.iga_config, contract)
        for points in contract.points:
            trace = subject.trace(subject.coherent(points, seed), case)
            factor = points**exponent
            expected = factor * single.geo_raw
            # two evaluations of one score, and the rounding of a sum of P
            limit = 2 * factor * rounding + bounds.point_sum_budget(points, torch.float32) * expected.abs()
            where = f"{case.label}, P = {points}"
            able = varies(trace.geo_raw)
            tally.add((trace.geo_raw - expected).abs(), limit, where, could_fail=(expected.abs() > limit) & able)
            if subject.iga_config.logit_cap is not None:
                tally.add(
                    trace.geo_scaled.abs(),
                    budgets.cap(trace, subject.iga_config.logit_cap),
                    f"{where}, cap",
                    could_fail=able,
                )
    tally.note(f"law: G = P^{exponent:g} × one score" + (", capped" if subject.iga_config.logit_cap else ""))


def _sweep(subject: Subject, build, cases: list[Case], points: list[int], seed: int):
    """max |geometry logit|, share of saturated rows, [case × seed, head, point count]; whether logits differ at all."""
    magnitudes, shares, able = [], [], False
    for index, case in enumerate(cases):
        for repeat in range(subject.profile.seeds):
            with torch.no_grad():
                traces = [subject.trace(build(p, seed + 1000 * repeat + index), case) for p in points]
            able = able or any(varies(t.geo_scaled) for t in traces)
            magnitudes.append(torch.stack([t.geo_scaled.abs().amax(dim=(-1, -2))[0] for t in traces], dim=-1))
            saturated = [(t.weights.amax(dim=-1) > diagnostics.SATURATION).double().mean(dim=-1)[0] for t in traces]
            shares.append(torch.stack(saturated, dim=-1))
    return torch.stack(magnitudes).double(), torch.stack(shares).double(), able
