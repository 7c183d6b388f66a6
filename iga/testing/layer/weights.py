"""`attention_weights`: what softmax has to give, from the trace of a third of the residues masked and of all of them.

    0 ≤ w,   Σ_keys w = 1 within (n + 2)u (n terms, each divided once),   w = 0 at masked keys and in rows without keys,
    w = softmax of the layer's own logits in float64,   w_max ≤ 1/(1 + (N − 1)e^(−span))          docs/theory.md, 3.5

A weight is e^(l − l_max) over a sum: the difference errs by u|l − l_max| and e^x turns it into a relative error, exp
and the division add 3u, the sum n·u, and the same for the terms of the sum: within 2u·span + (2n + 8)u in all.
"""

import math
from dataclasses import replace

import torch

from iga import bounds
from iga.functional import Trace
from iga.testing.check import check
from iga.testing.contract import Contract
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import build, cast, masked, native
from iga.testing.layer.guards import require_geometry, require_own_output
from iga.testing.layer.subject import Observation, Subject
from iga.testing.tally import Tally

__all__ = ["attention_weights"]

FEW = 4  # points: softmax does not see how many there were


@check("layer", "see example", degenerate=True, needs="trace")
def attention_weights(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Every row of weights of each case, over its limits."""
    choices = [p for p in contract.points if p <= FEW] or [contract.points[0]]
    for index, given in enumerate(cases):
        points = choices[index % len(choices)]
        layer, case = build(subject, points, seed + index), cast(given, native(subject))
        if given is cases[0]:
            require_geometry(subject, layer, case, tally)
        for name, one in (
            ("", case),
            (", a third masked", masked(case, seed + index, share=1 / 3)),
            (", all masked", replace(case, mask=torch.zeros_like(case.mask))),
        ):
            with torch.no_grad():
                trace = subject.trace(layer, one)
                if one is case:
                    require_own_output(Observation(subject, layer, one, trace, contract, given.label), tally, seed)
                _judge(trace, f"{given.label}{name}, P = {points}", tally)


def _judge(trace: Trace, label: str, tally: Tally) -> None:
    u = bounds.unit_roundoff(trace.weights.dtype)
    weights, logits = trace.weights.double(), trace.logits.double()
    shut = ~trace.mask[..., None, None, :].expand(weights.shape)
    tally.add(weights[shut].abs(), 0.0, f"{label}: weights of masked keys")
    open_rows = (~shut).any(dim=-1)
    if not bool(open_rows.any()):
        return
    n = weights.shape[-1]
    tally.add(weights, 0.0, f"{label}: weights", lower=True)
    total = (weights.sum(dim=-1) - 1).abs()[open_rows]
    tally.add(total / ((n + 2) * u), 1.0, f"{label}: sum of weights, of its budget")

    # float64 keeps what the layer's own logits say; 104 nats under the maximum nothing is left in float32
    behind = logits.masked_fill(shut, -math.inf)
    span = (behind.amax(dim=-1) - logits.masked_fill(shut, math.inf).amin(dim=-1))[open_rows]
    loss = 2 * u * span.clamp(max=104.0 if weights.dtype == torch.float32 else 750.0) + (2 * n + 8) * u
    expected = behind.softmax(dim=-1)[open_rows]
    tiny = torch.finfo(trace.weights.dtype).tiny
    error = (weights[open_rows] - expected).abs() / (torch.expm1(loss)[..., None] * expected + tiny)
    tally.add(error, 1.0, f"{label}: weights, of their budget")
    keys = (~shut).sum(dim=-1)[open_rows].double()
    highest = bounds.max_weight_bound(keys, span)
    tally.add(weights.amax(dim=-1)[open_rows] / highest, 1 + loss, f"{label}: w_max over its bound")
