"""Faults of a layer: of its scores, their scaling with P, what it shows of them, and of its presets."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from iga._typing import Tensor
from iga.attention import InvariantGaussianAttention
from iga.functional import Trace
from iga.presets import preset
from iga.testing.faults.fault import Fault, powers
from iga.testing.faults.overlap import bf16_difference, half_log_det, matrix_products, only_in, through_float32
from iga.testing.faults.patched import patched
from iga.testing.layer.subject import Subject

__all__ = ["FAULTS", "GAUSSIANS", "LOGITS", "OVERLAP", "SCORE", "layer_fault", "shown"]


def layer_fault(
    name: str,
    place: str,
    wrong: Callable[..., Any],
    *expected: str,
    kind: str = "layer",
    size: float = 1.0,
    sizes: tuple[float, ...] = (),
) -> Fault:
    """`wrong(right, size, *args)` takes the place of iga.`place` while the layer runs."""

    def plant(clean: Subject, size: float) -> Subject:
        return patched(clean, {place: lambda right, *args, **options: wrong(right, size, *args, **options)})

    return Fault(name, kind, plant, expected, size, sizes)


def shown(
    name: str,
    change: Callable[[Trace, float], Trace],
    *expected: str,
    kind: str = "layer",
    size: float = 1.0,
    sizes: tuple[float, ...] = (),
) -> Fault:
    """A fault in what the layer's trace, or its output, says."""

    def plant(clean: Subject, size: float) -> Subject:
        return patched(clean, {}, lambda trace: change(trace, size))

    return Fault(name, kind, plant, expected, size, sizes)


def _preset(name: str, *expected: str) -> Fault:
    return Fault(f"the preset {name}", "layer", lambda clean, size: replace(clean, config=preset(name)), expected)


# --- scores -----------------------------------------------------------------------------------------------------


def _transposed(right: Any, size: float, q_rot: Tensor, q_mean: Tensor, q_sigma: Tensor, *key: Tensor) -> Any:
    return right(q_rot.mT, q_mean, q_sigma, key[0].mT, *key[1:])


def _floor_in_the_mean(right: Any, size: float, r: Any, raw_offset: Tensor, raw_scale: Tensor, config: Any) -> Any:
    bare = right(r, raw_offset, raw_scale, replace(config, sigma_min=1e-6))
    return replace(right(r, raw_offset, raw_scale, config), sigma=bare.sigma)


def _floor_in_the_covariance(
    right: Any, size: float, r: Any, raw_offset: Tensor, raw_scale: Tensor, config: Any
) -> Any:
    bare = right(r, raw_offset, raw_scale, replace(config, sigma_min=1e-6))
    return replace(right(r, raw_offset, raw_scale, config), mean=bare.mean)


def _clamp_on_the_wrong_side(right: Any, size: float, dist_sq: Tensor, log_det: Tensor, **options: Any) -> Any:
    return right(dist_sq, log_det.clamp(max=-14.0), **options)


def _clamped_rarely(right: Any, size: float, dist_sq: Tensor, log_det: Tensor, **options: Any) -> Any:
    return right(dist_sq, log_det, **options).clamp(max=9.48 - size)


def _silent(right: Any, size: float, *args: Any) -> Any:
    raw, scaled = right(*args)
    return raw, scaled * 0


# --- the number of points ---------------------------------------------------------------------------------------


def _root_for_inverse_root(right: Any, size: float, score: Tensor, weight: Tensor, config: Any) -> Any:
    raw, scaled = right(score, weight, replace(config, point_scaling="sum"))
    return raw * score.shape[-3] ** 0.5, scaled


def _counted_with_heads(right: Any, size: float, score: Tensor, weight: Tensor, config: Any) -> Any:
    return right(score / score.shape[-4], weight, config)


def _equal_points_once(right: Any, size: float, score: Tensor, weight: Tensor, config: Any) -> Any:
    """Points that coincide with the one before are left out of the sum: of P equal points one is counted."""
    same = score == score.roll(1, dims=-3)
    same[..., 0, :, :] = False
    return right(torch.where(same.flatten(-2).all(-1)[..., None, None], 0.0, score), weight, config)


class _StartsWithRoot(InvariantGaussianAttention):
    """Right scores, right mean, and a weight on them that begins the larger the more points there are."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        weight = torch.nn.functional.softplus(self.geo_scale.detach()) * self.no_qk_points**0.5
        torch.nn.init.constant_(self.geo_scale, float(weight.expm1().log()[0]))


# --- what is shown ----------------------------------------------------------------------------------------------


def _one(x: Tensor, change: Tensor | float) -> Tensor:
    """x, [*, q, k], with `change` added at one pair: the last query and the first key of the last head and point.

    Written over the data, so that x stays where it is in the graph and nothing that was computed from it changes.
    """
    if x.numel():
        place = (*(-1,) * (x.ndim - 1), 0)
        x.data[place] += change.detach()[place] if isinstance(change, Tensor) else change
    return x


def _one_log_det(trace: Trace, size: float) -> Trace:
    return replace(trace, log_det=_one(trace.log_det, -18.96 - size - trace.log_det))


def _one_dist_sq(trace: Trace, size: float) -> Trace:
    delta = trace.query.mean[..., :, None, :] - trace.key.mean[..., None, :, :]
    bound = delta.square().sum(-1) / (2 * 0.03**2)
    return replace(trace, dist_sq=_one(trace.dist_sq, (1 + size) * bound - trace.dist_sq))


def _one_logit(trace: Trace, size: float) -> Trace:
    return replace(trace, geo_raw=_one(trace.geo_raw, size))


OVERLAP, GAUSSIANS = "functional.gaussian_overlap", "functional.point_gaussians"
SCORE, LOGITS = "functional.student_t_score", "functional.geometry_logits"
POINTS, DTYPES = "point scaling", "dtypes"

FAULTS: tuple[Fault, ...] = (
    _preset("pre_fix", "log_det_floor", "dist_sq_bound", "growth_with_points"),
    _preset("logdet_clamp", "log_det_floor", "growth_with_points"),
    _preset("sigma_floor", "log_det_floor", "growth_with_points"),
    _preset("soft_start", "log_det_floor", "growth_with_points"),
    layer_fault("rotations transposed", OVERLAP, _transposed, "accuracy", "se3_invariance"),
    layer_fault("part of the log-det", OVERLAP, half_log_det, "accuracy", size=0.5, sizes=powers(-1, -8)),
    layer_fault("the floor in the mean only", GAUSSIANS, _floor_in_the_mean, "log_det_floor"),
    layer_fault("the floor in the covariance only", GAUSSIANS, _floor_in_the_covariance, "accuracy"),
    layer_fault("log_det clamped on the wrong side", SCORE, _clamp_on_the_wrong_side, "accuracy"),
    layer_fault("scores clamped near their top (below it by)", SCORE, _clamped_rarely, "accuracy"),
    layer_fault("coordinates subtracted in bf16", OVERLAP, bf16_difference, "accuracy", kind=DTYPES),
    layer_fault(
        "wrong in float64 only, by a share",
        OVERLAP,
        only_in(torch.float64),
        "accuracy",
        kind=DTYPES,
        size=1e-9,
        sizes=powers(-1, -15),
    ),
    layer_fault("float64 through float32", OVERLAP, through_float32, "accuracy", kind=DTYPES),
    layer_fault("geometry by matrix products", OVERLAP, matrix_products, "reduced_precision", kind=DTYPES),
    layer_fault("a geometry logit times zero", LOGITS, _silent, "geometry_is_alive"),
    Fault(
        "a cap so low that geometry is a constant",
        "layer",
        lambda clean, size: replace(clean, config=replace(clean.config, logit_cap=size)),
        ("geometry_is_alive",),
        1e-3,
        (),
    ),
    layer_fault("√P for 1/√P", LOGITS, _root_for_inverse_root, "growth_with_points", "point_scaling_law", kind=POINTS),
    layer_fault("P counted with heads", LOGITS, _counted_with_heads, "accuracy", kind=POINTS),
    layer_fault("equal points counted once", LOGITS, _equal_points_once, "point_scaling_law", kind=POINTS),
    Fault(
        "a head weight that starts with √P",
        "point scaling",
        lambda clean, size: replace(clean, layer=_StartsWithRoot),
        ("growth_with_points",),
    ),
    Fault(
        "a floor too low by a share",
        "layer",
        lambda clean, size: replace(clean, config=replace(clean.config, sigma_min=clean.config.sigma_min * (1 - size))),
        ("log_det_floor",),
        1e-6,
        powers(-1, -7),
    ),
    shown("one log_det under the floor by", _one_log_det, "log_det_floor", size=1.0, sizes=powers(1, -6)),
    shown("one dist_sq over its bound by a share", _one_dist_sq, "dist_sq_bound", size=0.1, sizes=powers(1, -4)),
    shown(
        "one geometry logit of a size",
        _one_logit,
        "geometry_logit_bound",
        size=1e3,
        sizes=(1e4, 1e3, 300.0, 100.0, 50.0),
    ),
)
