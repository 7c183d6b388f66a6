"""First derivatives of an overlap function in a residue's own coordinates: means, log scales, turns of the frames.

A turn is R → R exp([ω]×): off SO(3) two forms of one function differ, along it they do not (docs/theory.md, 9.3).
"""

import torch

from iga._typing import Tensor
from iga.testing.overlaps.subject import OverlapSubject, Pair
from iga.testing.targets import TargetError, one_line

__all__ = ["NAMES", "derivatives"]

NAMES = tuple(f"{value} by {by}" for value in ("dist_sq", "log_det") for by in ("mean", "log sigma", "rotation"))


def derivatives(function: OverlapSubject, pair: Pair) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """(dist_sq [n], log_det [n], {name of NAMES: [n, 3 or 6]}) of n pairs, in float64 as the function gave them.

    Both ends' derivatives stand side by side, query first. A result that no input leads to has derivative 0. Raises
    TargetError where autograd does.
    """
    leaves = [x.detach().clone().requires_grad_(True) for x in pair]
    values = function(*leaves)
    result: dict[str, Tensor] = {}
    for name, value in zip(("dist_sq", "log_det"), values, strict=True):
        if value.requires_grad:
            try:
                grads = torch.autograd.grad(value.sum(), leaves, retain_graph=True, allow_unused=True)
            except RuntimeError as error:
                raise TargetError(f"the gradient of {name} raised {one_line(error)}") from error
        else:
            grads = [None] * len(leaves)
        full = [(torch.zeros_like(x) if g is None else g).double() for g, x in zip(grads, leaves, strict=True)]
        rots, sigmas = (leaves[0], leaves[3]), (leaves[2], leaves[5])
        result[f"{name} by mean"] = torch.cat([full[1], full[4]], dim=-1)
        by_sigma = [g * s.detach().double() for g, s in zip((full[2], full[5]), sigmas, strict=True)]
        result[f"{name} by log sigma"] = torch.cat(by_sigma, dim=-1)
        turned = [_torque(r.detach().double(), g) for r, g in zip(rots, (full[0], full[3]), strict=True)]
        result[f"{name} by rotation"] = torch.cat(turned, dim=-1)
    return values[0].detach().double(), values[1].detach().double(), result


def _torque(rot: Tensor, grad: Tensor) -> Tensor:
    """The derivative by ω: twice the skew part of Rᵀ ∂R, as a vector [..., 3]."""
    m = (rot[..., :, :, None] * grad[..., :, None, :]).sum(-3)
    return torch.stack([m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], dim=-1)
