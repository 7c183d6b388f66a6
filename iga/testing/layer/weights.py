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
from iga._typing import Tensor
from iga.testing.check import check
from iga.testing.contract import Contract
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import build, cast, masked, native, observed
from iga.testing.layer.growth_seen import caught_on
from iga.testing.layer.guards import require_geometry, require_own_output
from iga.testing.layer.seen import Seen
from iga.testing.layer.subject import Observation, Subject
from iga.testing.tally import Tally

__all__ = ["attention_weights"]

FEW = 4  # points: softmax does not see how many there were


@check("layer", "see example", degenerate=True, needs=("logits", "weights"))
def attention_weights(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Every row of weights of each case, over its limits."""
    choices = [p for p in contract.points if p <= FEW] or [contract.points[0]]
    for index, given in enumerate(caught_on(subject, cases, choices[0], tally, "weights")):
        points = choices[index % len(choices)]
        layer, case = build(subject, points, seed + index), cast(given, native(subject))
        if not index:
            require_geometry(subject, layer, case, tally)
        for name, one in (
            ("", case),
            (", a third masked", masked(case, seed + index, share=1 / 3)),
            (", all masked", replace(case, mask=torch.zeros_like(case.mask))),
        ):
            with torch.no_grad():
                seen = observed(subject, layer, one, contract, points)
                if seen.seen is not None:
                    _judge_seen(seen, seen.seen, f"{given.label}{name}, P = {points}", tally)
                    continue
                trace = seen.trace
                if one is case:
                    require_own_output(seen, tally, seed)
                everyone = torch.ones_like(trace.mask)
                _judge(trace.weights, trace.logits, trace.mask, everyone, f"{given.label}{name}, P = {points}", tally)


def _judge_seen(seen: Observation, taps: Seen, label: str, tally: Tally) -> None:
    """Rows of valid queries. A caught softmax may leave masked keys to what follows: of those it is not asked.

    A call without a softmax over all residues, such as of a layer that leaves masked ones out before, has no such
    weights: it is passed over.
    """
    if not taps.has("weights"):
        tally.note("calls whose softmax is not seen over all residues, as with masked ones left out, are not judged")
        return
    mask, logits = seen.case.mask, taps.all("logits") if taps.has("logits") else []
    keys = mask if taps.sources["weights"] == "shown" else torch.ones_like(mask)
    for index, weights in enumerate(taps.all("weights")):
        its = logits[index] if len(logits) == len(taps.all("weights")) else None
        _judge(weights, its, keys, mask, label, tally)


def _judge(weights: Tensor, logits: Tensor | None, mask: Tensor, judged: Tensor, label: str, tally: Tally) -> None:
    """Weights and logits [*b, h, q, k] over the valid keys of `mask`, in the rows of `judged`, both [*b, n]."""
    u = bounds.unit_roundoff(torch.promote_types(weights.dtype, torch.float32))
    tiny = torch.finfo(weights.dtype).tiny
    single = torch.finfo(weights.dtype).bits <= 32
    rows = judged[..., None, :].expand(weights.shape[:-1])
    weights = weights.double()
    shut = ~mask[..., None, None, :].expand(weights.shape)
    tally.add(weights[shut & rows[..., None]].abs(), 0.0, f"{label}: weights of masked keys")
    open_rows = (~shut).any(dim=-1) & rows
    if not bool(open_rows.any()):
        return
    n = weights.shape[-1]
    tally.add(weights[rows], 0.0, f"{label}: weights", lower=True)
    total = (weights.sum(dim=-1) - 1).abs()[open_rows]
    tally.add(total / ((n + 2) * u), 1.0, f"{label}: sum of weights, of its budget")
    if logits is None:
        return

    # float64 keeps what the layer's own logits say; 104 nats under the maximum nothing is left in float32
    behind = logits.double().expand(weights.shape).masked_fill(shut, -math.inf)
    lowest = behind.masked_fill(behind == -math.inf, math.inf).amin(dim=-1)
    span = (behind.amax(dim=-1) - lowest)[open_rows]
    loss = 2 * u * span.clamp(max=104.0 if single else 750.0) + (2 * n + 8) * u
    expected = behind.softmax(dim=-1)[open_rows]
    error = (weights[open_rows] - expected).abs() / (torch.expm1(loss)[..., None] * expected + tiny)
    tally.add(error, 1.0, f"{label}: weights, of their budget")
    keys = (behind > -math.inf).sum(dim=-1)[open_rows].double()
    highest = bounds.max_weight_bound(keys, span)
    tally.add(weights.amax(dim=-1)[open_rows] / highest, 1 + loss, f"{label}: w_max over its bound")
