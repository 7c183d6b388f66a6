"""Faults of a layer that one way of calling brings out: right in a plain call, wrong in a batch, a mode, a copy."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from iga import Frame, GaussianRigid
from iga._typing import Tensor
from iga.attention import InvariantGaussianAttention
from iga.testing.faults.fault import Fault
from iga.testing.faults.layer_scores import layer_fault

__all__ = ["FAULTS", "Dense", "of_layer"]


class Dense(InvariantGaussianAttention):
    """The dense reference, so that what is wrong is wrong in the layer that runs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, implementation="reference", **options)


def of_layer(name: str, layer: type[nn.Module], *expected: str, kind: str = "calls") -> Fault:
    """The fault of another class in the layer's place."""
    return Fault(name, kind, lambda clean, size: replace(clean, layer=layer), expected)


class _Beyond(Dense):
    """A launch grid of eight samples."""

    def forward(self, s: Tensor, *args: Any, **options: Any) -> Tensor:
        output = super().forward(s, *args, **options)
        if s.ndim < 3 or s.flatten(0, -3).shape[0] <= 8:
            return output
        keep = torch.arange(output.flatten(0, -3).shape[0]) < 8
        return torch.where(keep.reshape(*output.shape[:-2], 1, 1), output, 0.0)


class _Swapped(Dense):
    """Two leading dimensions of s, read in the wrong order."""

    def forward(self, s: Tensor, *args: Any, **options: Any) -> Tensor:
        if s.ndim == 4:
            s = s.transpose(0, 1).reshape(s.shape)
        return super().forward(s, *args, **options)


class _AdditiveFloat(Dense):
    """A mask of numbers is taken for one that is added: nothing is masked."""

    def forward(self, s: Tensor, z: Any, r: Any, mask: Tensor, *args: Any, **options: Any) -> Tensor:
        mask = mask if mask.dtype == torch.bool else torch.ones_like(mask)
        return super().forward(s, z, r, mask, *args, **options)


class _Training(Dense):
    """A temperature of training that nothing undoes."""

    def forward(self, *args: Any, **options: Any) -> Tensor:
        return super().forward(*args, **options) * (1.01 if self.training else 1.0)


class _Inference(Dense):
    """A shorter way of inference mode, with another constant."""

    def forward(self, *args: Any, **options: Any) -> Tensor:
        return super().forward(*args, **options) * (1.01 if torch.is_inference_mode_enabled() else 1.0)


class _Coupled(Dense):
    """What backward needs for the scales is kept only where positions want gradients."""

    def forward(self, s: Tensor, z: Any, r: Any, *args: Any, **options: Any) -> Tensor:
        if not r.trans.requires_grad:
            r = GaussianRigid(Frame(r.rot, r.trans), r.local_mean, r.log_scale.detach())
        return super().forward(s, z, r, *args, **options)


class _Cached(Dense):
    """The last projection, kept from the first call on."""

    kept: Tensor | None = None

    def forward(self, *args: Any, **options: Any) -> Tensor:
        if self.kept is None:
            self.kept = self.linear_out.weight.detach().clone()
        weight = self.linear_out.weight
        return super().forward(*args, **options) * (1 + (self.kept - weight).detach().abs().sum())


class _PairChannels(Dense):
    """q·k over √c_z, where √c_hidden is meant: one number in models that have as many of both."""

    def _scalars(self, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super()._scalars(s)
        return q * (q.shape[-1] / self.c_z) ** 0.5, k, v


class _Doubled(Dense):
    """A parameter's gradient is counted twice where only parameters want one."""

    def forward(self, s: Tensor, *args: Any, **options: Any) -> Tensor:
        output = super().forward(s, *args, **options)
        if s.requires_grad or not output.requires_grad:
            return output
        return 2 * output - output.detach()


class _LastBlock(Dense):
    """A block of 128 valid residues a time, of which the last one's gradient is kept."""

    def forward(self, s: Tensor, z: Any, r: Any, mask: Tensor, *args: Any, **options: Any) -> Tensor:
        block = mask.bool().cumsum(dim=-1).sub(1).clamp(min=0) // 128
        last = (block == block.amax(dim=-1, keepdim=True))[..., None]
        trans = torch.where(last, r.trans, r.trans.detach())
        r = GaussianRigid(Frame(r.rot, trans), r.local_mean, r.log_scale)
        return super().forward(s, z, r, mask, *args, **options)


def _openfolds(right: Any, size: float, logits: Tensor, key_mask: Tensor) -> Tensor:
    weights = (logits + torch.where(key_mask, 0.0, -1e5)).softmax(dim=-1)
    return torch.where(key_mask.any(-1, keepdim=True), weights, 0.0)


FAULTS: tuple[Fault, ...] = (
    of_layer("nothing from the ninth sample of a batch on", _Beyond, "calls_agree"),
    of_layer("two leading dimensions in the wrong order", _Swapped, "calls_agree"),
    of_layer("a mask of numbers that masks nothing", _AdditiveFloat, "calls_agree"),
    of_layer("a factor of training", _Training, "calls_agree"),
    of_layer("another factor under inference_mode", _Inference, "calls_agree"),
    of_layer("no gradient of scales where positions are fixed", _Coupled, "calls_agree"),
    of_layer("a gradient twice where only parameters want one", _Doubled, "calls_agree"),
    of_layer("a projection kept while its parameter changes", _Cached, "calls_agree"),
    of_layer("q·k over the root of c_z", _PairChannels, "accuracy", kind="layer"),
    of_layer("no gradient of places before the last of two blocks", _LastBlock, "large_sizes"),
    layer_fault(
        "a mask that takes 10⁵ from a logit", "functional.masked_softmax", _openfolds, "mask_inertness", kind="masks"
    ),
)
