"""Cells of a table that stand out from those beside them: the side of few examples, where one entry is a wrong one."""

import torch

from iga._typing import Tensor

__all__ = ["standing_out"]

NEARLY = 0.6  # what is beside one wrong number is half as far from the mean of those beside it
MOST = 4  # cells of a table
LARGE = 2**26  # entries of a table that is too large to be looked through
_known: dict[tuple[object, ...], list[tuple[int, ...]]] = {}  # of a table that is made anew at each call


def standing_out(table: Tensor, dims: int) -> list[tuple[int, ...]]:
    """Places in the first `dims` dimensions whose numbers are furthest from the mean of those beside them.

    Those nearly as far as the furthest one; none in a table of equal numbers.
    """
    if not 1 < table.numel() <= LARGE or table.is_complex():
        return []
    table = table.detach()
    if table.dtype == torch.bool:
        table = table.byte()
    facts = (table.amax(), table.amin(), table.argmax(), table.argmin(), table.double().sum())
    key = (tuple(table.shape), dims, *(float(x) for x in facts))
    if key not in _known:
        if len(_known) > 64:
            _known.clear()
        _known[key] = _furthest(table.double().nan_to_num(), dims)
    return _known[key]


def _furthest(table: Tensor, dims: int) -> list[tuple[int, ...]]:
    along = [dim for dim in range(dims) if table.shape[dim] > 1]
    if not along:
        return []
    beside = torch.zeros_like(table)
    for dim in along:
        last = table.shape[dim] - 1
        for start, end, length in ((0, 0, last), (1, last, last)):  # what comes before, and after; itself at an end
            edge, rest = table.narrow(dim, end, 1), table.narrow(dim, start, length)
            beside += torch.cat([edge, rest] if start == 0 else [rest, edge], dim)
    apart = (table - beside / (2 * len(along))).abs()
    apart = apart.reshape(*table.shape[:dims], -1).amax(-1)
    size, place = apart.flatten().topk(min(MOST, apart.numel()))
    kept = place[(size > 0) & (size >= NEARLY * size[0])]
    return [tuple(int(x) for x in torch.unravel_index(one, apart.shape)) for one in kept]
