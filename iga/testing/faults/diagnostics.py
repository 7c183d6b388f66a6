"""Faults of the diagnostics, planted in a DiagnosticsLibrary by replacing one of its functions."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from iga._typing import Tensor
from iga.functional import Trace
from iga.testing.faults.fault import Fault
from iga.testing.library.diagnostics import DiagnosticsLibrary

__all__ = ["FAULTS"]

SATURATED = 0.9


def _fault(
    name: str, field: str, wrong: Callable[..., Any], *, size: float = 1.0, sizes: tuple[float, ...] = ()
) -> Fault:
    """`wrong(clean, size, *args)` takes the place of `field`; `clean` is the library without the fault."""

    def plant(clean: DiagnosticsLibrary, size: float) -> DiagnosticsLibrary:
        return replace(clean, **{field: lambda *args, **options: wrong(clean, size, *args, **options)})

    return Fault(name, "diagnostics", plant, ("diagnostics_agree",), size, sizes)


def _unmasked(trace: Trace) -> Trace:
    return replace(trace, mask=torch.ones_like(trace.mask))


def _share(largest: Tensor, above: Tensor) -> Tensor:
    return above.to(largest.dtype).mean() if largest.numel() else largest.new_zeros(())


def _entropy_where(trace: Trace, log: Callable[[Tensor], Tensor]) -> Tensor:
    """−Σ w log(w), the rows in the clean function's order."""
    w = trace.weights
    rows = -(w * log(w)).sum(dim=-1)
    return rows.masked_select(trace.mask[..., None, :].expand(rows.shape))


def _clamped_lowest(clean: DiagnosticsLibrary, size: float, trace: Trace) -> Tensor:
    """After a clamp at −size ln nm⁶, as the score has one: the collapse that it should show is gone."""
    return clean.log_det_min(trace).clamp(min=-size)


def _mean_log_det(clean: DiagnosticsLibrary, size: float, trace: Trace) -> Tensor:
    pairs = trace.pair_mask[..., None, None, :, :].expand(trace.log_det.shape)
    values = trace.log_det[pairs]
    return values.mean() if values.numel() else values.new_tensor(torch.inf)


def _spread(trace: Trace, *, fewer: int, zeros: bool) -> Tensor:
    """The spread over the count less `fewer`, with masked keys as zeros if `zeros`."""
    there = trace.mask[..., None, None, :]
    logits = torch.where(there, trace.geo_scaled, 0.0)
    valid = torch.ones_like(logits) if zeros else there.expand(logits.shape).to(logits.dtype)
    count = valid.sum(dim=-1, keepdim=True).clamp(min=1)
    centred = (logits - logits.sum(dim=-1, keepdim=True) / count) * valid
    rows = (centred.square().sum(dim=-1) / (count[..., 0] - fewer).clamp(min=1)).sqrt()
    return rows.masked_select(trace.mask[..., None, :].expand(rows.shape))


def _layers_averaged(clean: DiagnosticsLibrary, size: float, traces: list[Trace], prefix: str = "") -> dict[str, float]:
    shares = torch.stack([clean.saturated_share(trace).double() for trace in traces])
    return clean.global_metrics(traces, prefix) | {prefix + "wmax_sat_frac": float(shares.mean())}


def _last_layer(clean: DiagnosticsLibrary, size: float, traces: list[Trace], prefix: str = "") -> dict[str, float]:
    return clean.global_metrics(traces, prefix) | clean.global_metrics(traces[-1:], prefix)


def _mean_over_everything(clean: DiagnosticsLibrary, size: float, trace: Trace, prefix: str = "") -> dict[str, float]:
    """A mean over everything that is a number, masked or not."""
    mean = trace.dist_sq.nanmean() if trace.mask.any() else trace.dist_sq.new_zeros(())
    return clean.layer_metrics(trace, prefix) | {prefix + "dist_sq_mean": float(mean)}


FAULTS: tuple[Fault, ...] = (
    _fault(
        "saturation counted over masked rows",
        "saturated_share",
        lambda clean, size, trace, threshold=SATURATED: clean.saturated_share(_unmasked(trace), threshold),
    ),
    _fault(
        "a row at the threshold counts as saturated",
        "saturated_share",
        lambda clean, size, trace, threshold=SATURATED: _share(
            largest := clean.largest_weights(trace), largest >= threshold
        ),
    ),
    _fault(
        "saturation on the wrong side of the threshold",
        "saturated_share",
        lambda clean, size, trace, threshold=SATURATED: _share(
            largest := clean.largest_weights(trace), largest < threshold
        ),
    ),
    _fault(
        "largest weight with the masked rows",
        "largest_weights",
        lambda clean, size, trace: clean.largest_weights(_unmasked(trace)),
    ),
    _fault("entropy in bits", "row_entropy", lambda clean, size, trace: clean.row_entropy(trace) / math.log(2)),
    _fault(
        "entropy off by a factor",
        "row_entropy",
        lambda clean, size, trace: clean.row_entropy(trace) * (1 + size),
        size=1e-3,
        sizes=tuple(10.0**-k for k in range(17)),
    ),
    _fault(
        "entropy is NaN where a weight is 0", "row_entropy", lambda clean, size, trace: _entropy_where(trace, torch.log)
    ),
    _fault(
        "entropy with an ε in the logarithm",
        "row_entropy",
        lambda clean, size, trace: _entropy_where(trace, lambda w: (w + size).log()),
        size=1e-6,
        sizes=tuple(10.0**-k for k in range(1, 17)),
    ),
    _fault(
        "largest geometry logit with its sign",
        "geo_scaled_absmax",
        lambda clean, size, trace: clean.geo_scaled_absmax(
            replace(trace, geo_scaled=torch.where(trace.geo_scaled > 0, trace.geo_scaled, 0.0))
        ),
    ),
    _fault(
        "largest geometry logit over masked pairs too",
        "geo_scaled_absmax",
        lambda clean, size, trace: trace.geo_scaled.nan_to_num(0.0).abs().amax(),
    ),
    _fault("mean log_det for the lowest", "log_det_min", _mean_log_det),
    _fault("lowest log_det after the clamp", "log_det_min", _clamped_lowest, size=8.0),
    _fault("spread over N − 1", "row_spread", lambda clean, size, trace: _spread(trace, fewer=1, zeros=False)),
    _fault(
        "masked keys count as zeros in the spread",
        "row_spread",
        lambda clean, size, trace: _spread(trace, fewer=0, zeros=True),
    ),
    _fault("shares averaged over layers, not over their rows", "global_metrics", _layers_averaged),
    _fault("the last layer for all layers", "global_metrics", _last_layer),
    _fault("mean of dist_sq over masked pairs too", "layer_metrics", _mean_over_everything),
)
