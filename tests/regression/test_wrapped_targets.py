"""Layers that show their scores and are not as this package's layer is: judged, refused in a line, or a finding.

Found where `iga verify` on a layer with an adapter on linear_out ended in a KeyError, and where reading the code showed
that a layer with a trace and without linear_out, geo_scale or parameters of our shapes would end in a traceback.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from iga.attention import InvariantGaussianAttention
from iga.functional import Trace
from iga.testing.faults.subjects import SMALL
from iga.testing.layer.budgets import _gain
from iga.testing.result import Finding
from iga.testing.targets import TargetError
from iga.testing.verify import prepare


class Adapted(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.update = base, nn.Linear(base.in_features, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.update(x)


def holder(last: object) -> nn.Module:
    layer = nn.Module()
    layer.linear_out = last  # type: ignore[assignment]
    return layer


def test_the_gain_of_a_wrapped_projection_is_that_of_its_call() -> None:
    """w ± b and their difference are rounded three times: 4 eps of |w| + |b|."""
    torch.manual_seed(0)
    plain = nn.Linear(7, 3)
    adapted = Adapted(nn.Linear(7, 3))
    for last, weight in (
        (plain, plain.weight),
        (adapted, adapted.base.weight + adapted.update.weight),
        (parametrizations.weight_norm(nn.Linear(7, 3)), None),
    ):
        expected = (last.weight if weight is None else weight).detach().double().abs()  # pyright: ignore[reportCallIssue]
        error = (_gain(holder(last), 7, torch.float32) - expected).abs()
        assert (error <= 4 * torch.finfo(torch.float32).eps * 2).all()


@pytest.mark.parametrize("last", [nn.Sequential(nn.Linear(7, 3), nn.ReLU()), nn.Sequential(nn.Linear(5, 3).double())])
def test_what_cannot_be_followed_is_a_finding(last: nn.Module) -> None:
    with pytest.raises(TargetError, match="linear_out"):
        _gain(holder(last), 7, torch.float32)


class Traced(InvariantGaussianAttention):
    """Somebody else's layer with a trace."""

    def forward(self, *given: Any, **named: Any) -> torch.Tensor:
        output = super().trace(*given, **named).output
        assert output is not None
        return output


class Shown(nn.Module):
    """A layer that offers all that a traced layer does but what it `lacks`."""

    lacks = ""

    def __init__(self, **sizes: int) -> None:
        super().__init__()
        self.__dict__["whole"] = Traced(**sizes)
        for name in {"trace", "config", "geo_scale", "linear_out"} - {self.lacks}:
            setattr(self, name, getattr(self.whole, name))

    def forward(self, *given: Any) -> torch.Tensor:
        return self.whole(*given)


@pytest.mark.parametrize("name", ["linear_out", "geo_scale"])
def test_a_traced_layer_without_a_part_that_the_checks_read_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValueError, match=f"Lacks lacks what the checks of scores read: {name}, a") as refused:
        prepare(type("Lacks", (Shown,), {"lacks": name}), kind="layer")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["trace", "config"])
def test_a_layer_without_a_trace_or_a_config_is_judged_by_its_outputs(name: str) -> None:
    assert "needs the scores" in prepare(type("Lacks", (Shown,), {"lacks": name}), kind="layer").skipped["accuracy"]


def judged(layer: type[nn.Module], *names: str) -> dict[str, Finding]:
    plan = prepare(layer, kind="layer", profile=replace(SMALL, name="fast"), points=(2,), only=names)
    return {finding.name: finding for finding in plan.run().findings}


def test_parameters_of_another_layout_are_a_finding_of_the_checks_that_tie_points() -> None:
    class ByPoint(Traced):
        def __init__(self, **sizes: int) -> None:
            super().__init__(**sizes)
            self.by_point = nn.Parameter(torch.zeros(sizes["no_qk_points"], 5))

    found = judged(ByPoint, "growth_with_points", "point_scaling_law", "determinism")
    assert [finding.verdict for finding in found.values()] == ["broken", "broken", "holds"]
    assert "parameter by_point has shape" in found["point_scaling_law"].note


@pytest.mark.parametrize("field", ["rigid", "raw_query", "score", "values", "output"])
def test_a_trace_with_nothing_in_a_field_is_a_finding(field: str) -> None:
    class Empty(Traced):
        def trace(self, *given: Any, **named: Any) -> Trace:
            trace = super().trace(*given, **named)
            object.__setattr__(trace, field, None)
            return trace

    found = judged(Empty, "log_det_floor", "accuracy", "se3_invariance", "gradient_bounds")
    assert "broken" in {finding.verdict for finding in found.values()}
