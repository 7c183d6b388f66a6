"""New layers with more and more points on one protein: the largest logit, and the share of rows that are saturated.

One protein and one draw of parameters show a trend; `growth_with_points` of `iga verify` judges it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from iga._typing import Tensor
from iga.diagnostics import SATURATION
from iga.inspection.layer import Layer
from iga.inspection.shown import called
from iga.report.inspected import Grown
from iga.testing.layer.cases import Case
from iga.testing.targets import TargetError

__all__ = ["grown"]


def grown(layer: Layer, case: Case, points: Sequence[int], seed: int) -> list[Grown]:
    """As initialised, and, where they can be made equal, with all points equal.

    Empty for a checkpoint's parameters, which are of one number of points, and for a layer that shows no logits.
    """
    if layer.trained:
        return []
    most = layer.subject.claims.max_points
    points = [p for p in points if most is None or p <= most]
    states: list[tuple[str, Callable[[int, int], nn.Module]]] = [("as initialised", layer.subject.fresh)]
    if layer.subject.traced:
        states.append(("all points equal", layer.subject.coherent))
    made: list[Grown] = []
    for state, build in states:
        for p in points:
            try:
                one = replace(layer, module=build(p, seed).to(layer.dtype), points=p)
            except TargetError:
                break
            tensors = called(one, case).tensors
            quantity = next((name for name in ("geometry_logit", "logits") if name in tensors), None)
            if quantity is None:
                return []
            made.append(_grown(tensors, quantity, p, state))
    return made


def _grown(tensors: dict[str, Tensor], quantity: str, points: int, state: str) -> Grown:
    x, saturated = tensors[quantity], 0.0
    largest = float(torch.where(x.isneginf(), torch.zeros_like(x), x).abs().amax())
    if "weights" in tensors:
        saturated = float((tensors["weights"].amax(dim=-1) > SATURATION).double().mean())
    return {
        "state": state,
        "points": points,
        "quantity": quantity,
        "largest": largest if math.isfinite(largest) else None,
        "saturated": round(saturated, 6),
    }
