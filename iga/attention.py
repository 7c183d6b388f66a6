"""InvariantGaussianAttention: the parameters and projections around `iga.functional` and `iga.kernels`.

Constructor and call are those of AlphaFold 2's Invariant Point Attention (supplementary algorithm 22) as OpenFold
spells them; the Gaussians' local mean and scale come with the rigid object, or beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from iga import kernels, taps
from iga._attention_layer import EPS, INF, AttentionLayer, aligned, pair_features
from iga._layers import centre, check_inputs, linear, sanitise, time_gate
from iga._plain import is_plain
from iga._typing import Bool, Float, Tensor
from iga.functional import Trace, gaussian_attention, joined, point_gaussians
from iga.gaussian import GaussianRigid
from iga.kernels import Statistics, choose
from iga.presets import DEFAULT_PRESET, IGAConfig, check_config, preset

__all__ = ["InvariantGaussianAttention"]

_Raw = tuple[Tensor, Tensor]


class InvariantGaussianAttention(AttentionLayer):
    """Attention whose geometry term is the log-overlap of anisotropic Gaussians; invariant under rigid motions.

    c_s, c_z, c_hidden: channels of the single, the pair and the hidden representation; c_z = 0: no pair features.
    no_heads, no_qk_points, no_v_points: heads H, Gaussians per head P, value points per head.
    config: an IGAConfig, or the name of a preset ("bounded" unless given).
    inf: OpenFold's additive mask; masked keys are excluded exactly, as any inf from 746 on would have it.
    eps: nm², added under the root of the value points' norms.
    is_multimer: no bias in linear_q and linear_kv, as in AlphaFold-Multimer.
    implementation: who computes `forward`: "reference", "cpu", "fused" or "auto" (`iga.kernels`); an attribute, free to
    be changed. `trace` is always dense.

    Called with s [*b, n, c_s], z [*b, n, n, c_z], rigids [*b, n] in nm and mask [*b, n], it returns [*b, n, c_s]: see
    `forward`. Raises ValueError for sizes under 1 (c_z under 0) or too large for the memory, an unknown preset or
    implementation, an inf or eps out of range. Source: docs/theory.md, sections 2 and 5.
    """

    # Called after every forward with what it was given, while an `iga.Monitor` watches; nothing is kept otherwise.
    _observer: Callable[..., None] | None = None
    # Called in place of a forward, in the steps that an `iga.watch` looks at, with what makes it.
    _recorders: tuple[Callable[..., Any], ...] = ()

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
        config = preset(config) if isinstance(config, str) else check_config(config)
        sizes = (c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points)
        super().__init__(sizes, inf, eps, is_multimer, config.pair_value_dim)
        if implementation not in ("auto", *kernels.IMPLEMENTATIONS):
            known = ", ".join(map(repr, ("auto", *kernels.IMPLEMENTATIONS)))
            raise ValueError(f"implementation must be one of {known}; got {implementation!r}")
        self.config, self.implementation = config, implementation
        pair_values = 0 if c_z == 0 else config.pair_value_dim or max(c_z // 4, 1)

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
            self.down_z = linear(c_z, pair_values)
        self.geo_scale = nn.Parameter(torch.empty(no_heads))
        # The same for every key, so softmax cancels it: kept for the logs and checkpoints of models that have it.
        self.geo_bias = nn.Parameter(torch.empty(no_heads))
        self._make_output(pair_values)

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
        return self._run(s, z, rigid, mask, t, statistics=False)[0]

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
        output, statistics = self._run(s, z, rigid, mask, t, statistics=True)
        assert statistics is not None
        return output, statistics

    def _run(
        self, s: Tensor, z: Tensor | None, rigid: GaussianRigid, mask: Tensor, t: Any, *, statistics: bool
    ) -> tuple[Tensor, Statistics | None]:
        if torch.compiler.is_compiling() or not self._recorders:
            return self._computed(s, z, rigid, mask, t, statistics)
        call = partial(self._computed, s, z, rigid, mask, t, statistics)
        for recorder in self._recorders:
            call = partial(recorder, self, (s, z, rigid, mask), {"t": t}, call)
        return call()

    def _computed(
        self, s: Tensor, z: Tensor | None, rigid: GaussianRigid, mask: Tensor, t: Any, statistics: bool
    ) -> tuple[Tensor, Statistics | None]:
        geometry = torch.promote_types(rigid.dtype, torch.float32)
        chosen = choose(self.implementation, rigid.device, geometry, self.config, self.no_qk_points)
        if chosen == "reference" and not statistics:
            output, watched = self.trace(s, z, rigid, mask, t=t).output, None
            assert output is not None
        else:
            output, watched = self._attended(s, z, rigid, mask, t, chosen, statistics)
            if taps.listening():  # a kernel keeps nothing that could be shown: dense torch computes it besides
                with torch.no_grad():
                    self.trace(s, z, rigid, mask, t=t)
        if self._observer is not None and not torch.compiler.is_exporting():
            self._observer(self, (s, z, rigid, mask), {"t": t})
        return output, watched

    def _attended(
        self, s: Tensor, z: Tensor | None, rigid: GaussianRigid, mask: Tensor, t: Any, chosen: str, statistics: bool
    ) -> tuple[Tensor, Statistics | None]:
        """forward by `iga.kernels`: z stays as it came, and nothing else of size n² exists."""
        s, z, rigid, valid = self._prepared(s, z, rigid, mask)
        geometry = torch.promote_types(rigid.dtype, torch.float32)
        (q, k, v, value_points), raw = self._projected(s)
        query, key = (point_gaussians(rigid, u.to(geometry), d.to(geometry), self.config) for u, d in raw)
        pair_terms, row_bias, down_z = self._pair_terms(z, valid)
        out = kernels.gaussian_attention(
            q,
            k,
            v,
            value_points.to(geometry),
            (query.mean, query.sigma),
            (key.mean, key.sigma),
            rigid.frame.to(geometry),
            valid,
            geo_scale=self.geo_scale,
            # Constants of a row, which softmax cancels: nothing moves, and their gradient is zero rather than absent.
            geo_bias=self.geo_bias if row_bias is None else self.geo_bias + row_bias,
            config=self.config,
            gate=time_gate(t, self.config.time_gate, s),
            implementation=chosen,
            statistics=statistics,
            **pair_terms,
        )
        pair = None if out.pair is None else out.pair.transpose(-3, -2)
        if pair is not None and down_z:  # Σ_j a_ij (W z_ij + b) = W Σ_j a_ij z_ij + b, with nothing of size n² · c
            pair = self.down_z(pair.to(self.down_z.weight.dtype))
            pair = sanitise(pair, valid & valid.any(dim=-1, keepdim=True))
        return self._projected_out(joined(out.values, out.points, pair, self.eps), valid), out.statistics

    def _pair_terms(self, z: Tensor | None, valid: Tensor) -> tuple[dict[str, Tensor], Tensor | None, bool]:
        """What z gives to `kernels.gaussian_attention`, the bias that linear_b adds to all keys of a row alike, and
        whether the attended z still has to go through down_z.

        The short way where `linear_b` and `down_z` are plain; else what their calls make of z, of size n² · h.
        """
        if z is None:
            return {}, None, False
        plain = is_plain(self.down_z)
        if plain and is_plain(self.linear_b):
            return {"z": z, "z_weight": self.linear_b.weight}, self.linear_b.bias, True
        z = sanitise(z, valid[..., :, None] & valid[..., None, :])
        return {"bias": self.linear_b(z).movedim(-1, -3), "z": z if plain else self.down_z(z)}, None, plain

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
        s, z, rigid, valid = self._prepared(s, z, self._rigid(r, local_mean, log_scale), mask)
        pair_bias = pair_values = None
        if z is not None:
            z = sanitise(z, valid[..., :, None] & valid[..., None, :])
            pair_bias = self.linear_b(z).movedim(-1, -3)
            pair_values = self.down_z(z)

        features, raw = self._projected(s)
        trace = gaussian_attention(
            *features,
            rigid,
            *raw,
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

    def extra_repr(self) -> str:
        sizes = f"heads={self.no_heads}, points={self.no_qk_points}"
        return f"{sizes}, implementation={self.implementation!r}, config={self.config}"

    def _prepared(
        self, s: Tensor, z: Tensor | None, rigid: GaussianRigid, mask: Tensor
    ) -> tuple[Tensor, Tensor | None, GaussianRigid, Bool[Tensor, "*b n"]]:
        """(s, z, rigid, valid): compared, and what is masked neutral but for z; the origin is amid the residues."""
        z, rigid, mask = aligned(s, z, rigid, mask)
        valid = check_inputs(s, z, rigid.frame, mask, c_s=self.c_s, c_z=self.c_z)
        local_mean, log_scale = sanitise(rigid.local_mean, valid), sanitise(rigid.log_scale, valid)
        return sanitise(s, valid), z, GaussianRigid(centre(rigid.frame, valid), local_mean, log_scale), valid

    def _projected(
        self, s: Float[Tensor, "*b n c_s"]
    ) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], tuple[_Raw, _Raw]]:
        """(q, k, v, value points), each [*b, h, n, ·], and (raw_u, raw_s), [*b, h, p, n, 3], of queries and of keys."""

        def points(projection: nn.Module) -> Tensor:
            return projection(s).unflatten(-1, (self.no_heads, -1, 3)).movedim(-4, -2)

        q, k, v = self._scalars(s)
        value_points = self.linear_v_points(s).unflatten(-1, (self.no_heads, -1, 3)).transpose(-4, -3)
        raw_query = points(self.linear_q_offsets), points(self.linear_q_scales)
        raw_key = points(self.linear_k_offsets), points(self.linear_k_scales)
        return (q, k, v, value_points), (raw_query, raw_key)

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
