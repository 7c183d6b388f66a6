"""What a kernel of the geometry is given and what it returns; the implementations share only this.

Flat shapes: B batch, H heads, P points, N residues, R query rows of a block. An engine is built from a `Geometry` and
a `Score`, packs them once as its machine likes, and is then asked for blocks of query rows against all keys.
Lengths in nm; rot maps local to global.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from iga._typing import Bool, Float, Tensor

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


@runtime_checkable
class Engine(Protocol):
    """Scores of query rows against all keys, summed over points, and the way back; rows as `iga.kernels.rows` has them,
    and value points as `iga.kernels.placing`."""

    def __init__(self, geometry: Geometry, score: Score) -> None: ...

    def sums(self, start: int, stop: int, lowest: bool = False, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(Σ_p score_p [B, H, R, N] of rows start … stop − 1, lowest raw log_det over valid keys and points [B, H, R]).

        The second is +inf in a row without valid keys, and an empty tensor unless `lowest`. Masked keys: any finite
        number. `out`: contiguous memory for the first.
        """
        ...

    def add_gradients(self, start: int, stop: int, gamma: Float[Tensor, "b h r n"]) -> None:
        """Adds what dLoss/dΣ_p score_p = `gamma` of these rows contributes; `gamma` is 0 where a residue is masked."""
        ...

    def gradients(self) -> Gradients:
        """The sums over all blocks added so far, taken in the order in which they came."""
        ...

    def weigh(
        self, logits: Tensor, scores: Tensor, geo_weight: Tensor, cap: float, start: int, watched: bool
    ) -> tuple[Tensor, Tensor, Tensor]: ...

    def weigh_back(
        self,
        logits: Tensor,
        scores: Tensor,
        d_weights: Tensor,
        geo_weight: Tensor,
        cap: float,
        start: int,
        lse: Tensor,
        d_lse: Tensor,
    ) -> Tensor: ...

    def out(self, points: Tensor, rot: Tensor, trans: Tensor) -> Tensor: ...

    def back(self, points: Tensor, rot: Tensor, trans: Tensor) -> Tensor: ...
