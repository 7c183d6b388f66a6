"""Scenes on which the four laws of the attention are held, and the numbers that one call of it gives.

A scene is a few residues, degenerate in σ, in rotation and in distance, with offsets and scales of their points. It is
drawn as numbers a person can read, and computed in any dtype, by any config, with any number of points.
"""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import Phase, find, settings
from hypothesis import strategies as st

from iga import kernels
from iga.frame import Frame
from iga.functional import Trace, gaussian_attention, point_gaussians
from iga.gaussian import GaussianRigid
from iga.presets import DEFAULT_PRESET, PRESETS, IGAConfig, preset
from iga.testing.contract import Contract
from iga.testing.layer import budgets
from iga.testing.strategies import AxisAngle, axis_angles, filler, seeds, sigmas, translations

CONTRACT = Contract()
BOUNDED = preset(DEFAULT_PRESET)
# In pairs that break a law for one reason: no floor of σ and a sum over points; the textbook form and 1/√P.
HISTORICAL = [("pre_fix", "logdet_clamp"), ("sigma_floor", "soft_start")]
historical_presets = pytest.mark.parametrize("names", HISTORICAL, ids=" ".join)
# On a CPU all three run: numba, torch, and Triton's kernels in its interpreter.
implementations = st.sampled_from(["cpu", "reference", "fused"])

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Residues by rotation, place and raw log σ (nm); raw offsets and scales are normal numbers times the two gains."""

    turns: tuple[AxisAngle, ...]
    drift: float
    places: tuple[Vector, ...]
    log_scales: tuple[Vector, ...]
    gains: tuple[float, float]
    seed: int
    geo_scale: float

    def rigid(self, dtype: torch.dtype) -> GaussianRigid:
        n = len(self.turns)
        # Drift stretches the axes by unlike amounts, as a product of many rounded rotations does.
        stretch = 1 + self.drift * torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)
        rot = torch.stack([turn.matrix for turn in self.turns]) * stretch
        trans, log_scale = (torch.tensor(x, dtype=torch.float64) for x in (self.places, self.log_scales))
        return GaussianRigid(Frame(rot, trans), filler(self.seed, n, 3), log_scale).to(dtype)

    def raw(self, dtype: torch.dtype, points: int, *, tied: bool) -> tuple[tuple[torch.Tensor, ...], ...]:
        """(raw_u, raw_s) of queries and of keys, each [1, points, n, 3]; if tied, all points are the first."""
        shape = (2, 2, 1, points, len(self.turns), 3)
        drawn = filler(self.seed + 1, *shape[:3], 64, *shape[4:])[:, :, :, : 1 if tied else points].expand(shape)
        sized = drawn * torch.tensor(self.gains, dtype=torch.float64)[:, None, None, None, None]
        return tuple(tuple(kind.to(dtype)) for kind in sized)

    def trace(
        self, config: IGAConfig, dtype: torch.dtype = torch.float32, *, points: int = 1, tied: bool = False
    ) -> Trace:
        """The functional core on the scene: one head, whose logit is the geometry's alone."""
        n = len(self.turns)
        features = torch.zeros(3, 1, n, 1, dtype=dtype)
        raw = self.raw(dtype, points, tied=tied)
        options = {"geo_scale": torch.tensor([self.geo_scale], dtype=dtype), "geo_bias": torch.zeros(1, dtype=dtype)}
        value_points, mask = torch.zeros(1, n, 1, 3, dtype=dtype), torch.ones(n, dtype=torch.bool)
        return gaussian_attention(*features, value_points, self.rigid(dtype), *raw, mask, config=config, **options)

    def statistics(
        self, config: IGAConfig, implementation: str, *, points: int = 1, tied: bool = False
    ) -> kernels.Statistics:
        """What an implementation says of the same call in float32, row by row."""
        n, rigid = len(self.turns), self.rigid(torch.float32)
        q, k, v = torch.zeros(3, 1, n, 1)
        of = [point_gaussians(rigid, *raw, config) for raw in self.raw(torch.float32, points, tied=tied)]
        found = kernels.gaussian_attention(
            *(q, k, v, torch.zeros(1, n, 1, 3)),
            *((x.mean, x.sigma) for x in of),
            *(rigid.frame, torch.ones(n, dtype=torch.bool)),
            geo_scale=torch.tensor([self.geo_scale]),
            geo_bias=torch.zeros(1),
            config=config,
            implementation=implementation,
            statistics=True,
        ).statistics
        assert found is not None
        return found


def shapes(highest: float) -> st.SearchStrategy[Vector]:
    """Log σ of what is degenerate: collapsed, a needle, a pancake, and spheres at the floor and at `highest` nm."""
    floor, top, none = math.log(CONTRACT.sigma_min), math.log(highest), -30.0
    return st.sampled_from([(none,) * 3, (top, none, -300.0), (none, top, top), (floor,) * 3, (top,) * 3])


def scenes(*, contract: bool = False) -> st.SearchStrategy[Scene]:
    """Two to four residues; rotations, places and σ each on their own, or one for all.

    σ reaches from far below the floor to far above the ceiling. Under the `contract` it does not, points included, and
    there all residues have one frame and one degenerate shape, where a form loses its digits first.
    """
    turns, places = axis_angles(), translations(high=4)
    if contract:
        scales = shapes(CONTRACT.sigma_max)
    else:
        some = (sigmas(low, 1e20).map(lambda sigma: tuple(map(math.log, sigma))) for low in (1e-6, CONTRACT.sigma_min))
        scales = st.one_of(*some, shapes(1e20))
    gain, none = st.sampled_from([0.0, 1.0, 30.0]), st.just(0.0)
    gains = st.tuples(gain, none if contract else gain)
    drift, geo_scale = st.sampled_from([0.0, 1e-7, 1e-6, 1e-4]), st.sampled_from([-4.0, -1.0, 1.0, 30.0, 1e4])

    def of(n: int) -> st.SearchStrategy[Scene]:
        def each(strategy, shared=False):
            same = strategy.map(lambda x: (x,) * n)
            return same if shared else st.tuples(*[strategy] * n) | same

        shape = each(turns, contract), drift, each(places), each(scales, contract)
        return st.builds(Scene, *shape, gains, seeds(), geo_scale)

    return st.integers(2, 4).flatmap(of)


def assert_between(values: torch.Tensor, low: torch.Tensor | float, high: torch.Tensor | float) -> None:
    """Finite, and within both limits, judged in float64."""
    values = values.double()
    assert values.isfinite().all(), values
    excess = torch.maximum(values - high, low - values)
    worst = int(excess.argmax())
    assert (excess <= 0).all(), f"{float(values.flatten()[worst])!r} is over its limit by {float(excess.max()):.4g}"


def breaking(law, names: tuple[str, ...]) -> Scene:
    """A scene within the contract on which `law(scene, config)` fails for each preset named, and not for the default.

    Within it: every σ is under the contract's ceiling, since the historical presets have none.
    """

    def breaks(scene: Scene, name: str) -> bool:
        try:
            law(scene, PRESETS[name])
        except AssertionError:
            return True
        return False

    once = settings(max_examples=2000, derandomize=True, database=None, phases=[Phase.generate], deadline=None)
    scene = find(scenes(contract=True), lambda drawn: all(breaks(drawn, name) for name in names), settings=once)
    law(scene, BOUNDED)
    return scene


def extents(trace: Trace) -> torch.Tensor:
    """Distances of the anchors R m + t, nm, [n, n]."""
    anchors = trace.rigid.mean.double()
    return (anchors[:, None] - anchors).norm(dim=-1)


def rounding(trace: Trace) -> tuple[torch.Tensor, float]:
    """κ of every pair and point, and how far its matrices are from rotations: what the budgets are made of."""
    return budgets.condition(trace, CONTRACT), budgets.drift(trace.rigid)
