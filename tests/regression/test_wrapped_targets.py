"""A layer whose last projection is wrapped is judged by its calls; one that cannot be followed has a finding.

Found where `iga verify` on a layer with an adapter on linear_out ended in a KeyError.
"""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from iga.testing.layer.budgets import _gain
from iga.testing.targets import TargetError


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


@pytest.mark.parametrize("last", [None, nn.Sequential(nn.Linear(7, 3), nn.ReLU()), nn.Linear(5, 3).double()])
def test_what_cannot_be_followed_is_a_finding(last: object) -> None:
    with pytest.raises(TargetError, match="linear_out"):
        _gain(holder(nn.Sequential(last) if isinstance(last, nn.Linear) else last), 7, torch.float32)
