"""Small layers and seeded inputs that several test files share."""

from dataclasses import dataclass

import torch
from torch import nn

from iga import rotation
from iga.attention import InvariantGaussianAttention
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.ipa import InvariantPointAttention
from iga.presets import IGAConfig
from iga.testing.layer.subject import randomise

LAYERS = {"IGA": InvariantGaussianAttention, "IPA": InvariantPointAttention}
SIZES = {"c_s": 12, "c_z": 8, "c_hidden": 4, "no_heads": 3, "no_qk_points": 2, "no_v_points": 2}


class DenseAttention(InvariantGaussianAttention):
    """Its forward is its trace: a fault planted in the one is in the other."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, implementation="reference", **options)


@dataclass
class Inputs:
    s: torch.Tensor
    z: torch.Tensor
    r: GaussianRigid
    mask: torch.Tensor

    def __iter__(self):
        return iter((self.s, self.z, self.r, self.mask))


def layer_inputs(
    n: int = 7, *, batch: tuple[int, ...] = (2,), seed: int = 0, dtype: torch.dtype = torch.float32
) -> Inputs:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    frame = Frame(rotation.random(*batch, n, generator=generator, dtype=dtype), normal(*batch, n, 3))
    rigid = GaussianRigid(frame, 0.1 * normal(*batch, n, 3), -2.0 + 0.5 * normal(*batch, n, 3))
    mask = torch.ones(*batch, n, dtype=torch.bool)
    return Inputs(normal(*batch, n, SIZES["c_s"]), normal(*batch, n, n, SIZES["c_z"]), rigid, mask)


def small_layer(config: IGAConfig | str = "bounded", *, seed: int = 0, **sizes: int) -> InvariantGaussianAttention:
    built = InvariantGaussianAttention(**(SIZES | sizes), config=config)
    randomise(built, seed)
    return built


def weighted_points(seed: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, Frame, torch.Tensor]:
    """(weights [2, 5, 5], frames [5], value points [2, 5, 3, 3]), up to some 20 nm apart."""
    generator = torch.Generator().manual_seed(seed)
    weights = (3 * torch.randn(2, 5, 5, generator=generator)).softmax(dim=-1).to(dtype)
    trans = (5 * torch.randn(5, 3, generator=generator)).to(dtype)
    frame = Frame(rotation.random(5, generator=generator, dtype=dtype), trans)
    return weights, frame, torch.randn(2, 5, 3, 3, generator=generator).to(dtype)


class Net(nn.Module):
    """A model of two layers."""

    def __init__(self, second: IGAConfig | str = "bounded") -> None:
        super().__init__()
        self.first, self.second = small_layer(seed=1), small_layer(second, seed=2)
        self.first.implementation = self.second.implementation = "reference"

    def forward(self, s, z, r, mask):
        s = s + self.first(s, z, r, mask)
        return s + self.second(s, z, r, mask=mask)
