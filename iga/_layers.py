"""The shared ground of both attention layers: input checks, masks, the origin, softmax, value points, initial weights.

A mask is bool, True = valid. What stands behind it may be anything, NaN included: it is replaced before it is read,
so that neither outputs nor gradients carry a trace. Frames map local to global, x = R x_loc + t, in nm.

The projections' initial weights are drawn as AlphaFold 2 and OpenFold draw them.
Source: Jumper et al. 2021, supplement 1.11.4; LeCun et al. 1998 for the variance 1/fan_in.
"""

import math
import numbers
import weakref
from typing import Any, Literal

import torch
from torch import nn
from torch._subclasses.fake_tensor import is_fake

from iga._arguments import FEATURE_DTYPES, check_dense, check_number, check_whole, holds
from iga._runtime import check_room
from iga._typing import Bool, Float, Tensor
from iga.frame import Frame
from iga.rotation import rotate, rotate_inverse

__all__ = [
    "SOFTPLUS_INVERSE_ONE",
    "Attached",
    "centre",
    "check_inputs",
    "check_sizes",
    "lecun_normal_",
    "linear",
    "masked_softmax",
    "reset_children",
    "sanitise",
    "time_gate",
    "value_points_out",
]

MASK_DTYPES = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

_MANY = 2**28  # numbers, a GiB of float32: with fewer, memory is not asked after


def check_sizes(
    c_s: int, c_z: int, c_hidden: int, no_heads: int, no_qk_points: int, no_v_points: int, pair_value_dim: int | None
) -> None:
    """Raises ValueError, by name, for a size that is no whole number, or under 1 (c_z under 0), and for weights that
    the machine has no memory for (those that are made on a CPU; elsewhere torch says so)."""
    sizes = {"c_s": c_s, "c_hidden": c_hidden, "no_heads": no_heads}
    sizes |= {"no_qk_points": no_qk_points, "no_v_points": no_v_points}
    for name, value in sizes.items():
        check_whole(name, value, 1)
    check_whole("c_z", c_z, 0, " (0: no pair features)")
    if pair_value_dim is not None:
        check_whole("pair_value_dim", pair_value_dim, 1, " (or None)")
    pair = c_z if pair_value_dim is None else pair_value_dim
    numbers_in_weights = (
        no_heads * (c_s * (4 * c_hidden + 9 * no_qk_points + 7 * no_v_points + pair) + c_z) + c_z * pair
    )
    if numbers_in_weights > _MANY and torch.get_default_device().type == "cpu":
        name, value = max((sizes | {"c_z": c_z, "pair_value_dim": pair}).items(), key=lambda one: one[1])
        check_room(f"{name} = {value}: the weights", 4 * numbers_in_weights)


def check_inputs(s: Any, z: Any, frame: Frame, mask: Any, *, c_s: int, c_z: int) -> Bool[Tensor, "*b n"]:
    """The mask as bool, after every argument has been compared.

    s [*b, n, c_s] and z [*b, n, n, c_z] or None, floating; frame [*b, n]; mask [*b, n], bool or a number: 1 valid, 0
    not. Raises ValueError that names the argument. A mask's values are looked at on a CPU alone, where any other number
    is refused: a GPU would stall, and a traced call has none. There a number counts as valid above ½, so that a NaN
    excludes its residue, and so does ½.
    """
    check_dense("s", s, FEATURE_DTYPES)
    if z is not None:
        check_dense("z", z, FEATURE_DTYPES)
    check_dense("mask", mask, (*FEATURE_DTYPES, *MASK_DTYPES), "; torch.ones(s.shape[:-1]) excludes nothing")
    for name, x in (("z", z), ("mask", mask)):
        if x is not None and x.device != s.device:
            raise ValueError(f"{name} is on {x.device} and s on {s.device}; move all to one device")
    if s.ndim < 2 or s.shape[-1] != c_s:
        raise ValueError(f"s must be [*, n, c_s = {c_s}], got {list(s.shape)}")
    residues = s.shape[:-1]
    if frame.shape != residues:
        raise ValueError(
            f"r must have one frame per residue of s, {list(residues)}, got {list(frame.shape)}; "
            "expand or index the rigid object to match"
        )
    if frame.device != s.device:
        raise ValueError(f"r is on {frame.device} and s on {s.device}; move all to one device")
    if mask.shape != residues:
        raise ValueError(f"mask must be {list(residues)}, one per residue of s, got {list(mask.shape)}")
    if z is not None and c_z == 0:
        raise ValueError("z was given to a layer built with c_z = 0; pass z=None, or build the layer with c_z")
    if z is not None and z.shape != (*residues, residues[-1], c_z):
        raise ValueError(f"z must be {[*residues, residues[-1], c_z]} ([*, n, n, c_z]) or None, got {list(z.shape)}")
    if mask.dtype == torch.bool:
        return mask
    _check_mask_values(mask)
    return mask > 0.5


def _check_mask_values(mask: Tensor) -> None:
    """Raises ValueError for a NaN, an additive mask (0 and −10⁹), a soft one: none is what a comparison makes of it."""

    def known(x: Tensor) -> Tensor:
        return (x == 0) | (x == 1)

    if not holds(known, mask):
        found = mask[~known(mask)].flatten()[0].item()
        raise ValueError(
            f"mask must hold 1 (valid) and 0 (not) alone, got {found:g} among {mask.numel()}; "
            "of an additive mask pass mask == 0, of a soft one mask > 0.5"
        )


def sanitise(x: Float[Tensor, "..."], mask: Bool[Tensor, "..."]) -> Float[Tensor, "..."]:
    """`x` with zeros where `mask` is False, and no gradient there. `mask` covers the leading dimensions of `x`."""
    mask = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    return torch.where(mask, x, x.new_zeros(()))


def centre(frame: Frame, mask: Bool[Tensor, "*b n"]) -> Frame:
    """`frame` [*b, n] with its origin at the mean of the valid translations; masked frames become the identity.

    Attention sees differences of positions only, and those stay. What changes is the rounding: coordinates are as
    large as the structure, not as its distance from the origin, and t − c is one rounding of itself whatever the
    rounding of c, so that a far translation costs no more than the rounding of the input.
    """
    trans = sanitise(frame.trans, mask)
    count = mask.sum(dim=-1)[..., None, None].clamp(min=1)
    # Detached: a function of differences has no gradient in the origin, and what came through would be rounding.
    origin = trans.detach().sum(dim=-2, keepdim=True) / count
    identity = torch.eye(3, dtype=frame.dtype, device=frame.device)
    rot = torch.where(mask[..., None, None], frame.rot, identity)
    return Frame(rot, sanitise(trans - origin, mask))


def masked_softmax(logits: Float[Tensor, "..."], key_mask: Bool[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Softmax over the last dimension and the keys that are valid, in float32 or float64: [*, q, k] like `logits`.

    A masked key has weight exactly 0, whatever its logit (no additive mask, which a large logit would beat), and no
    gradient. A row without keys has weights 0 and gradients 0. `key_mask` broadcasts against `logits`.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # A row of −∞ only would be 0/0, forward and backward: it gets zeros here, and its weights are removed below.
    excluded = torch.where(key_mask.any(dim=-1, keepdim=True), float("-inf"), 0.0).to(logits)
    weights = torch.where(key_mask, logits, excluded).softmax(dim=-1)
    return torch.where(key_mask, weights, torch.zeros_like(weights))


def time_gate(t: Any, exponent: float | None, s: Float[Tensor, "*b n c_s"]) -> Float[Tensor, "*b"] | None:
    """t^exponent per sample, in float32 or wider; None without an exponent. `t`, the flow time in [0, 1], is a number
    or [*b], of any real dtype; ValueError for anything else."""
    if exponent is None:
        return None
    if t is None:
        raise ValueError("config.time_gate is set: pass t, the flow time in [0, 1] per sample, shape [*b]")
    dtype = torch.promote_types(s.dtype, torch.float32)
    if isinstance(t, numbers.Real):
        check_number("t", t, 0.0, 1.0, remedy=" (flow time, 1 = data)")
        # A number is written by the device itself: a copy from the host would wait for it.
        return s.new_full(s.shape[:-2], float(t), dtype=dtype) ** exponent
    if not isinstance(t, Tensor):
        try:
            t = torch.as_tensor(t)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"t must be a number or a tensor {list(s.shape[:-2])}, got {type(t).__name__}") from None
    check_dense("t", t, (*FEATURE_DTYPES, *MASK_DTYPES[1:]))
    time = t.to(s.device, dtype)
    if time.ndim and time.shape != s.shape[:-2]:
        raise ValueError(f"t must be a number or {list(s.shape[:-2])}, one per sample, got {list(time.shape)}")
    if not holds(lambda x: (x >= 0) & (x <= 1), time):
        raise ValueError(f"t must lie in [0, 1] (flow time, 1 = data), got {time.tolist()}")
    return time.expand(s.shape[:-2]) ** exponent


def value_points_out(
    weights: Float[Tensor, "*b h q k"], frame: Frame, v_local: Float[Tensor, "*b h k p 3"]
) -> Float[Tensor, "*b h q p 3"]:
    """The attended value points of every query, in the query's frame, nm.

        out_i = R_iᵀ ( Σ_j w_ij (R_j v_j + t_j) − (Σ_j w_ij) t_i )

    The second sum is 1 but for rounding, and 0 in a row without keys, which gives zeros. Invariant under rigid motions
    of `frame` (queries and keys are the same residues); its dtype is that of `frame` and `v_local` promoted.
    Source: AlphaFold 2, supplementary algorithm 22, line 10.

    Computed in float64 and rounded once. The sum over keys is a matrix product, and a float32 one is at the mercy of
    the process: TF32 gives it a 10-bit mantissa, autocast an 8-bit one. Both leave float64 alone. Elementwise
    multiply-and-sum escapes them too, but writes h·q·k·p·3 products: on one CPU core at n = 256, h = 8, p = 12, it
    takes 38 ms and 75 MB (16 ms one coordinate at a time), this 1 ms and 5 MB, a float32 product 0.5 ms.
    """
    dtype = torch.promote_types(frame.dtype, v_local.dtype)
    rot, trans = frame.rot.double()[..., None, :, None, :, :], frame.trans.double()[..., None, :, None, :]
    weights = weights.double()
    points = rotate(rot, v_local.double()) + trans  # [*b, h, k, p, 3], global
    attended = (weights @ points.flatten(-2)).unflatten(-1, points.shape[-2:])
    attended = attended - weights.sum(dim=-1)[..., None, None] * trans
    return rotate_inverse(rot, attended).to(dtype)


# ln(e − 1): softplus of it is 1
SOFTPLUS_INVERSE_ONE = 0.541324854612918

# The standard deviation of a standard normal cut off at ±2: √(1 − 4φ(2)/(2Φ(2) − 1)).
_STD_OF_CUT_NORMAL = 0.87962566103423978

Init = Literal["default", "final", "gating"]


def lecun_normal_(weight: Tensor) -> Tensor:
    """Fill `weight` [out, in] in place from a normal cut off at two standard deviations, with variance 1/in.

    The normal before the cut is wider than that, by 1/0.8796, so that the variance after it is 1/in: unit-variance
    inputs give unit-variance outputs. Returns `weight`; one without values (FakeTensorMode) is left as it is.
    """
    if is_fake(weight):  # torch draws until all lie within the cut, and there is nothing to look at
        return weight
    std = math.sqrt(1.0 / max(weight.shape[-1], 1)) / _STD_OF_CUT_NORMAL
    return nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std)


def linear(in_features: int, out_features: int, *, bias: bool = True, init: Init = "default") -> nn.Linear:
    """An nn.Linear with AlphaFold's initial weights; the bias starts at zero but for "gating".

    init   "default": LeCun's truncated normal; "final": weights 0, so that a residual block starts as the identity;
           "gating": weights 0 and bias 1, so that a sigmoid gate starts open

    Its `reset_parameters` draws them anew, as it is drawn here: the same numbers from the same seed.
    Raises ValueError for an unknown `init`.
    """
    if init not in ("default", "final", "gating"):
        raise ValueError(f"init must be 'default', 'final' or 'gating', got {init!r}")
    layer = nn.Linear(in_features, out_features, bias=bias)
    _fill(layer, init)
    layer.reset_parameters = _Reset(layer, init)
    return layer


def reset_children(module: nn.Module) -> None:
    """`reset_parameters` of every module within `module` that has one, in the order in which they were made."""
    for child in module.modules():
        reset = getattr(child, "reset_parameters", None)
        if child is not module and callable(reset):
            reset()


class Attached:
    """An attribute of an nn.Linear that has to know its layer.

    The reference is weak, for a layer that held itself would keep its memory until the garbage collector comes; copies
    and pickles make it anew. A subclass of nn.Linear would say it better; but tools that choose by exact type
    (torch.ao's quantize_dynamic) would pass it over, and so would `iga._plain`.
    """

    _layer: Any
    _options: tuple[Any, ...]

    def __init__(self, layer: nn.Linear, *options: Any) -> None:
        vars(self).update(_layer=weakref.ref(layer), _options=options)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._layer(), *self._options)


class _Reset(Attached):
    """`reset_parameters` of one layer: FSDP and others call it on each module, in any order."""

    def __call__(self) -> None:
        layer = self._layer()
        type(layer).reset_parameters(layer)
        _fill(layer, *self._options)


@torch.no_grad()
def _fill(layer: nn.Linear, init: Init) -> None:
    if init == "default":
        lecun_normal_(layer.weight)
    else:
        layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.fill_(1.0 if init == "gating" else 0.0)
