"""InvariantGaussianAttention: the parameters and projections around `iga.functional`.

Constructor and call are those of AlphaFold 2's Invariant Point Attention (supplementary algorithm 22) as OpenFold
spells them; the Gaussians' local mean and scale come with the rigid object, or beside it.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from iga._attention_ops import centre, check_inputs, check_sizes, sanitise
from iga._init import linear
from iga._typing import Float, Tensor
from iga.frame import rigid_to_frame
from iga.functional import Trace, gaussian_attention
from iga.gaussian import GaussianRigid
from iga.presets import DEFAULT_PRESET, IGAConfig, preset

__all__ = ["InvariantGaussianAttention"]


class InvariantGaussianAttention(nn.Module):
    """Attention whose geometry term is the log-overlap of anisotropic Gaussians; invariant under rigid motions.

    c_s, c_z, c_hidden: channels of the single, the pair and the hidden representation; c_z = 0: no pair features.
    no_heads, no_qk_points, no_v_points: heads H, Gaussians per head P, value points per head.
    config: an IGAConfig, or the name of a preset ("bounded" unless given).

    Raises ValueError for sizes under 1 (c_z under 0) and for an unknown preset.
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
        config: IGAConfig | str = DEFAULT_PRESET,
    ) -> None:
        super().__init__()
        check_sizes(
            c_z, c_s=c_s, c_hidden=c_hidden, no_heads=no_heads, no_qk_points=no_qk_points, no_v_points=no_v_points
        )
        self.config = preset(config) if isinstance(config, str) else config
        self.c_s, self.c_z, self.c_hidden = c_s, c_z, c_hidden
        self.no_heads, self.no_qk_points, self.no_v_points = no_heads, no_qk_points, no_v_points
        self.c_pair_values = 0 if c_z == 0 else self.config.pair_value_dim or max(c_z // 4, 1)

        hidden, gaussians = no_heads * c_hidden, no_heads * no_qk_points * 3
        self.linear_q = linear(c_s, hidden)
        self.linear_kv = linear(c_s, 2 * hidden)
        self.linear_q_offsets = linear(c_s, gaussians)
        self.linear_k_offsets = linear(c_s, gaussians)
        self.linear_q_scales = linear(c_s, gaussians)
        self.linear_k_scales = linear(c_s, gaussians)
        self.linear_v_points = linear(c_s, no_heads * no_v_points * 3)
        if c_z:
            self.linear_b = linear(c_z, no_heads)
            self.down_z = linear(c_z, self.c_pair_values)
        self.geo_scale = nn.Parameter(torch.full((no_heads,), float(self.config.geo_scale_init)))
        # The same for every key, so softmax cancels it: kept for the logs and checkpoints of models that have it.
        self.geo_bias = nn.Parameter(torch.zeros(no_heads))
        self.linear_out = linear(no_heads * (c_hidden + 4 * no_v_points + self.c_pair_values), c_s, init="final")

    def forward(
        self,
        s: Float[Tensor, "*b n c_s"],
        z: Float[Tensor, "*b q k c_z"] | None,
        r: Any,
        mask: Tensor,
        *,
        local_mean: Float[Tensor, "*b n 3"] | None = None,
        log_scale: Float[Tensor, "*b n 3"] | None = None,
        t: Tensor | float | None = None,
    ) -> Float[Tensor, "*b n c_s"]:
        """The update of `s`, [*b, n, c_s].

        s     single representation              z    pair representation [*b, n, n, c_z], or None
        r     GaussianRigid, or any rigid object with get_rots().get_rot_mats() and get_trans() (OpenFold's Rigid,
              iga.Frame), then with the Gaussians beside it: `local_mean` in nm in the residue's frame (absent: 0, CA)
              and `log_scale`, the log of the standard deviation in nm (absent: log config.default_sigma, isotropic)
        mask  [*b, n], bool or float, 1 = valid. Masked keys get weight exactly 0 whatever they hold, NaN included;
              the output at masked residues is exactly 0, with zero gradient
        t     flow time in [0, 1] per sample, [*b]; needed by, and only by, a config with a time_gate

        Raises ValueError where a shape, a dtype or an argument does not fit.
        """
        output = self.trace(s, z, r, mask, local_mean=local_mean, log_scale=log_scale, t=t).output
        assert output is not None
        return output

    def trace(
        self,
        s: Float[Tensor, "*b n c_s"],
        z: Float[Tensor, "*b q k c_z"] | None,
        r: Any,
        mask: Tensor,
        *,
        local_mean: Float[Tensor, "*b n 3"] | None = None,
        log_scale: Float[Tensor, "*b n 3"] | None = None,
        t: Tensor | float | None = None,
    ) -> Trace:
        """The call with every intermediate score kept: `forward` is its `output`."""
        rigid = self._rigid(r, local_mean, log_scale)
        valid = check_inputs(s, z, rigid.frame, mask, c_s=self.c_s, c_z=self.c_z)
        s = sanitise(s, valid)
        rigid = _neutral(rigid, valid)
        pair_bias = pair_values = None
        if z is not None:
            z = sanitise(z, valid[..., :, None] & valid[..., None, :])
            pair_bias = self.linear_b(z).movedim(-1, -3)
            pair_values = self.down_z(z)

        heads = (self.no_heads, -1)
        k, v = self.linear_kv(s).unflatten(-1, heads).transpose(-3, -2).chunk(2, dim=-1)
        trace = gaussian_attention(
            self.linear_q(s).unflatten(-1, heads).transpose(-3, -2),
            k,
            v,
            self.linear_v_points(s).unflatten(-1, (*heads, 3)).transpose(-4, -3),
            rigid,
            (self._points(self.linear_q_offsets, s), self._points(self.linear_q_scales, s)),
            (self._points(self.linear_k_offsets, s), self._points(self.linear_k_scales, s)),
            valid,
            geo_scale=self.geo_scale,
            geo_bias=self.geo_bias,
            config=self.config,
            pair_bias=pair_bias,
            pair_values=pair_values,
            gate=self._gate(t, s),
        )
        features = trace.features
        if self.c_z and z is None:  # the last projection keeps its width: no pair features, no pair values
            absent = features.new_zeros(*features.shape[:-1], self.no_heads * self.c_pair_values)
            features = torch.cat([features, absent], dim=-1)
        output = self.linear_out(features)
        return replace(trace, output=torch.where(valid[..., None], output, torch.zeros_like(output)))

    def extra_repr(self) -> str:
        return f"heads={self.no_heads}, points={self.no_qk_points}, config={self.config}"

    def _points(self, projection: nn.Linear, s: Tensor) -> Float[Tensor, "*b h p n 3"]:
        return projection(s).unflatten(-1, (self.no_heads, self.no_qk_points, 3)).movedim(-4, -2)

    def _rigid(self, r: Any, local_mean: Tensor | None, log_scale: Tensor | None) -> GaussianRigid:
        if isinstance(r, GaussianRigid):
            if local_mean is not None or log_scale is not None:
                raise ValueError(
                    "local_mean and log_scale belong beside a plain rigid object; r is a GaussianRigid and has its own"
                )
            return r
        frame = rigid_to_frame(r)
        if local_mean is None:
            local_mean = torch.zeros_like(frame.trans)
        if log_scale is None:
            log_scale = torch.full_like(frame.trans, self.config.default_sigma).log()
        return GaussianRigid(frame, local_mean.to(frame.dtype), log_scale.to(frame.dtype))

    def _gate(self, t: Tensor | float | None, s: Tensor) -> Tensor | None:
        if self.config.time_gate is None:
            return None
        if t is None:
            raise ValueError("config.time_gate is set: pass t, the flow time in [0, 1] per sample, shape [*b]")
        time = torch.as_tensor(t, device=s.device)
        time = time.to(torch.promote_types(s.dtype, torch.float32))
        if time.ndim and time.shape != s.shape[:-2]:
            raise ValueError(f"t must be a number or {list(s.shape[:-2])}, one per sample, got {list(time.shape)}")
        # Reading the values would stall a GPU, so only a CPU call is told.
        if time.device.type == "cpu" and not torch.compiler.is_compiling() and not ((time >= 0) & (time <= 1)).all():
            raise ValueError(f"t must lie in [0, 1] (flow time, 1 = data), got {time.tolist()}")
        return time.expand(s.shape[:-2]) ** self.config.time_gate


def _neutral(rigid: GaussianRigid, valid: Tensor) -> GaussianRigid:
    """Masked residues at the identity with unit scale, whatever they held; then translations about their mean.

    Only differences of positions matter, so centring changes nothing but the rounding: far translations cost no more
    than the rounding of the input.
    """
    frame = centre(rigid.frame, valid)
    return GaussianRigid(frame, sanitise(rigid.local_mean, valid), sanitise(rigid.log_scale, valid))
