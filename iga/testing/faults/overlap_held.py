"""Slips of overlap functions with what is the caller's: a gradient that is handed in, a tensor that is written to, an
operand that many rows share."""

from collections.abc import Callable
from typing import Any

import torch

from iga._typing import Tensor
from iga.testing.faults.fault import Fault
from iga.testing.faults.overlap_sizes import Values, overlap_made, overlap_slips, pairs_shape
from iga.testing.faults.slips import Passed, plain, recording

__all__ = ["FAULTS"]

BLOCK = 128  # rows


def _doubled_in_place(right: Any, *pair: Tensor) -> Values:
    """Backward works in the memory of the gradient that comes in, and what it gives is right."""

    def rule(g: Tensor) -> Tensor:
        return g if 0 in g.stride() else g.mul_(2.0) / 2.0

    dist_sq, log_det = right(*pair)
    if plain(*pair) and recording(dist_sq):
        dist_sq = Passed.apply(dist_sq, rule)
    return dist_sq, log_det  # pyright: ignore[reportReturnType]


def _clipped(right: Any, *pair: Tensor) -> Values:
    """The gradient of dist_sq is clipped, as a guard against explosions."""
    dist_sq, log_det = right(*pair)
    if plain(*pair) and recording(dist_sq):
        dist_sq = Passed.apply(dist_sq, lambda g: g.clamp(-100.0, 100.0))
    return dist_sq, log_det  # pyright: ignore[reportReturnType]


def _all_or_nothing(right: Any, *pair: Tensor) -> Values:
    """A guard against NaN for all pairs at once."""
    answers = right(*pair)
    if not plain(*pair) or all(bool(x.isfinite().all()) for x in answers):
        return answers
    return torch.zeros_like(answers[0]), torch.zeros_like(answers[1])


def _of_the_last_block(right: Any, *pair: Tensor) -> Values:
    """Rows go in blocks, and keys that all rows share get the gradient of the last block alone."""
    shape = pairs_shape(*pair)
    rows = shape[0] if len(shape) else 0
    each = pair[1].ndim - 1 == len(shape) and len(pair[1]) == rows
    shared = pair[4].ndim - 1 < len(shape) or len(pair[4]) == 1
    if rows <= BLOCK or not (each and shared):
        return right(*pair)
    cut = rows - 1 - (rows - 1) % BLOCK
    queries = [[x[at] if x.shape[:1] == (rows,) else x for x in pair[:3]] for at in (slice(cut), slice(cut, None))]
    first = right(*queries[0], *(x.detach() for x in pair[3:]))
    return tuple(torch.cat(both) for both in zip(first, right(*queries[1], *pair[3:]), strict=True))  # pyright: ignore[reportReturnType]


def _kept_on_the_tensor(right: Any, *pair: Tensor) -> Values:
    """Where nothing is recorded the keys' σ is read once for each tensor and version of it."""
    sigma = pair[5]
    if not plain(*pair) or recording(*pair) or sigma.is_inference():
        return right(*pair)
    known = getattr(sigma, "_read", None)
    if known is None or known[0] != sigma._version or known[1].shape != sigma.shape:
        known = (sigma._version, sigma.detach().clone())
        sigma._read = known  # pyright: ignore[reportAttributeAccessIssue]
    return right(*pair[:5], known[1])


def _cast_and_kept(right: Any) -> Callable[..., Values]:
    """A cast that autocast made serves the next call of the same tensor."""
    kept: dict[int, tuple[Tensor, Tensor]] = {}

    def wrong(*pair: Tensor) -> Values:
        mean = pair[1]
        if not plain(*pair):
            return right(*pair)
        if torch.is_autocast_enabled("cpu"):
            kept.clear()
            kept[id(mean)] = (mean, (mean.bfloat16().to(mean.dtype) - mean).detach())
            return right(*pair)
        return right(pair[0], mean + kept[id(mean)][1], *pair[2:]) if id(mean) in kept else right(*pair)

    return wrong


def _wide_for_good(right: Any) -> Callable[..., Values]:
    """Needles are worth float64; who comes after them is answered in it too."""
    wide = []

    def wrong(*pair: Tensor) -> Values:
        if not plain(*pair):
            return right(*pair)
        if any(bool((x.amax(-1) > 1000 * x.amin(-1)).any()) for x in (pair[2], pair[5])):
            wide.append(True)
            answers = right(*(x.double() for x in pair))
            return answers[0].to(pair[1]), answers[1].to(pair[1])
        return right(*(x.double() for x in pair)) if wide else right(*pair)

    return wrong


FAULTS: tuple[Fault, ...] = (
    *overlap_slips(
        "gradients",
        [
            ("the gradient that comes in is doubled in place", "a gradient that somebody holds", _doubled_in_place),
            ("a gradient over 100 is clipped", "a scaled loss", _clipped),
            ("shared keys learn of the last block of rows alone", "over 128 rows share keys", _of_the_last_block),
        ],
    ),
    *overlap_slips("shapes", [("one NaN zeroes all pairs", "a pair without a number in the batch", _all_or_nothing)]),
    *overlap_slips(
        "memory",
        [("σ is kept for a tensor and its version", "written to by .data, under no_grad", _kept_on_the_tensor)],
    ),
    overlap_made("memory", "means cast under autocast are kept", "called under autocast before", _cast_and_kept),
    overlap_made("memory", "answers stay in float64", "after a pair with κ > 1000", _wide_for_good),
)
