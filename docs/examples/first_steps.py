"""An attention layer of a Gaussian's width, as docs/verification.md mends it; `:layer` of this file ends 0."""

import torch
from torch import nn

import iga
from iga.testing import target


class GaussianAttention(nn.Module):
    """Weights from q·k and from how far apart two residues are, in units of their own Gaussians' widths."""

    def __init__(self, c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points):
        super().__init__()
        self.heads = no_heads
        self.q, self.k, self.v = (nn.Linear(c_s, no_heads * c_hidden, bias=False) for _ in range(3))
        self.bias = nn.Linear(c_z, no_heads)
        self.out = nn.Linear(no_heads * c_hidden, c_s)

    def forward(self, s, z, r, mask):
        """s [*, N, c_s], z [*, N, N, c_z], r a GaussianRigid [*, N], mask [*, N] -> [*, N, c_s]."""
        mask = mask.bool()
        s = s.where(mask[..., None], 0.0)  # whatever padding holds, NaN too
        z = z.where((mask[..., :, None] & mask[..., None, :])[..., None], 0.0)
        rot = r.rot.where(mask[..., None, None], torch.eye(3, dtype=s.dtype, device=s.device))
        trans, local, log_scale = (x.where(mask[..., None], 0.0) for x in (r.trans, r.local_mean, r.log_scale))
        r = iga.GaussianRigid(iga.Frame(rot, trans), local, log_scale)
        q, k, v = (f(s).unflatten(-1, (self.heads, -1)).transpose(-3, -2) for f in (self.q, self.k, self.v))
        variance = r.sigma.square().mean(-1) + 0.03**2  # a floor: scales that collapse divide by nothing
        delta = r.mean[..., :, None, :] - r.mean[..., None, :, :]
        dist_sq = delta.square().sum(-1) / (variance[..., :, None] + variance[..., None, :])
        geometry = -dist_sq.log1p()[..., None, :, :]  # grows so slowly that no row is one-hot at the start
        iga.taps.show("dist_sq", dist_sq[..., None, None, :, :], dims="b h p q k")
        iga.taps.show("geometry_logit", geometry, dims="b h q k")
        logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + self.bias(z).movedim(-1, -3) + geometry
        weights = logits.masked_fill(~mask[..., None, None, :], -1e9).softmax(-1)
        return self.out((weights @ v).transpose(-3, -2).flatten(-2)) * mask[..., None]


@target(kind="layer")
def layer(*, c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points):
    return GaussianAttention(c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points)
