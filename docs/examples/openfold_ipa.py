"""OpenFold's InvariantPointAttention, and any layer with its call, as a target of `iga verify`.

    iga verify docs/examples/openfold_ipa.py:layer              # with OpenFold installed
    iga verify docs/examples/openfold_ipa.py:iga_layer          # iga.InvariantPointAttention, which has its names

`r` offers what OpenFold's Rigid offers to this layer: get_rots().get_rot_mats(), get_trans(), apply, invert_apply,
indexing. Lengths are nm; `scale_translation(10.0)` would hand it ångström.
"""

from collections.abc import Callable

import torch
from torch import nn

from iga.testing import target


class OpenFoldIPA(nn.Module):
    """A layer with OpenFold's constructor and call behind forward(s, z, r, mask): its mask is of floating point."""

    def __init__(self, attention: Callable[..., nn.Module], sizes: dict[str, int]) -> None:
        super().__init__()
        self.attention = attention(**sizes)

    def forward(self, s: torch.Tensor, z: torch.Tensor, r, mask: torch.Tensor) -> torch.Tensor:
        return self.attention(s, z, r, mask.to(s.dtype))


@target(kind="layer")
def layer(**sizes: int) -> nn.Module:
    """OpenFold's, from openfold.model.structure_module."""
    from openfold.model.structure_module import InvariantPointAttention

    return OpenFoldIPA(InvariantPointAttention, sizes)


@target(kind="layer")
def iga_layer(**sizes: int) -> nn.Module:
    """This package's baseline through the same adapter."""
    from iga import InvariantPointAttention

    return OpenFoldIPA(InvariantPointAttention, sizes)
