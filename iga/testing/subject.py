"""What is judged: a layer of any number of points, fresh, re-randomised from a seed, or with all points equal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from iga._typing import Tensor
from iga.attention import InvariantGaussianAttention
from iga.functional import Trace
from iga.presets import IGAConfig
from iga.testing.cases import Case
from iga.testing.contract import Profile

__all__ = ["Subject", "randomise", "tie_points"]

LayerFactory = Callable[..., nn.Module]


def randomise(layer: nn.Module, seed: int, *, gain: float = 1.0) -> nn.Module:
    """Draw every parameter anew, in place: a zero-initialised projection hides everything behind it.

    Matrices are normal with variance gain²/fan-in, so that unit features give outputs of size `gain`; vectors (biases,
    geo_scale) move from where they are by a normal of a quarter, resp. one half for the per-head scales.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
            if parameter.ndim >= 2:
                parameter.copy_(draw * gain * parameter.shape[-1] ** -0.5)
            else:
                parameter.add_(draw * (0.25 if name.endswith("bias") else 0.5))
    return layer


def tie_points(layer: nn.Module, single: nn.Module) -> nn.Module:
    """Give `layer` (P points) the parameters of `single` (one point), every point a copy of that one, in place.

    Point parameters are those whose first dimension is [h · P · 3] where `single` has [h · 3], heads outermost.
    """
    source = dict(single.named_parameters())
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            one = source[name]
            if one.shape == parameter.shape:
                parameter.copy_(one)
                continue
            points = parameter.shape[0] // one.shape[0]
            rest = one.shape[1:]
            parameter.copy_(one.reshape(-1, 1, 3, *rest).expand(-1, points, 3, *rest).reshape(parameter.shape))
    return layer


@dataclass(frozen=True)
class Subject:
    """A layer under test. `layer(c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points, config=config)` builds it."""

    name: str
    config: IGAConfig
    profile: Profile
    layer: LayerFactory = InvariantGaussianAttention

    def fresh(self, points: int, seed: int) -> nn.Module:
        """The layer as it is at the start of a training run."""
        p = self.profile
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            built = self.layer(p.c_s, p.c_z, p.c_hidden, p.no_heads, points, p.no_v_points, config=self.config)
        return built.eval()

    def random(self, points: int, seed: int, *, gain: float = 1.0) -> nn.Module:
        """The layer with all parameters re-randomised; a large gain drives every bounded amount to its bound."""
        return randomise(self.fresh(points, seed), seed, gain=gain)

    def coherent(self, points: int, seed: int) -> nn.Module:
        """The layer with all points equal, and the same for every number of points."""
        return tie_points(self.fresh(points, seed), self.fresh(1, seed))

    def inputs(self, case: Case) -> dict[str, Any]:
        """What forward needs beyond the case: the flow time, late, where a time gate asks for it."""
        return {} if self.config.time_gate is None else {"t": torch.ones(case.s.shape[:-2], dtype=case.s.dtype)}

    def trace(self, layer: nn.Module, case: Case) -> Trace:
        """The layer's trace of the case."""
        return layer.trace(*case.call, **self.inputs(case))  # pyright: ignore[reportCallIssue]

    def output(self, layer: nn.Module, case: Case) -> Tensor:
        """The layer's output on the case."""
        return layer(*case.call, **self.inputs(case))
