"""Faults of layers that offer no trace: in what their taps show, and in logits that only their softmax tells of."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from iga import taps
from iga._typing import Tensor
from iga.attention import InvariantGaussianAttention
from iga.presets import IGAConfig, preset
from iga.testing.faults.fault import Fault, powers
from iga.testing.layer.subject import Subject

__all__ = ["FAULTS", "Showing"]

Change = Callable[[Tensor, float], Tensor]
EVERYTHING = dict.fromkeys(taps.NAMES, "shown")
CAUGHT = dict.fromkeys(("logits", "weights"), "caught")


class Showing(nn.Module):
    """A layer without trace: the right one inside, whose taps are shown with `changes`, or not at all (None)."""

    def __init__(self, inside: nn.Module, changes: Mapping[str, Callable[[Tensor], Tensor]] | None) -> None:
        super().__init__()
        self.inside, self.changes = inside, changes

    def forward(self, *inputs: Any) -> Tensor:
        heard: list[tuple[str, Tensor, str]] = []
        with taps.listen(lambda *one: heard.append(one)):
            output = self.inside(*inputs)
        if self.changes is None:
            return output
        for name, tensor, dims in heard:
            change = self.changes.get(name)
            taps.show(name, tensor if change is None else change(tensor), dims=dims)
        return output


def _untraced(
    name: str,
    config: IGAConfig | str,
    *expected: str,
    show: Mapping[str, Change] | None,
    size: float = 1.0,
    sizes: tuple[float, ...] = (),
    kind: str = "layer",
) -> Fault:
    def plant(clean: Subject, size: float) -> Subject:
        def factory(**of: Any) -> nn.Module:
            inside = InvariantGaussianAttention(**of, config=config, implementation="reference")
            changes = None if show is None else {tap: lambda x, f=f: f(x, size) for tap, f in show.items()}
            return Showing(inside, changes)

        seen = CAUGHT if show is None else EVERYTHING
        return replace(clean, config=None, foreign=True, layer=factory, taps=seen, catches=show is None)

    return Fault(name, kind, plant, expected, size, sizes, traced=False)


def _one(change: Change) -> Change:
    """The change at one pair alone: the last query and the first key of the last head and point."""

    def changed(x: Tensor, size: float) -> Tensor:
        if x.numel():  # an empty batch has no pair
            x = x.clone()
            place = (*(-1,) * (x.ndim - 1), 0)
            x[place] = change(x[place], size)
        return x

    return changed


def _under_the_floor(x: Tensor, size: float) -> Tensor:
    return torch.full_like(x, 3 * math.log(2 * 0.03**2) - size)


_GROWING = preset("bounded", point_scaling="sum", logit_cap=None, geo_scale_init=-6.0)
_SWITCH = preset("bounded", score="gaussian", logit_cap=None, geo_scale_init=3.0)
LAWS = ("log_det_floor", "dist_sq_bound", "geometry_logit_bound", "growth_with_points")

FAULTS: tuple[Fault, ...] = (
    _untraced("pre_fix with taps and no trace", "pre_fix", *LAWS, show={}),
    _untraced("sigma_floor with taps and no trace", "sigma_floor", "growth_with_points", show={}),
    _untraced(
        "one log_det shown under the floor by",
        "bounded",
        "log_det_floor",
        show={"log_det": _one(_under_the_floor)},
        sizes=powers(1, -5),
    ),
    _untraced(
        "one dist_sq shown under zero by",
        "bounded",
        "dist_sq_bound",
        show={"dist_sq": _one(lambda x, size: torch.full_like(x, -size))},
        sizes=powers(1, -5),
    ),
    _untraced(
        "one score shown that no Gaussian has",
        "bounded",
        "geometry_logit_bound",
        show={"score": _one(lambda x, size: x - size)},
        size=1e9,
    ),
    _untraced(
        "one logit shown that is not a number",
        "bounded",
        "geometry_logit_bound",
        show={"geometry_logit": _one(lambda x, size: x * math.nan)},
    ),
    _untraced(
        "weights shown that sum to more than 1 by a share",
        "bounded",
        "attention_weights",
        show={"weights": lambda x, size: x * (1 + size)},
        size=1e-2,
        sizes=powers(-1, -6),
    ),
    _untraced("a sum over points, and nothing shown", _GROWING, "growth_with_points", show=None, kind="point scaling"),
    _untraced("one-hot rows at the start, and nothing shown", _SWITCH, "growth_with_points", show=None),
)
