"""What happens to whole rows of logits, in plain torch: cap, softmax over valid keys, and the way back.

    x_ij = cap(w_h G_ij)        a_ij = softmax_j (logit_ij + x_ij)        docs/theory.md, section 15.3

An engine has these two methods; one whose machine does better with code of its own overrides them.
"""

import torch

from iga._typing import Float, Tensor
from iga.kernels.engine import Geometry

__all__ = ["Rows"]


class Rows:
    """The rows of an `iga.kernels.engine.Engine`, elementwise torch on any device."""

    geometry: Geometry

    def weigh(
        self,
        logits: Float[Tensor, "b h r n"],
        scores: Float[Tensor, "b h r n"],
        geo_weight: Float[Tensor, "b h"],
        cap: float,
        start: int,
        watched: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(lse, largest |x|, largest weight), each [B, H, R] (the last two of no use unless `watched`).

        In place: logits, given without x, become weights; scores become x. Row 0 of the block is row `start`. A masked
        row and a row without keys have weights 0 and lse −∞.
        """
        valid = self._valid(start, logits)
        x, _ = _capped(scores.mul_(geo_weight[:, :, None, None]), cap, slope=False)
        logits.add_(x).masked_fill_(~valid, float("-inf"))
        top = logits.amax(dim=-1, keepdim=True)
        top = torch.where(top == float("-inf"), 0.0, top)
        weights = logits.sub_(top).exp_()
        total = weights.sum(dim=-1, keepdim=True)
        lse = (total.log() + top)[..., 0]
        weights /= torch.where(total == 0, 1.0, total)
        if not watched:
            return lse, lse, lse
        return lse, x.abs().masked_fill_(~valid, 0.0).amax(dim=-1), weights.amax(dim=-1)

    def weigh_back(
        self,
        logits: Float[Tensor, "b h r n"],
        scores: Float[Tensor, "b h r n"],
        d_weights: Float[Tensor, "b h r n"],
        geo_weight: Float[Tensor, "b h"],
        cap: float,
        start: int,
        lse: Float[Tensor, "b h r"],
        d_lse: Float[Tensor, "b h r"],
    ) -> Float[Tensor, "b h"]:
        """What the block adds to the gradient of `geo_weight`, in float64.

        In place: logits become weights, scores the gradient of the scores, d_weights that of the logits.
        """
        valid = self._valid(start, logits)
        weight = geo_weight[:, :, None, None]
        x, slope = _capped(scores * weight, cap, slope=True)
        # A row without keys has lse = −∞ and logits −∞: shifted by +∞ its weights are exp(−∞) = 0.
        shift = torch.where(lse == float("-inf"), float("inf"), lse)[..., None]
        weights = logits.add_(x).masked_fill_(~valid, float("-inf")).sub_(shift).exp_()
        mean = (weights * d_weights).sum(dim=-1, keepdim=True)
        d_logits = d_weights.sub_(mean.sub_(d_lse[..., None])).mul_(weights)
        d_geo = d_logits if slope is None else slope.mul_(d_logits)
        d_weight = (d_geo * scores).sum(dim=(-2, -1), dtype=torch.float64)
        scores.copy_(d_geo).mul_(weight)
        return d_weight

    def _valid(self, start: int, block: Tensor) -> Tensor:
        mask = self.geometry.mask
        return mask[:, None, start : start + block.shape[2], None] & mask[:, None, None, :]


def _capped(geo: Tensor, cap: float, *, slope: bool) -> tuple[Tensor, Tensor | None]:
    """x = cap(geo), in place, and dx/dgeo where it is asked for and not 1."""
    if cap == float("inf"):
        return geo, None
    bent = geo.div_(cap)
    # sech², not 1 − tanh²: accurate where the cap saturates. cosh overflows to inf, and the slope is then 0.
    sloped = bent.cosh().reciprocal_().square_() if slope else None
    return bent.tanh_().mul_(cap), sloped
