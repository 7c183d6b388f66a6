"""InvariantPointAttention: the baseline, AlphaFold 2's supplementary algorithm 22.

    logit_ij = √⅓ ( q_i·k_j / √c + b_ij − ½ γ_h √(2/(9P)) Σ_p |T_i q_ip − T_j k_jp|² )

with T = (R, t) the residue's frame, γ_h = softplus(head_weights_h), P query/key points per head; then softmax over the
valid keys. Every point is in nm, the unit of AlphaFold's structure module (its weights expect 10 Å = 1).

Parameter names, shapes and row order are OpenFold's (openfold/model/structure_module.py), so that its weights load.
The geometry is arithmetic in the frames' float32 or float64 that autocast and TF32 cannot reach; the projections of
`s` and `z`, and the sums of scalar and pair values, are features and follow autocast like any other layer.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from iga import taps
from iga._attention_layer import EPS, INF, AttentionLayer, aligned, pair_features
from iga._ipa_weights import accept_spellings, point_projection
from iga._layers import (
    SOFTPLUS_INVERSE_ONE,
    centre,
    check_inputs,
    linear,
    masked_softmax,
    sanitise,
    value_points_out,
)
from iga._typing import Bool, Float, Tensor
from iga.frame import Frame, rigid_to_frame
from iga.functional import joined
from iga.kernels import Statistics
from iga.rotation import rotate

__all__ = ["InvariantPointAttention"]

# The logit is the sum of three terms, each of which is to have variance ⅓ over the keys of a row when every component
# of q, k and of the points is an independent standard normal; softmax does not see what all keys of a row share.
#   scalar: Var(q·k) = c, a sum of c products of variance 1.
#   pair:   Var(b) = 1, a projection of unit-variance inputs by LeCun's weights.
#   point:  ½|q − k|² = ½|q|² − q·k + ½|k|², of which ½|q|² is shared. Var(q·k) = 3; Var(½|k|²) = ¼ · 3 · Var(χ²₁) =
#           ¼ · 3 · 2 = 3/2; the two are uncorrelated, q having mean 0. Together Var = 9/2 a point, and P · 9/2 for P.
_POINT_VARIANCE = 9.0 / 2.0
_LOGIT_TERMS = 3


class InvariantPointAttention(AttentionLayer):
    """Attention whose geometry term is the squared distance of learned points; invariant under rigid motions.

    Sizes, inf and eps as InvariantGaussianAttention has them; c_z = 0: no parameters for pair features either.
    eps keeps the gradient of a norm finite at the origin, and raises a norm of 0 to √eps (10⁻⁴ nm).
    is_multimer: the parameters of OpenFold's multimer class: keys and values apart, q, k, v without bias.
    pair_value_dim: channels of the pair values, by a projection `down_z` (c_z // 4 in se3_diffusion and FrameFlow);
    None: z itself, as in OpenFold.

    `load_state_dict` takes OpenFold's monomer weights under both spellings of the point projections
    (`linear_q_points.weight`, and `linear_q_points.linear.weight` since OpenFold 2), and those of its multimer class,
    whichever way the layer was built. `state_dict` writes the first spelling.

    Called with s [*b, n, c_s], z [*b, n, n, c_z], rigids [*b, n] in nm and mask [*b, n], it returns [*b, n, c_s].
    Raises ValueError for sizes under 1 (c_z under 0), eps not above 0, inf under 746, and pair values without pairs.
    Source: Jumper et al. 2021, supplementary algorithm 22; what is deliberately otherwise: docs/swap.md.
    """

    def __init__(
        self,
        c_s: int,
        c_z: int,
        c_hidden: int,
        no_heads: int,
        no_qk_points: int,
        no_v_points: int,
        inf: float = INF,
        eps: float = EPS,
        is_multimer: bool = False,
        *,
        pair_value_dim: int | None = None,
    ) -> None:
        sizes = (c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points)
        super().__init__(sizes, inf, eps, is_multimer, pair_value_dim)
        if pair_value_dim is not None and not c_z:
            raise ValueError(f"pair_value_dim must be None where c_z = 0: there are no pairs; got {pair_value_dim}")

        hidden, points = no_heads * c_hidden, no_heads * no_qk_points * 3
        value_points = no_heads * no_v_points * 3
        self.linear_q = linear(c_s, hidden, bias=not is_multimer)
        if is_multimer:
            self.linear_k = linear(c_s, hidden, bias=False)
            self.linear_v = linear(c_s, hidden, bias=False)
        else:
            self.linear_kv = linear(c_s, 2 * hidden)
        self.linear_q_points = point_projection(c_s, points)
        if is_multimer:
            self.linear_k_points = point_projection(c_s, points)
            self.linear_v_points = point_projection(c_s, value_points)
        else:
            self.linear_kv_points = point_projection(c_s, points + value_points)
        if c_z:
            self.linear_b = linear(c_z, no_heads)
        if pair_value_dim is not None:
            self.down_z = linear(c_z, pair_value_dim)
        self.head_weights = nn.Parameter(torch.empty(no_heads))
        self._make_output(pair_value_dim or c_z)
        self.register_load_state_dict_pre_hook(accept_spellings)

    @torch.no_grad()
    def _reset_heads(self) -> None:
        self.head_weights.fill_(SOFTPLUS_INVERSE_ONE)

    def forward(
        self,
        s: Float[Tensor, "*b n c_s"],
        z: Float[Tensor, "*#b n n c_z"] | None,
        r: Any,
        mask: Tensor,
        inplace_safe: bool = False,
        _offload_inference: bool = False,
        _z_reference_list: Sequence[Tensor] | None = None,
    ) -> Float[Tensor, "*b n c_s"]:
        """The update of `s`, [*b, n, c_s].

        s     single representation              z    pair representation [*b, n, n, c_z], or None: no pair terms
        r     a rigid object as InvariantGaussianAttention takes it, [*b, n], nm; of a GaussianRigid its frame is used
        mask  and the last three, OpenFold's, as InvariantGaussianAttention has them

        Raises ValueError where a shape, a dtype or an argument does not fit, TypeError where `r` is no rigid object.
        """
        z = pair_features(z, inplace_safe, _offload_inference, _z_reference_list)
        return self._attended(s, z, r, mask, statistics=False, offload=_offload_inference)[0]

    def with_statistics(
        self,
        s: Float[Tensor, "*b n c_s"],
        z: Float[Tensor, "*#b n n c_z"] | None,
        r: Any,
        mask: Tensor,
    ) -> tuple[Float[Tensor, "*b n c_s"], Statistics]:
        """(update of `s`, what to watch of it) from one pass: `forward`, bit for bit, and what its rows hold.

        geo_absmax is the largest point term of a row's logits, ½ √⅓ γ_h √(2/(9P)) Σ_p |T_i q_ip − T_j k_jp|², over the
        valid keys. There is no covariance here, and log_det_min is +inf everywhere. The rest as `iga.kernels` has it.
        """
        output, statistics = self._attended(s, z, r, mask, statistics=True)
        assert statistics is not None
        return output, statistics

    def _attended(
        self, s: Tensor, z: Tensor | None, r: Any, mask: Tensor, *, statistics: bool, offload: bool = False
    ) -> tuple[Tensor, Statistics | None]:
        z, frame, mask = aligned(s, z, rigid_to_frame(r), mask)
        here = z.to(frame.device) if offload and isinstance(z, Tensor) else z
        valid = check_inputs(s, here, frame, mask, c_s=self.c_s, c_z=self.c_z)
        s = sanitise(s, valid)
        frame = centre(frame, valid)
        pair_bias = None
        if here is not None:
            here = _read(here, valid)
            pair_bias = self.linear_b(here).movedim(-1, -3)
            if offload:  # no copy in memory while the logits are: read again below
                here = None

        query_points, key_points, value_points = self._local_points(s)
        dist_sq = _squared_distances(_to_global(frame, query_points), _to_global(frame, key_points))
        geometry = dist_sq.dtype

        # [*b, h, n, c]
        q, k, v = self._scalars(s)
        gamma = F.softplus(self.head_weights.to(geometry))[:, None, None]
        point_weight = 1.0 / math.sqrt(_LOGIT_TERMS * self.no_qk_points * _POINT_VARIANCE)
        logits = (q @ k.mT).to(geometry) / math.sqrt(_LOGIT_TERMS * self.c_hidden)
        point_term = 0.5 * point_weight * gamma * dist_sq
        logits = logits - point_term
        if pair_bias is not None:
            logits = logits + pair_bias.to(geometry) / math.sqrt(_LOGIT_TERMS)
        weights = self._softmax(logits, valid)
        if taps.listening():
            for name, shown in (("geometry_logit", -point_term), ("logits", logits), ("weights", weights)):
                taps.show(name, shown, dims="b h q k")
            taps.show("values", v, dims="b h k c")

        points = value_points_out(weights, frame, value_points.transpose(-4, -3))
        pair = None
        if z is not None:
            pair = _read(z, valid) if here is None else here
            pair = self.down_z(pair) if hasattr(self, "down_z") else pair
            pair = weights.transpose(-3, -2).to(pair.dtype) @ pair
        output = self._projected_out(joined(weights.to(v.dtype) @ v, points, pair, self.eps), valid)
        watched = _row_statistics(point_term.detach(), weights.detach(), valid) if statistics else None
        return output, watched

    def _softmax(self, logits: Float[Tensor, "*b h q k"], valid: Bool[Tensor, "*b n"]) -> Float[Tensor, "*b h q k"]:
        """The weights of the logits: where a subclass changes them."""
        return masked_softmax(logits, valid[..., None, None, :])

    def extra_repr(self) -> str:
        return f"heads={self.no_heads}, points={self.no_qk_points}, value_points={self.no_v_points}"

    def _local_points(self, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value points, each [*b, n, h, p, 3]. The rows of a projection are ordered space, head, point;
        head, space, point in the multimer's."""
        if self.is_multimer:
            projections = (self.linear_q_points, self.linear_k_points, self.linear_v_points)
            q, k, v = (f(s).unflatten(-1, (self.no_heads, 3, -1)).transpose(-2, -1) for f in projections)
            return q, k, v
        q, kv = (
            f(s).unflatten(-1, (3, self.no_heads, -1)).movedim(-3, -1)
            for f in (self.linear_q_points, self.linear_kv_points)
        )
        k, v = kv.split([self.no_qk_points, self.no_v_points], dim=-2)
        return q, k, v


def _read(z: Float[Tensor, "*b n n c_z"], valid: Bool[Tensor, "*b n"]) -> Float[Tensor, "*b n n c_z"]:
    """z on the device of the mask, with zeros where the mask has them."""
    return sanitise(z.to(valid.device), valid[..., :, None] & valid[..., None, :])


def _to_global(frame: Frame, local: Float[Tensor, "*b n h p 3"]) -> Float[Tensor, "*b n h p 3"]:
    """R x + t in the wider of the two dtypes, and never in less than the frame's."""
    dtype = torch.promote_types(frame.dtype, local.dtype)
    rot, trans = frame.rot.to(dtype), frame.trans.to(dtype)
    return rotate(rot[..., None, None, :, :], local.to(dtype)) + trans[..., None, None, :]


def _squared_distances(
    query: Float[Tensor, "*b q h p 3"], key: Float[Tensor, "*b k h p 3"]
) -> Float[Tensor, "*b h q k"]:
    """Σ_p |x_qp − y_kp|² from differences: |x|² + |y|² − 2 x·y would cancel, and be a matrix product."""
    total: Tensor | None = None
    for x, y in zip(query.unbind(-1), key.unbind(-1), strict=True):
        difference = x.movedim(-3, -1)[..., :, None] - y.movedim(-3, -1)[..., None, :]  # [*b, h, p, q, k]
        total = difference.square() if total is None else total + difference.square()
    assert total is not None
    return total.sum(dim=-3)


def _row_statistics(
    point_term: Float[Tensor, "*b h q k"], weights: Float[Tensor, "*b h q k"], valid: Bool[Tensor, "*b n"]
) -> Statistics:
    invalid = ~(valid[..., :, None] & valid[..., None, :])[..., None, :, :]
    if not valid.shape[-1]:  # no keys, hence no rows: amax has nothing to choose from, and sum is as empty
        empty = point_term.sum(dim=-1)
        return Statistics(empty, empty, empty)
    largest, weight = (x.masked_fill(invalid, 0.0).amax(dim=-1) for x in (point_term, weights))
    return Statistics(largest, torch.full_like(largest, torch.inf), weight)
