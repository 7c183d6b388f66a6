"""Limits: their defaults, from formulas written here again, what crosses them, and what they refuse."""

import math

import pytest
import torch

from iga.recording import KINDS, Limits


def test_the_defaults_are_those_that_their_derivations_give() -> None:
    limits = Limits()
    assert limits.log_det == pytest.approx(3 * math.log(2 * 0.03**2), rel=1e-12)
    # two logits as far apart as both bounds leave a weight of 0 in float32, and 1 % nearer they leave one
    apart = torch.tensor([0.0, 2 * limits.geometry_logit], dtype=torch.float64)
    assert float(apart[1].neg().exp().float()) <= 2.0**-149 < float((0.99 * -apart[1]).exp().float())
    assert limits.entropy == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1), rel=1e-12)
    assert limits.saturated == 0.5 and limits.non_finite


def test_no_row_that_is_not_saturated_has_less_entropy_than_the_level() -> None:
    rows = torch.rand(2000, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).pow(8)
    rows = torch.cat([rows / rows.sum(dim=-1, keepdim=True), torch.tensor([[0.9, 0.1, 0, 0, 0]], dtype=torch.float64)])
    unsaturated = rows[rows.amax(dim=-1) <= 0.9]
    level = Limits().entropy
    assert level is not None and len(unsaturated) > 100
    assert float(torch.special.entr(unsaturated).sum(dim=-1).min()) >= level * (1 - 1e-12)


@pytest.mark.parametrize(
    ("values", "crossed"),
    [
        ({"non_finite": 1.0}, ["non_finite"]),
        ({"log_det": -18.97}, ["log_det"]),
        ({"log_det": -18.9599 - 2e-6}, []),  # what rounding explains: 35 u and an ulp of it are 4·10⁻⁶
        ({"geometry_logit": 51.7}, ["geometry_logit"]),
        ({"saturated": 0.5, "entropy": 0.326, "geometry_logit": 51.6, "log_det": -18.9}, []),
        ({"saturated": 0.51, "entropy": 0.3}, ["saturated", "entropy"]),
        ({"log_det": math.nan, "entropy": math.nan}, []),  # a matter of non_finite
        ({"geometry_logit": math.inf, "log_det": -math.inf}, ["log_det", "geometry_logit"]),
        ({}, []),
    ],
)
def test_a_limit_is_crossed_by_what_is_beyond_it(values: dict[str, float], crossed: list[str]) -> None:
    assert Limits().crossed(values) == crossed
    off = Limits(non_finite=False, log_det=None, geometry_logit=None, saturated=None, entropy=None)
    assert off.crossed(values) == [] and all(off.of(kind) is None for kind in KINDS)


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("non_finite", 1),
        ("log_det", math.nan),
        ("log_det", math.inf),
        ("geometry_logit", -1.0),
        ("saturated", 1.5),
        ("saturated", True),
        ("entropy", "much"),
    ],
)
def test_what_is_no_limit_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})  # type: ignore[arg-type]
