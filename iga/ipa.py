"""InvariantPointAttention: the baseline, AlphaFold 2's supplementary algorithm 22.

    logit_ij = √⅓ ( q_i·k_j / √c + b_ij − ½ γ_h √(2/(9P)) Σ_p |T_i q_ip − T_j k_jp|² )

with T = (R, t) the residue's frame, γ_h = softplus(head_weights_h), P query/key points per head; then softmax over the
valid keys. Every point is in nm, the unit of AlphaFold's structure module (its weights expect 10 Å = 1).

Parameter names, shapes and row order are OpenFold's (openfold/model/structure_module.py), so that its weights load.
The geometry is arithmetic in the frames' float32 or float64 that autocast and TF32 cannot reach; the projections of
`s` and `z`, and the sums of scalar and pair values, are features and follow autocast like any other layer.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from iga._attention_ops import centre, check_inputs, check_sizes, masked_softmax, sanitise, value_points_out
from iga._init import SOFTPLUS_INVERSE_ONE, linear, reset_children
from iga._plain import with_absent
from iga._typing import Bool, Float, Tensor
from iga.frame import Frame, rigid_to_frame
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


class InvariantPointAttention(nn.Module):
    """Attention whose geometry term is the squared distance of learned points; invariant under rigid motions.

    c_s, c_z, c_hidden: channels of the single, the pair and the hidden representation; c_z = 0: no pair features, and
    no parameters for them.
    no_heads, no_qk_points, no_v_points: heads H, query/key points per head P, value points per head.
    eps: nm², added under the root of the value points' norms, which keeps their gradient finite at the origin and
    raises a norm of 0 to √eps (10⁻⁴ nm).

    `load_state_dict` takes OpenFold's monomer weights under both spellings of the point projections
    (`linear_q_points.weight`, and `linear_q_points.linear.weight` since OpenFold 2), and those of its multimer class,
    whose keys and values are apart, whose q, k, v have no bias, and whose point rows are ordered head first.
    `state_dict` writes the first spelling.

    Raises ValueError for sizes under 1 (c_z under 0) and eps not above 0.
    """

    def __init__(
        self,
        c_s: int,
        c_z: int,
        c_hidden: int,
        no_heads: int,
        no_qk_points: int,
        no_v_points: int,
        *,
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        check_sizes(
            c_z, c_s=c_s, c_hidden=c_hidden, no_heads=no_heads, no_qk_points=no_qk_points, no_v_points=no_v_points
        )
        if not 0 < eps < math.inf:
            raise ValueError(f"eps must be a positive finite number of nm², got {eps!r}")
        self.c_s, self.c_z, self.c_hidden = c_s, c_z, c_hidden
        self.no_heads, self.no_qk_points, self.no_v_points = no_heads, no_qk_points, no_v_points
        self.eps = eps

        hidden = no_heads * c_hidden
        self.linear_q = linear(c_s, hidden)
        self.linear_kv = linear(c_s, 2 * hidden)
        self.linear_q_points = linear(c_s, no_heads * no_qk_points * 3)
        self.linear_kv_points = linear(c_s, no_heads * (no_qk_points + no_v_points) * 3)
        if c_z:
            self.linear_b = linear(c_z, no_heads)
        self.head_weights = nn.Parameter(torch.empty(no_heads))
        self.linear_out = linear(no_heads * (c_z + c_hidden + 4 * no_v_points), c_s, init="final")
        self.register_load_state_dict_pre_hook(_accept_openfold_spellings)
        self._reset_heads()

    def reset_parameters(self) -> None:
        """Draws every parameter as the constructor does: the same numbers from the same seed.

        For a layer that was made on the meta device and moved by `to_empty`, whose memory holds anything.
        """
        reset_children(self)
        self._reset_heads()

    @torch.no_grad()
    def _reset_heads(self) -> None:
        self.head_weights.fill_(SOFTPLUS_INVERSE_ONE)

    def forward(
        self,
        s: Float[Tensor, "*b n c_s"],
        z: Float[Tensor, "*b n n c_z"] | None,
        r: Any,
        mask: Tensor,
    ) -> Float[Tensor, "*b n c_s"]:
        """The update of `s`, [*b, n, c_s].

        s     single representation
        z     pair representation [*b, n, n, c_z], or None: then the pair bias and the pair values are zero
        r     Frame, GaussianRigid (its frame is used), or any rigid object with get_rots().get_rot_mats() and
              get_trans(), [*b, n], nm
        mask  [*b, n], bool, or 1 (valid) and 0. Masked keys get weight exactly 0 whatever they hold, NaN included;
              the output at masked residues is exactly 0, with zero gradient

        Raises ValueError where a shape or a dtype does not fit, TypeError where `r` is no rigid object.
        """
        return self._attended(s, z, r, mask, statistics=False)[0]

    def with_statistics(
        self,
        s: Float[Tensor, "*b n c_s"],
        z: Float[Tensor, "*b n n c_z"] | None,
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
        self, s: Tensor, z: Tensor | None, r: Any, mask: Tensor, *, statistics: bool
    ) -> tuple[Tensor, Statistics | None]:
        frame = rigid_to_frame(r)
        valid = check_inputs(s, z, frame, mask, c_s=self.c_s, c_z=self.c_z)
        s = sanitise(s, valid)
        frame = centre(frame, valid)
        pair_bias = None
        if z is not None:
            z = sanitise(z, valid[..., :, None] & valid[..., None, :])
            pair_bias = self.linear_b(z).movedim(-1, -3)

        query_points = self._points(self.linear_q_points, s)
        key_points, value_points = self._points(self.linear_kv_points, s).split(
            [self.no_qk_points, self.no_v_points], dim=-2
        )
        dist_sq = _squared_distances(_to_global(frame, query_points), _to_global(frame, key_points))
        geometry = dist_sq.dtype

        # [*b, h, n, c]
        q = self.linear_q(s).unflatten(-1, (self.no_heads, self.c_hidden)).transpose(-3, -2)
        kv = self.linear_kv(s).unflatten(-1, (self.no_heads, 2 * self.c_hidden)).transpose(-3, -2)
        k, v = kv.chunk(2, dim=-1)
        gamma = F.softplus(self.head_weights.to(geometry))[:, None, None]
        point_weight = 1.0 / math.sqrt(_LOGIT_TERMS * self.no_qk_points * _POINT_VARIANCE)
        logits = (q @ k.mT).to(geometry) / math.sqrt(_LOGIT_TERMS * self.c_hidden)
        point_term = 0.5 * point_weight * gamma * dist_sq
        logits = logits - point_term
        if pair_bias is not None:
            logits = logits + pair_bias.to(geometry) / math.sqrt(_LOGIT_TERMS)
        weights = masked_softmax(logits, valid[..., None, None, :])

        points = value_points_out(weights, frame, value_points.transpose(-4, -3)).transpose(-4, -3)
        norms = (points.square().sum(dim=-1) + self.eps).sqrt()  # [*b, n, h, pv]
        parts = [
            (weights.to(v.dtype) @ v).transpose(-3, -2).flatten(-2),
            points.movedim(-1, -3).flatten(-3),  # all x, all y, all z
            norms.flatten(-2),
        ]
        if z is not None:
            parts.append((weights.transpose(-3, -2).to(z.dtype) @ z).flatten(-2))
        elif self.c_z:
            parts.append(v.new_zeros(*s.shape[:-1], self.no_heads * self.c_z))
        features = torch.cat([part.to(v.dtype) for part in parts], dim=-1)
        if z is None and self.c_z:
            features = with_absent(features, self.linear_b)
        output = self.linear_out(features)
        watched = _row_statistics(point_term.detach(), weights.detach(), valid) if statistics else None
        return sanitise(output, valid), watched

    def extra_repr(self) -> str:
        return f"heads={self.no_heads}, points={self.no_qk_points}, value_points={self.no_v_points}"

    def _points(self, projection: nn.Module, s: Tensor) -> Float[Tensor, "*b n h p 3"]:
        """Local points: the rows of the projection are ordered space first, then head, then point."""
        return projection(s).unflatten(-1, (3, self.no_heads, -1)).movedim(-3, -1)


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


def _accept_openfold_spellings(
    module: InvariantPointAttention, state_dict: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Rename OpenFold's other spellings in `state_dict`, in place, before it is read; leave the rest alone."""
    if f"{prefix}linear_k_points.linear.weight" in state_dict:
        _from_multimer(module.no_heads, state_dict, prefix)
    for name in ("linear_q_points", "linear_kv_points"):
        for part in ("weight", "bias"):
            if f"{prefix}{name}.linear.{part}" in state_dict:
                state_dict[f"{prefix}{name}.{part}"] = state_dict.pop(f"{prefix}{name}.linear.{part}")


def _from_multimer(heads: int, state_dict: dict[str, Tensor], prefix: str) -> None:
    """Merge keys and values per head, add the zero biases, and turn the point rows from [h, 3, p] to [3, h, p]."""

    def pop(name: str, *rows: int) -> Tensor:
        return state_dict.pop(f"{prefix}{name}").unflatten(0, (heads, *rows))

    def merged(k: Tensor, v: Tensor, dim: int) -> Tensor:
        return torch.cat([k, v], dim=dim)

    for part in ("weight", "bias"):
        if f"{prefix}linear_k.{part}" in state_dict:
            kv = merged(pop(f"linear_k.{part}", -1), pop(f"linear_v.{part}", -1), 1)
            state_dict[f"{prefix}linear_kv.{part}"] = kv.flatten(0, 1)
        q = pop(f"linear_q_points.linear.{part}", 3, -1)
        k = pop(f"linear_k_points.linear.{part}", 3, -1)
        kv = merged(k, pop(f"linear_v_points.linear.{part}", 3, -1), 2)
        state_dict[f"{prefix}linear_q_points.{part}"] = q.transpose(0, 1).flatten(0, 2)
        state_dict[f"{prefix}linear_kv_points.{part}"] = kv.transpose(0, 1).flatten(0, 2)
    for name in ("linear_q", "linear_kv"):
        weight = state_dict[f"{prefix}{name}.weight"]
        state_dict.setdefault(f"{prefix}{name}.bias", weight.new_zeros(weight.shape[0]))
