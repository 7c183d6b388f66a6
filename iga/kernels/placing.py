"""Value points from the residues' frames into space and back, in plain torch, and what their gradients are made of.

    out: y = R x + t        back: x = Rᵀ (y − t)        docs/theory.md, section 15.6

Flat shapes as in `iga.kernels.engine`; a residue's points are flattened to 3·pv columns. Elementwise, out of reach of
TF32.
"""

import torch

from iga._typing import Float, Tensor
from iga.rotation import rotate, rotate_inverse

__all__ = ["back", "out", "outer"]


def out(points: Float[Tensor, "b h n p3"], rot: Float[Tensor, "b n 3 3"], trans: Float[Tensor, "b n 3"]) -> Tensor:
    """R x + t of every point x of a residue."""
    x = points.unflatten(-1, (-1, 3))
    return (rotate(rot[:, None, :, None], x) + trans[:, None, :, None]).flatten(-2)


def back(points: Float[Tensor, "b h n p3"], rot: Float[Tensor, "b n 3 3"], trans: Float[Tensor, "b n 3"]) -> Tensor:
    """Rᵀ (y − t) of every point y."""
    y = points.unflatten(-1, (-1, 3))
    return rotate_inverse(rot[:, None, :, None], y - trans[:, None, :, None]).flatten(-2)


def outer(a: Float[Tensor, "b h n p3"], b: Float[Tensor, "b h n p3"]) -> Float[Tensor, "b n 3 3"]:
    """Σ over heads and points of a bᵀ: with a = ∂(R x) and b = x it is ∂R."""
    one, two = (x.unflatten(-1, (-1, 3)) for x in (a, b))
    return torch.stack([(one * two[..., k : k + 1]).sum(dim=(1, 3)) for k in range(3)], dim=-1)
