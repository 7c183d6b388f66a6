"""InvariantGaussianAttention: the parameters and projections around `iga.functional`.

Constructor and call are those of AlphaFold 2's Invariant Point Attention (supplementary algorithm 22) as OpenFold
spells them; the Gaussians' local mean and scale come with the rigid object, or beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from iga import kernels
from iga._layers import centre, check_inputs, check_sizes, linear, reset_children, sanitise, time_gate
from iga._openfold import EPS, INF, aligned, check_options, pair_features
from iga._plain import is_plain, with_absent
from iga._typing import Float, Tensor
from iga.functional import Trace, gaussian_attention, joined, point_gaussians
from iga.gaussian import GaussianRigid
from iga.kernels import Statistics, choose
from iga.presets import DEFAULT_PRESET, IGAConfig, check_config, preset

__all__ = ["InvariantGaussianAttention"]


class _Projected(NamedTuple):
    """What the projections make of s: [*b, h, n, ·] and, for the Gaussians, (raw_u, raw_s) [*b, h, p, n, 3]."""

    q: Tensor
    k: Tensor
    v: Tensor
    value_points: Tensor
    raw_query: tuple[Tensor, Tensor]
    raw_key: tuple[Tensor, Tensor]


class _PairTerms(NamedTuple):
    """What z gives to the attention: see `iga.kernels.gaussian_attention`."""

    bias: Tensor | None
    z: Tensor | None
    z_weight: Tensor | None
    row_bias: Tensor | None  # of linear_b, the same for every key
    down_z: bool  # whether the attended z still has to go through it


class InvariantGaussianAttention(nn.Module):
    """Attention whose geometry term is the log-overlap of anisotropic Gaussians; invariant under rigid motions.

    c_s, c_z, c_hidden: channels of the single, the pair and the hidden representation; c_z = 0: no pair features.
    no_heads, no_qk_points, no_v_points: heads H, Gaussians per head P, value points per head.
    config: an IGAConfig, or the name of a preset ("bounded" unless given).
    inf: OpenFold's additive mask; masked keys are excluded exactly, as any inf from 746 on would have it.
    eps: nm², added under the root of the value points' norms.
    is_multimer: no bias in linear_q and linear_kv, as in AlphaFold-Multimer.
    implementation: who computes `forward`: "reference", "cpu", "fused" or "auto" (`iga.kernels`); an attribute, free to
    be changed. `trace` is always dense.

    Raises ValueError for sizes under 1 (c_z under 0) or too large for the memory, an unknown preset or implementation,
    an inf or eps out of range.
    """

    # Called after every forward with what it was given, while an `iga.Monitor` watches; nothing is kept otherwise.
    _observer: Callable[..., None] | None = None

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
        config: IGAConfig | str = DEFAULT_PRESET,
        implementation: str = "auto",
    ) -> None:
        super().__init__()
        self.config = preset(config) if isinstance(config, str) else check_config(config)
        sizes = {"c_s": c_s, "c_hidden": c_hidden, "no_heads": no_heads}
        sizes |= {"no_qk_points": no_qk_points, "no_v_points": no_v_points}
        check_sizes(c_z, self.config.pair_value_dim, **sizes)
        check_options(inf, eps, is_multimer)
        self.inf, self.eps, self.is_multimer = inf, eps, is_multimer
        if implementation not in ("auto", *kernels.IMPLEMENTATIONS):
            known = ", ".join(map(repr, ("auto", *kernels.IMPLEMENTATIONS)))
            raise ValueError(f"implementation must be one of {known}; got {implementation!r}")
        self.implementation = implementation
        self.c_s, self.c_z, self.c_hidden = c_s, c_z, c_hidden
        self.no_heads, self.no_qk_points, self.no_v_points = no_heads, no_qk_points, no_v_points
        self.c_pair_values = 0 if c_z == 0 else self.config.pair_value_dim or max(c_z // 4, 1)

        hidden, gaussians = no_heads * c_hidden, no_heads * no_qk_points * 3
        self.linear_q = linear(c_s, hidden, bias=not is_multimer)
        self.linear_kv = linear(c_s, 2 * hidden, bias=not is_multimer)
        self.linear_q_offsets = linear(c_s, gaussians)
        self.linear_k_offsets = linear(c_s, gaussians)
        self.linear_q_scales = linear(c_s, gaussians)
        self.linear_k_scales = linear(c_s, gaussians)
        self.linear_v_points = linear(c_s, no_heads * no_v_points * 3)
        if c_z:
            self.linear_b = linear(c_z, no_heads)
            self.down_z = linear(c_z, self.c_pair_values)
        self.geo_scale = nn.Parameter(torch.empty(no_heads))
        # The same for every key, so softmax cancels it: kept for the logs and checkpoints of models that have it.
        self.geo_bias = nn.Parameter(torch.empty(no_heads))
        self.linear_out = linear(no_heads * (c_hidden + 4 * no_v_points + self.c_pair_values), c_s, init="final")
        self._reset_heads()

    def reset_parameters(self) -> None:
        """Draws every parameter as the constructor does: the same numbers from the same seed.

        For a layer that was made on the meta device and moved by `to_empty`, whose memory holds anything.
        """
        reset_children(self)
        self._reset_heads()

    @torch.no_grad()
    def _reset_heads(self) -> None:
        self.geo_scale.fill_(self.config.geo_scale_init)
        self.geo_bias.zero_()

    def forward(
        self,
        s: Float[Tensor, "*b n c_s"],
        z: Float[Tensor, "*#b q k c_z"] | None,
        r: Any,
        mask: Tensor,
        inplace_safe: bool = False,
        _offload_inference: bool = False,
        _z_reference_list: Sequence[Tensor] | None = None,
        *,
        local_mean: Float[Tensor, "*b n 3"] | None = None,
        log_scale: Float[Tensor, "*b n 3"] | None = None,
        t: Tensor | float | None = None,
    ) -> Float[Tensor, "*b n c_s"]:
        """The update of `s`, [*b, n, c_s].

        s     single representation              z    pair representation [*b, n, n, c_z], or None
        r     GaussianRigid, or any rigid object with get_rots().get_rot_mats() and get_trans() (OpenFold's Rigid,
              iga.Frame) or Rigid3Array, with the Gaussians beside it: `local_mean` in nm in the residue's frame
              (absent: 0, CA) and `log_scale`, the log of the standard deviation in nm (absent: log
              config.default_sigma, isotropic)
        mask  [*b, n], bool, or 1 (valid) and 0. Masked keys get weight exactly 0 whatever they hold, NaN included;
              the output at masked residues is exactly 0, with zero gradient
        t     flow time in [0, 1] per sample, [*b]; needed by, and only by, a config with a time_gate

        Leading dimensions of z, r and mask that are 1 are expanded to those of s. The three after mask are OpenFold's
        (docs/swap.md): `_offload_inference` takes z from any device, or from _z_reference_list=[z].

        Raises ValueError where a shape, a dtype or an argument does not fit.
        """
        z = pair_features(z, inplace_safe, _offload_inference, _z_reference_list)
        rigid = self._rigid(r, local_mean, log_scale)
        if _offload_inference and isinstance(z, Tensor):
            z = z.to(rigid.device)
        chosen = choose(self.implementation, rigid.device, torch.promote_types(rigid.dtype, torch.float32), self.config)
        if chosen == "reference":
            output = self.trace(s, z, rigid, mask, t=t).output
            assert output is not None
        else:
            output = self._attended(s, z, rigid, mask, t, chosen, statistics=False)[0]
        self._observed(s, z, rigid, mask, t)
        return output

    def with_statistics(
        self,
        s: Float[Tensor, "*b n c_s"],
        z: Float[Tensor, "*#b q k c_z"] | None,
        r: Any,
        mask: Tensor,
        *,
        local_mean: Float[Tensor, "*b n 3"] | None = None,
        log_scale: Float[Tensor, "*b n 3"] | None = None,
        t: Tensor | float | None = None,
    ) -> tuple[Float[Tensor, "*b n c_s"], Statistics]:
        """(update of `s`, what to watch of it) from one pass, in linear memory where `forward` has it.

        `iga.diagnostics.statistics_metrics` turns the second into the three numbers that tell of a blow-up.
        """
        rigid = self._rigid(r, local_mean, log_scale)
        chosen = choose(self.implementation, rigid.device, torch.promote_types(rigid.dtype, torch.float32), self.config)
        output, statistics = self._attended(s, z, rigid, mask, t, chosen, statistics=True)
        assert statistics is not None
        self._observed(s, z, rigid, mask, t)
        return output, statistics

    def _attended(
        self,
        s: Tensor,
        z: Tensor | None,
        rigid: GaussianRigid,
        mask: Tensor,
        t: Tensor | float | None,
        implementation: str,
        *,
        statistics: bool,
    ) -> tuple[Tensor, Statistics | None]:
        """forward by `iga.kernels`: z stays as it came, and nothing else of size n² exists."""
        z, rigid, mask = aligned(s, z, rigid, mask)
        valid = check_inputs(s, z, rigid.frame, mask, c_s=self.c_s, c_z=self.c_z)
        s, rigid = sanitise(s, valid), _neutral(rigid, valid)
        geometry = torch.promote_types(rigid.dtype, torch.float32)
        projected = self._projected(s)
        query, key = (
            point_gaussians(rigid, raw[0].to(geometry), raw[1].to(geometry), self.config)
            for raw in (projected.raw_query, projected.raw_key)
        )
        bias, z, z_weight, row_bias, down_z = self._pair_terms(z, valid)
        out = kernels.gaussian_attention(
            projected.q,
            projected.k,
            projected.v,
            projected.value_points.to(geometry),
            (query.mean, query.sigma),
            (key.mean, key.sigma),
            rigid.frame.to(geometry),
            valid,
            geo_scale=self.geo_scale,
            # Constants of a row, which softmax cancels: nothing moves, and their gradient is zero rather than absent.
            geo_bias=self.geo_bias if row_bias is None else self.geo_bias + row_bias,
            config=self.config,
            gate=time_gate(t, self.config.time_gate, s),
            bias=bias,
            z=z,
            z_weight=z_weight,
            implementation=implementation,
            statistics=statistics,
        )
        pair = None
        if out.pair is not None:
            pair = out.pair.transpose(-3, -2)
            pair = self._pair_values(pair, valid) if down_z else pair
        return self._projected_out(joined(out.values, out.points, pair, self.eps), valid), out.statistics

    def _pair_terms(self, z: Tensor | None, valid: Tensor) -> "_PairTerms":
        """The short way where `linear_b` and `down_z` are plain; else what their calls make of z, of size n² · h."""
        if z is None:
            return _PairTerms(None, None, None, None, False)
        plain = is_plain(self.down_z)
        if plain and is_plain(self.linear_b):
            return _PairTerms(None, z, self.linear_b.weight, self.linear_b.bias, True)
        clean = sanitise(z, valid[..., :, None] & valid[..., None, :])
        bias = self.linear_b(clean).movedim(-1, -3)
        return _PairTerms(bias, z if plain else self.down_z(clean), None, None, plain)

    def trace(
        self,
        s: Float[Tensor, "*b n c_s"],
        z: Float[Tensor, "*#b q k c_z"] | None,
        r: Any,
        mask: Tensor,
        *,
        local_mean: Float[Tensor, "*b n 3"] | None = None,
        log_scale: Float[Tensor, "*b n 3"] | None = None,
        t: Tensor | float | None = None,
    ) -> Trace:
        """The call with every intermediate score kept, in dense memory; `forward` is its `output`, but for rounding."""
        z, rigid, mask = aligned(s, z, self._rigid(r, local_mean, log_scale), mask)
        valid = check_inputs(s, z, rigid.frame, mask, c_s=self.c_s, c_z=self.c_z)
        s = sanitise(s, valid)
        rigid = _neutral(rigid, valid)
        pair_bias = pair_values = None
        if z is not None:
            z = sanitise(z, valid[..., :, None] & valid[..., None, :])
            pair_bias = self.linear_b(z).movedim(-1, -3)
            pair_values = self.down_z(z)

        projected = self._projected(s)
        trace = gaussian_attention(
            projected.q,
            projected.k,
            projected.v,
            projected.value_points,
            rigid,
            projected.raw_query,
            projected.raw_key,
            valid,
            geo_scale=self.geo_scale,
            geo_bias=self.geo_bias,
            config=self.config,
            pair_bias=pair_bias,
            pair_values=pair_values,
            gate=time_gate(t, self.config.time_gate, s),
            eps=self.eps,
        )
        return replace(trace, output=self._projected_out(trace.features, valid))

    def _observed(self, *call: Any) -> None:
        if self._observer is not None and not torch.compiler.is_exporting():
            self._observer(self, *call)

    def extra_repr(self) -> str:
        sizes = f"heads={self.no_heads}, points={self.no_qk_points}"
        return f"{sizes}, implementation={self.implementation!r}, config={self.config}"

    def _projected(self, s: Float[Tensor, "*b n c_s"]) -> "_Projected":
        heads = (self.no_heads, -1)
        k, v = self.linear_kv(s).unflatten(-1, heads).transpose(-3, -2).chunk(2, dim=-1)
        return _Projected(
            self.linear_q(s).unflatten(-1, heads).transpose(-3, -2),
            k,
            v,
            self.linear_v_points(s).unflatten(-1, (*heads, 3)).transpose(-4, -3),
            (self._points(self.linear_q_offsets, s), self._points(self.linear_q_scales, s)),
            (self._points(self.linear_k_offsets, s), self._points(self.linear_k_scales, s)),
        )

    def _pair_values(self, pair: Float[Tensor, "*b n h c_z"], valid: Tensor) -> Float[Tensor, "*b n h c"]:
        """down_z after the attention: Σ_j a_ij (W z_ij + b) = W Σ_j a_ij z_ij + b, with nothing of size n² · c."""
        by_row = self.down_z(pair.to(self.down_z.weight.dtype))
        return sanitise(by_row, valid & valid.any(dim=-1, keepdim=True))

    def _projected_out(self, features: Tensor, valid: Tensor) -> Float[Tensor, "*b n c_s"]:
        width = self.no_heads * (self.c_hidden + 4 * self.no_v_points + self.c_pair_values)
        if features.shape[-1] < width:  # no pair features, no pair values: the last projection keeps its width
            absent = features.new_zeros(*features.shape[:-1], width - features.shape[-1])
            features = torch.cat([features, absent], dim=-1)
            features = with_absent(features, self.linear_b, self.down_z)
        output = self.linear_out(features)
        return torch.where(valid[..., None], output, torch.zeros_like(output))

    def _points(self, projection: nn.Module, s: Tensor) -> Float[Tensor, "*b h p n 3"]:
        return projection(s).unflatten(-1, (self.no_heads, self.no_qk_points, 3)).movedim(-4, -2)

    def _rigid(self, r: Any, local_mean: Tensor | None, log_scale: Tensor | None) -> GaussianRigid:
        if isinstance(r, GaussianRigid):
            if local_mean is not None or log_scale is not None:
                raise ValueError(
                    "local_mean and log_scale belong beside a plain rigid object; r is a GaussianRigid and has its own"
                )
            if r.dtype in (torch.float32, torch.float64):
                return r
            local_mean, log_scale = r.local_mean, r.log_scale  # shortened by a cast of every tensor: promoted below
        return GaussianRigid.around(r, local_mean, log_scale, sigma=self.config.default_sigma)


def _neutral(rigid: GaussianRigid, valid: Tensor) -> GaussianRigid:
    """Masked residues at the identity with unit scale, whatever they held; then translations about their mean.

    Only differences of positions matter, so centring changes nothing but the rounding: far translations cost no more
    than the rounding of the input.
    """
    frame = centre(rigid.frame, valid)
    return GaussianRigid(frame, sanitise(rigid.local_mean, valid), sanitise(rigid.log_scale, valid))
