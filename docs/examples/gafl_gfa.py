"""GAFL's GeometricFrameAttention, whose values are multivectors of a geometric algebra, as a target of `iga verify`.

    git clone https://github.com/hits-mli/gafl && (cd gafl && sh install_gatr.sh) && export PYTHONPATH=gafl
    iga verify docs/examples/gafl_gfa.py:layer
    iga verify docs/examples/gafl_gfa.py:one_sign

with what its folder imports (torch_scatter, mdtraj, biotite and others). Frames go in as motors, unit quaternions with
a shift: GAFL's own `embed_frames` makes them of matrices. The first layer of its network is judged, which is given no
multivectors, and of its three outputs the first, the update of s.
"""

from types import SimpleNamespace

import torch
from torch import nn

from iga.testing import target


class GeometricFrames(nn.Module):
    """The layer behind forward(s, z, r, mask) -> [b, n, c_s]; lengths in nm."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        from gafl.models.gafl.cfa import GeometricFrameAttention
        from gafl.models.gafl.pga_utils import embed_frames

        self.attention = GeometricFrameAttention(SimpleNamespace(**sizes), geometric_input=False)
        self.embed = embed_frames

    def forward(self, s: torch.Tensor, z: torch.Tensor, r, mask: torch.Tensor) -> torch.Tensor:
        motors = self.embed(r.get_rots().get_rot_mats(), r.get_trans())
        return self.attention(s, None, z, motors, mask.to(s.dtype))[0]


@target(kind="layer", multiple_of={"no_v_points": 2}, unsupported=("no_batch_dimension", "vmap"))
def layer(**sizes: int) -> nn.Module:
    """With no failure expected: `iga verify` says what breaks. It is built with even numbers of value points alone."""
    return GeometricFrames(sizes)


class OneSign(nn.Module):
    """Relative motors of which the first number, the cosine of half the angle, is not negative."""

    def __init__(self, relative: nn.Module) -> None:
        super().__init__()
        self.relative = relative

    def forward(self, motors: torch.Tensor) -> torch.Tensor:
        between = self.relative(motors)
        return torch.where(between[..., :1] < 0, -between, between)


@target(kind="layer", multiple_of={"no_v_points": 2}, unsupported=("no_batch_dimension", "vmap"))
def one_sign(**sizes: int) -> nn.Module:
    """The same with one sign chosen for each pair of residues: what that mends was broken by the sign."""
    built = GeometricFrames(sizes)
    built.attention.local_rel_trafo = OneSign(built.attention.local_rel_trafo)
    return built
