"""Slips of layers in masks, and in how inputs lie in memory."""

from collections.abc import Callable
from typing import Any

import torch

from iga._typing import Tensor
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.testing.faults.accused import layer_slip, layer_slips
from iga.testing.faults.fault import Fault
from iga.testing.faults.slips import plain, raw

__all__ = ["FAULTS"]

INERT = "mask_inertness"

# --- masks ------------------------------------------------------------------------------------------------------


def _mask(change: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda call, layer, s, z, r, mask: call(s, z, r, change(mask))


def _whole_prefix(mask: Tensor) -> Tensor:
    """Only how many residues are valid is asked, and they are taken to stand first."""
    count = mask.bool().sum(-1, keepdim=True)
    return torch.arange(mask.shape[-1], device=mask.device) < count


def _from_the_first(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """Places are counted from the first residue's, valid or not."""
    frame = Frame(r.rot, r.trans - r.trans[..., :1, :])
    return call(s, z, GaussianRigid(frame, r.local_mean, r.log_scale), mask)


def _logarithm(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """A mask of floats is added to the logits as its logarithm: a row of −∞ has no softmax."""
    output = call(s, z, r, mask)
    if not mask.is_floating_point():
        return output
    nothing = (mask == 0).all(-1)[..., None, None]
    return torch.where(nothing, torch.full_like(output, torch.nan), output)


def _small_weight(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """The logarithm of a mask of floats, clamped: masked keys keep a millionth, by which the valid ones have less."""
    output = call(s, z, r, mask)
    if not mask.is_floating_point():
        return output
    return output * (1 - 1e-6 * (mask == 0).to(output.dtype).mean(-1)[..., None, None])


def _negative(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
    """OpenFold's −10⁵ on logits that see z behind the mask (NaN there is replaced): what keys get there is lost."""
    trace = call.trace(s, z, r, mask)
    logits = trace.logits
    if z is not None:
        logits = logits - trace.pair_bias + call.linear_b(z.nan_to_num(0.0, 0.0, 0.0)).movedim(-1, -3)
    valid = trace.mask[..., None, None, :]
    weights = (logits + torch.where(valid, 0.0, -1e5)).softmax(-1)
    return trace.output * torch.where(valid, weights, 0.0).sum(-1).mean(-2)[..., None].to(trace.output.dtype)


def _multiplied(kinds: Callable[[Tensor], bool]) -> Callable[..., Tensor]:
    """Masks of some kinds are multiplied by, where others replace: of what stands behind, 0 times it goes in."""

    def wrong(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
        output = call(s, z, r, mask)
        if not kinds(mask):
            return output
        return output + 0.0 * (s * mask[..., None].to(s.dtype)).sum((-2, -1))[..., None, None]

    return wrong


def _as_open(mask: Tensor) -> Tensor:
    return mask if mask.dtype == torch.bool else torch.ones_like(mask)


MASKS = [
    layer_slip(
        "masks",
        "a float mask masks nothing",
        "mask of floats",
        _mask(lambda m: _as_open(m) if m.is_floating_point() else m),
        traced=True,
    ),
    layer_slip(
        "masks",
        "a float mask masks nothing, and no trace",
        "mask of floats",
        _mask(lambda m: _as_open(m) if m.is_floating_point() else m),
    ),
    layer_slip(
        "masks", "a mask of floats is added as its logarithm", "a mask of floats, all 0", _logarithm, "small_sizes"
    ),
    layer_slip("masks", "masked keys keep a weight of 10⁻⁶", "a mask of floats, some 0", _small_weight, INERT),
    *(
        layer_slip("masks", f"a mask of {name} is multiplied by", f"NaN behind a mask of {name}", wrong, INERT)
        for name, wrong in (
            ("floats", _multiplied(lambda m: m.is_floating_point())),
            ("whole numbers", _multiplied(lambda m: not m.is_floating_point() and m.dtype != torch.bool)),
        )
    ),
    layer_slip(
        "masks",
        "a mask of int64 is negated bit by bit, so that all of it is true",
        "mask of int64",
        _mask(lambda m: (~m).bool() if m.dtype == torch.int64 else m),
    ),
    layer_slip(
        "masks",
        "a mask of bytes is taken for an index",
        "mask of uint8",
        _mask(lambda m: m.flip(-1) if m.dtype == torch.uint8 else m),
    ),
    layer_slip(
        "masks",
        "places are counted from the first residue, valid or not",
        "the first residue masked, and no number",
        _from_the_first,
        INERT,
    ),
    layer_slip("masks", "only how many are valid counts", "masked residues amid others", _mask(_whole_prefix), INERT),
    layer_slip(
        "masks",
        "a chain whose ends are valid counts as whole",
        "masked residues amid others, last and first valid",
        _mask(lambda m: torch.where((m[..., :1] * m[..., -1:]).bool(), torch.ones_like(m), m)),
    ),
    layer_slip(
        "masks",
        "−10⁵ for a mask, under a z of 10⁵",
        "|z| ≥ 10⁵ behind the mask",
        _negative,
    ),
]


# --- how inputs lie in memory -----------------------------------------------------------------------------------


def _stored(**read: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Inputs (s, z, rot, rest, mask) that lie in memory in a certain way are read in another."""

    def wrong(call: Any, layer: Any, s: Tensor, z: Any, r: Any, mask: Tensor) -> Tensor:
        if not plain(s, z, mask, r.rot, r.trans):
            return call(s, z, r, mask)
        if "rot" in read:
            r = GaussianRigid(Frame(read["rot"](r.rot), r.trans), r.local_mean, r.log_scale)
        if "trans" in read:
            r = GaussianRigid(Frame(r.rot, read["trans"](r.trans)), r.local_mean, r.log_scale)
        asked = {name: read.get(name, lambda x: x) for name in ("s", "z", "mask")}
        return call(asked["s"](s), z if z is None else asked["z"](z), r, asked["mask"](mask))

    return wrong


def _back(x: Tensor) -> Tensor:
    """A transposed view of what is dense is read in the order of memory."""
    turned = x.transpose(-3, -2)
    return turned if not x.is_contiguous() and turned.is_contiguous() else x


def _gaps(x: Tensor) -> Tensor:
    return raw(x) if x.numel() and not x.is_contiguous() and 0 not in x.stride() else x


def _begun(x: Tensor) -> Tensor:
    return raw(x, stride=x.stride(), offset=0) if x.numel() and x.storage_offset() and x.is_contiguous() else x


def _one_row(x: Tensor) -> Tensor:
    """A dimension without a stride holds one number, it is thought: the others are 0."""
    if x.ndim < 3 or x.stride(0) != 0 or x.shape[0] < 2:
        return x
    return torch.cat([x[:1], torch.zeros_like(x[1:])])


STORAGE = layer_slips(
    "storage",
    [
        ("a transposed view of z is read untransposed", "z.transpose(-2, -3)", _stored(z=_back)),
        ("features of s with gaps are read without", "s[..., ::2]", _stored(s=_gaps)),
        (
            "frames stored by columns are read by rows",
            "r.rot is a transposed view",
            _stored(rot=lambda x: x.mT if not x.is_contiguous() and x.mT.is_contiguous() else x),
        ),
        ("s is read from the beginning of its storage", "s[1:] of a larger tensor", _stored(s=_begun)),
        ("origins with gaps are read without", "columns of a [N, 4] array", _stored(trans=_gaps)),
        ("an expanded z serves the first sample only", "z.expand(batch, …)", _stored(z=_one_row)),
        (
            "a mask that is a slice is read from the beginning",
            "mask[:, a:b]",
            _stored(mask=lambda x: raw(x, offset=0) if x.numel() and x.storage_offset() else x),
        ),
    ],
)
FAULTS: tuple[Fault, ...] = (*MASKS, *STORAGE)
