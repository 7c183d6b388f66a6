"""FrameFlow's and FoldFlow's InvariantPointAttention, forks of OpenFold's, as targets of `iga verify`.

    git clone https://github.com/microsoft/protein-frame-flow && export PYTHONPATH=protein-frame-flow
    iga verify docs/examples/frameflow_ipa.py:layer
    git clone https://github.com/DreamFold/FoldFlow && export PYTHONPATH=FoldFlow
    iga verify docs/examples/frameflow_ipa.py:foldflow

with what their folders import (scipy, einops, biopython and others). Both take their sizes from an object, and hand
the values of pairs on with a quarter of their channels. This package's frames stand in for OpenFold's Rigid.
"""

from types import SimpleNamespace

import torch
from torch import nn

from iga import InvariantPointAttention
from iga.testing import target


class Configured(nn.Module):
    """A layer that takes its sizes from an object behind forward(s, z, r, mask): its mask is of floating point."""

    def __init__(self, attention: type[nn.Module], sizes: dict[str, int]) -> None:
        super().__init__()
        self.attention = attention(SimpleNamespace(**sizes))

    def forward(self, s: torch.Tensor, z: torch.Tensor, r, mask: torch.Tensor) -> torch.Tensor:
        return self.attention(s, z, r, mask.to(s.dtype))


def equal(**sizes: int) -> nn.Module:
    """This package's IPA with pair values of a quarter of the channels: what it has to equal with its weights."""
    return InvariantPointAttention(**sizes, pair_value_dim=sizes["c_z"] // 4)


@target(kind="layer", reference=equal)
def layer(**sizes: int) -> nn.Module:
    """FrameFlow's, from models.ipa_pytorch."""
    from models.ipa_pytorch import InvariantPointAttention as FrameFlowIPA

    return Configured(FrameFlowIPA, sizes)


@target(kind="layer")
def foldflow(**sizes: int) -> nn.Module:
    """FoldFlow's, from foldflow.models.components.ipa_pytorch; it has weights that it does not use."""
    from foldflow.models.components.ipa_pytorch import InvariantPointAttention as FoldFlowIPA

    return Configured(FoldFlowIPA, sizes)
