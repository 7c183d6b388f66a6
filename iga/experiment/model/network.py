"""The network of the comparison: from a noised chain and its flow time to the clean one.

    features → blocks of (attention, sequence transformer, transition, update of the frames, transition of pairs)

The attention is the only part that differs between arms. Everything is a function of differences, distances and local
numbers, and updates are made in each residue's own axes, so that the prediction moves with the input: equivariant under
rigid motions. Every update starts at zero: a new network predicts its input. No dropout; lengths in nm.

Source: FrameFlow (J. Yim et al. 2023), whose trunk is FrameDiff's (2023), whose blocks are AlphaFold 2's structure
module with a transformer along the sequence; transitions and updates are AlphaFold 2's algorithms 20 (lines 8, 9), 23.
"""

from collections.abc import Callable

import torch
from torch import nn

from iga._layers import linear, sanitise
from iga._typing import Bool, Float, Tensor
from iga.experiment.model.features import REFERENCE_SIGMA, EdgeFeatures, NodeFeatures
from iga.experiment.settings import Model
from iga.experiment.task.chains import neutral
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.kernels import Statistics

__all__ = ["AttentionFactory", "FlowNetwork", "turn"]

# One attention: module(s, z, gaussian, mask, t) -> (update of s, Statistics); `iga.experiment.model.arms` makes them.
AttentionFactory = Callable[[], nn.Module]


class FlowNetwork(nn.Module):
    """Predicts the clean frames, and with model.gaussians = "learned" the clean Gaussians, of noised chains; "free"
    moves the Gaussians from block to block as well, without a loss of their own.

    attention   called once a block, in order
    """

    def __init__(self, model: Model, attention: AttentionFactory) -> None:
        super().__init__()
        self.gaussians = model.gaussians
        self.nodes = NodeFeatures(model.c_s)
        self.edges = EdgeFeatures(model.c_s, model.c_z)
        last = model.blocks - 1
        self.blocks = nn.ModuleList(_Block(model, attention(), last=number == last) for number in range(model.blocks))

    def forward(
        self,
        gaussian: GaussianRigid,
        t: Tensor,
        mask: Tensor,
        index: Tensor,
        statistics: list[Statistics] | None = None,
    ) -> GaussianRigid:
        """The prediction of x₁, [b, n]; masked residues come back as they were, and no other depends on them.

        gaussian     x_t, [b, n], nm                   t      flow time in [0, 1], 1 = data, [b]
        mask         bool [b, n], True = valid         index  position of each residue in its chain, whole, [b, n]
        statistics   a list to which each block's attention appends its Statistics, first block first

        With model.gaussians = "fixed" the Gaussians come back as they were. Raises ValueError where shapes do not fit,
        or the mask is not bool.
        """
        if mask.dtype != torch.bool:
            raise ValueError(f"mask must be bool, True = valid, got {mask.dtype}; pass mask > 0.5")
        if gaussian.shape != mask.shape or mask.ndim != 2 or index.shape != mask.shape or t.shape != mask.shape[:1]:
            raise ValueError(
                f"gaussian, mask and index must be [b, n] and t [b], got {list(gaussian.shape)}, {list(mask.shape)}, "
                f"{list(index.shape)} and {list(t.shape)}; one chain alone is a batch of 1"
            )
        dtype = next(p.dtype for p in self.parameters() if p.is_floating_point())
        start = current = neutral(gaussian, mask)
        index = sanitise(index.to(dtype), mask)
        s = self.nodes(start, t.to(dtype), index)
        z = self.edges(s, start.trans.to(dtype), index)
        for block in self.blocks:
            s, z, update, watched = block(s, z, current, mask, t)
            if statistics is not None:
                statistics.append(watched)
            current = _updated(current, update.to(gaussian.dtype), learned=self.gaussians != "fixed")
        return _where(mask, current, gaussian)


class _Block(nn.Module):
    """(s, z, Gaussians) → (s, z, update [b, n, 6 or 12], Statistics). The last one leaves z as it is."""

    def __init__(self, model: Model, attention: nn.Module, *, last: bool) -> None:
        super().__init__()
        c_s = model.c_s
        self.attention = attention
        self.attention_norm = nn.LayerNorm(c_s)
        layer = nn.TransformerEncoderLayer(
            c_s, model.transformer_heads, dim_feedforward=c_s, dropout=0.0, batch_first=True, norm_first=False
        )
        self.transformer = nn.TransformerEncoder(layer, model.transformer_layers, enable_nested_tensor=False)
        self.after_transformer = linear(c_s, c_s, init="final")
        self.transition = nn.Sequential(
            linear(c_s, c_s), nn.ReLU(), linear(c_s, c_s), nn.ReLU(), linear(c_s, c_s, init="final")
        )
        self.transition_norm = nn.LayerNorm(c_s)
        self.update = linear(c_s, 6 if model.gaussians == "fixed" else 12, init="final")
        self.edge_transition = None if last else _EdgeTransition(c_s, model.c_z)

    def forward(
        self, s: Tensor, z: Tensor, gaussian: GaussianRigid, mask: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Statistics]:
        attended, statistics = self.attention(s, z, gaussian, mask, t)
        s = self.attention_norm(s + attended)
        s = s + self.after_transformer(self.transformer(s, src_key_padding_mask=~mask))
        s = self.transition_norm(s + self.transition(s))
        if self.edge_transition is not None:
            z = self.edge_transition(s, z)
        return s, z, self.update(s), statistics


class _EdgeTransition(nn.Module):
    """z_ij from itself and from both residues: x = (z_ij, p s_i, p s_j), LayerNorm(W(x + f(x))), f two layers."""

    def __init__(self, c_s: int, c_z: int) -> None:
        super().__init__()
        c_p = max(c_s // 2, 1)
        width = c_z + 2 * c_p
        self.project = linear(c_s, c_p)
        self.layers = nn.Sequential(linear(width, width), nn.ReLU(), linear(width, width), nn.ReLU())
        self.out = linear(width, c_z)
        self.norm = nn.LayerNorm(c_z)

    def forward(self, s: Float[Tensor, "b n c_s"], z: Float[Tensor, "b n n c_z"]) -> Float[Tensor, "b n n c_z"]:
        p = self.project(s)
        n = p.shape[1]
        rows, columns = p[:, :, None, :].expand(-1, -1, n, -1), p[:, None, :, :].expand(-1, n, -1, -1)
        x = torch.cat([z, rows, columns], dim=-1)
        return self.norm(self.out(x + self.layers(x)))


def turn(v: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation of the quaternion (1, v), normalised: I at v = 0, about v by 2 atan |v|.

        R = (1 − c|v|²) I + c [v]ₓ + c v vᵀ,   c = 2/(1 + |v|²)

    Elementwise, with finite gradients everywhere; what is not finite shows as NaN, where `rotation.from_quaternion`
    raises: a training that diverges has its loss to say so. Source: AlphaFold 2, supplementary algorithm 23.
    """
    x, y, z = v.unbind(-1)
    norm_sq = x * x + y * y + z * z
    c = 2 / (1 + norm_sq)
    rows = [
        [1 - c * (y * y + z * z), c * (x * y - z), c * (x * z + y)],
        [c * (x * y + z), 1 - c * (x * x + z * z), c * (y * z - x)],
        [c * (x * z - y), c * (y * z + x), 1 - c * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _updated(gaussian: GaussianRigid, update: Float[Tensor, "b n u"], *, learned: bool) -> GaussianRigid:
    """x after (turn, shift in nm, and if `learned` local mean in 0.1 nm, log scale), all in the residue's own axes."""
    frame = gaussian.frame.compose(Frame(turn(update[..., :3]), update[..., 3:6]))
    if not learned:
        return GaussianRigid(frame, gaussian.local_mean, gaussian.log_scale)
    local_mean = gaussian.local_mean + REFERENCE_SIGMA * update[..., 6:9]
    return GaussianRigid(frame, local_mean, gaussian.log_scale + update[..., 9:12])


def _where(mask: Bool[Tensor, "b n"], a: GaussianRigid, b: GaussianRigid) -> GaussianRigid:
    def chosen(x: Tensor, y: Tensor) -> Tensor:
        return torch.where(mask.reshape(mask.shape + (1,) * (x.ndim - 2)), x, y)

    frame = Frame(chosen(a.rot, b.rot), chosen(a.trans, b.trans))
    return GaussianRigid(frame, chosen(a.local_mean, b.local_mean), chosen(a.log_scale, b.log_scale))
