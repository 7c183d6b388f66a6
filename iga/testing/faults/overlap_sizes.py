"""Slips of overlap functions in how many pairs there are, of what shape, and how they lie in memory."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch

from iga._typing import Tensor
from iga.testing.faults.fault import Fault
from iga.testing.faults.slips import graded, kept_where, plain, raw
from iga.testing.overlap.subject import OverlapSubject

__all__ = ["CORES", "FAULTS", "Values", "number", "overlap_made", "overlap_slip", "overlap_slips", "pairs_shape"]

Values = tuple[Tensor, Tensor]
CORES = (2, 1, 1, 2, 1, 1)  # dimensions of each argument behind those of the pairs


def overlap_slip(
    kind: str,
    name: str,
    region: str,
    wrong: Callable[..., Values],
    expected: str = "calls_agree",
    missed: str = "",
) -> Fault:
    """`wrong(right, *pair)` takes the function's place; `right` is the function."""

    def plant(clean: OverlapSubject, size: float) -> OverlapSubject:
        return replace(clean, function=lambda *pair: wrong(clean.function, *pair))

    return Fault(name, kind, plant, () if missed else (expected,), region=region, missed=missed)


def overlap_made(
    kind: str, name: str, region: str, make: Callable[[Any], Callable[..., Values]], expected: str = "calls_agree"
) -> Fault:
    """A function that remembers: `make(right)` builds it anew for each subject."""

    def plant(clean: OverlapSubject, size: float) -> OverlapSubject:
        return replace(clean, function=make(clean.function))

    return Fault(name, kind, plant, (expected,), region=region)


def overlap_slips(kind: str, rows: Iterable[Any]) -> tuple[Fault, ...]:
    """Each row the arguments of `overlap_slip` behind the kind."""
    return tuple(overlap_slip(kind, *row) for row in rows)


def pairs_shape(*pair: Tensor) -> torch.Size:
    """The pairs' dimensions."""
    return torch.broadcast_shapes(*(x.shape[: x.ndim - core] for x, core in zip(pair, CORES, strict=True)))


def number(*pair: Tensor) -> int:
    return math.prod(pairs_shape(*pair))


# --- how many pairs ---------------------------------------------------------------------------------------------


def _lost(keep: Callable[[Tensor, int], Tensor]) -> Callable[..., Values]:
    """Zeros where not keep(index, number of pairs)."""

    def wrong(right: Any, *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        n = dist_sq.numel()
        kept = keep(torch.arange(n, device=dist_sq.device), n).view(dist_sq.shape)
        return torch.where(kept, dist_sq, 0.0), torch.where(kept, log_det, 0.0)

    return wrong


def _when(
    asked: Callable[[torch.Size], bool], changed: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
) -> Callable[..., Values]:
    """The answer to `changed(pair)` where the pairs' shape asks for it."""
    return lambda right, *pair: right(*(changed(pair) if asked(pairs_shape(*pair)) else pair))


def _turned(pair: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The queries' frames transposed."""
    return (pair[0].mT, *pair[1:])


def _alone(pair: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The query's Gaussian in the place of the key's, but for the mean."""
    return (*pair[:3], pair[0], pair[4], pair[2])


def _key_queries_axes(pair: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (*pair[:5], pair[5].flip(-1))


def _halves_exchanged(right: Any, *pair: Tensor) -> Values:
    """A butterfly one step too far: the second half of the answers stands before the first."""
    answers = right(*pair)
    n = answers[0].numel()
    if n < 1024 or n & (n - 1):
        return answers
    first, second = (x.flatten().roll(n // 2).view(x.shape) for x in answers)
    return first, second


def _matrix_of_three(pair: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Means [3, 3] are taken for columns."""
    return tuple(x.mT if k in (1, 4) and x.shape == (3, 3) else x for k, x in enumerate(pair))


SIZES = overlap_slips(
    "sizes",
    [
        (
            "the last, incomplete block of pairs is not computed",
            "n > 256, pairs past the last multiple of 256",
            _lost(lambda i, n: (i < n // 256 * 256) | (n <= 256)),
            "accuracy",
        ),
        ("an index of sixteen bits: further pairs are not computed", "n > 65 536", _lost(lambda i, n: i < 65_536)),
        ("a grid's limit: further pairs are not computed", "n > 2²⁰", _lost(lambda i, n: i < 1 << 20)),
        (
            "the pair after a whole vector of eight is skipped",
            "n = 8k + 1, the last pair",
            _lost(lambda i, n: (i < n - 1) | (n % 8 != 1) | (n == 1)),
        ),
        ("of a multiple of 64 pairs the last is skipped", "n = 64 k", _lost(lambda i, n: (i < n - 1) | (n % 64 != 0))),
        (
            "only the first block of pairs is computed where its last is short by one",
            "n = 127, from the 65th on",
            _lost(lambda i, n: (i < 64) | (n != 127)),
        ),
        ("a power of two of pairs comes back with its halves exchanged", "n = 2ᵏ ≥ 1024", _halves_exchanged),
        ("a single pair goes another way, its frame transposed", "n = 1", _when(lambda b: math.prod(b) == 1, _turned)),
        ("two pairs go another way, σ in reverse", "n = 2", _when(lambda b: math.prod(b) == 2, _key_queries_axes)),
        ("three pairs' means are taken for a matrix of columns", "n = 3", _when(lambda b: b == (3,), _matrix_of_three)),
    ],
)


# --- of what shape ----------------------------------------------------------------------------------------------


def _order_of_three(right: Any, *pair: Tensor) -> Values:
    """Pairs of three dimensions are flattened with the first two exchanged, and not exchanged back."""
    answers = right(*pair)
    if answers[0].ndim != 3 or answers[0].shape[0] == 1:
        return answers
    first, second = (x.transpose(0, 1).reshape(x.shape) for x in answers)
    return first, second


def _square(right: Any, *pair: Tensor) -> Values:
    """n queries against n keys: rows for columns."""
    answers = right(*pair)
    shape, query = answers[0].shape, pair[1].shape[:-1]
    if len(shape) < 2 or shape[-1] != shape[-2] or query == shape:
        return answers
    return answers[0].mT, answers[1].mT


def _first_of(operand: int) -> Callable[..., Values]:
    """Where one operand has other dimensions than its mean, the first of its numbers serves all."""

    def wrong(right: Any, *pair: Tensor) -> Values:
        core, mean = CORES[operand], pair[1 if operand < 3 else 4]
        x = pair[operand]
        lead = x.shape[: x.ndim - core]
        if lead == mean.shape[:-1] or not x.numel():
            return right(*pair)
        first = x.flatten(0, x.ndim - core - 1)[0] if x.ndim > core else x
        return right(*pair[:operand], first.expand(x.shape), *pair[operand + 1 :])

    return wrong


def _mean_for_sum(right: Any, *pair: Tensor) -> Values:
    """The gradient of an operand that broadcasts is the mean over the pairs that it is in."""
    n = number(*pair)
    own = [math.prod(x.shape[: x.ndim - core]) for x, core in zip(pair, CORES, strict=True)]
    return right(*(graded(x, m / n) if 0 < m < n else x for x, m in zip(pair, own, strict=True)))


def _first_row_only(right: Any, *pair: Tensor) -> Values:
    """The gradient of keys that serve all queries is that of the first query's row."""
    shape = pairs_shape(*pair)
    if len(shape) < 2 or pair[4].ndim - 1 == len(shape) and pair[4].shape[-3] == shape[-2]:
        return right(*pair)
    here = (torch.arange(shape[-2], device=pair[4].device) == 0)[:, None]
    key = pair[4].expand(*shape, 3)
    return right(*pair[:4], kept_where(key, here[..., None]), pair[5])


def _no_middle(right: Any, *pair: Tensor) -> Values:
    shape = pairs_shape(*pair)
    if len(shape) > 1 and 0 in shape:
        pair[1].reshape(shape[0], -1, 3)  # of no numbers, -1 could be anything
    return right(*pair)


CONSTANTS: dict[Any, Tensor] = {}


def _kept_by_form(right: Any, *pair: Tensor) -> Values:
    """A constant is made at the first call of its dtype and number of dimensions, and kept."""
    mean = pair[1]
    if not plain(mean) or torch.compiler.is_compiling():
        return right(*pair)
    one = CONSTANTS.setdefault((mean.dtype, mean.ndim), torch.ones(1, dtype=mean.dtype))
    return right(pair[0], mean * one, *pair[2:])


SHAPES = overlap_slips(
    "shapes",
    [
        (
            "a pair without further dimensions takes the query's shape for the key's",
            "[]",
            _when(lambda b: not b, _alone),
        ),
        ("three dimensions are flattened in another order", "[a, b, c], a > 1", _order_of_three),
        ("four dimensions: frames transposed", "[a, b, c, d]", _when(lambda b: len(b) == 4, _turned)),
        ("as many queries as keys: rows for columns", "[n, 1] and [n]: a square", _square, "calls_agree"),
        ("one σ of the keys serves all where it alone broadcasts", "k_sigma of fewer pairs than k_mean", _first_of(5)),
        ("one frame of the queries serves all where it alone broadcasts", "q_rot of fewer than q_mean", _first_of(0)),
        ("a broadcast operand's gradient is a mean for a sum", "operands that broadcast", _mean_for_sum),
        ("a constant is kept by dtype and dimensions", "dimensions first met under inference_mode", _kept_by_form),
        ("keys' gradient of the first row of queries only", "keys that broadcast", _first_row_only),
        (
            "a middle dimension of none is not expected",
            "[a, 0, c]",
            _no_middle,
        ),
    ],
)


# --- how it lies in memory --------------------------------------------------------------------------------------


def _read(where: Callable[[Tensor], bool], read: Callable[[Tensor], Tensor], *operands: int) -> Callable[..., Values]:
    """The operands (all, unless named) that lie in memory in a certain way are read in another."""

    def wrong(right: Any, *pair: Tensor) -> Values:
        if not plain(*pair):
            return right(*pair)
        chosen = operands or range(6)
        return right(*(read(x) if k in chosen and x.numel() and where(x) else x for k, x in enumerate(pair)))

    return wrong


def _dense_rows(x: Tensor) -> bool:
    return x.stride(-1) == 1 and not x.is_contiguous() and 0 not in x.stride()


def _columns(x: Tensor) -> bool:
    return not x.is_contiguous() and x.mT.is_contiguous()


def _misaligned(x: Tensor) -> bool:
    return x.data_ptr() % 16 == 8 and x.storage_offset() >= 2


def _one_address(a: Tensor, b: Tensor) -> bool:
    return plain(a, b) and a.numel() > 0 and a.data_ptr() == b.data_ptr()


def _equal_frames(right: Any, *pair: Tensor) -> Values:
    """Frames at one address are taken for one frame."""
    return right(*pair[:3], pair[0] if _one_address(pair[0], pair[3]) else pair[3], *pair[4:])


def _equal_means(right: Any, *pair: Tensor) -> Values:
    """Means at one address are taken for equal: δ = 0."""
    dist_sq, log_det = right(*pair)
    return (dist_sq * 0 if _one_address(pair[1], pair[4]) else dist_sq), log_det


def _one_covariance(right: Any, *pair: Tensor) -> Values:
    """σ at one address enter once: Σ for 2Σ."""
    dist_sq, log_det = right(*pair)
    return dist_sq, log_det - (3 * math.log(2.0) if _one_address(pair[2], pair[5]) else 0.0)


def _spread(right: Any, *pair: Tensor) -> Values:
    """A dimension without a stride is taken for one that has one number: the first pair's answer for all."""
    answers = right(*pair)
    if not plain(*pair) or answers[0].ndim != 1 or not any(0 in x.stride()[:1] and x.shape[0] > 1 for x in pair):
        return answers
    return answers[0][:1].expand_as(answers[0]), answers[1][:1].expand_as(answers[1])


def _signed_zero(right: Any, *pair: Tensor) -> Values:
    """A −0 in the query's frame makes it left-handed: a sign is taken by its bit."""
    rot = pair[0]
    mirrored = ((rot == 0) & rot.signbit()).flatten(-2).any(-1)[..., None, None]
    return right(torch.where(mirrored, rot.flip(-1), rot), *pair[1:])


STORAGE = overlap_slips(
    "storage",
    [
        (
            "a frame stored by columns is read by rows",
            "rotations that are transposed views",
            _read(_columns, lambda x: x.mT, 0, 3),
        ),
        (
            "numbers with gaps between are read without",
            "last stride ≠ 1, vectors",
            _read(lambda x: x.stride(-1) > 1, raw, 1, 2, 4, 5),
            "calls_agree",
        ),
        (
            "pairs with gaps between are read without",
            "every second pair of a larger batch",
            _read(_dense_rows, raw),
            "accuracy",
        ),
        (
            "a view is read from the beginning of its storage",
            "offset > 0",
            _read(
                lambda x: x.storage_offset() > 0 and x.is_contiguous(), lambda x: raw(x, stride=x.stride(), offset=0)
            ),
            "calls_agree",
        ),
        (
            "an address is rounded down to sixteen bytes",
            "views that begin at an odd multiple of 8 bytes",
            _read(
                lambda x: _misaligned(x) and x.is_contiguous(),
                lambda x: raw(x, offset=int(x.storage_offset()) - 8 // x.element_size()),
            ),
            "calls_agree",
        ),
        ("an operand without a stride: the first pair for all", "expanded operands", _spread),
        ("frames at one address are taken for one frame", "q_rot and k_rot views of one tensor", _equal_frames),
        ("means at one address are taken for equal", "q_mean and k_mean views of one tensor", _equal_means),
        ("σ at one address enter once", "q_sigma and k_sigma views of one tensor", _one_covariance),
        ("a sign is taken by its bit", "−0 in a frame", _signed_zero),
    ],
)

FAULTS: tuple[Fault, ...] = (*SIZES, *SHAPES, *STORAGE)
