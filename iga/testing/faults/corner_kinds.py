"""The makings of corners (`iga.testing.faults.corners`): numbers that conditions look at, and ways of being wrong."""

from collections.abc import Callable

import torch

from iga._typing import Tensor

__all__ = [
    "Values",
    "batch",
    "bell",
    "between",
    "cell",
    "delta",
    "distance",
    "kappa",
    "last_of",
    "slope",
    "smooth",
    "trace",
    "without_gradient",
    "wrong_dist_sq",
    "wrong_log_det",
]

Values = tuple[Tensor, Tensor]
_CORES = (2, 1, 1, 2, 1, 1)
CELLS = 2048  # of a table on each side


# Numbers that conditions look at; a pair is (q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma), which broadcast.


def kappa(pair: tuple[Tensor, ...]) -> Tensor:
    high = torch.maximum(pair[2].amax(-1), pair[5].amax(-1))
    return high / torch.minimum(pair[2].amin(-1), pair[5].amin(-1))


def distance(pair: tuple[Tensor, ...]) -> Tensor:
    return (pair[1] - pair[4]).square().sum(-1).clamp(min=1e-30).sqrt()


def trace(pair: tuple[Tensor, ...]) -> Tensor:
    return (pair[0] * pair[3]).sum((-2, -1))


def delta(pair: tuple[Tensor, ...]) -> Tensor:
    return pair[1] - pair[4]


def between(x: Tensor, low: float | int, high: float | int) -> Tensor:
    return (x > low) & (x < high)


# Ways for a value to be wrong where the condition holds.


def wrong_dist_sq(where: Callable[[tuple[Tensor, ...]], Tensor], factor: float = 1.5) -> Callable[..., Values]:
    def wrong(right: Callable[..., Values], *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        return torch.where(where(pair), factor * dist_sq, dist_sq), log_det

    return wrong


def wrong_log_det(where: Callable[[tuple[Tensor, ...]], Tensor], shift: float = 0.5) -> Callable[..., Values]:
    def wrong(right: Callable[..., Values], *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        return dist_sq, torch.where(where(pair), log_det + shift, log_det)

    return wrong


def smooth(weight: Callable[[tuple[Tensor, ...]], Tensor], factor: float = 0.2) -> Callable[..., Values]:
    def wrong(right: Callable[..., Values], *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        return dist_sq * (1.0 + factor * weight(pair)), log_det

    return wrong


def slope(centre: tuple[float, ...], factor: float, width: float) -> Callable[..., Values]:
    """A relative error of factor · κ · eps / (1 + r/width), r the distance of the six ln σ from their centre: under the
    budget all over but near it, and its slope is seen from afar."""

    def wrong(right: Callable[..., Values], *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        sigma = torch.cat(torch.broadcast_tensors(pair[2], pair[5]), -1)
        off = sigma.log() - torch.tensor(centre, dtype=sigma.dtype, device=sigma.device).log()
        r = (off.square().sum(-1) + 1e-12).sqrt()
        return dist_sq * (1.0 + factor * kappa(pair) * torch.finfo(sigma.dtype).eps / (1.0 + r / width)), log_det

    return wrong


def without_gradient(where: Callable[[tuple[Tensor, ...]], Tensor]) -> Callable[..., Values]:
    def wrong(right: Callable[..., Values], *pair: Tensor) -> Values:
        cut = where(pair)
        shaped = [cut.reshape(*cut.shape, *(1,) * cores) for cores in _CORES]
        given = [torch.where(one, x.detach(), x) for one, x in zip(shaped, pair, strict=True)]
        return right(*given)

    return wrong


def bell(centres: tuple[float, ...], width: float) -> Callable[[tuple[Tensor, ...]], Tensor]:
    """exp(−Σ((x − centre)/width)²/2) of ln κ, ln |δ|, ln σ of the query's second axis, and the trace."""

    def weight(pair: tuple[Tensor, ...]) -> Tensor:
        x = (kappa(pair).log(), distance(pair).log(), pair[2][..., 1].log(), trace(pair))
        off = torch.zeros_like(x[0])
        for value, centre in zip(x, centres, strict=False):
            off = off + (value - centre).square()
        return torch.exp(-off / (2.0 * width**2))

    return weight


def cell(
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


def sixfold(right: Callable[..., Values], *pair: Tensor) -> Values:
    """A table by five scales, 16 places each, and the trace, 4 places, of which one factor is wrong."""
    dist_sq, log_det = right(*pair)
    scales = torch.cat(torch.broadcast_tensors(pair[2], pair[5]), -1)[..., :5]
    places = [*((scales.detach().log() + 3.51) / 8.52 * 16).unbind(-1), trace(pair).detach() + 1]
    *five, last = (x.floor().clamp(0, n - 1).long() for x, n in zip(places, (*[16] * 5, 4), strict=True))
    table = torch.ones(*[16] * 5, 4, dtype=dist_sq.dtype, device=dist_sq.device)
    table[11, 4, 13, 6, 9, 2] = 1.25
    return dist_sq * table[*five, last], log_det


def batch(wrong_rows: Callable[[int], slice | None]) -> Callable[..., Values]:
    def wrong(right: Callable[..., Values], *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        rows = wrong_rows(len(dist_sq)) if dist_sq.ndim == 1 else None
        if rows is not None:
            log_det = log_det.clone()
            log_det[rows] = 0.0
        return dist_sq, log_det

    return wrong


def last_of(pair: tuple[Tensor, ...], block: int) -> Tensor:
    """The last pair of a list that is one longer than whole blocks."""
    places = torch.zeros(pair[1].shape[:-1], dtype=torch.bool)
    if places.ndim == 1 and len(places) > block and len(places) % block == 1:
        places[-1] = True
    return places
