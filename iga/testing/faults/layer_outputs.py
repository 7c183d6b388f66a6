"""Faults around the scores of a layer: masks, weights, outputs, gradients, batches, memory, control flow."""

import itertools
import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from iga._typing import Tensor
from iga.attention import InvariantGaussianAttention
from iga.functional import Trace
from iga.testing.faults.accused import layer_slip
from iga.testing.faults.fault import Fault, powers
from iga.testing.faults.layer_scores import GAUSSIANS, LOGITS, OVERLAP, SCORE, layer_fault, shown

__all__ = ["FAULTS"]


def _factory(name: str, layer: type[nn.Module], *expected: str) -> Fault:
    return Fault(name, "control flow", lambda clean, size: replace(clean, layer=layer), expected)


# --- masks and weights ------------------------------------------------------------------------------------------


def _additive(right: Any, size: float, logits: Tensor, key_mask: Tensor) -> Tensor:
    weights = (logits + torch.where(key_mask, 0.0, math.log(size))).softmax(dim=-1)
    return torch.where(key_mask.any(-1, keepdim=True), weights, 0.0)


def _unmasked(right: Any, size: float, logits: Tensor, key_mask: Tensor) -> Tensor:
    return logits.softmax(dim=-1)


def _not_replaced(right: Any, size: float, x: Tensor, mask: Tensor) -> Tensor:
    return x


def _over_queries(right: Any, size: float, logits: Tensor, key_mask: Tensor) -> Tensor:
    return torch.where(key_mask, logits.softmax(dim=-2), 0.0)


# --- geometry of the output, order, batch -----------------------------------------------------------------------


def _points_left_global(right: Any, size: float, weights: Tensor, frame: Any, points: Tensor) -> Tensor:
    out = right(weights, frame, points)
    turned = (frame.rot[..., None, :, None, :, :] * out[..., None, :]).sum(-1)
    return turned.to(out.dtype)


def _first_key(right: Any, size: float, q: Tensor, k: Tensor, *rest: Any, **options: Any) -> Any:
    """The first residue's key is larger by a share, whoever the first residue is."""
    first = torch.ones(k.shape[-2], 1, dtype=k.dtype)
    first[:1] = 1 + size
    return right(q, k * first, *rest, **options)


def _first_valid(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """What is masked or appended changes nothing of who is the first; another order does."""
    valid = mask.bool()
    first = valid & (valid.cumsum(-1) == 1)
    return call(s, z, r, mask) * torch.where(first, 1.1, 1.0)[..., None].to(s.dtype)


def _batch_mean(right: Any, size: float, q: Tensor, *rest: Any, **options: Any) -> Any:
    # with one sample the mean over the others is nothing
    others = q.mean(dim=0, keepdim=True) if len(q) > 1 else torch.zeros_like(q)
    return right(q + size * others, *rest, **options)


# --- gradients --------------------------------------------------------------------------------------------------


def _detached(right: Any, size: float, r: Any, raw_offset: Tensor, raw_scale: Tensor, config: Any) -> Any:
    return right(r, raw_offset, raw_scale.detach(), config)


def _gradient_off(right: Any, size: float, *args: Any) -> Any:
    raw, scaled = right(*args)
    moving = scaled * (1 + size)
    return raw, scaled.detach() + (moving - moving.detach())


def _root_of_collapsed(right: Any, size: float, r: Any, raw_offset: Tensor, raw_scale: Tensor, config: Any) -> Any:
    """A root of σ⁴ enters with weight 0: of collapsed scales σ⁴ underflows, and the root's slope is not a number."""
    gaussians = right(r, raw_offset, raw_scale, config)
    root = r.log_scale.exp().pow(4).sqrt()
    return replace(gaussians, mean=gaussians.mean + 0 * root.sum())


def _collapsed_slope(value: Tensor, size: float, pair: tuple[Tensor, ...]) -> Tensor:
    """`value`, its gradient too large where σ is under 0.031 nm on every axis of both, which no natural residue is."""
    collapsed = (pair[2].amax(-1) < 0.031) & (pair[5].amax(-1) < 0.031)
    moving = value * torch.where(collapsed, size, 1.0).to(value.dtype)
    return value.detach() + (moving - moving.detach())


def _exploding(right: Any, size: float, *pair: Tensor) -> Any:
    dist_sq, log_det = right(*pair)
    return _collapsed_slope(dist_sq, size, pair), log_det


def _exploding_log_det(right: Any, size: float, *pair: Tensor) -> Any:
    dist_sq, log_det = right(*pair)
    return dist_sq, _collapsed_slope(log_det, size, pair)


def _steep_at_the_floor(right: Any, size: float, dist_sq: Tensor, log_det: Tensor, **options: Any) -> Any:
    """Where both Gaussians lie at the floor, which no natural residue does, the score's gradient is too large."""
    score = right(dist_sq, log_det, **options)
    moving = score * torch.where(log_det < -18.9, size, 1.0).to(score.dtype)
    return score.detach() + (moving - moving.detach())


def _curved(right: Any, size: float, *args: Any) -> Any:
    raw, scaled = right(*args)
    return raw, scaled + size * (scaled - scaled.detach()).square()


# --- what comes out ---------------------------------------------------------------------------------------------


def _constant(trace: Trace, size: float) -> Trace:
    assert trace.output is not None
    return replace(trace, output=trace.output * 0)


def _dishonest(trace: Trace, size: float) -> Trace:
    return replace(trace, weights=trace.weights * (1 + size))


def _by_spread(right: Any, size: float, *args: Any) -> Any:
    """A standard deviation over the keys is looked at; of one key there is none."""
    raw, scaled = right(*args)
    x = scaled.detach()
    variance = (x - x.mean(dim=-1, keepdim=True)).square().sum(dim=-1, keepdim=True) / (x.shape[-1] - 1)
    return raw, scaled + 0 * variance.sqrt()


# --- memory and control flow ------------------------------------------------------------------------------------


class _Dense(InvariantGaussianAttention):
    """A layer whose output is that of its trace, so that what is wrong with the one is wrong with the other."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, implementation="reference", **options)


class _Alternating(_Dense):
    """Every second call is an ulp larger."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.calls = itertools.count()

    def trace(self, *args: Any, **options: Any) -> Trace:
        trace = super().trace(*args, **options)
        assert trace.output is not None
        odd = 0 if torch.compiler.is_compiling() else next(self.calls) % 2
        return replace(trace, output=trace.output * (1 + odd * torch.finfo(trace.output.dtype).eps))


class _Forgetful(_Dense):
    """A random direction that is part of the layer and not of its state."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register_buffer("direction", torch.randn(self.c_s), persistent=False)

    def trace(self, *args: Any, **options: Any) -> Trace:
        trace = super().trace(*args, **options)
        assert trace.output is not None
        direction: Tensor = self.get_buffer("direction")
        return replace(trace, output=trace.output * (1 + 0.1 * direction.tanh()))


class _Branching(_Dense):
    """A Python branch on a tensor's value."""

    def trace(self, *args: Any, **options: Any) -> Trace:
        trace = super().trace(*args, **options)
        assert trace.output is not None
        return trace if bool((trace.output < 1e30).all()) else replace(trace, output=trace.output.clamp(max=1e30))


class _Remembering(_Dense):
    """The weights of the first call of a shape serve all later ones."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.remembered: dict[Any, Trace] = {}

    def trace(self, *args: Any, **options: Any) -> Trace:
        if torch.is_grad_enabled():
            return super().trace(*args, **options)
        key = (args[0].shape, args[0].dtype)
        if key not in self.remembered:
            self.remembered[key] = super().trace(*args, **options)
        return self.remembered[key]


ATTENTION = "attention.gaussian_attention"
SOFTMAX, POINTS_OUT = "functional.masked_softmax", "functional.value_points_out"
MASKS, GRADIENTS = "masks", "gradients"

FAULTS: tuple[Fault, ...] = (
    layer_fault(
        "a finite mask that leaves a masked key a share of its weight",
        SOFTMAX,
        _additive,
        "mask_inertness",
        kind=MASKS,
        size=1e-9,
        sizes=powers(-3, -16),
    ),
    layer_fault("no mask", SOFTMAX, _unmasked, "mask_inertness", kind=MASKS),
    layer_fault("NaN behind the mask comes through", "attention.sanitise", _not_replaced, "mask_inertness", kind=MASKS),
    layer_fault("softmax over queries", SOFTMAX, _over_queries, "attention_weights", kind=MASKS),
    shown("weights that do not sum to one, by", _dishonest, "attention_weights", size=1e-3, sizes=powers(-1, -7)),
    layer_fault("value points left in the global frame", POINTS_OUT, _points_left_global, "se3_invariance"),
    layer_fault(
        "a first key that is larger by a share", ATTENTION, _first_key, "permutations", size=0.1, sizes=powers(0, -7)
    ),
    layer_slip("layer", "the first valid residue's update is a tenth larger", "", _first_valid, "permutations"),
    layer_fault(
        "a mean over the batch leaks in",
        ATTENTION,
        _batch_mean,
        "calls_agree",
        kind="calls",
        size=1e-2,
        sizes=powers(-1, -7),
    ),
    layer_fault("log scales detached", GAUSSIANS, _detached, "gradient_values", kind=GRADIENTS),
    layer_fault(
        "a gradient wrong by a share",
        LOGITS,
        _gradient_off,
        "gradient_values",
        kind=GRADIENTS,
        size=1e-2,
        sizes=powers(-1, -9),
    ),
    layer_fault(
        "a root of scales that have collapsed", GAUSSIANS, _root_of_collapsed, "gradient_finiteness", kind=GRADIENTS
    ),
    layer_fault(
        "gradients of collapsed scales too large",
        OVERLAP,
        _exploding,
        "gradient_bounds",
        kind=GRADIENTS,
        size=100.0,
        sizes=(1000.0, 100.0, 10.0, 3.0, 1.5, 1.1),
    ),
    layer_fault(
        "a gradient of log_det too large by a share where scales collapsed",
        OVERLAP,
        _exploding_log_det,
        "gradient_bounds",
        kind=GRADIENTS,
        size=1.05,
        sizes=(2.0, 1.5, 1.05, 1.01, 1.001),
    ),
    layer_fault(
        "a score too steep at the floor",
        SCORE,
        _steep_at_the_floor,
        "score_slopes",
        kind=GRADIENTS,
        size=1.5,
        sizes=(10.0, 3.0, 1.5, 1.1, 1.01, 1.001),
    ),
    layer_fault(
        "a second derivative off", LOGITS, _curved, "second_derivatives", kind=GRADIENTS, size=1e-1, sizes=powers(0, -4)
    ),
    shown("a constant output", _constant, "se3_invariance"),
    layer_fault("a standard deviation over the keys", LOGITS, _by_spread, "small_sizes"),
    _factory("every second call an ulp larger", _Alternating, "determinism"),
    _factory("answers remembered by shape", _Remembering, "determinism"),
    _factory("a random direction that is not saved", _Forgetful, "calls_agree"),
    _factory("a Python branch on a value", _Branching, "calls_agree"),
)
