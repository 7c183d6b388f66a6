"""The σ that float32 can honour: inside the derived range all is finite and right, outside it is refused by name.

A config with sigma_min = 1e-8 gave NaN, one without a ceiling did at large scales, and `iga bounds` printed digits for
both. Derivation: docs/theory.md, section 5.
"""

import math

import pytest
import torch
from typer.testing import CliRunner

from iga import Frame, GaussianRigid, IGAConfig, InvariantGaussianAttention, preset
from iga.bounds import bounds_summary, sigma_range
from iga.bounds.summary import check_range
from iga.cli.app import app
from iga.overlap import gaussian_overlap
from iga.rotation import random
from iga.testing.judges.overlap import overlap_reference

OFFSET = 3.0
KAPPA = 3e4  # the largest that has a budget in float32: 59.6 κ u ≤ 1/8


def pairs(low: float, high: float, extent: float, dtype: torch.dtype, count: int = 400) -> list[torch.Tensor]:
    """Every axis at one end of the range or between; means as far apart as extent and offsets allow, or close."""
    g = torch.Generator().manual_seed(0)
    rot = [random(count, generator=g, dtype=torch.float64) for _ in "ij"]
    ends = torch.tensor([math.log(low), math.log(high), 0.5 * math.log(low * high)], dtype=torch.float64)
    sigma = [ends[torch.randint(0, 3, (count, 3), generator=g)].exp() for _ in "ij"]
    sigma[0][: count // 4], sigma[1][: count // 4] = low, low
    sigma[0][count // 4 : count // 2], sigma[1][count // 4 : count // 2] = high, high
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=g, dtype=torch.float64), dim=-1)
    mean = [sign * extent / 2 * direction * torch.rand(count, 1, generator=g).round() for sign in (1, -1)]
    for k in range(2):
        offset = OFFSET * (2 * torch.randint(0, 2, (count, 3), generator=g) - 1) * sigma[k]
        mean[k] = mean[k] + (rot[k] * offset[:, None, :]).sum(-1)
    # rounded into the range, not out of it
    sigma = [s.clamp(low * (1 + 1e-6), high * (1 - 1e-6)) for s in sigma]
    return [x.to(dtype) for x in (rot[0], mean[0], sigma[0], rot[1], mean[1], sigma[1])]


def gradients(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    leaves = [x.clone().requires_grad_() for x in tensors]
    dist_sq, log_det = gaussian_overlap(*leaves)
    return [dist_sq, log_det, *torch.autograd.grad((dist_sq + log_det).sum(), leaves)]


@pytest.mark.parametrize("extent", [0.0, 1.0, 20.0, 1000.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_is_finite_up_to_the_ends_of_the_range(dtype, extent):
    low, high = sigma_range(extent, dtype, OFFSET)
    least, _ = sigma_range(extent, dtype, OFFSET, gradients=False)
    assert least <= low
    for x in gaussian_overlap(*pairs(least, high, extent, dtype)):
        assert x.isfinite().all()
    for narrow in ((low, KAPPA * low), (low, 30 * low), (high / 30, high), (high / KAPPA, high)):
        for x in gradients(pairs(*narrow, extent, dtype)):
            assert x.isfinite().all()


@pytest.mark.parametrize("extent", [1.0, 20.0, 1000.0])
def test_values_are_right_up_to_the_ends_of_the_range(extent):
    """Budgets: 6.4 and 6.3 of docs/theory.md with the κ of these pairs, at most 30."""
    low, high = sigma_range(extent, torch.float32, OFFSET, gradients=False)
    u, kappa = 2.0**-24, 31.0
    for narrow in ((low, 30 * low), (high / 30, high)):
        tensors = pairs(*narrow, extent, torch.float32)
        dist_sq, log_det = gaussian_overlap(*tensors)
        right, right_log_det = overlap_reference(*(x.double() for x in tensors))
        assert ((dist_sq - right).abs() <= (47 + 59.6 * kappa) * u * 1.01 * right).all()
        assert ((log_det - right_log_det).abs() <= (23 + 12.5 * kappa) * u * 1.01 + 2 * u * right_log_det.abs()).all()


def test_the_range_is_not_idle():
    """Ten times outside, something leaves float32; a range that excused everything would pass the tests above."""
    for extent in (1.0, 20.0, 1000.0):
        low, high = sigma_range(extent, torch.float32, OFFSET)
        for narrow in ((low / 10, low / 9), (9 * high, 10 * high)):
            assert not all(x.isfinite().all() for x in gradients(pairs(*narrow, extent, torch.float32)))


@pytest.mark.parametrize(
    "changes",
    [
        {"sigma_min": 1e-8},
        {"sigma_min": 1e-30},
        {"sigma_min": 4e-7, "sigma_max": None},
        {"sigma_max": 1e7},
        {"sigma_max": 1e30},
        {"sigma_min": 1e6, "sigma_max": 1e7},
        {"sigma_min": 1e8, "sigma_max": None},
        {"sigma_max": 5e5, "offset_max": 1e3},
    ],
)
def test_a_config_that_no_float32_can_honour_is_refused_with_the_range(changes):
    with pytest.raises(ValueError, match=r"sigma_(min|max) must be a number of nm in \[\S+, \S+\], .*section 5"):
        IGAConfig(**changes)  # pyright: ignore[reportArgumentType]


def test_configs_inside_the_range_and_the_historical_ones_are_taken():
    for name in ("pre_fix", "logdet_clamp", "sigma_floor", "soft_start", "bounded"):
        assert preset(name)
    assert IGAConfig(sigma_min=1e-6, sigma_max=1e5) and IGAConfig(sigma_max=None)


def layer_call(log_scale: float, **changes: object) -> torch.Tensor:
    layer = InvariantGaussianAttention(8, 0, 4, 2, 2, 2, config=preset("bounded", **changes))
    frame = Frame(random(1, 5), torch.randn(1, 5, 3))
    rigid = GaussianRigid(frame, torch.zeros(1, 5, 3), torch.full((1, 5, 3), log_scale))
    return layer(torch.randn(1, 5, 8), None, rigid, torch.ones(1, 5, dtype=torch.bool))


@pytest.mark.parametrize("log_scale", [15.0, 30.0, 43.0, 60.0, 500.0])
def test_scales_without_a_ceiling_are_refused_where_they_leave_the_range(log_scale):
    with pytest.raises(ValueError, match=r"log_scale must give .* of at most [\d.e+]+ nm"):
        layer_call(log_scale, sigma_max=None, log_scale_max=0.1)
    assert layer_call(log_scale).isfinite().all()


def test_moderate_scales_need_no_ceiling():
    assert layer_call(3.0, sigma_max=None).isfinite().all()


def test_scales_without_a_ceiling_are_taken_under_vmap():
    layer = InvariantGaussianAttention(8, 0, 4, 2, 2, 2, config=preset("bounded", sigma_max=None))
    frame, s = Frame(random(3, 5), torch.randn(3, 5, 3)), torch.randn(3, 5, 8)
    mask = torch.ones(5, dtype=torch.bool)
    out = torch.vmap(lambda s, rot, trans: layer(s, None, Frame(rot, trans), mask))(s, frame.rot, frame.trans)
    assert out.isfinite().all()


@pytest.mark.parametrize("numbers", [(1e-8, 1e-7), (4e-7, 1.0), (0.03, 1e7), (1e-30, 150.0), (1e20, 1e21)])
def test_bounds_print_no_digits_where_float32_has_none(numbers):
    rows = {row["quantity"]: row for row in bounds_summary(*numbers)}
    assert [name for name in rows if name.startswith("float32") and "keys" not in name] == [
        "float32: digits of dist_sq"
    ]
    assert rows["float32: digits of dist_sq"]["bound"] == "none"
    assert float(rows["float64: log_det under its floor"]["bound"]) < 1e-12
    result = CliRunner().invoke(app, ["bounds", "--sigma-min", str(numbers[0]), "--sigma-max", str(numbers[1])])
    assert result.exit_code != 0 and "digits" not in result.output
    with pytest.raises(ValueError, match=r"must lie in \[[\d.e+-]+, [\d.e+-]+\] nm at extent = 20 nm"):
        check_range(*numbers, 20.0)


def test_an_extent_that_leaves_no_range_is_refused():
    with pytest.raises(ValueError, match="extent must leave room"):
        check_range(0.03, 150.0, 1e30)
