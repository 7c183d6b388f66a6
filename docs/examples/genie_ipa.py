"""Genie 2's InvariantPointAttention as a target of `iga verify`.

    git clone https://github.com/aqlaboratory/genie2 && export PYTHONPATH=genie2 && pip install scipy
    iga verify docs/examples/genie_ipa.py:layer

Its frames are its own class T, of the same verbs as OpenFold's Rigid and with plain matrices in it; this adapter makes
one of ours. Its mask is of floating point.
"""

import torch
from torch import nn

from iga.testing import target


class GenieIPA(nn.Module):
    """The layer behind forward(s, z, r, mask) -> [b, n, c_s]; lengths in nm."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        from genie.model.modules.invariant_point_attention import InvariantPointAttention
        from genie.utils.affine_utils import T

        self.attention, self.frames = InvariantPointAttention(**sizes), T

    def forward(self, s: torch.Tensor, z: torch.Tensor, r, mask: torch.Tensor) -> torch.Tensor:
        frames = self.frames(r.get_rots().get_rot_mats(), r.get_trans())
        return self.attention(s, z, frames, mask.to(s.dtype))


@target(kind="layer", reference="ipa")
def layer(**sizes: int) -> nn.Module:
    """With no failure expected: `iga verify` says what breaks."""
    return GenieIPA(sizes)
