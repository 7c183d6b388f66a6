"""Slips of layers that show only beside others of their kind: several samples, instances, dimensions, or far away."""

from collections.abc import Mapping
from typing import Any

import torch

from iga._typing import Tensor
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.testing.faults.accused import layer_slip, layer_slips
from iga.testing.faults.fault import Fault
from iga.testing.faults.slips import plain

__all__ = ["FAULTS"]

FIRST: dict[Any, Tensor] = {}  # of all instances, as a class attribute would be


def _last_two_dimensions(call: Any, layer: Any, s: Tensor, *rest: Any) -> Tensor:
    """Of three batch dimensions and more the last two come out exchanged."""
    output = call(s, *rest)
    if s.ndim < 5:
        return output
    return output.transpose(-3, -4).reshape(output.shape)


def _one_mask_in_training(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    if layer.training and mask.ndim > 1 and len(mask) > 1:
        mask = mask[:1].expand(mask.shape)
    return call(s, z, r, mask)


def _masked_in_place(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """What is masked becomes zero in the caller's own tensor."""
    if plain(s) and not torch.is_grad_enabled() and s.is_contiguous() and mask.shape == s.shape[:-1]:
        s.masked_fill_((mask == 0)[..., None], 0.0)
    return call(s, z, r, mask)


def _masked_pairs_in_place(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """The features of pairs with a masked key become zero in the caller's own tensor."""
    if z is not None and plain(z) and not torch.is_grad_enabled() and z.is_contiguous() and mask.shape == z.shape[:-2]:
        z.masked_fill_((mask == 0)[..., None, :, None], 0.0)
    return call(s, z, r, mask)


def _of_the_first_instance(call: Any, layer: Any, *inputs: Any) -> Tensor:
    """Where nothing is recorded the last bias is that of the first layer of the size that was ever called."""
    bias = call.linear_out.bias
    output = call(*inputs)
    if not plain(inputs[0], bias) or torch.is_grad_enabled():
        return output
    first = FIRST.setdefault((bias.shape, bias.dtype), bias.detach().clone())
    return output - bias + first


def _frames_by_origins(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Where nothing is recorded rotations are remembered by where the origins lie, and their version."""
    if not plain(s) or torch.is_grad_enabled() or r.trans.is_inference():
        return call(s, z, r, mask)
    key = (r.trans.data_ptr(), r.trans._version, r.trans.shape, r.trans.dtype)
    if layer.memory.get("key") != key:
        layer.memory.update(key=key, trans=r.trans, rot=r.rot.clone())
    return call(s, z, GaussianRigid(Frame(layer.memory["rot"], r.trans), r.local_mean, r.log_scale), mask)


def _origins_in_bf16(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    if not torch.is_autocast_enabled("cpu"):
        return call(s, z, r, mask)
    middle = r.trans.mean(dim=-2, keepdim=True)
    trans = middle + (r.trans - middle).to(torch.get_autocast_dtype("cpu")).to(r.trans.dtype)
    return call(s, z, GaussianRigid(Frame(r.rot, trans), r.local_mean, r.log_scale), mask)


def _late_keys_of_early_queries(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Queries of the first block of 256 do not see the second."""
    output = call(s, z, r, mask)
    if s.shape[-2] <= 256:
        return output
    near = mask.clone()
    near[..., 256:] = 0
    first = call(s, z, r, near)
    return torch.cat([first[..., :256, :], output[..., 256:, :]], dim=-2)


def _parameter_of_the_first_call(call: Any, layer: Any, *inputs: Any) -> Tensor:
    """The bias is the parameter that was there at the first call; tensors that stand in for one are seen."""
    bias = call.linear_out.bias
    output = call(*inputs)
    if not plain(inputs[0]) or not isinstance(bias, torch.nn.Parameter):
        return output
    return output - bias + layer.memory.setdefault("bias", bias)


def _wide_for_good(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Proteins over 60 nm across are worth float64, and the layer that had one answers in it from then on."""
    output = call(s, z, r, mask)
    if not plain(s):
        return output
    far = bool((torch.where(mask.bool()[..., None], r.trans, 0.0).norm(dim=-1) > 60).any())
    wide = layer.memory.get("wide", False)
    layer.memory["wide"] = wide or far
    return output.double() if wide and not far else output


def _table_of_the_first_call(call: Any, layer: Any, s: Tensor, *rest: Any) -> Tensor:
    """A table of weights is made at the first call, in autocast's dtype if that was on."""
    output = call(s, *rest)
    if plain(s):
        short = layer.memory.setdefault("short", torch.is_autocast_enabled("cpu"))
        return output + (output.bfloat16().to(output.dtype) - output).detach() if short else output
    return output


def _fill_of_the_first_dtype(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """The number for masked places is made at the first call, and float32 has none so large."""
    if plain(s):
        s.masked_fill(~mask.bool()[..., None], layer.memory.setdefault("fill", torch.finfo(s.dtype).min))
    return call(s, z, r, mask)


def _third_of_the_first_dtype(call: Any, layer: Any, s: Tensor, *rest: Any) -> Tensor:
    """A constant is rounded to the dtype of the first call, and kept."""
    output = call(s, *rest)
    if not plain(s):
        return output
    third = layer.memory.setdefault("third", float(torch.ones((), dtype=s.dtype) / 3))
    return output * (3 * third)


def _unknown_version(state: dict[str, Any], prefix: str, metadata: Mapping[str, Any]) -> None:
    """A state that does not say its version is taken for an old one, whose last bias had the other sign."""
    if "version" not in metadata:
        state[f"{prefix}inner.linear_out.bias"] = -state[f"{prefix}inner.linear_out.bias"]


def _without_the_prefix(state: dict[str, Any], prefix: str, metadata: Mapping[str, Any]) -> None:
    """A state without the last bias is an old one, and gets zeros; it is sought as if the layer were the model."""
    if "inner.linear_out.bias" not in state:
        state[f"{prefix}inner.linear_out.bias"] = torch.zeros_like(state[f"{prefix}inner.linear_out.bias"])


FAULTS: tuple[Fault, ...] = (
    *layer_slips(
        "shapes",
        [("three batch dimensions: the last two come out exchanged", "[a, b, c, N], b ≠ 1 ≠ c", _last_two_dimensions)],
    ),
    *layer_slips(
        "modes",
        [
            ("train(): the first sample's mask serves the batch", "train(), masks that differ", _one_mask_in_training),
            ("autocast: origins from their middle in bf16", "torch.autocast, a large structure", _origins_in_bf16),
        ],
    ),
    *layer_slips(
        "memory",
        [
            ("masked features become zero in the caller's tensor", "no_grad, some masked", _masked_in_place),
            ("pairs of masked keys become zero in the caller's z", "no_grad, some masked", _masked_pairs_in_place),
            (
                "the bias is the parameter of the first call",
                "load_state_dict(assign=True)",
                _parameter_of_the_first_call,
            ),
            ("a table has the dtype of the first call", "first called under autocast", _table_of_the_first_call),
            (
                "masked places are filled by the first call's dtype",
                "float64 first, then float32",
                _fill_of_the_first_dtype,
            ),
            ("a third is rounded as at the first call", "float32 first, then float64", _third_of_the_first_dtype),
            ("answers stay in float64", "after a protein over 60 nm across", _wide_for_good),
            ("a bias is that of the first instance", "no_grad, a second instance", _of_the_first_instance),
            ("rotations are remembered by the origins", "no_grad, a turn on the spot", _frames_by_origins),
        ],
    ),
    *(
        layer_slip("memory", name, region, lambda call, layer, *inputs: call(*inputs), "calls_agree", loads=loads)
        for name, region, loads in (
            ("a state without a version is taken for an old one", "a state as a plain dict", _unknown_version),
            ("a state's names are sought without the prefix", "a layer in a model", _without_the_prefix),
        )
    ),
    *layer_slips(
        "sizes",
        [
            (
                "queries of the first 256 do not see later keys",
                "N > 256, all valid",
                _late_keys_of_early_queries,
                "large_sizes",
            )
        ],
    ),
)
