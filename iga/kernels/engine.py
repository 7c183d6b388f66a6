"""The ground of all engines: what one is given, what it returns, and in plain torch what is done to rows of logits.

Flat shapes: B batch, H heads, P points, N residues, R query rows of a block. An engine is built from a `Geometry` and
a `Score`, packs them once as its machine likes, and is then asked for blocks of query rows against all keys.
Lengths in nm; rot maps local to global.

    x_ij = cap(w_h G_ij)        a_ij = softmax_j (logit_ij + x_ij)        docs/theory.md, section 15.3
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch

from iga._typing import Bool, Float, Tensor
from iga.kernels import placing
from iga.kernels.packing import finished

__all__ = ["Engine", "Geometry", "Gradients", "Score"]


@dataclass(frozen=True, eq=False)
class Geometry:
    """The Gaussians of all heads and points. Contiguous, of one dtype; masked residues are neutral (identity, mean 0,
    sigma 1), so that every number is finite."""

    rot: Float[Tensor, "b n 3 3"]
    mask: Bool[Tensor, "b n"]
    q_mean: Float[Tensor, "b h p n 3"]
    q_sigma: Float[Tensor, "b h p n 3"]
    k_mean: Float[Tensor, "b h p n 3"]
    k_sigma: Float[Tensor, "b h p n 3"]


@dataclass(frozen=True)
class Score:
    """The score of one pair of Gaussians, as `iga.overlap` defines it. log_det_min = −inf: no clamp."""

    kind: str
    dof: float
    log_det_min: float


class Gradients(NamedTuple):
    """Of the loss with respect to the differentiable fields of `Geometry`, in their shapes.

    `rot` is that of Σ as a function of R: it agrees with other forms along the tangent of SO(3), the skew part of
    Rᵀ ∂R, and nowhere else (docs/theory.md, section 15).
    """

    rot: Float[Tensor, "b n 3 3"]
    q_mean: Float[Tensor, "b h p n 3"]
    q_sigma: Float[Tensor, "b h p n 3"]
    k_mean: Float[Tensor, "b h p n 3"]
    k_sigma: Float[Tensor, "b h p n 3"]


class Engine:
    """Scores of query rows against all keys, summed over points, and the way back.

    This one serves problems without residues, and is the base of the others: each adds scores and their gradients, and
    overrides of the rest what its machine does better.
    """

    def __init__(self, geometry: Geometry, score: Score) -> None:
        self.geometry, self.score = Geometry(*(t.detach() for t in vars(geometry).values())), score
        # Σ e u and Σ M, as `finished` reads them, of queries and of keys: from the first `add_gradients` on
        self._sums: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def threads(heads: int) -> AbstractContextManager[None]:
        """Within it a call runs, of so many heads over its whole batch: a machine may settle there who computes."""
        return nullcontext()

    def sums(self, start: int, stop: int, lowest: bool = False, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(Σ_p score_p [B, H, R, N] of rows start … stop − 1, lowest raw log_det over valid keys and points [B, H, R]).

        The second is +inf in a row without valid keys, and an empty tensor unless `lowest`. Masked keys: any finite
        number. `out`: contiguous memory for the first.
        """
        raise NotImplementedError

    def add_gradients(self, start: int, stop: int, gamma: Float[Tensor, "b h r n"]) -> None:
        """Adds what dLoss/dΣ_p score_p = `gamma` of these rows contributes; `gamma` is 0 where a residue is masked."""
        raise NotImplementedError

    def gradients(self) -> Gradients:
        """The sums over all blocks added so far, taken in the order in which they came."""
        g = self.geometry
        if self._sums is None:
            return Gradients(*(torch.zeros_like(t) for t in (g.rot, g.q_mean, g.q_sigma, g.k_mean, g.k_sigma)))
        rot_q, q_mean, q_sigma = finished(g.rot, g.q_sigma, self._sums[0])
        rot_k, k_mean, k_sigma = finished(g.rot, g.k_sigma, self._sums[1])
        return Gradients(rot_q + rot_k, q_mean, q_sigma, k_mean, k_sigma)

    def out(self, points: Tensor, rot: Tensor, trans: Tensor) -> Float[Tensor, "b h n p3"]:
        """Value points from their residues' frames into space."""
        return placing.out(points, rot, trans)

    def back(self, points: Tensor, rot: Tensor, trans: Tensor) -> Float[Tensor, "b h n p3"]:
        """Value points from space into their residues' frames."""
        return placing.back(points, rot, trans)

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
