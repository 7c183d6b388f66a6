"""OpenFold's InvariantPointAttention, and any layer with its call, as a target of `iga verify`.

    git clone https://github.com/aqlaboratory/openfold && export PYTHONPATH=openfold
    iga verify docs/examples/openfold_ipa.py:layer              # its frames from this package, in the dtype they have
    iga verify docs/examples/openfold_ipa.py:with_its_frames    # with OpenFold's Rigid, which keeps float32 alone
    iga verify docs/examples/openfold_ipa.py:iga_layer          # iga.InvariantPointAttention, which has its names

Where its compiled softmax is missing, which inplace_safe=True alone calls, an empty attn_core_inplace_cuda.py will do.
`r` has the verbs of OpenFold's Rigid. Lengths are nm; `scale_translation(10.0)` gives ångström.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from iga.testing import target


class OpenFoldIPA(nn.Module):
    """A layer with OpenFold's constructor and call behind forward(s, z, r, mask): its mask is of floating point."""

    def __init__(self, attention: Callable[..., nn.Module], sizes: dict[str, int], frames: Any = None) -> None:
        super().__init__()
        self.attention, self.frames = attention(**sizes), frames

    def forward(self, s: torch.Tensor, z: torch.Tensor, r, mask: torch.Tensor) -> torch.Tensor:
        return self.attention(s, z, r if self.frames is None else self.frames(r), mask.to(s.dtype))


def its_frames(r: Any) -> Any:
    """OpenFold's Rigid of the same frames."""
    from openfold.utils.rigid_utils import Rigid, Rotation

    return Rigid(Rotation(rot_mats=r.get_rots().get_rot_mats()), r.get_trans())


@target(kind="layer", reference="ipa")
def layer(**sizes: int) -> nn.Module:
    """OpenFold's, from openfold.model.structure_module."""
    from openfold.model.structure_module import InvariantPointAttention

    return OpenFoldIPA(InvariantPointAttention, sizes)


@target(kind="layer")
def with_its_frames(**sizes: int) -> nn.Module:
    """The same with OpenFold's Rigid."""
    from openfold.model.structure_module import InvariantPointAttention

    return OpenFoldIPA(InvariantPointAttention, sizes, its_frames)


@target(kind="layer", reference="ipa")
def iga_layer(**sizes: int) -> nn.Module:
    """This package's baseline through the same adapter."""
    from iga import InvariantPointAttention

    return OpenFoldIPA(InvariantPointAttention, sizes)
