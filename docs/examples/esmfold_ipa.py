"""ESMFold's invariant point attention, as transformers has it, as a target of `iga verify`.

    pip install transformers==5.24.0
    iga verify docs/examples/esmfold_ipa.py:layer
    iga verify docs/examples/esmfold_ipa.py:with_its_frames

ESM's own repository imports OpenFold's layer, for which openfold_ipa.py is the adapter. The numbers of the structure
module come from a configuration; its frames are a copy of OpenFold's Rigid, which makes float32 of what it is given.
"""

from types import SimpleNamespace

import torch
from torch import nn

from iga.testing import target


class EsmFoldIPA(nn.Module):
    """The layer behind forward(s, z, r, mask) -> [b, n, c_s]; lengths in nm, mask of floating point."""

    def __init__(self, sizes: dict[str, int], *, own_frames: bool = False) -> None:
        super().__init__()
        from transformers.models.esm.modeling_esmfold import EsmFoldInvariantPointAttention

        config = SimpleNamespace(
            sequence_dim=sizes["c_s"],
            pairwise_dim=sizes["c_z"],
            ipa_dim=sizes["c_hidden"],
            num_heads_ipa=sizes["no_heads"],
            num_qk_points=sizes["no_qk_points"],
            num_v_points=sizes["no_v_points"],
            epsilon=1e-8,
            inf=1e5,
        )
        self.attention, self.own_frames = EsmFoldInvariantPointAttention(config), own_frames

    def forward(self, s: torch.Tensor, z: torch.Tensor, r, mask: torch.Tensor) -> torch.Tensor:
        if self.own_frames:
            from transformers.models.esm.openfold_utils import Rigid, Rotation

            r = Rigid(Rotation(rot_mats=r.get_rots().get_rot_mats()), r.get_trans())
        return self.attention(s, z, r, mask.to(s.dtype))


@target(kind="layer", reference="ipa")
def layer(**sizes: int) -> nn.Module:
    """With frames of this package."""
    return EsmFoldIPA(sizes)


@target(kind="layer")
def with_its_frames(**sizes: int) -> nn.Module:
    """With its own copy of OpenFold's Rigid."""
    return EsmFoldIPA(sizes, own_frames=True)
