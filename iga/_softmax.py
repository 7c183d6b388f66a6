"""Softmax as operators below autograd, where its spellings are few: which they are, and the logits that they had.

    _softmax, _safe_softmax, _log_softmax     logits are the first argument
    _scaled_dot_product_…                     logits made again: q·k · scale + mask

What has two dimensions of N residues is attention, and the one that softmax runs over are the keys.
"""

from collections.abc import Iterator
from typing import Any

import torch

from iga._typing import Float, Tensor

__all__ = [
    "SOFTMAX",
    "arranged",
    "dot_product_logits",
    "dot_product_rows",
    "is_dot_product",
    "named",
    "operator_name",
    "row_dimension",
]

SOFTMAX = ("_softmax", "_safe_softmax", "_log_softmax")

# Numbers of a block of logits that are made again: 64 MiB in float32, little beside what a training step holds.
_BLOCK = 2**24


def operator_name(func: Any) -> str:
    """The name of what a dispatch mode was called for, without its overload; "" where it has none."""
    return func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else ""


def is_dot_product(name: str) -> bool:
    """Whether the operator is a forward of scaled_dot_product_attention."""
    return name.startswith("_scaled_dot_product") and "backward" not in name


def named(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of an operator by the names of its schema; those left out are left out."""
    return dict(zip((one.name for one in func._schema.arguments), args, strict=False)) | kwargs


def row_dimension(shape: torch.Size, keys: int) -> int | None:
    """The dimension of the queries: as long as that of the keys, the nearest to it; None where there is none."""
    keys %= len(shape)
    facing = [d for d in range(len(shape)) if d != keys and shape[d] == shape[keys]]
    return min(facing, key=lambda d: abs(d - keys)) if facing else None


def arranged(x: Tensor, shape: torch.Size, rows: int, keys: int) -> Float[Tensor, "l q k"]:
    """x, broadcast to `shape`, with queries and keys last and all that stands before as one dimension."""
    moved = x.detach().expand(shape).movedim((rows, keys), (-2, -1))
    return moved.reshape(-1, *moved.shape[-2:])


def dot_product_logits(given: dict[str, Any]) -> Float[Tensor, "*b q k"]:
    """The logits of a scaled_dot_product_attention with these arguments, in dense memory."""
    query, key = given["query"].detach(), given["key"].detach()
    return _logits(query, _repeated(key, query), _mask(given), given)


def dot_product_rows(given: dict[str, Any]) -> Iterator[tuple[slice, Float[Tensor, "l q k"]]]:
    """The same logits in blocks of whole rows: (which of the leading dimensions as one, their
    logits, in float32 or better)."""
    query, key = given["query"].detach(), given["key"].detach()
    key, mask = _repeated(key, query), _mask(given)
    lead, square = query.shape[:-2], (query.shape[-2], key.shape[-2])
    key = key.expand(*lead, *key.shape[-2:]).flatten(0, -3)
    query = query.flatten(0, -3)
    wide = torch.promote_types(query.dtype, torch.float32)
    count = max(1, _BLOCK // max(1, square[0] * square[1]))
    for start in range(0, len(query), count):
        part = slice(start, start + count)
        some = None
        if mask is not None:
            where = torch.arange(start, min(start + count, len(query)), device=mask.device)
            some = mask.expand(*lead, *square)[torch.unravel_index(where, lead)]  # of a broadcast mask, this part
        yield part, _logits(query[part].to(wide), key[part].to(wide), some, given)


def _repeated(key: Tensor, query: Tensor) -> Tensor:
    """The keys of grouped queries, a head each."""
    if key.ndim == 4 and key.shape[1] != query.shape[1]:
        return key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    return key


def _mask(given: dict[str, Any]) -> Tensor | None:
    return given.get("attn_mask", given.get("attn_bias"))


def _logits(query: Tensor, key: Tensor, mask: Tensor | None, given: dict[str, Any]) -> Tensor:
    scale = given.get("scale")
    logits = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    if given.get("is_causal"):
        logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), -torch.inf)
    return logits
