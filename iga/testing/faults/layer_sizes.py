"""Slips of layers in sizes and shapes."""

from collections.abc import Callable
from typing import Any

import torch

from iga._typing import Tensor
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.testing.faults.accused import layer_slip, layer_slips, of_logits, swapped
from iga.testing.faults.fault import Fault
from iga.testing.faults.slips import graded

__all__ = ["FAULTS", "REFERENCE", "rigid_of"]

REFERENCE = "reference_agrees"


def rigid_of(r: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The rigid with each of its tensors changed."""
    if not isinstance(r, GaussianRigid):
        return r
    return GaussianRigid(Frame(change(r.rot), change(r.trans)), change(r.local_mean), change(r.log_scale))


# --- how many residues ------------------------------------------------------------------------------------------


def _keys(keep: Callable[[Tensor, int], Tensor]) -> Callable[..., Tensor]:
    """Keys that are not kept get no weight; as queries they are right."""

    def wrong(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
        n = s.shape[-2]
        here = keep(torch.arange(n, device=s.device), n)
        right = call(s, z, r, mask)
        fewer = call(s, z, r, mask.bool() & here)
        return torch.where(here[:, None], fewer, right)

    return wrong


def _queries(keep: Callable[[Tensor, int], Tensor]) -> Callable[..., Tensor]:
    """Queries that are not kept get no update."""

    def wrong(call: Any, layer: Any, s: Tensor, *rest: Any) -> Tensor:
        n = s.shape[-2]
        return torch.where(keep(torch.arange(n, device=s.device), n)[:, None], call(s, *rest), 0.0)

    return wrong


def _samples(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """The frames of a sample are those of its number modulo four."""
    if s.ndim == 3 and s.shape[0] > 4 and r.shape[0] == s.shape[0]:
        index = torch.arange(s.shape[0], device=s.device) % 4
        r = rigid_of(r, lambda x: x[index])
    return call(s, z, r, mask)


SIZES = [
    layer_slip(
        "sizes",
        "keys from the 129th on get no weight",
        "N > 128",
        _keys(lambda i, n: i < 128),
        "large_sizes",
        traced=True,
    ),
    layer_slip("sizes", "keys from the 257th on get no weight", "N > 256", _keys(lambda i, n: i < 256)),
    layer_slip("sizes", "keys from the 1025th on get no weight", "N > 1024", _keys(lambda i, n: i < 1024)),
    layer_slip(
        "sizes",
        "keys past the last whole tile of 64 get no weight",
        "N > 64, N ≠ 64 k",
        _keys(lambda i, n: (i < n // 64 * 64) | (n < 64)),
        "large_sizes",
    ),
    layer_slip(
        "sizes", "the last key of an odd number gets no weight", "N odd", _keys(lambda i, n: (i < n - 1) | (n % 2 == 0))
    ),
    layer_slip(
        "sizes",
        "the one key of a second tile gets no weight",
        "N = 129",
        _keys(lambda i, n: (i < 128) | (n != 129)),
    ),
    layer_slip(
        "sizes",
        "the second tile of keys overwrites the first",
        "N > 128",
        _keys(lambda i, n: (i >= 128) | (n <= 128)),
        "large_sizes",
    ),
    layer_slip(
        "sizes", "queries from the 97th on get no update", "N > 96", _queries(lambda i, n: i < 96), "large_sizes"
    ),
    layer_slip("sizes", "queries from the 257th on get no update", "N > 256", _queries(lambda i, n: i < 256)),
    layer_slip(
        "sizes",
        "the last query of seven gets no update",
        "N = 7",
        _queries(lambda i, n: (i < 6) | (n != 7)),
        "mask_inertness",
    ),
    layer_slip("sizes", "the frames of a sample are those of its number modulo four", "batch > 4", _samples),
    layer_slip(
        "sizes",
        "samples past the 16th get no update",
        "batch > 16",
        lambda call, layer, s, *rest: (
            call(s, *rest) * (torch.arange(s.shape[0], device=s.device) < 16).view(-1, *(1,) * (s.ndim - 1))
            if s.ndim > 2
            else call(s, *rest)
        ),
    ),
    layer_slip(
        "sizes",
        "a batch of three is taken for coordinates",
        "batch = 3",
        lambda call, layer, s, z, r, mask: call(
            s, z, rigid_of(r, lambda x: x.flip(0)) if s.ndim == 3 and len(s) == 3 == r.shape[0] else r, mask
        ),
    ),
    layer_slip(
        "sizes",
        "an empty batch is not expected",
        "batch = 0",
        lambda call, layer, s, *rest: call(s, *rest) if s.shape[0] else call(s.reshape(0, -1, s.shape[-1]), *rest),
        "small_sizes",
    ),
]


# --- the layer's own sizes --------------------------------------------------------------------------------------


def _parameters(change: Callable[[Any], dict[str, Tensor]]) -> Callable[..., Tensor]:
    return lambda call, layer, *inputs: swapped(call, layer, change, *inputs)


def _modulo_four(layer: Any) -> dict[str, Tensor]:
    return {"geo_scale": layer.geo_scale[torch.arange(layer.no_heads) % 4]}


def _per_head(weight: Tensor, heads: int) -> Tensor:
    return weight.unflatten(0, (heads, -1))


def _points_modulo_eight(layer: Any) -> dict[str, Tensor]:
    weight = _per_head(layer.linear_v_points.weight, layer.no_heads).unflatten(1, (-1, 3))
    chosen = weight[:, torch.arange(layer.no_v_points) % 8]
    return {"linear_v_points.weight": chosen.flatten(0, 2)}


def _last_of(which: Callable[[int], bool]) -> Callable[[Any], dict[str, Tensor]]:
    """Where P is one of these the last query point takes the weights of the one before."""

    def wrong(layer: Any) -> dict[str, Tensor]:
        if not which(layer.no_qk_points):
            return {}
        chosen = torch.arange(layer.no_qk_points)
        chosen[-1] -= 1
        rows = _per_head(layer.linear_q_offsets.weight, layer.no_heads).unflatten(1, (-1, 3))
        return {"linear_q_offsets.weight": rows[:, chosen].flatten(0, 2)}

    return wrong


def _eight_channels(layer: Any) -> dict[str, Tensor]:
    weight = _per_head(layer.linear_q.weight, layer.no_heads)
    return {"linear_q.weight": (weight * (torch.arange(layer.c_hidden) < 8)[:, None]).flatten(0, 1)}


def _four_biases(layer: Any) -> dict[str, Tensor]:
    return {"linear_b.weight": layer.linear_b.weight * (torch.arange(layer.no_heads) < 4)[:, None]}


def _root_of_c_z(layer: Any) -> dict[str, Tensor]:
    share = (layer.c_hidden / max(layer.c_z, 1)) ** 0.5
    return {"linear_q.weight": layer.linear_q.weight * share, "linear_q.bias": layer.linear_q.bias * share}


def _softer_with_points(layer: Any, trace: Any, *inputs: Any) -> Tensor:
    return trace.logits * layer.no_qk_points**-0.5


def _only_at(points: int) -> Callable[..., Tensor]:
    return lambda layer, trace, *inputs: trace.logits - trace.geo_scaled * (layer.no_qk_points == points)


WIDTHS = [
    layer_slip(
        "sizes", "a head's weight is that of its number modulo four", "H > 4", _parameters(_modulo_four), REFERENCE
    ),
    layer_slip(
        "sizes",
        "value points from the ninth on repeat the first",
        "P_v > 8",
        _parameters(_points_modulo_eight),
        REFERENCE,
    ),
    layer_slip(
        "sizes",
        "the last of four query points takes the weights of the one before",
        "P = 4",
        _parameters(_last_of(lambda points: points == 4)),
        "gradient_finiteness",
    ),
    layer_slip(
        "sizes",
        "points are taken by twos: the last of an odd number repeats the one before",
        "odd P > 1",
        _parameters(_last_of(lambda points: points > 1 and points % 2 == 1)),
        "gradient_finiteness",
    ),
    layer_slip("sizes", "of queries eight channels are read", "c_hidden > 8", _parameters(_eight_channels), REFERENCE),
    layer_slip("sizes", "heads from the fifth on have no pair bias", "H > 4", _parameters(_four_biases), REFERENCE),
    layer_slip("sizes", "√c_z for √c_hidden", "c_z ≠ c_hidden", _parameters(_root_of_c_z), REFERENCE),
    layer_slip(
        "sizes",
        "√c_z for √c_hidden, and the trace says the same",
        "c_z ≠ c_hidden",
        _parameters(_root_of_c_z),
        REFERENCE,
        traced=True,
    ),
    of_logits("sizes", "softmax is softer the more points there are", "P > 1", _softer_with_points, REFERENCE),
    of_logits("sizes", "seven points have no geometry", "P = 7", _only_at(7), REFERENCE),
    of_logits("sizes", "a single point has no geometry", "P = 1", _only_at(1), REFERENCE),
]


# --- of what shape ----------------------------------------------------------------------------------------------


def _exchanged(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Two batch dimensions are flattened in one order for z, in the other for the rest."""
    if s.ndim == 4 and isinstance(z, Tensor) and z.shape[:2] == s.shape[:2]:
        z = z.transpose(0, 1).reshape(z.shape)
    return call(s, z, r, mask)


def _unbatched(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Without a batch z is read with its residues exchanged."""
    return call(s, z.transpose(-3, -2) if s.ndim == 2 and isinstance(z, Tensor) else z, r, mask)


def _mean_for_sum(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """The gradient of a z that serves a batch is a mean."""
    if isinstance(z, Tensor) and s.ndim == 3 and z.shape[0] == 1 < s.shape[0]:
        z = graded(z, 1 / s.shape[0])
    return call(s, z, r, mask)


def _repeated_whole(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Leading dimensions are flattened; what is shorter is then repeated whole."""
    if isinstance(z, Tensor) and s.ndim == 4 and z.ndim == 5 and z.shape[1] == 1 < s.shape[1]:
        z = z.flatten(0, 1).repeat(s.shape[1], 1, 1, 1).unflatten(0, s.shape[:2])
    return call(s, z, r, mask)


def _first_mask(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    return call(s, z, r, mask[:1].expand(mask.shape) if mask.ndim == 2 else mask)


SHAPES = (
    *layer_slips(
        "shapes",
        [
            ("two batch dimensions are flattened in two orders", "[a, b, N], a, b > 1", _exchanged),
            ("z of fewer samples is repeated whole", "z [a, 1, N, N, c], s [a, b, N, c]", _repeated_whole),
            ("without a batch z's residues are exchanged", "[N]", _unbatched),
            (
                "three batch dimensions: the frames of the first",
                "[a, b, c, N]",
                lambda call, layer, s, z, r, mask: call(
                    s, z, rigid_of(r, lambda x: x[:1].expand(x.shape)) if s.ndim == 5 else r, mask
                ),
            ),
            ("the first sample's mask serves the batch", "masks that differ", _first_mask, "calls_agree"),
        ],
    ),
    layer_slip(
        "shapes",
        "the gradient of a z that serves a batch is a mean",
        "z [1, N, N, c], batch > 1",
        _mean_for_sum,
        traced=True,
    ),
)

FAULTS: tuple[Fault, ...] = (*SIZES, *WIDTHS, *SHAPES)
