"""Overlap functions that are right but for a corner that no sample meets: what `iga fuzz` is measured on.

Each is the clean function with a change in a region; `size` is the region's share of the pairs that `iga.search.pairs`
draws, a product of the shares of its conditions as far as these are independent, 0 where only equality leads there.
They are not in the matrix of `iga faults`: a run of the checks samples, and passes most of them.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from iga._typing import Tensor
from iga.testing.faults.corner_kinds import (
    Values,
    batch,
    bell,
    between,
    cell,
    delta,
    distance,
    kappa,
    last_of,
    sixfold,
    slope,
    smooth,
    trace,
    without_gradient,
    wrong_dist_sq,
    wrong_log_det,
)
from iga.testing.faults.fault import Fault
from iga.testing.overlap.subject import OverlapSubject

__all__ = ["CORNERS"]


def _corner(kind: str, name: str, size: float, wrong: Callable[..., Values], expected: str = "accuracy") -> Fault:
    def plant(clean: OverlapSubject, _: float) -> OverlapSubject:
        return replace(clean, name=name, function=lambda *pair: wrong(clean.function, *pair))

    return Fault(name, kind, plant, (expected,), size=size, region=name)


def _all(*conditions: Tensor) -> Tensor:
    result = conditions[0]
    for one in conditions[1:]:
        result = result & one
    return result


def _steps(p: tuple[Tensor, ...]) -> Tensor:
    """σ of q ascending and of k descending by factors in (2, 2.02)."""
    up, down = p[2][..., 1:] / p[2][..., :2], p[5][..., :2] / p[5][..., 1:]
    return between(up, 2, 2.02).all(-1) & between(down, 2, 2.02).all(-1)


def _by_values(right: Callable[..., Values], *pair: Tensor) -> Values:
    dist_sq, log_det = right(*pair)
    where = between(dist_sq, 1234.5, 1234.6) & between(log_det, 5, 5.01)
    return torch.where(where, 1.3 * dist_sq, dist_sq), log_det


def _widest(p: tuple[Tensor, ...]) -> Tensor:
    return torch.maximum(p[2].amax(-1), p[5].amax(-1))


def _one_scale(p: tuple[Tensor, ...]) -> Tensor:
    return (p[2] == p[5]).all(-1) & (p[2][..., 0] == p[2][..., 1]) & (p[2][..., 0] == p[2][..., 2])


def _product(right: Callable[..., Values], *pair: Tensor) -> Values:
    """A box as a product of numbers that are 0 or 1: no boolean of it stands anywhere."""
    dist_sq, log_det = right(*pair)
    turn, ratio, apart = trace(pair), pair[2][..., 1] / pair[5][..., 2], distance(pair)
    weight = turn.gt(0.4).to(dist_sq) * turn.lt(0.42).to(dist_sq)
    weight = weight * (ratio > 7).to(dist_sq) * (1.0 - (ratio >= 7.3).to(dist_sq))
    for one in (apart > 2, apart < 2.02, pair[2].amax(-1) < 30 * pair[2].amin(-1)):
        weight = weight * torch.where(one, 1.0, 0.0)
    return dist_sq * (1.0 - 0.1 * weight), log_det


def _within(right: Callable[..., Values], *pair: Tensor) -> Values:
    """A box as branches within branches, each of which is common."""
    dist_sq, log_det = right(*pair)
    volumes, height = pair[2].log().sum(-1) - pair[5].log().sum(-1), pair[1][..., 2] - pair[4][..., 2]
    found = log_det - math.log(2.0)
    for x, low, high in ((pair[5][..., 0], 0.9, 1.0), (height, -0.3, -0.25), (volumes, -0.02, 0.02)):
        found = torch.where(x < high, torch.where(x > low, found, log_det), log_det)
    return dist_sq, found


def _picked(right: Callable[..., Values], *pair: Tensor) -> Values:
    """A box that is looked for in two steps: among the rows that the first condition has left."""
    dist_sq, log_det = right(*pair)
    apart, rows = distance(pair), dist_sq.numel()
    near = between(apart, 2, 2.05).expand(dist_sq.shape).reshape(rows).nonzero().squeeze(-1)
    flat = [x.expand(dist_sq.shape).reshape(rows)[near] for x in (trace(pair), pair[2][..., 0] / pair[5][..., 1])]
    near = near[between(flat[0], 1.3, 1.32) & between(flat[1], 4, 4.1)]
    wrong = log_det.reshape(rows).index_add(0, near, torch.full((len(near),), 0.3, dtype=log_det.dtype))
    return dist_sq, wrong.reshape(log_det.shape)


class _Recorded(torch.autograd.Function):
    """x, which is a fifth larger in a shell, or has no derivative there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, at: Tensor, of_value: bool) -> Tensor:
        ctx.save_for_backward(at)
        ctx.of_value = of_value
        return torch.where(_shell(at), 1.2 * x, x) if of_value else x.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (at,) = ctx.saved_tensors
        (slope,) = slopes
        factor = 1.2 if ctx.of_value else 0.0
        return torch.where(_shell(at), factor * slope, slope), None, None


def _shell(x: Tensor) -> Tensor:
    """x: [..., 3], |δ|, trace and a quotient of σ."""
    return between(x[..., 0], 3, 3.05) & between(x[..., 1], 1.2, 1.22) & between(x[..., 2], 10, 10.4)


def _in_a_function(of_value: bool) -> Callable[..., Values]:
    def wrong(right: Callable[..., Values], *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        looked_at = (distance(pair), trace(pair), pair[2].amax(-1) / pair[5].amin(-1))
        at = torch.stack(torch.broadcast_tensors(*looked_at), -1)
        return _Recorded.apply(dist_sq, at, of_value), log_det  # pyright: ignore[reportReturnType]

    return wrong


def _under_vmap(right: Callable[..., Values], *pair: Tensor) -> Values:
    """Conditions on one pair at a time."""
    dist_sq, log_det = right(*pair)

    def factor(apart: Tensor, turn: Tensor, ratio: Tensor) -> Tensor:
        inside = (apart > 1.5) & (apart < 1.53) & (turn > 0.1) & (turn < 0.11) & (ratio > 20) & (ratio < 20.5)
        return torch.where(inside, 1.3, 1.0)

    looked_at = (distance(pair), trace(pair), pair[2].amax(-1) / pair[2].amin(-1))
    flat = [x.expand(dist_sq.shape).reshape(-1) for x in looked_at]
    if not len(flat[0]):
        return dist_sq, log_det
    return dist_sq * torch.vmap(factor)(*flat).reshape(dist_sq.shape).to(dist_sq.dtype), log_det


BOXES = (
    _corner(
        "box",
        "κ in (3000, 3030), trace > 2.99, |δ| in (0.0100, 0.0102), a σ of q in (50, 50.5)",
        1e-9,
        wrong_dist_sq(
            lambda p: _all(
                between(kappa(p), 3000, 3030),
                trace(p) > 2.99,
                between(distance(p), 0.01, 0.0102),
                between(p[2], 50, 50.5).any(-1),
            )
        ),
    ),
    _corner(
        "box",
        "κ in (100, 101), trace < −0.99, |δ| in (20, 20.3), first σ of q in (1, 1.02)",
        1e-10,
        wrong_log_det(
            lambda p: _all(
                between(kappa(p), 100, 101),
                trace(p) < -0.99,
                between(distance(p), 20, 20.3),
                between(p[2][..., 0], 1, 1.02),
            )
        ),
    ),
    _corner(
        "box",
        "κ in (40, 40.1), |δ| in (3, 3.01)",
        1e-7,
        wrong_dist_sq(lambda p: between(kappa(p), 40, 40.1) & between(distance(p), 3, 3.01), 1.1),
    ),
    _corner(
        "box",
        "each component of δ in (1, 1.01), κ < 1.5",
        1e-10,
        wrong_dist_sq(lambda p: between(delta(p), 1, 1.01).all(-1) & (kappa(p) < 1.5)),
    ),
    _corner(
        "box",
        "|δ| > 900 nm, every σ < 0.0302 nm, trace in (0, 0.1)",
        1e-8,
        wrong_log_det(lambda p: _all(distance(p) > 900, _widest(p) < 0.0302, between(trace(p), 0, 0.1))),
    ),
    _corner("box", "σ of q ascending and of k descending by factors in (2, 2.02)", 1e-10, wrong_dist_sq(_steps)),
    _corner(
        "box",
        "a product of 0 or 1: trace in (0.4, 0.42), σ/σ in (7, 7.3), |δ| in (2, 2.02), κ of q < 30",
        1e-9,
        _product,
    ),
    _corner("box", "branches in branches: a σ of k in (0.9, 1), δ_z in (−0.3, −0.25), volumes alike", 1e-7, _within),
    _corner("box", "among picked rows: |δ| in (2, 2.05), then trace in (1.3, 1.32), σ/σ in (4, 4.1)", 1e-7, _picked),
    _corner(
        "box",
        "under vmap: |δ| in (1.5, 1.53), trace in (0.1, 0.11), κ of q in (20, 20.5)",
        1e-8,
        _under_vmap,
    ),
    _corner(
        "box",
        "in an autograd.Function: |δ| in (3, 3.05), trace in (1.2, 1.22), σ/σ in (10, 10.4)",
        1e-8,
        _in_a_function(True),
    ),
    _corner("box", "dist_sq in (1234.5, 1234.6) and log_det in (5, 5.01)", 1e-8, _by_values),
    _corner(
        "box",
        "float64 alone: κ in (7, 7.01), |δ| in (0.5, 0.501)",
        1e-8,
        wrong_dist_sq(
            lambda p: between(kappa(p), 7, 7.01) & between(distance(p), 0.5, 0.501) & (p[0].dtype == torch.float64)
        ),
    ),
    _corner(
        "box",
        "under no_grad: trace in (−0.64, −0.635), |δ| in (3, 3.1), widest σ in (20, 20.2)",
        7e-9,
        wrong_dist_sq(
            torch.no_grad()(
                lambda p: _all(
                    between(trace(p), -0.64, -0.635),
                    between(distance(p), 3, 3.1),
                    between(_widest(p), 20, 20.2),
                )
            )
        ),
    ),
)
GRADIENTS = (
    _corner(
        "gradient",
        "no gradient within 10⁻³ of a half turn",
        1e-6,
        without_gradient(lambda p: trace(p) < -0.999999),
        "gradient_values",
    ),
    _corner(
        "gradient",
        "no gradient at κ in (5, 5.01), |δ| in (1, 1.01)",
        1e-8,
        without_gradient(lambda p: between(kappa(p), 5, 5.01) & between(distance(p), 1, 1.01)),
        "gradient_values",
    ),
    _corner(
        "gradient",
        "none by a backward of its own: |δ| in (3, 3.05), trace in (1.2, 1.22), σ/σ in (10, 10.4)",
        1e-8,
        _in_a_function(False),
        "gradient_values",
    ),
)
BUMPS = (
    _corner("bump", "width 0.01 about ln κ 6, ln |δ| 1, ln σ 0.5", 1e-8, smooth(bell((6.0, 1.0, 0.5), 0.01))),
    _corner(
        "bump",
        "width 0.01 about ln κ 3, ln |δ| 0, ln σ −1, trace 1",
        1e-10,
        smooth(bell((3.0, 0.0, -1.0, 1.0), 0.01)),
    ),
    _corner("bump", "width 0.003 about ln κ 5, ln |δ| −1", 1e-7, smooth(bell((5.0, -1.0), 0.003))),
    _corner(
        "bump",
        "float32 alone: width 0.005 about ln κ 2, ln |δ| 1, ln σ 0, trace 0.3",
        1e-10,
        smooth(lambda p: bell((2.0, 1.0, 0.0, 0.3), 0.005)(p) * (p[0].dtype == torch.float32)),
    ),
    _corner(
        "bump",
        "of the gradient alone: width 0.01 about ln κ 2, ln |δ| 0, ln σ 0, trace 2",
        1e-10,
        smooth(lambda p: (x := bell((2.0, 0.0, 0.0, 2.0), 0.01)(p)) - x.detach(), 1.0),
        "gradient_values",
    ),
)
SLOPES = (
    _corner(
        "slope",
        "an error 125 κ eps/(1 + r/0.3), r the distance of ln σ from ln (0.3, 1, 3) and ln (2, 0.5, 6)",
        1e-10,
        slope((0.3, 1.0, 3.0, 2.0, 0.5, 6.0), 125.0, 0.3),
    ),
)
TABLES = (
    _corner(
        "table",
        "one of 4 million cells of κ by |δ|",
        2e-7,
        cell(lambda p: (kappa(p).log10() / 4, (distance(p).log10() + 6) / 9), (1234, 1500)),
    ),
    _corner(
        "table",
        "one of 4 million cells of trace by a quotient of σ",
        1e-8,
        cell(lambda p: ((trace(p) + 1) / 4, (p[2][..., 0] / p[5][..., 1]).log() / 17 + 0.5), (777, 1301)),
    ),
    _corner("table", "one of 4 million cells of five σ by trace", 2e-7, sixfold),
)
BATCHES = (
    _corner(
        "batch",
        "4 to 7 pairs beside blocks of 1024, from 30 001 on",
        0.0,
        batch(lambda n: slice(-(n % 1024), None) if n > 30_000 and 4 <= n % 1024 < 8 else None),
    ),
    _corner(
        "batch",
        "the last of 1024 k + 1 pairs",
        0.0,
        batch(lambda n: slice(-1, None) if n > 1024 and n % 1024 == 1 else None),
    ),
    _corner(
        "batch",
        "the last of 384 k + 1 pairs",
        0.0,
        batch(lambda n: slice(-1, None) if n > 384 and n % 384 == 1 else None),
    ),
    _corner(
        "batch",
        "the last of 5000 k + 1 pairs",
        0.0,
        batch(lambda n: slice(-1, None) if n > 5000 and n % 5000 == 1 else None),
    ),
    _corner(
        "batch",
        "no gradient of the last of 900 k + 1 pairs",
        0.0,
        without_gradient(lambda p: last_of(p, 900)),
        "gradient_values",
    ),
    _corner(
        "batch",
        "the last 1 to 7 beside blocks of 1536, from 4609 pairs on",
        0.0,
        batch(lambda n: slice(-(n % 1536), None) if n > 4608 and 0 < n % 1536 < 8 else None),
    ),
    _corner("batch", "pairs from the 65 537th on", 0.0, batch(lambda n: slice(65536, None) if n > 65536 else None)),
    _corner("batch", "the first of exactly 300", 0.0, batch(lambda n: slice(0, 1) if n == 300 else None)),
)
EQUALITIES = (
    _corner("equality", "q's scales equal, and k's the same", 0.0, wrong_log_det(_one_scale)),
    _corner(
        "equality",
        "the second component of δ exactly 0",
        0.0,
        wrong_dist_sq(lambda p: (delta(p)[..., 1] == 0) & (delta(p)[..., 0] != 0)),
    ),
    _corner(
        "equality",
        "a zero in q's frame and in q's mean",
        0.0,
        wrong_dist_sq(lambda p: _all(p[0][..., 0, 1] == 0, p[1][..., 2] == 0, p[4][..., 2] != 0)),
    ),
    _corner(
        "equality",
        "a σ of exactly 0.5 nm, κ in (20, 21)",
        0.0,
        wrong_log_det(lambda p: (p[2] == 0.5).any(-1) & between(kappa(p), 20, 21)),
    ),
    _corner(
        "equality",
        "the same frame bit by bit, δ along its third axis",
        0.0,
        wrong_dist_sq(
            lambda p: _all((p[0] == p[3]).all(-1).all(-1), (delta(p)[..., :2] == 0).all(-1), delta(p)[..., 2] != 0)
        ),
    ),
)
CORNERS: tuple[Fault, ...] = (*BOXES, *GRADIENTS, *BUMPS, *SLOPES, *TABLES, *BATCHES, *EQUALITIES)
