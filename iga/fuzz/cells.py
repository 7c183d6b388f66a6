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
        before, after = table.narrow(dim, 0, last), table.narrow(dim, 1, last)
        beside += torch.cat([table.narrow(dim, 1, 1), before], dim)  # at an end, the one beside it counts twice:
        beside += torch.cat([after, table.narrow(dim, last - 1, 1)], dim)  # else it were half as far as one within
    apart = (table - beside / (2 * len(along))).abs()
    apart = apart.reshape(*table.shape[:dims], -1).amax(-1)
    size, place = apart.flatten().topk(min(MOST, apart.numel()))
    kept = place[(size > 0) & (size >= NEARLY * size[0])]
    return [tuple(int(x) for x in torch.unravel_index(one, apart.shape)) for one in kept]
