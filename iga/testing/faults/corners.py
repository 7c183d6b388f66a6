"""Overlap functions that are right but for a corner that no sample meets: what `iga fuzz` is measured on.

Each is the clean function with a change in a region; `size` is the region's share of the pairs that `iga.search.pairs`
draws, a product of the shares of its conditions as far as these are independent, 0 where only equality leads there.
They are not in the matrix of `iga faults`: a run of the checks samples, and passes most of them.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from iga._typing import Tensor
from iga.testing.faults.fault import Fault
from iga.testing.overlap.subject import OverlapSubject

__all__ = ["CORNERS"]

Values = tuple[Tensor, Tensor]
_CORES = (2, 1, 1, 2, 1, 1)
CELLS = 2048  # of a table on each side


# What the conditions look at; a pair is (q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma), which broadcast.


def _kappa(pair: tuple[Tensor, ...]) -> Tensor:
    high = torch.maximum(pair[2].amax(-1), pair[5].amax(-1))
    return high / torch.minimum(pair[2].amin(-1), pair[5].amin(-1))


def _distance(pair: tuple[Tensor, ...]) -> Tensor:
    return (pair[1] - pair[4]).square().sum(-1).clamp(min=1e-30).sqrt()


def _trace(pair: tuple[Tensor, ...]) -> Tensor:
    return (pair[0] * pair[3]).sum((-2, -1))


def _delta(pair: tuple[Tensor, ...]) -> Tensor:
    return pair[1] - pair[4]


def _between(x: Tensor, low: float | int, high: float | int) -> Tensor:
    return (x > low) & (x < high)


# How a value is wrong where the condition holds.


def _dist_sq(where: Callable[[tuple[Tensor, ...]], Tensor], factor: float = 1.5) -> Callable[..., Values]:
    def wrong(right: Callable[..., Values], *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        return torch.where(where(pair), factor * dist_sq, dist_sq), log_det

    return wrong


def _log_det(where: Callable[[tuple[Tensor, ...]], Tensor], shift: float = 0.5) -> Callable[..., Values]:
    def wrong(right: Callable[..., Values], *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        return dist_sq, torch.where(where(pair), log_det + shift, log_det)

    return wrong


def _smooth(weight: Callable[[tuple[Tensor, ...]], Tensor], factor: float = 0.2) -> Callable[..., Values]:
    def wrong(right: Callable[..., Values], *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        return dist_sq * (1.0 + factor * weight(pair)), log_det

    return wrong


def _slope(centre: tuple[float, ...], factor: float, width: float) -> Callable[..., Values]:
    """A relative error of factor · κ · eps / (1 + r/width), r the distance of the six ln σ from their centre: under the
    budget all over but near it, and its slope is seen from afar."""

    def wrong(right: Callable[..., Values], *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        sigma = torch.cat(torch.broadcast_tensors(pair[2], pair[5]), -1)
        off = sigma.log() - torch.tensor(centre, dtype=sigma.dtype, device=sigma.device).log()
        r = (off.square().sum(-1) + 1e-12).sqrt()
        return dist_sq * (1.0 + factor * _kappa(pair) * torch.finfo(sigma.dtype).eps / (1.0 + r / width)), log_det

    return wrong


def _without_gradient(where: Callable[[tuple[Tensor, ...]], Tensor]) -> Callable[..., Values]:
    def wrong(right: Callable[..., Values], *pair: Tensor) -> Values:
        cut = where(pair)
        shaped = [cut.reshape(*cut.shape, *(1,) * cores) for cores in _CORES]
        given = [torch.where(one, x.detach(), x) for one, x in zip(shaped, pair, strict=True)]
        return right(*given)

    return wrong


def _bell(centres: tuple[float, ...], width: float) -> Callable[[tuple[Tensor, ...]], Tensor]:
    """exp(−Σ((x − centre)/width)²/2) of ln κ, ln |δ|, ln σ of the query's second axis, and the trace."""

    def weight(pair: tuple[Tensor, ...]) -> Tensor:
        x = (_kappa(pair).log(), _distance(pair).log(), pair[2][..., 1].log(), _trace(pair))
        off = torch.zeros_like(x[0])
        for value, centre in zip(x, centres, strict=False):
            off = off + (value - centre).square()
        return torch.exp(-off / (2.0 * width**2))

    return weight


def _cell(
    coordinates: Callable[[tuple[Tensor, ...]], tuple[Tensor, Tensor]], cell: tuple[int, int]
) -> Callable[..., Values]:
    """A table of CELLS × CELLS factors, of which one is wrong."""

    def wrong(right: Callable[..., Values], *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        row, column = ((x.clamp(0.0, 1.0 - 1e-6) * CELLS).long() for x in coordinates(pair))
        table = torch.ones(CELLS * CELLS, dtype=dist_sq.dtype, device=dist_sq.device)
        table[cell[0] * CELLS + cell[1]] = 1.25
        return dist_sq * table[row * CELLS + column], log_det

    return wrong


def _batch(wrong_rows: Callable[[int], slice | None]) -> Callable[..., Values]:
    def wrong(right: Callable[..., Values], *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        rows = wrong_rows(len(dist_sq)) if dist_sq.ndim == 1 else None
        if rows is not None:
            log_det = log_det.clone()
            log_det[rows] = 0.0
        return dist_sq, log_det

    return wrong


def _last_of(pair: tuple[Tensor, ...], block: int) -> Tensor:
    """The last pair of a list that is one longer than whole blocks."""
    places = torch.zeros(pair[1].shape[:-1], dtype=torch.bool)
    if places.ndim == 1 and len(places) > block and len(places) % block == 1:
        places[-1] = True
    return places


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
    return _between(up, 2, 2.02).all(-1) & _between(down, 2, 2.02).all(-1)


def _by_values(right: Callable[..., Values], *pair: Tensor) -> Values:
    dist_sq, log_det = right(*pair)
    where = _between(dist_sq, 1234.5, 1234.6) & _between(log_det, 5, 5.01)
    return torch.where(where, 1.3 * dist_sq, dist_sq), log_det


def _widest(p: tuple[Tensor, ...]) -> Tensor:
    return torch.maximum(p[2].amax(-1), p[5].amax(-1))


def _one_scale(p: tuple[Tensor, ...]) -> Tensor:
    return (p[2] == p[5]).all(-1) & (p[2][..., 0] == p[2][..., 1]) & (p[2][..., 0] == p[2][..., 2])


def _product(right: Callable[..., Values], *pair: Tensor) -> Values:
    """A box as a product of numbers that are 0 or 1: no boolean of it stands anywhere."""
    dist_sq, log_det = right(*pair)
    trace, ratio, distance = _trace(pair), pair[2][..., 1] / pair[5][..., 2], _distance(pair)
    weight = trace.gt(0.4).to(dist_sq) * trace.lt(0.42).to(dist_sq)
    weight = weight * (ratio > 7).to(dist_sq) * (1.0 - (ratio >= 7.3).to(dist_sq))
    for one in (distance > 2, distance < 2.02, pair[2].amax(-1) < 30 * pair[2].amin(-1)):
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


BOXES = (
    _corner(
        "box",
        "κ in (3000, 3030), trace > 2.99, |δ| in (0.0100, 0.0102), a σ of q in (50, 50.5)",
        1e-9,
        _dist_sq(
            lambda p: _all(
                _between(_kappa(p), 3000, 3030),
                _trace(p) > 2.99,
                _between(_distance(p), 0.01, 0.0102),
                _between(p[2], 50, 50.5).any(-1),
            )
        ),
    ),
    _corner(
        "box",
        "κ in (100, 101), trace < −0.99, |δ| in (20, 20.3), first σ of q in (1, 1.02)",
        1e-10,
        _log_det(
            lambda p: _all(
                _between(_kappa(p), 100, 101),
                _trace(p) < -0.99,
                _between(_distance(p), 20, 20.3),
                _between(p[2][..., 0], 1, 1.02),
            )
        ),
    ),
    _corner(
        "box",
        "κ in (40, 40.1), |δ| in (3, 3.01)",
        1e-7,
        _dist_sq(lambda p: _between(_kappa(p), 40, 40.1) & _between(_distance(p), 3, 3.01), 1.1),
    ),
    _corner(
        "box",
        "each component of δ in (1, 1.01), κ < 1.5",
        1e-10,
        _dist_sq(lambda p: _between(_delta(p), 1, 1.01).all(-1) & (_kappa(p) < 1.5)),
    ),
    _corner(
        "box",
        "|δ| > 900 nm, every σ < 0.0302 nm, trace in (0, 0.1)",
        1e-8,
        _log_det(lambda p: _all(_distance(p) > 900, _widest(p) < 0.0302, _between(_trace(p), 0, 0.1))),
    ),
    _corner("box", "σ of q ascending and of k descending by factors in (2, 2.02)", 1e-10, _dist_sq(_steps)),
    _corner(
        "box",
        "a product of 0 or 1: trace in (0.4, 0.42), σ/σ in (7, 7.3), |δ| in (2, 2.02), κ of q < 30",
        1e-9,
        _product,
    ),
    _corner("box", "branches in branches: a σ of k in (0.9, 1), δ_z in (−0.3, −0.25), volumes alike", 1e-7, _within),
    _corner("box", "dist_sq in (1234.5, 1234.6) and log_det in (5, 5.01)", 1e-8, _by_values),
    _corner(
        "box",
        "float64 alone: κ in (7, 7.01), |δ| in (0.5, 0.501)",
        1e-8,
        _dist_sq(
            lambda p: _between(_kappa(p), 7, 7.01) & _between(_distance(p), 0.5, 0.501) & (p[0].dtype == torch.float64)
        ),
    ),
    _corner(
        "box",
        "under no_grad: trace in (−0.64, −0.635), |δ| in (3, 3.1), widest σ in (20, 20.2)",
        7e-9,
        _dist_sq(
            torch.no_grad()(
                lambda p: _all(
                    _between(_trace(p), -0.64, -0.635),
                    _between(_distance(p), 3, 3.1),
                    _between(_widest(p), 20, 20.2),
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
        _without_gradient(lambda p: _trace(p) < -0.999999),
        "gradient_values",
    ),
    _corner(
        "gradient",
        "no gradient at κ in (5, 5.01), |δ| in (1, 1.01)",
        1e-8,
        _without_gradient(lambda p: _between(_kappa(p), 5, 5.01) & _between(_distance(p), 1, 1.01)),
        "gradient_values",
    ),
)
BUMPS = (
    _corner("bump", "width 0.01 about ln κ 6, ln |δ| 1, ln σ 0.5", 1e-8, _smooth(_bell((6.0, 1.0, 0.5), 0.01))),
    _corner(
        "bump",
        "width 0.01 about ln κ 3, ln |δ| 0, ln σ −1, trace 1",
        1e-10,
        _smooth(_bell((3.0, 0.0, -1.0, 1.0), 0.01)),
    ),
    _corner("bump", "width 0.003 about ln κ 5, ln |δ| −1", 1e-7, _smooth(_bell((5.0, -1.0), 0.003))),
)
SLOPES = (
    _corner(
        "slope",
        "an error 125 κ eps/(1 + r/0.3), r the distance of ln σ from ln (0.3, 1, 3) and ln (2, 0.5, 6)",
        1e-10,
        _slope((0.3, 1.0, 3.0, 2.0, 0.5, 6.0), 125.0, 0.3),
    ),
)
TABLES = (
    _corner(
        "table",
        "one of 4 million cells of κ by |δ|",
        2e-7,
        _cell(lambda p: (_kappa(p).log10() / 4, (_distance(p).log10() + 6) / 9), (1234, 1500)),
    ),
    _corner(
        "table",
        "one of 4 million cells of trace by a quotient of σ",
        1e-8,
        _cell(lambda p: ((_trace(p) + 1) / 4, (p[2][..., 0] / p[5][..., 1]).log() / 17 + 0.5), (777, 1301)),
    ),
)
BATCHES = (
    _corner(
        "batch",
        "the last of 1024 k + 1 pairs",
        0.0,
        _batch(lambda n: slice(-1, None) if n > 1024 and n % 1024 == 1 else None),
    ),
    _corner(
        "batch",
        "the last of 384 k + 1 pairs",
        0.0,
        _batch(lambda n: slice(-1, None) if n > 384 and n % 384 == 1 else None),
    ),
    _corner(
        "batch",
        "the last of 5000 k + 1 pairs",
        0.0,
        _batch(lambda n: slice(-1, None) if n > 5000 and n % 5000 == 1 else None),
    ),
    _corner(
        "batch",
        "no gradient of the last of 900 k + 1 pairs",
        0.0,
        _without_gradient(lambda p: _last_of(p, 900)),
        "gradient_values",
    ),
    _corner(
        "batch",
        "the last 1 to 7 beside blocks of 1536, from 4609 pairs on",
        0.0,
        _batch(lambda n: slice(-(n % 1536), None) if n > 4608 and 0 < n % 1536 < 8 else None),
    ),
    _corner("batch", "pairs from the 65 537th on", 0.0, _batch(lambda n: slice(65536, None) if n > 65536 else None)),
    _corner("batch", "the first of exactly 300", 0.0, _batch(lambda n: slice(0, 1) if n == 300 else None)),
)
EQUALITIES = (
    _corner("equality", "q's scales equal, and k's the same", 0.0, _log_det(_one_scale)),
    _corner(
        "equality",
        "the second component of δ exactly 0",
        0.0,
        _dist_sq(lambda p: (_delta(p)[..., 1] == 0) & (_delta(p)[..., 0] != 0)),
    ),
    _corner(
        "equality",
        "a zero in q's frame and in q's mean",
        0.0,
        _dist_sq(lambda p: _all(p[0][..., 0, 1] == 0, p[1][..., 2] == 0, p[4][..., 2] != 0)),
    ),
    _corner(
        "equality",
        "a σ of exactly 0.5 nm, κ in (20, 21)",
        0.0,
        _log_det(lambda p: (p[2] == 0.5).any(-1) & _between(_kappa(p), 20, 21)),
    ),
    _corner(
        "equality",
        "the same frame bit by bit, δ along its third axis",
        0.0,
        _dist_sq(
            lambda p: _all((p[0] == p[3]).all(-1).all(-1), (_delta(p)[..., :2] == 0).all(-1), _delta(p)[..., 2] != 0)
        ),
    ),
)
CORNERS: tuple[Fault, ...] = (*BOXES, *GRADIENTS, *BUMPS, *SLOPES, *TABLES, *BATCHES, *EQUALITIES)
