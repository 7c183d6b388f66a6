"""Numbers to log while training, as pure functions of a Trace, and a monitor that collects them from a model.

Names are those that IGA runs already log: `debug/iga/global/geo_scaled_absmax`, `…/wmax_sat_frac`, `…/log_det_min`, and
`debug/iga/l{n}/…` for layer n. Statistics are over valid pairs (query and key unmasked) or valid query rows; a value
that is not finite shows as it is. dist_sq and log_det are raw: before any clamp.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import is_fake

from iga._arguments import check_mask, check_whole
from iga._typing import Bool, Tensor
from iga.attention import InvariantGaussianAttention
from iga.functional import Trace
from iga.kernels import Statistics
from iga.rotation import check_geometry

__all__ = [
    "DRIFT_WARNED",
    "SATURATION",
    "Monitor",
    "frame_drift",
    "geo_scaled_absmax",
    "global_metrics",
    "largest_weights",
    "layer_metrics",
    "log_det_min",
    "row_entropy",
    "row_spread",
    "saturated_share",
    "statistics_metrics",
]

# A row counts as saturated when one key holds more than this share of it.
SATURATION = 0.9
# Units of u of drift from which a monitor warns: at κ = 5000 a digit of dist_sq is still proven in float32.
DRIFT_WARNED = 16.0


def geo_scaled_absmax(trace: Trace) -> Tensor:
    """Largest |geometry logit| (weighted, gated, capped) over valid pairs, a scalar; 0 if there is none."""
    return _or_zero(_over_pairs(trace, trace.geo_scaled).abs()).amax()


def log_det_min(trace: Trace) -> Tensor:
    """Lowest raw log_det over valid pairs and points, a scalar (ln nm⁶); +inf if there is none."""
    values = _over_pairs(trace, trace.log_det)
    return values.amin() if values.numel() else values.new_tensor(torch.inf)


def largest_weights(trace: Trace) -> Tensor:
    """w_max of every valid query row and head, flat."""
    return _over_rows(trace, trace.weights.amax(dim=-1))


def saturated_share(trace: Trace, threshold: float = SATURATION) -> Tensor:
    """Share of valid query rows whose largest weight exceeds `threshold`, a scalar in [0, 1]; 0 if there is none."""
    return _or_zero((largest_weights(trace) > threshold).to(trace.weights.dtype)).mean()


def row_entropy(trace: Trace) -> Tensor:
    """−Σ_j w_j ln w_j of every valid query row and head, flat, in nats: ln N for a uniform row, 0 for a one-hot one."""
    weights = trace.weights
    return _over_rows(trace, torch.special.entr(weights).sum(dim=-1))


def row_spread(trace: Trace) -> Tensor:
    """Standard deviation of each valid row's geometry logits over its valid keys, flat: what softmax sees of them."""
    valid = trace.mask[..., None, None, :].to(trace.geo_scaled.dtype)
    logits = torch.where(trace.mask[..., None, None, :], trace.geo_scaled, torch.zeros_like(trace.geo_scaled))
    count = valid.sum(dim=-1, keepdim=True).clamp(min=1)
    centred = (logits - logits.sum(dim=-1, keepdim=True) / count) * valid
    return _over_rows(trace, (centred.square().sum(dim=-1) / count[..., 0]).sqrt())


def frame_drift(trace: Trace) -> Tensor:
    """Largest distance of a valid residue's matrix from a rotation, ½‖RᵀR − I‖_F, in units of its dtype's roundoff u;
    a scalar, 0 if there is none. Budgets of rounding grow with it (docs/theory.md, 6.7)."""
    rot = trace.rigid.rot.detach()
    wide = rot.double()
    gram = (wide[..., :, :, None] * wide[..., :, None, :]).sum(-3)
    excess = gram - torch.eye(3, dtype=wide.dtype, device=wide.device)
    off = 0.5 * excess.square().sum((-2, -1)).sqrt()
    return _or_zero(off.masked_select(trace.mask.expand(off.shape))).amax() / (torch.finfo(rot.dtype).eps / 2)


def layer_metrics(trace: Trace, prefix: str = "") -> dict[str, float]:
    """Statistics of one layer's trace, as a flat dict: {scalar, geo_raw, geo_scaled, dist_sq, log_det}_{mean, std, min,
    max}, wmax_mean, row_entropy_mean, row_entropy_min, geo_a (the weight, mean over heads and samples) and geo_b."""
    rows: dict[str, Tensor] = {}
    for name in ("scalar", "geo_raw", "geo_scaled", "dist_sq", "log_det"):
        rows |= spread(name, _over_pairs(trace, getattr(trace, name)))
    rows |= row_spreads(largest_weights(trace), row_entropy(trace))
    rows |= {"geo_a": trace.geo_weight.mean(), "geo_b": trace.geo_bias.mean()}
    return to_floats({prefix + name: value for name, value in rows.items()})


def spread(name: str, values: Tensor) -> dict[str, Tensor]:
    """`name`_{mean, std, min, max} of these values, scalars; zeros where there is none."""
    values = _or_zero(values)
    return {
        f"{name}_mean": values.mean(),
        f"{name}_std": values.std(correction=0),
        f"{name}_min": values.amin(),
        f"{name}_max": values.amax(),
    }


def row_spreads(largest: Tensor, entropy: Tensor) -> dict[str, Tensor]:
    """wmax_mean, row_entropy_mean and row_entropy_min of rows, flat; scalars."""
    largest, entropy = _or_zero(largest), _or_zero(entropy)
    return {"wmax_mean": largest.mean(), "row_entropy_mean": entropy.mean(), "row_entropy_min": entropy.amin()}


def global_metrics(traces: Iterable[Trace], prefix: str = "debug/iga/global/") -> dict[str, float]:
    """The three numbers that told of the blow-up, over all layers: largest, pooled over rows, lowest."""
    return pooled([summary(trace) for trace in traces], prefix)


def statistics_metrics(
    statistics: Statistics, mask: Bool[Tensor, "*b n"], prefix: str = "debug/iga/global/"
) -> dict[str, float]:
    """The same three of one call, from the row statistics that the kernels return: no dense trace is made."""
    check_mask(mask)
    for name, values in statistics._asdict().items():
        check_geometry(f"statistics.{name}", values)
    valid = mask[..., None, :].expand(statistics.weight_max.shape)
    largest = _or_zero(statistics.geo_absmax.masked_select(valid)).amax()
    lowest = statistics.log_det_min.masked_select(valid)
    lowest = lowest.amin() if lowest.numel() else lowest.new_full((), torch.inf)
    return pooled([(largest, statistics.weight_max.masked_select(valid) > SATURATION, lowest)], prefix)


class Monitor:
    """Collects metrics from every layer of `model` that offers a trace, each time it runs.

        with Monitor(model) as monitor:
            loss = model(batch)
            log(monitor.metrics())

    Layers are numbered in the order of `model.named_modules()`; a layer that runs more than once shows its last call.
    What is watched is what `InvariantGaussianAttention.forward` (or `with_statistics`) computes, whoever calls it: a
    subclass with arguments of its own, a wrapper (compiled, DDP, FSDP, PEFT), a layer compiled in place or within a
    compiled model. Somebody else's layer, whose class has `trace`, is watched by a forward hook, and trace gets what
    forward got; of a module within another that has one too, the inner is watched. What activation checkpointing
    computes again during backward is not counted; neither are calls whose tensors hold no values to watch (transforms
    of torch.func, torch.export, meta and fake tensors).
    Copies and files of a watched model are not watched, and after `close` nothing of the monitor is left in it.

    Watching a call costs another forward of the layer, dense and without gradient, and under torch.compile a break of
    the graph (so that fullgraph=True refuses); `every` = k watches each k-th call. Where that is too much:
    `layer.with_statistics` and `statistics_metrics`.
    `metrics()` is a flat dict of floats by name; lengths in nm, entropies and logits in nats, log_det in ln nm⁶.
    Raises ValueError if the model holds no such layer. Source: docs/guides/training.md; definitions: the functions of
    `iga.diagnostics`.
    """

    def __init__(self, model: nn.Module, *, every: int = 1) -> None:
        check_whole("every", every, 1, " (watch every call)")
        self._layers = [module for module in model.modules() if is_watched(module)]
        if not self._layers:
            raise ValueError("the model holds no layer that offers a trace, such as InvariantGaussianAttention")
        self._every, self._warned = every, False
        self._calls = [0] * len(self._layers)
        self._metrics: dict[int, tuple[dict[str, float], Summary]] = {}
        self._hooks: list[Any] = []
        for number, layer in enumerate(self._layers):
            if isinstance(layer, InvariantGaussianAttention):
                if not isinstance(layer._observer, _Observer):
                    layer._observer = _Observer()
                layer._observer.watching.append((self, number))
            else:
                hook = _Observer()
                hook.watching.append((self, number))
                self._hooks.append(layer.register_forward_hook(hook, with_kwargs=True))

    def _watch(self, number: int, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._calls[number] += 1
        if (self._calls[number] - 1) % self._every:
            return
        with torch.no_grad():
            trace = layer.trace(*args, **kwargs)
            self._warn_of_drift(number, trace)
            self._metrics[number] = (layer_metrics(trace, f"debug/iga/l{number}/"), summary(trace))

    def _warn_of_drift(self, number: int, trace: Any) -> None:
        """Once a monitor: frames that products elsewhere let drift cost digits, and no metric shows which."""
        if self._warned or not isinstance(trace, Trace) or trace.rigid.dtype != torch.float32:
            return
        drift = float(frame_drift(trace))
        if drift > DRIFT_WARNED:
            self._warned = True
            warnings.warn(
                f"layer {number}: a frame's matrix is {drift:.0f} u off a rotation; rounding budgets grow with that "
                f"(iga bounds --drift {drift:.0f}, docs/theory.md, 6.7). Compose frames by this package, or call "
                ".orthonormalised() on them now and then",
                stacklevel=2,
            )

    def metrics(self) -> dict[str, float]:
        """A flat dict of the last watched calls: `debug/iga/global/…` and `debug/iga/l{n}/…`; empty before any."""
        result = pooled([one for _, one in self._metrics.values()], "debug/iga/global/")
        for number in sorted(self._metrics):
            result |= self._metrics[number][0]
        return result

    def close(self) -> None:
        """Detach from the model; a second time does nothing."""
        for layer in self._layers:
            observer = vars(layer).get("_observer")
            if isinstance(observer, _Observer):
                observer.watching = [entry for entry in observer.watching if entry[0] is not self]
                if not observer.watching:
                    del layer._observer
        for hook in self._hooks:
            hook.remove()
        self._layers, self._hooks = [], []

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Observer:
    """What a watched layer calls: every monitor that watches it, with the layer's number there.

    A forward hook, for a layer that calls no observer. It belongs to one layer of one process: a copy or a file has
    `_Nothing` in its place.
    """

    def __init__(self) -> None:
        self.watching: list[tuple[Monitor, int]] = []
        # The dense trace and its statistics are for eyes, not for the graph.
        self._look: Callable[..., Any] = torch.compiler.disable(self._call)

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any = None) -> None:
        self._look(layer, args, kwargs)

    def _call(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not has_values(args, kwargs):
            return
        for monitor, number in self.watching:
            monitor._watch(number, layer, args, kwargs)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Nothing, ()


class _Nothing:
    def __call__(self, *call: Any) -> None:
        pass


def has_values(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call with these arguments is one of a forward pass whose tensors can be read."""
    again = torch._C._current_graph_task_id() != -1  # within a backward: a checkpoint is computed again
    transformed = torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore[reportAttributeAccessIssue]
    given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
    return not (again or transformed or any(x.device.type == "meta" or is_fake(x) for x in given))


def is_watched(module: nn.Module) -> bool:
    """Whether the module is a layer that offers a trace: this package's, or the innermost of a class that has one."""
    if isinstance(module, InvariantGaussianAttention):
        return True
    # Of the class: wrappers hand on what their module has.
    return [one for one in module.modules() if callable(getattr(type(one), "trace", None))] == [module]


def _over_pairs(trace: Trace, values: Tensor) -> Tensor:
    """The values at valid pairs, flat: `values` is [*b, h, q, k] or [*b, h, p, q, k]."""
    mask = trace.pair_mask
    while mask.ndim < values.ndim:
        mask = mask.unsqueeze(-3)
    return values.masked_select(mask.expand(values.shape))


def _over_rows(trace: Trace, values: Tensor) -> Tensor:
    """The values at valid query rows, flat: `values` is [*b, h, q]."""
    return values.masked_select(trace.mask[..., None, :].expand(values.shape))


# Of one call: largest |geometry logit|, saturated rows (bool, flat), lowest log_det; None for what it doesn't show.
Summary = tuple[Tensor | None, Tensor | None, Tensor | None]


def summary(trace: Trace) -> Summary:
    """What `pooled` takes of a trace."""
    return geo_scaled_absmax(trace), largest_weights(trace) > SATURATION, log_det_min(trace)


def pooled(summaries: Sequence[Summary], prefix: str) -> dict[str, float]:
    """geo_scaled_absmax, wmax_sat_frac and log_det_min over several calls, those that one of them shows."""
    absmax = [one[0].double() for one in summaries if one[0] is not None]
    saturated = [one[1] for one in summaries if one[1] is not None]
    lowest = [one[2].double() for one in summaries if one[2] is not None]
    found: dict[str, Tensor] = {}
    if absmax:
        found["geo_scaled_absmax"] = torch.stack(absmax).amax()
    if saturated:
        found["wmax_sat_frac"] = _or_zero(torch.cat(saturated).double()).mean()
    if lowest:
        found["log_det_min"] = torch.stack(lowest).amin()
    return to_floats({prefix + name: value for name, value in found.items()}) if found else {}


def _or_zero(values: Tensor) -> Tensor:
    """`values`, flat; one zero where there is none."""
    return values if values.numel() else values.new_zeros(1)


def to_floats(values: dict[str, Tensor]) -> dict[str, float]:
    """To Python floats with one transfer."""
    stacked = torch.stack([value.detach().double().reshape(()) for value in values.values()])
    return dict(zip(values, stacked.tolist(), strict=True))
