"""The arms of the comparison as modules: one call for all of them, and networks that differ in nothing else.

The weights outside the attention are drawn from the seed alone, whatever the arm; those of the attention from the seed
and the block, so that all IGA arms start from the same projections too.
"""

from typing import Any

import torch
from torch import nn

from iga._typing import Bool, Float, Tensor
from iga.attention import InvariantGaussianAttention
from iga.experiment.model.cures import cured
from iga.experiment.model.network import FlowNetwork
from iga.experiment.settings import ARMS, Arm, Model, Settings, load_arm
from iga.gaussian import GaussianRigid
from iga.ipa import InvariantPointAttention
from iga.kernels import Statistics

__all__ = ["ARMS", "Arm", "ArmAttention", "attention_of", "load_arm", "network_of"]


class ArmAttention(nn.Module):
    """module(s, z, gaussian, mask, t) → (update of s, Statistics), whichever the layer; t reaches a gated one only."""

    def __init__(self, layer: InvariantGaussianAttention | InvariantPointAttention, *, gated: bool) -> None:
        super().__init__()
        self.layer = layer
        self.gated = gated

    def forward(
        self,
        s: Float[Tensor, "b n c_s"],
        z: Float[Tensor, "b n n c_z"],
        gaussian: GaussianRigid,
        mask: Bool[Tensor, "b n"],
        t: Float[Tensor, " b"],
    ) -> tuple[Float[Tensor, "b n c_s"], Statistics]:
        options: dict[str, Any] = {"t": t} if self.gated else {}
        return self.layer.with_statistics(s, z, gaussian, mask, **options)


def attention_of(arm: Arm, model: Model) -> ArmAttention:
    """A fresh attention of `arm` in the sizes of `model`, its weights drawn from torch's global generator."""
    sizes = (model.c_s, model.c_z, model.c_hidden, model.heads, model.points, model.value_points)
    config = arm.config
    if config is None:
        layer = InvariantPointAttention(*sizes)
    else:
        implementation = arm.attention.get("implementation", "auto")
        layer = InvariantGaussianAttention(*sizes, config=config, implementation=implementation)
    cure = arm.attention.get("cure", "none")
    layer = layer if cure == "none" else cured(layer, cure)
    return ArmAttention(layer, gated=config is not None and config.time_gate is not None)


def network_of(settings: Settings) -> FlowNetwork:
    """The network of settings.arm, its weights a function of settings.training.seed; the global generator is left as it
    was."""
    seed, drawn = settings.training.seed, 0

    def attention() -> nn.Module:
        nonlocal drawn
        drawn += 1
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_mixed(seed, drawn))
            return attention_of(settings.arm, settings.model)

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_mixed(seed, 0))
        return FlowNetwork(settings.model, attention)


def _mixed(seed: int, part: int) -> int:
    """Seeds that lie apart for every (seed, part): 2¹⁶ parts a seed."""
    return seed * 2**16 + part
