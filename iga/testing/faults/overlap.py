"""Faults of an overlap function, planted around a right one: in its values, gradients, dtypes, batches and memory."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from iga._typing import Tensor
from iga.testing.faults.fault import Fault, powers
from iga.testing.judges.overlap import condition
from iga.testing.overlap.subject import OverlapSubject

__all__ = ["FAULTS", "bf16_difference", "half_log_det", "matrix_products", "only_in", "fault", "through_float32"]

Values = tuple[Tensor, Tensor]
# wrong(clean function, size, the six arguments) -> (dist_sq, log_det)
Wrong = Callable[..., Values]


def fault(
    name: str, wrong: Wrong, *expected: str, kind: str = "overlap", size: float = 1.0, sizes: tuple[float, ...] = ()
) -> Fault:
    """`wrong(right, size, *pair)` takes the function's place; `right` is the function."""

    def plant(clean: OverlapSubject, size: float) -> OverlapSubject:
        return replace(clean, function=lambda *pair: wrong(clean.function, size, *pair))

    return Fault(name, kind, plant, expected, size, sizes)


# --- values -----------------------------------------------------------------------------------------------------


def _scaled(f: Any, size: float, *pair: Tensor) -> Values:
    dist_sq, log_det = f(*pair)
    return dist_sq * (1 + size), log_det


def half_log_det(f: Any, size: float, *pair: Tensor) -> Values:
    dist_sq, log_det = f(*pair)
    return dist_sq, log_det * (1 - size)


def _swapped_axes(f: Any, size: float, q_rot: Tensor, q_mean: Tensor, q_sigma: Tensor, *key: Tensor) -> Values:
    return f(q_rot, q_mean, q_sigma[..., [1, 0, 2]], *key)


def _transposed(f: Any, size: float, q_rot: Tensor, q_mean: Tensor, q_sigma: Tensor, *key: Tensor) -> Values:
    return f(q_rot.mT, q_mean, q_sigma, *key)


def _mirrored(f: Any, size: float, q_rot: Tensor, q_mean: Tensor, q_sigma: Tensor, *key: Tensor) -> Values:
    """A left-handed frame: x and y of the third axis exchanged in sign, as a cross product the wrong way round does."""
    flip = q_rot.new_tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, -1.0]])
    return f(q_rot * flip, q_mean, q_sigma, *key)


def _jitter(f: Any, size: float, q_rot: Tensor, q_mean: Tensor, q_sigma: Tensor, *key: Tensor) -> Values:
    """`size` nm² on the diagonal of each covariance."""
    return f(q_rot, q_mean, (q_sigma.square() + size).sqrt(), key[0], key[1], (key[2].square() + size).sqrt())


def _clamped_log_det(f: Any, size: float, *pair: Tensor) -> Values:
    """A clamp `size` above the lowest value that spheres at the floor have: few pairs reach it."""
    dist_sq, log_det = f(*pair)
    return dist_sq, log_det.clamp(min=-18.96 + size)


def _clamped_dist_sq(f: Any, size: float, *pair: Tensor) -> Values:
    dist_sq, log_det = f(*pair)
    return dist_sq.clamp(max=1e6 / size), log_det


def _one_in_a_thousand(f: Any, size: float, *pair: Tensor) -> Values:
    dist_sq, log_det = f(*pair)
    rare = torch.arange(dist_sq.numel()).view(dist_sq.shape) % 1000 == 999
    return dist_sq + torch.where(rare, size * dist_sq, 0.0).detach(), log_det


def _added(f: Any, size: float, *pair: Tensor) -> Values:
    dist_sq, log_det = f(*pair)
    return dist_sq + size, log_det


def _apart(f: Any, size: float, *pair: Tensor) -> Values:
    """Equal means are kept `size` apart, as a guard against a root of 0 does."""
    dist_sq, log_det = f(*pair)
    return dist_sq + size * (pair[1] == pair[4]).all(-1), log_det


def _aligned_are_equal(f: Any, size: float, q_rot: Tensor, q_mean: Tensor, q_sigma: Tensor, *key: Tensor) -> Values:
    """A short cut for boxes: frames that are permutations of the axes are taken to be one frame."""
    k_rot, k_mean, k_sigma = key
    q, k = torch.broadcast_tensors(q_rot, k_rot)
    boxes = ((q == q.round()) & (k == k.round())).flatten(-2).all(-1)
    right = f(q_rot, q_mean, q_sigma, *key)
    short = f(q_rot, q_mean, q_sigma, q_rot, k_mean, k_sigma)
    return torch.where(boxes, short[0], right[0]), torch.where(boxes, short[1], right[1])


def bf16_difference(f: Any, size: float, q_rot: Tensor, q_mean: Tensor, q_sigma: Tensor, *key: Tensor) -> Values:
    delta = (q_mean - key[1]).bfloat16().to(q_mean.dtype)
    return f(q_rot, delta, q_sigma, key[0], torch.zeros_like(key[1]), key[2])


# --- gradients --------------------------------------------------------------------------------------------------


def _with_gradient(value: Tensor, factor: Tensor | float) -> Tensor:
    """The value as it is, its gradient multiplied by the factor."""
    moving = value * factor
    return value.detach() + (moving - moving.detach())


def _gradient_too_small(f: Any, size: float, *pair: Tensor) -> Values:
    dist_sq, log_det = f(*pair)
    return _with_gradient(dist_sq, 1 - size), log_det


def _gradient_too_small_in_float32(f: Any, size: float, *pair: Tensor) -> Values:
    dist_sq, log_det = f(*pair)
    return _with_gradient(dist_sq, 1 - (size if dist_sq.dtype == torch.float32 else 0.0)), log_det


def _detached(f: Any, size: float, q_rot: Tensor, q_mean: Tensor, q_sigma: Tensor, *key: Tensor) -> Values:
    return f(q_rot, q_mean, q_sigma.detach(), *key)


def _square_of_a_root(f: Any, size: float, *pair: Tensor) -> Values:
    dist_sq, log_det = f(*pair)
    distance = dist_sq.sqrt()  # its slope at 0 is infinite, and 0 times it is not a number
    return distance * distance, log_det


def _root_of_itself(f: Any, size: float, *pair: Tensor) -> Values:
    """The same for a Gaussian and itself alone."""
    dist_sq, log_det = f(*pair)
    pairs = ((pair[k] == pair[k + 3]).flatten(-2 if k == 0 else -1).all(-1) for k in range(3))
    same = torch.stack(torch.broadcast_tensors(*pairs)).all(0)
    distance = torch.where(same, dist_sq, 1.0).sqrt()
    return torch.where(same, distance * distance, dist_sq), log_det


def _exploding(f: Any, size: float, *pair: Tensor) -> Values:
    """In float32, beyond κ = 1000, the gradient is `size` times too large: where its own rounding hides its value."""
    dist_sq, log_det = f(*pair)
    single = torch.tensor(dist_sq.dtype == torch.float32)
    factor = torch.where(single & (condition(pair[2], pair[5]) > 1000), size, 1.0).to(dist_sq.dtype)
    return _with_gradient(dist_sq, factor), log_det


def _wrong_curvature(f: Any, size: float, *pair: Tensor) -> Values:
    """Right value, right gradient, and a second derivative that is off: by `size` times the gradient's square."""
    dist_sq, log_det = f(*pair)
    return dist_sq + size * (dist_sq - dist_sq.detach()).square(), log_det


# --- dtypes -----------------------------------------------------------------------------------------------------


def only_in(dtype: torch.dtype) -> Wrong:
    def wrong(f: Any, size: float, *pair: Tensor) -> Values:
        dist_sq, log_det = f(*pair)
        return dist_sq * (1 + size if dist_sq.dtype == dtype else 1.0), log_det

    return wrong


def through_float32(f: Any, size: float, *pair: Tensor) -> Values:
    dist_sq, log_det = f(*(x.float() for x in pair))
    return dist_sq.to(pair[0].dtype), log_det.to(pair[0].dtype)


def matrix_products(f: Any, size: float, q_rot: Tensor, q_mean: Tensor, q_sigma: Tensor, *key: Tensor) -> Values:
    """Everything in the query's frame by matrix products: TF32 and autocast reach them."""
    k_rot, k_mean, k_sigma = key
    delta = (q_rot.mT @ (q_mean - k_mean)[..., None])[..., 0]
    turn = (q_rot.mT @ k_rot).to(q_rot.dtype)
    still = torch.eye(3, dtype=q_rot.dtype).expand(q_rot.shape)
    return f(still, delta.to(q_mean.dtype), q_sigma, turn, torch.zeros_like(k_mean), k_sigma)


# --- batches, memory, control flow ------------------------------------------------------------------------------


def _batch_leak(f: Any, size: float, *pair: Tensor) -> Values:
    dist_sq, log_det = f(*pair)
    return dist_sq, log_det + size * log_det.mean()


def _broadcast_takes_another_path(f: Any, size: float, *pair: Tensor) -> Values:
    dist_sq, log_det = f(*pair)
    return (dist_sq * (1 + size) if pair[1].shape != pair[4].shape else dist_sq), log_det


def _alternating(clean: OverlapSubject, size: float) -> OverlapSubject:
    """Every second call is `size` ulp larger, as an unordered sum of atomics may be."""
    calls = itertools.count()

    def noisy(*pair: Tensor) -> Values:
        dist_sq, log_det = clean.function(*pair)
        odd = 0 if torch.compiler.is_compiling() else next(calls) % 2
        return dist_sq * (1 + odd * size * torch.finfo(dist_sq.dtype).eps), log_det

    return replace(clean, function=noisy)


def _data_dependent(f: Any, size: float, *pair: Tensor) -> Values:
    dist_sq, log_det = f(*pair)
    if bool((dist_sq > 1e30).any()):  # a Python branch on a tensor's value
        dist_sq = dist_sq.clamp(max=1e30)
    return dist_sq, log_det


def _stale(clean: OverlapSubject, size: float) -> OverlapSubject:
    remembered: dict[Any, Values] = {}

    def cached(*pair: Tensor) -> Values:
        key = (tuple(x.shape for x in pair), pair[0].dtype, torch.is_grad_enabled())
        if key not in remembered:
            remembered[key] = clean.function(*pair)
        return remembered[key]

    return replace(clean, function=cached)


SINGLE, DOUBLE = only_in(torch.float32), only_in(torch.float64)
GRADIENTS, DTYPES, FLOW = "gradients", "dtypes", "control flow"
STEEP = (1000.0, 100.0, 30.0, 10.0, 3.0, 2.0, 1.5, 1.1)

FAULTS: tuple[Fault, ...] = (
    fault("dist_sq off by a share", _scaled, "accuracy", size=1e-3, sizes=powers(-1, -16)),
    fault("half the log-det", half_log_det, "accuracy", size=0.5, sizes=(0.5, *powers(-1, -16))),
    fault("two axes of the query swapped", _swapped_axes, "accuracy"),
    fault("the query's rotation transposed", _transposed, "accuracy"),
    fault("a left-handed frame", _mirrored, "accuracy"),
    fault("a jitter on the covariance (nm²)", _jitter, "accuracy", size=1e-4, sizes=powers(-2, -18)),
    fault("log_det clamped near its floor (above it by)", _clamped_log_det, "accuracy", size=0.1, sizes=powers(0, -3)),
    fault("dist_sq clamped at 10⁶ over a size", _clamped_dist_sq, "accuracy", size=1.0, sizes=(10.0, 1.0, 0.1, 0.01)),
    fault("one pair in a thousand off by a share", _one_in_a_thousand, "accuracy", size=1e-3, sizes=powers(-1, -14)),
    fault("coordinates subtracted in bf16", bf16_difference, "accuracy", kind=DTYPES),
    fault("wrong in float32 only", SINGLE, "accuracy", kind=DTYPES, size=1e-3, sizes=powers(-1, -7)),
    fault("wrong in float64 only", DOUBLE, "accuracy", kind=DTYPES, size=1e-3, sizes=powers(-1, -16)),
    fault("float64 through float32", through_float32, "accuracy", kind=DTYPES),
    fault("a constant added to dist_sq", _added, "coincident_means", size=1e-30, sizes=powers(-20, -37)),
    fault("equal means kept apart", _apart, "coincident_means", size=1e-8, sizes=powers(-2, -37)),
    fault("axis-aligned frames taken as equal", _aligned_are_equal, "score_laws"),
    fault(
        "dist_sq's gradient too small by a share",
        _gradient_too_small,
        "gradient_values",
        kind=GRADIENTS,
        size=1e-2,
        sizes=powers(-1, -14),
    ),
    fault(
        "the same in float32 only",
        _gradient_too_small_in_float32,
        "gradient_values",
        kind=GRADIENTS,
        size=1e-2,
        sizes=powers(-1, -6),
    ),
    fault("log sigma detached", _detached, "gradient_values", kind=GRADIENTS),
    fault("the square of a square root", _square_of_a_root, "gradient_finiteness", kind=GRADIENTS),
    fault("the square of the root of a Gaussian and itself", _root_of_itself, "gradient_finiteness", kind=GRADIENTS),
    fault(
        "a gradient too large beyond κ = 1000, in float32",
        _exploding,
        "gradient_values",
        kind=GRADIENTS,
        size=100.0,
        sizes=STEEP,
    ),
    fault(
        "a second derivative off by a share of the gradient's square",
        _wrong_curvature,
        "second_derivatives",
        kind=GRADIENTS,
        size=1e-2,
        sizes=powers(0, -6),
    ),
    fault("geometry by matrix products", matrix_products, "reduced_precision", kind=DTYPES),
    fault("a mean over the batch leaks in", _batch_leak, "calls_agree", "accuracy", kind=FLOW, size=1e-3),
    fault(
        "pairs made by broadcasting are off by a share",
        _broadcast_takes_another_path,
        "calls_agree",
        kind=FLOW,
        size=1e-3,
        sizes=(1e-1, 1e-3, 1e-6, 1e-12),
    ),
    Fault("every second call an ulp larger", "control flow", _alternating, ("determinism",)),
    Fault("answers remembered by shape", "control flow", _stale, ("determinism",)),
    fault("a Python branch on a value", _data_dependent, "calls_agree", kind=FLOW),
)
