"""`geometry_is_alive`: the geometry logit is neither a constant nor a switch, at the start and with random parameters.

A bound alone is easily met by a logit that is always zero. So four measures have to lie in stated bands for every P:

spread    root mean square over rows of the row-centred standard deviation of the geometry logit, all that softmax sees
          of it. At least 0.1: a typical weight differs by a tenth for the geometry's sake. At most ln(9(N − 1)), the
          span at which one key of N can take 0.9 of a row (docs/theory.md, 3.5).
pairs     share of pairs whose logit moves by at least 0.01 per e-fold of the pair's distances, through the cap: at
          least half.
scales    share of log scales (per residue, head, point, axis) that get gradient through the floor: at least half.
weights   total variation between the rows of weights before and after the frames are handed to other residues: at
          least 0.02, the share of a row's attention that geometry decides.

Each P is seen in both states, with two sets of sizes in turn.
"""

import torch

from iga import bounds, diagnostics
from iga._typing import Tensor
from iga.functional import Trace
from iga.testing.check import TRACE, check
from iga.testing.contract import Contract
from iga.testing.layer.cases import Case
from iga.testing.layer.guards import require_own_output, rolled
from iga.testing.layer.subject import Observation, Subject
from iga.testing.tally import Tally

__all__ = ["geometry_is_alive", "gradient_shares"]

SPREAD_MIN = 0.1
ELASTICITY_MIN = 0.01
PAIRS_MIN = 0.5
SCALES_MIN = 0.5
WEIGHTS_MIN = 0.02


@check("layer", "see band", needs=TRACE)
def geometry_is_alive(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Spread, gradient and influence of the geometry logit, each within its band, for every P."""
    for case in cases:
        span = bounds.span_for_weight(case.s.shape[-2], diagnostics.SATURATION)
        states = (("initialisation", subject.fresh), ("random parameters", subject.random))
        for turn, points in enumerate(contract.points):
            # of two sets of sizes each has one state, in turn
            for state, build in [states[(turn + subject.profile.is_other) % 2]] if subject.profile.others else states:
                where = f"{case.label}, P = {points}, {state}"
                layer = build(points, seed)
                trace = subject.trace(layer, case)
                require_own_output(Observation(subject, layer, case, trace, contract, where), tally, seed)
                spread = diagnostics.row_spread(trace).square().mean().sqrt()
                tally.add(spread, SPREAD_MIN, f"{where}: spread", lower=True)
                tally.add(spread, span, f"{where}: spread")
                pairs, scales = gradient_shares(trace)
                tally.add(pairs, PAIRS_MIN, f"{where}: share of pairs with gradient", lower=True)
                tally.add(scales, SCALES_MIN, f"{where}: share of scales with gradient", lower=True)
                with torch.no_grad():
                    moved = subject.trace(layer, rolled(case))
                change = 0.5 * (moved.weights - trace.weights).abs().sum(dim=-1).mean()
                tally.add(change, WEIGHTS_MIN, f"{where}: change of weights", lower=True)


def gradient_shares(trace: Trace) -> tuple[Tensor, Tensor]:
    """Shares of pairs and of log scales that the geometry logit passes gradient to."""
    inputs = (trace.dist_sq, trace.raw_query[1], trace.raw_key[1])
    if not trace.geo_scaled.requires_grad:
        return torch.tensor(0.0), torch.tensor(0.0)
    grads = torch.autograd.grad(trace.geo_scaled.sum(), inputs, allow_unused=True)
    by_dist_sq, by_query, by_key = (torch.zeros_like(x) if g is None else g for g, x in zip(grads, inputs, strict=True))
    # d logit / d ln(distance) of a pair: all its points' dist_sq scale together, ln dist_sq = 2 ln distance
    elasticity = 2 * (by_dist_sq * trace.dist_sq.detach()).sum(dim=-3).abs()
    off_diagonal = ~torch.eye(elasticity.shape[-1], dtype=torch.bool)
    pairs = (elasticity >= ELASTICITY_MIN)[..., off_diagonal].double().mean()
    scales = torch.cat([by_query.flatten(), by_key.flatten()])
    return pairs, (scales != 0).double().mean()
