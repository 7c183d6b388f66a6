"""Slips of layers in how they read inputs: rows of z not their own, zeros as padding, a turn under autocast."""

from typing import Any

import torch

from iga._typing import Tensor
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.testing.faults.accused import layer_slips, of_logits
from iga.testing.faults.fault import Fault

__all__ = ["FAULTS"]


def _symmetrised(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    return call(s, None if z is None else (z + z.transpose(-2, -3)) / 2, r, mask)


def _over_columns(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Of z the mean over the valid queries is taken away, as a softmax over queries would."""
    if z is None:
        return call(s, z, r, mask)
    valid = mask.to(z.dtype)[..., :, None, None]
    shown = torch.where(valid > 0, z, 0.0)
    mean = shown.sum(-3, keepdim=True) / valid.sum(-3, keepdim=True).clamp(min=1)
    return call(s, z - mean, r, mask)


def _no_zero_pair(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Pairs whose features are all zero get features that push them away."""
    if z is None:
        return call(s, z, r, mask)
    return call(s, torch.where((z == 0).all(-1, keepdim=True), 3.0, z), r, mask)


def _no_zero_residue(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    return call(torch.where((s == 0).all(-1, keepdim=True), 1.0, s), z, r, mask)


def _no_origin(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """What lies at the origin of space is taken for padding, and put far away."""
    lost = (r.trans == 0).all(-1, keepdim=True)
    frame = Frame(r.rot, torch.where(lost, 30.0, r.trans))
    return call(s, z, GaussianRigid(frame, r.local_mean, r.log_scale), mask)


def _no_identity(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """An identity matrix is what a frame that was never filled in looks like: its Gaussian is made wide."""
    eye = torch.eye(3, dtype=r.rot.dtype, device=r.rot.device)
    lost = (r.rot == eye).all(-1).all(-1)[..., None]
    return call(s, z, GaussianRigid(r.frame, r.local_mean, torch.where(lost, 1.0, r.log_scale)), mask)


def _turned_by_a_product(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Where the middle lies, seen from a residue, is among its features: turned by a product, which autocast rounds."""
    if not torch.is_autocast_enabled("cpu"):
        return call(s, z, r, mask)
    away = r.trans - r.trans.mean(dim=-2, keepdim=True)
    by_product = (r.rot.mT @ away[..., None])[..., 0].to(s.dtype)
    exact = (r.rot * away[..., :, None]).sum(-2).to(s.dtype)
    seen = torch.nn.functional.pad(by_product - exact, (0, s.shape[-1] - 3))
    return call(s + seen, z, r, mask)


def _summed_in_bf16(layer: Any, trace: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """The three parts of the logits are cast to the dtype of the first, which is a product's."""
    if not torch.is_autocast_enabled("cpu"):
        return trace.logits
    return trace.logits.to(torch.get_autocast_dtype("cpu")).to(trace.logits.dtype)


FAULTS: tuple[Fault, ...] = (
    of_logits(
        "dtypes", "autocast: logits are summed in its dtype", "torch.autocast", _summed_in_bf16, "reduced_precision"
    ),
    *layer_slips(
        "laws",
        [
            ("z is symmetrised", "z is not symmetric", _symmetrised, "feature_laws"),
            ("z is centred over the queries", "two valid queries or more", _over_columns, "feature_laws"),
        ],
    ),
    *layer_slips(
        "dtypes",
        [("autocast: a place is turned by a product", "torch.autocast", _turned_by_a_product, "reduced_precision")],
    ),
    *layer_slips(
        "features",
        [
            ("a pair of zero features is another", "z_ij = 0", _no_zero_pair, "feature_laws"),
            ("a residue of zero features is another", "s_i = 0", _no_zero_residue, "feature_laws"),
            ("a residue at the origin is put elsewhere", "a translation of 0", _no_origin, "feature_laws"),
            ("a residue with the identity as frame is wide", "a rotation by 0", _no_identity, "feature_laws"),
        ],
    ),
)
