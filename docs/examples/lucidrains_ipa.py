"""lucidrains' InvariantPointAttention (invariant-point-attention 0.2.2 on PyPI) as a target of `iga verify`.

    pip install "invariant-gaussian-attention[peers]"
    iga verify docs/examples/lucidrains_ipa.py:layer
    iga verify docs/examples/lucidrains_ipa.py:layer_with_known_failures
    iga verify docs/examples/lucidrains_ipa.py:mended

Copy and change it for a layer of yours. What it breaks, and why, stands in docs/peers.md.
"""

import warnings

import torch
from invariant_point_attention import InvariantPointAttention
from torch import nn

from iga.testing import target

# It calls torch.cuda.amp.autocast, which newer releases of torch deprecate with a warning at every call.
warnings.filterwarnings("ignore", message=".*torch.cuda.amp.autocast", category=FutureWarning)


# It takes [b, n, …] and nothing else, and each argument with the same b.
ONE_BATCH = ("no_batch_dimension", "several_batch_dimensions", "broadcast")
AS_IT_IS = (*ONE_BATCH, "autocast")  # which rounds its points: reduced_precision says by how much


class LucidrainsIPA(nn.Module):
    """The layer behind forward(s, z, r, mask) -> [b, n, c_s]; lengths in nm.

    Its points are rows, x_global = x R + t, where ours are columns, x_global = R x + t: hence the transpose.
    """

    def __init__(self, c_s: int, c_z: int, c_hidden: int, no_heads: int, no_qk_points: int, no_v_points: int) -> None:
        super().__init__()
        self.attention = InvariantPointAttention(
            dim=c_s,
            heads=no_heads,
            scalar_key_dim=c_hidden,
            scalar_value_dim=c_hidden,
            point_key_dim=no_qk_points,
            point_value_dim=no_v_points,
            pairwise_repr_dim=c_z,
            require_pairwise_repr=c_z > 0,
        )

    def forward(self, s: torch.Tensor, z: torch.Tensor | None, r, mask: torch.Tensor) -> torch.Tensor:
        rotations, translations = r.get_rots().get_rot_mats().mT, r.get_trans()
        return self.attention(s, z, rotations=rotations, translations=translations, mask=mask.bool())


@target(kind="layer", unsupported=AS_IT_IS)
def layer(**sizes: int) -> nn.Module:
    """With no failure expected: `iga verify` ends 1 and names them."""
    return LucidrainsIPA(**sizes)


@target(
    kind="layer",
    unsupported=AS_IT_IS,
    expected_broken={
        "mask_inertness": "masked values enter as 0 times themselves, and 0 times NaN is NaN",
        "reduced_precision": "on a CPU, autocast rounds the points after they were moved into global coordinates",
    },
)
def layer_with_known_failures(**sizes: int) -> nn.Module:
    """With the failures that are known: `iga verify` ends 0, and 1 once one of them is mended or another appears."""
    return LucidrainsIPA(**sizes)


class Mended(LucidrainsIPA):
    """The same layer on what it can bear: zeros behind the mask, positions from their centre (nm), no autocast inside,
    which would round the points to bf16."""

    def forward(self, s: torch.Tensor, z: torch.Tensor | None, r, mask: torch.Tensor) -> torch.Tensor:
        valid = mask.bool()
        pairs = valid[..., :, None] & valid[..., None, :]
        s = torch.where(valid[..., None], s, 0.0)
        z = None if z is None else torch.where(pairs[..., None], z, 0.0)
        rotations = torch.where(valid[..., None, None], r.get_rots().get_rot_mats().mT, 0.0)
        translations = torch.where(valid[..., None], r.get_trans(), 0.0)
        centre = translations.sum(dim=-2, keepdim=True) / valid.sum(dim=-1)[..., None, None].clamp(min=1)
        translations = torch.where(valid[..., None], translations - centre, 0.0)
        with torch.autocast(s.device.type, enabled=False):
            return self.attention(s, z, rotations=rotations, translations=translations, mask=valid)


@target(kind="layer", unsupported=ONE_BATCH)
def mended(**sizes: int) -> nn.Module:
    """All invariants hold."""
    return Mended(**sizes)
