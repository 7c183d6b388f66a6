"""The inputs that are timed: one synthetic structure, the Gaussians of a healthy layer, random features. nm.

A healthy layer: σ of the structure's side chains (0.05 to 0.3 nm) times e^{±0.6}, offsets of about one σ. On degenerate
input the textbook form is wrong (docs/theory.md, section 4), and the gate would rightly refuse to time it.
"""

import math
from dataclasses import dataclass, replace

import torch

from iga._typing import Bool, Float, Tensor
from iga.frame import Frame
from iga.functional import point_gaussians
from iga.gaussian import GaussianRigid
from iga.presets import DEFAULT_PRESET, IGAConfig, preset
from iga.report.documents import Size
from iga.structure.synthetic import synthetic_structures

__all__ = ["CHANNELS", "CONFIG", "VALUE_POINTS", "Case", "Problem", "make_problem"]

CHANNELS = 16  # of q and k, and of v
VALUE_POINTS = 12
CONFIG: IGAConfig = preset(DEFAULT_PRESET)  # the same score for every implementation
# Standard deviation of what enters tanh: 2 tanh(0.3) = 0.6 in log σ, 3 tanh(0.3) = 0.9 σ of offset.
_RAW = 0.3
# Residues of one chain: long chains take a time to fold that grows as their square. Chains lie side by side.
_CHAIN = 512
_SPACING = 6.0  # nm, about the width of a chain


@dataclass(frozen=True)
class Case:
    """One size: `residues` N, `heads` H, `points` P; and the direction, "forward" or "forward_backward"."""

    direction: str
    residues: int
    heads: int
    points: int

    @property
    def size(self) -> Size:
        """Its own fields, for a document."""
        return {"direction": self.direction, "residues": self.residues, "heads": self.heads, "points": self.points}

    @property
    def pair_points(self) -> int:
        return self.residues**2 * self.heads * self.points

    @property
    def input_bytes(self) -> int:
        """What drawing its inputs takes, about: float64, of points the raw and the final means and sigmas."""
        return 8 * self.residues * self.heads * (4 * CHANNELS + 3 * VALUE_POINTS + 24 * self.points)

    @property
    def backward(self) -> bool:
        return self.direction != "forward"


@dataclass(frozen=True, eq=False)
class Problem:
    """The tensors of one call, batch 1, no residue masked. Means are global; value points are in their own frames."""

    q: Float[Tensor, "1 h n c"]
    k: Float[Tensor, "1 h n c"]
    v: Float[Tensor, "1 h n c"]
    value_points: Float[Tensor, "1 h n pv 3"]
    rot: Float[Tensor, "1 n 3 3"]
    trans: Float[Tensor, "1 n 3"]
    q_mean: Float[Tensor, "1 h p n 3"]
    q_sigma: Float[Tensor, "1 h p n 3"]
    k_mean: Float[Tensor, "1 h p n 3"]
    k_sigma: Float[Tensor, "1 h p n 3"]
    geo_scale: Float[Tensor, " h"]
    geo_bias: Float[Tensor, " h"]
    mask: Bool[Tensor, "1 n"]

    def named(self) -> dict[str, Tensor]:
        """Every input that moves the output, by name. geo_bias shifts whole rows of logits, which softmax ignores."""
        return {name: t for name, t in vars(self).items() if name not in ("mask", "geo_bias")}

    def replaced(self, tensors: dict[str, Tensor]) -> "Problem":
        return replace(self, **tensors)

    def leaves(self) -> "Problem":
        """The same numbers as fresh leaves of an autograd graph."""
        return self.replaced({name: t.detach().clone().requires_grad_() for name, t in self.named().items()})

    def double(self) -> "Problem":
        return replace(self, **{name: t.detach().double() for name, t in vars(self).items() if name != "mask"})


def make_problem(
    case: Case, *, seed: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Problem:
    """The problem of a case: drawn in float64 on the CPU, centred, rounded once. The same seed gives the same numbers,
    whatever the device."""
    generator = torch.Generator().manual_seed(seed)
    n, h, p = case.residues, case.heads, case.points

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rigid = _structure(n, seed)
    query, key = (
        point_gaussians(rigid, _RAW * normal(1, h, p, n, 3), _RAW * normal(1, h, p, n, 3), CONFIG) for _ in range(2)
    )
    tensors = (
        normal(1, h, n, CHANNELS),
        normal(1, h, n, CHANNELS),
        normal(1, h, n, CHANNELS),
        0.3 * normal(1, h, n, VALUE_POINTS, 3),
        rigid.rot,
        rigid.trans,
        *(query.mean, query.sigma),
        *(key.mean, key.sigma),
        CONFIG.geo_scale_init + 0.3 * normal(h),
        normal(h),
    )
    rounded = (t.to(device=device, dtype=dtype).contiguous() for t in tensors)
    return Problem(*rounded, mask=torch.ones(1, n, dtype=torch.bool, device=device))


def _structure(residues: int, seed: int) -> GaussianRigid:
    """[1, residues]: chains of up to 512 residues on a cubic grid, centred."""
    count = math.ceil(residues / _CHAIN)
    length = min(residues, _CHAIN)
    chains = synthetic_structures(count, seed=seed, lengths=(length, length), dtype=torch.float64)
    side = math.ceil(count ** (1 / 3))
    places = [(i % side, i // side % side, i // side**2) for i in range(count)]
    corners = _SPACING * torch.tensor(places, dtype=torch.float64)
    trans = torch.cat([s.gaussian.trans + corner for s, corner in zip(chains, corners, strict=True)])[:residues]
    rot, local, log_scale = (
        torch.cat([getattr(s.gaussian, name) for s in chains])[:residues] for name in ("rot", "local_mean", "log_scale")
    )
    return GaussianRigid(Frame(rot, trans - trans.mean(0)), local, log_scale)[None]
