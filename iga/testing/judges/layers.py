"""Two attention layers from their formulas: what a layer has to equal that claims to be one of them.

    DefinedGaussianAttention   docs/theory.md, sections 1 and 2, of any IGAConfig
    DefinedPointAttention      AlphaFold 2's supplementary algorithm 22

Modules in plain torch, for float64, that share no code with the layers of this package: sums are written out, the
overlap comes of a Gram–Schmidt factor, no value of a masked residue is read, and differences of positions are taken
before anything else. Names, shapes and row order of the parameters are the layers', so that weights are handed over by
name; what they hold before is of no account. Called as layer(s, z, r, mask), r a GaussianRigid, nm.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import nn

from iga._typing import Bool, Float, Tensor
from iga.presets import IGAConfig

__all__ = ["DefinedGaussianAttention", "DefinedPointAttention", "overlap_by_gram_schmidt"]

EPS = 1e-8  # nm², under the root of the value points' norms


def overlap_by_gram_schmidt(
    q_rot: Float[Tensor, "... 3 3"],
    q_mean: Float[Tensor, "... 3"],
    q_sigma: Float[Tensor, "... 3"],
    k_rot: Float[Tensor, "... 3 3"],
    k_mean: Float[Tensor, "... 3"],
    k_sigma: Float[Tensor, "... 3"],
    *,
    jitter: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """(dist_sq, log_det) of Σ = F Fᵀ, F = [R_i diag σ_i, R_j diag σ_j, √(2 jitter) I], from F alone; differentiable.

    The rows of F are made orthogonal, F = L Q: dist_sq = |L⁻¹δ|², log_det = 2 Σ ln L_aa. Σ, which would square the
    condition, is never built. Elementwise, so that many pairs cost less than as many small factorisations.
    """
    i, j = q_rot * q_sigma[..., None, :], k_rot * k_sigma[..., None, :]
    i, j = torch.broadcast_tensors(i, j)
    rows = torch.cat([i, j], dim=-1)
    if jitter:
        own = math.sqrt(2 * jitter) * torch.eye(3, dtype=rows.dtype)
        rows = torch.cat([rows, own.expand(*rows.shape[:-1], 3)], dim=-1)
    a, b, c = rows.unbind(-2)
    x, y, z = (q_mean - k_mean).unbind(-1)
    aa = a.square().sum(-1).sqrt()
    a = a / aa[..., None]
    ba, ca = (a * b).sum(-1), (a * c).sum(-1)
    b, c = b - ba[..., None] * a, c - ca[..., None] * a
    bb = b.square().sum(-1).sqrt()
    b = b / bb[..., None]
    cb = (b * c).sum(-1)
    cc = (c - cb[..., None] * b).square().sum(-1).sqrt()
    x = x / aa
    y = (y - ba * x) / bb
    z = (z - ca * x - cb * y) / cc
    return x.square() + y.square() + z.square(), 2 * (aa.log() + bb.log() + cc.log())


class _Residues(NamedTuple):
    """Frames and Gaussians; `apart` is t_j − t_i, [*b, q, k, 3]: positions enter nowhere else."""

    rot: Float[Tensor, "*b n 3 3"]
    apart: Float[Tensor, "*b n n 3"]
    mean: Float[Tensor, "*b n 3"]
    log_scale: Float[Tensor, "*b n 3"]


class _Defined(nn.Module):
    """What both definitions share: scalar attention, softmax over valid keys, and what is attended.

    slack   relative error, with random signs, of the terms of a logit's gradient, which cancel where weights saturate:
            a w (g − Σ w g) whose terms are rounded. Values stay. To measure what rounding may do to gradients
    """

    def __init__(self, sizes: tuple[int, int, int, int, int, int], pair_values: int) -> None:
        super().__init__()
        self.c_s, self.c_z, self.c, self.h, self.p, self.pv = sizes
        self.linear_q = nn.Linear(self.c_s, self.h * self.c)
        self.linear_kv = nn.Linear(self.c_s, 2 * self.h * self.c)
        if self.c_z:
            self.linear_b = nn.Linear(self.c_z, self.h)
        self.linear_out = nn.Linear(self.h * (self.c + 4 * self.pv + pair_values), self.c_s)
        self.pair_values = pair_values
        self.slack = 0.0

    def forward(self, s: Tensor, z: Tensor | None, r: Any, mask: Tensor) -> Float[Tensor, "*b n c_s"]:
        """The update of s; 0 at masked residues."""
        valid = mask if mask.dtype == torch.bool else mask > 0.5
        s = _only(s, valid)
        z = None if z is None else _only(z, valid[..., :, None] & valid[..., None, :])
        rot, trans, mean, log_scale = (_only(x, valid) for x in (r.rot, r.trans, r.local_mean, r.log_scale))
        rot = rot + (~valid[..., None, None]) * torch.eye(3, dtype=rot.dtype)
        apart = trans[..., None, :, :] - trans[..., :, None, :]
        residues = _Residues(rot, apart, mean, log_scale)
        q = self.linear_q(s).unflatten(-1, (self.h, self.c))
        k, v = self.linear_kv(s).unflatten(-1, (self.h, 2, self.c)).unbind(-2)
        content = torch.einsum("...qhc,...khc->...hqk", q, k) / math.sqrt(self.c)
        bias = None if z is None else self.linear_b(z).movedim(-1, -3)
        points, logits = self._geometry(s, content, bias, residues)
        keys = valid[..., None, None, :].expand(logits.shape)
        top = logits.detach().masked_fill(~keys, -math.inf).amax(-1, keepdim=True).clamp(min=-1e300)
        raised = torch.where(keys, torch.where(keys, logits - top, 0.0).exp(), 0.0)
        total = raised.sum(-1, keepdim=True)
        weights = raised / torch.where(total > 0, total, 1.0)
        if self.slack:
            weights = weights + self.slack * _signs(weights) * weights.detach() * (logits - logits.detach())
        values = torch.einsum("...hqk,...khc->...qhc", weights, v)
        turned = torch.einsum("...kab,...khpb->...khpa", rot, points)
        seen = torch.einsum("...hqk,...khpa->...qhpa", weights, turned)
        seen = seen + torch.einsum("...hqk,...qka->...qha", weights, apart)[..., None, :]
        local = torch.einsum("...qba,...qhpb->...qhpa", rot, seen)
        norms = (local.square().sum(-1) + EPS).sqrt()
        if z is None:
            pair = s.new_zeros(*s.shape[:-1], self.h * self.pair_values)
        else:
            pair = torch.einsum("...hqk,...qkz->...qhz", weights, self._pair(z)).flatten(-2)
        features = [values.flatten(-2), *(part.flatten(-2) for part in (*local.unbind(-1), norms)), pair]
        return _only(self.linear_out(torch.cat(features, dim=-1)), valid)

    def _geometry(
        self, s: Tensor, content: Tensor, bias: Tensor | None, residues: _Residues
    ) -> tuple[Float[Tensor, "*b n h pv 3"], Float[Tensor, "*b h q k"]]:
        """(value points in the residues' frames, logits)."""
        raise NotImplementedError

    def _pair(self, z: Tensor) -> Tensor:
        return z


class DefinedGaussianAttention(_Defined):
    """The layer of docs/theory.md with its parameters by `InvariantGaussianAttention`'s names; no time gate."""

    def __init__(
        self,
        *,
        config: IGAConfig,
        c_s: int,
        c_z: int,
        c_hidden: int,
        no_heads: int,
        no_qk_points: int,
        no_v_points: int,
    ) -> None:
        channels = 0 if c_z == 0 else config.pair_value_dim or max(c_z // 4, 1)
        super().__init__((c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points), channels)
        self.config = config
        for name in ("q_offsets", "k_offsets", "q_scales", "k_scales"):
            self.add_module(f"linear_{name}", nn.Linear(c_s, no_heads * no_qk_points * 3))
        self.linear_v_points = nn.Linear(c_s, no_heads * no_v_points * 3)
        if c_z:
            self.down_z = nn.Linear(c_z, channels)
        self.geo_scale, self.geo_bias = (nn.Parameter(torch.zeros(no_heads)) for _ in range(2))

    def _pair(self, z: Tensor) -> Tensor:
        return self.down_z(z)

    def _gaussians(self, s: Tensor, side: str, residues: _Residues) -> tuple[Tensor, Tensor, Tensor]:
        """(rotations, μ − t, σ) of one side, [*b, h, p, n, …]."""
        config, rot = self.config, residues.rot
        u, d = (
            self.get_submodule(f"linear_{side}_{name}")(s).unflatten(-1, (self.h, self.p, 3)).tanh()
            for name in ("offsets", "scales")
        )
        log_sigma = residues.log_scale[..., None, None, :] + config.log_scale_max * d
        if config.sigma_max is not None:
            log_sigma = log_sigma.clamp(max=math.log(config.sigma_max))
        sigma, low = log_sigma.exp(), config.sigma_min
        sigma = sigma.clamp(min=low) if config.floor == "hard" else (sigma.square() + low**2).sqrt()
        moved = residues.mean[..., None, None, :] + config.offset_max * u * sigma
        placed = torch.einsum("...nab,...nhpb->...nhpa", rot, moved)
        return rot[..., None, None, :, :, :], placed.movedim(-4, -2), sigma.movedim(-4, -2)

    def _geometry(self, s: Tensor, content: Tensor, bias: Tensor | None, residues: _Residues) -> tuple[Tensor, Tensor]:
        config = self.config
        q_rot, q_mean, q_sigma = self._gaussians(s, "q", residues)
        k_rot, k_mean, k_sigma = self._gaussians(s, "k", residues)
        # δ from the query's own origin
        there = k_mean[..., None, :, :] + residues.apart[..., None, None, :, :, :]
        dist_sq, log_det = overlap_by_gram_schmidt(
            q_rot[..., :, None, :, :],
            q_mean[..., :, None, :],
            q_sigma[..., :, None, :],
            k_rot[..., None, :, :, :],
            there,
            k_sigma[..., None, :, :],
            jitter=config.jitter,
        )
        if config.log_det_min is not None:
            log_det = log_det.clamp(min=config.log_det_min)
        nu = config.dof
        far = dist_sq if config.score == "gaussian" else (nu + 3) * (1 + dist_sq / nu).log()
        total = (
            -0.5 * (far + log_det).sum(-3) * self.p ** {"sum": 0.0, "rsqrt": -0.5, "mean": -1.0}[config.point_scaling]
        )
        weight = (1 + self.geo_scale.exp()).log()[:, None, None]
        geometry = weight * total / config.temperature
        if config.logit_cap is not None:
            # 1 − tanh² of a rounded tanh errs by 2u, however small it is
            bent = 2 * self.slack * (geometry - geometry.detach())
            geometry = config.logit_cap * (geometry / config.logit_cap).tanh() + bent
        logits = content + geometry + self.geo_bias[:, None, None]
        points = self.linear_v_points(s).unflatten(-1, (self.h, self.pv, 3))
        return points, logits if bias is None else logits + bias


class DefinedPointAttention(_Defined):
    """AlphaFold 2's algorithm 22 with its parameters by OpenFold's names, every point in nm."""

    def __init__(
        self, *, c_s: int, c_z: int, c_hidden: int, no_heads: int, no_qk_points: int, no_v_points: int
    ) -> None:
        super().__init__((c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points), c_z)
        self.linear_q_points = nn.Linear(c_s, no_heads * no_qk_points * 3)
        self.linear_kv_points = nn.Linear(c_s, no_heads * (no_qk_points + no_v_points) * 3)
        self.head_weights = nn.Parameter(torch.zeros(no_heads))

    def _geometry(self, s: Tensor, content: Tensor, bias: Tensor | None, residues: _Residues) -> tuple[Tensor, Tensor]:
        # rows of a projection: space, head, point
        query = self.linear_q_points(s).unflatten(-1, (3, self.h, self.p)).movedim(-3, -1)
        both = self.linear_kv_points(s).unflatten(-1, (3, self.h, self.p + self.pv)).movedim(-3, -1)
        key, points = both[..., : self.p, :], both[..., self.p :, :]
        query, key = (torch.einsum("...nab,...nhpb->...nhpa", residues.rot, x).movedim(-4, -2) for x in (query, key))
        between = key[..., None, :, :] + residues.apart[..., None, None, :, :, :] - query[..., :, None, :]
        squares = between.square().sum((-1, -4))  # over space and points: [*b, h, q, k]
        gamma = (1 + self.head_weights.exp()).log()[:, None, None]
        logits = content - 0.5 * gamma * math.sqrt(2 / (9 * self.p)) * squares
        return points, math.sqrt(1 / 3) * (logits if bias is None else logits + bias)


def _only(x: Float[Tensor, "..."], valid: Bool[Tensor, "..."]) -> Float[Tensor, "..."]:
    """x with zeros, and no gradient, where its leading dimensions are not valid."""
    return torch.where(valid.reshape(*valid.shape, *(1,) * (x.ndim - valid.ndim)), x, 0.0)


def _signs(like: Tensor) -> Tensor:
    """±1 at random, the same for every call of a shape."""
    draw = torch.randint(0, 2, like.shape, generator=torch.Generator().manual_seed(like.numel()), dtype=torch.int8)
    return 2.0 * draw.to(like.dtype) - 1.0
