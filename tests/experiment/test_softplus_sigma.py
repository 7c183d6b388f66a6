"""σ = σ_min + ln(1 + eˣ) beside the exponential with a floor: its value, its gradient where scales collapse, and its
growth; the layer with it differs from the plain one in σ alone."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from helpers.flow import small_batch
from helpers.network import TINY
from iga import taps
from iga.attention import InvariantGaussianAttention
from iga.experiment.model import cures
from iga.experiment.model.arms import attention_of, load_arm
from iga.experiment.model.cures import softplus_sigma
from iga.experiment.settings import load_settings
from iga.functional import Trace
from iga.gaussian import GaussianRigid, floored_sigma
from iga.presets import IGAConfig, preset

FLOOR = 0.03
CONFIG = preset("logdet_clamp", sigma_min=FLOOR)
U = 2.0**-53
SMALL = replace(TINY, points=2)


def slope(sigma_of, x: float) -> float:
    """d ln σ/dx, by autograd."""
    at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(sigma_of(at).log(), at)
    return float(found)


def exponential(kind: str):
    return lambda x: floored_sigma(x, sigma_min=FLOOR, floor=kind)


# the function


@pytest.mark.parametrize("x", [-40.0, -12.0, -6.0, -2.0, 0.0, 3.0, 30.0])
def test_the_value_is_that_of_its_formula(x: float) -> None:
    """Six operations of at most two roundings each, none of which makes an error larger: all terms are positive, and
    ln(1 + e) has a condition under 1."""
    found = float(softplus_sigma(torch.tensor(x, dtype=torch.float64), CONFIG))
    want = FLOOR + (x + math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(x)))
    assert abs(found - want) <= 12 * U * want
    e = math.exp(min(x, 0.0))
    if x <= 0:
        assert FLOOR + e - e * e / 2 - 12 * U <= found <= FLOOR + e + 12 * U


def test_where_scales_collapse_the_gradient_is_neither_zero_nor_of_second_order() -> None:
    """With e = eˣ: d ln σ/dx = e/((1 + e) σ), about e/σ_min; under the hard floor 0, under the smooth one
    e²/(e² + σ_min²). So it is about σ_min/e times that of the smooth floor: the more, the deeper the collapse."""
    for shift in (-4.0, -6.0, -8.0):  # of the stress, on 0.1 nm
        x = math.log(0.1) + shift
        e = math.exp(x)
        soft, hard, smooth = (
            slope(lambda at: softplus_sigma(at, CONFIG), x),
            *map(lambda kind: slope(exponential(kind), x), ("hard", "smooth")),
        )
        want = e / ((1 + e) * (FLOOR + math.log1p(e)))
        assert abs(soft - want) <= 20 * U * want
        assert hard == 0.0 and smooth == pytest.approx(e * e / (e * e + FLOOR**2), rel=20 * U)
        assert soft / smooth > 0.9 * FLOOR / e > 10.0 and soft < e / FLOOR


def test_where_scales_are_large_sigma_grows_by_less_than_a_nanometre_for_one_of_x() -> None:
    x = torch.linspace(-3.0, 40.0, 87, dtype=torch.float64)
    steps = softplus_sigma(x + 1.0, CONFIG) - softplus_sigma(x, CONFIG)
    assert float(steps.max()) <= 1.0 + 100 * U and float(steps[-1]) > 0.99
    assert float(softplus_sigma(torch.tensor(math.log(148.0)), CONFIG)) == pytest.approx(5.03, abs=0.01)
    held = softplus_sigma(x, replace(CONFIG, sigma_max=5.0))
    assert float(held.max()) == 5.0 and torch.equal(held[x < 4.9], softplus_sigma(x, CONFIG)[x < 4.9])


# the layer


def layer_of(arm: str) -> InvariantGaussianAttention:
    torch.manual_seed(0)
    layer = attention_of(load_arm(arm), SMALL).layer
    assert isinstance(layer, InvariantGaussianAttention)
    torch.nn.init.normal_(layer.linear_out.weight, std=0.3)
    return layer


def inputs(shift: float) -> tuple[torch.Tensor, torch.Tensor, GaussianRigid, torch.Tensor]:
    batch, generator = small_batch(), torch.Generator().manual_seed(1)
    g, mask = batch.gaussian, batch.mask
    s = torch.randn(*mask.shape, SMALL.c_s, generator=generator)
    z = torch.randn(*mask.shape, mask.shape[1], SMALL.c_z, generator=generator)
    return s, z, GaussianRigid(g.frame, g.local_mean, g.log_scale + shift), mask


def same(one: Trace, other: Trace) -> bool:
    """Every tensor of two traces, to the bit."""

    def flat(x: object) -> list[torch.Tensor]:
        if isinstance(x, torch.Tensor):
            return [x]
        if isinstance(x, tuple):
            return [y for part in x for y in flat(part)]
        return [] if x is None else [y for name in ("rot", "mean", "sigma") for y in flat(getattr(x, name))]

    parts = [(flat(getattr(one, f.name)), flat(getattr(other, f.name))) for f in fields(Trace)]
    return all(len(a) == len(b) and all(map(torch.equal, a, b)) for a, b in parts)


def test_with_the_exponential_and_its_floor_in_its_place_the_layer_is_the_plain_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = inputs(-6.0)
    plain, soft = layer_of("floor").trace(*given), layer_of("softplus").trace(*given)
    assert not torch.equal(soft.query.sigma, plain.query.sigma) and not same(soft, plain)

    def floored(x: torch.Tensor, config: IGAConfig) -> torch.Tensor:
        return floored_sigma(x, sigma_min=config.sigma_min, floor="hard")

    monkeypatch.setattr(cures, "softplus_sigma", floored)
    assert same(layer_of("softplus").trace(*given), plain)


def test_the_layer_has_the_sigma_of_its_own_raw_scales_and_shows_it() -> None:
    """x has an error of 4 u max(1, |x|), which e takes over as a relative one; then as in float64."""
    layer, given, heard = layer_of("softplus"), inputs(-6.0), []
    with taps.listen(lambda name, tensor, dims: heard.append((name, tensor))):
        output, statistics = layer.with_statistics(*given)
    trace = layer.trace(*given)
    shown = [tensor for name, tensor in heard if name == "sigma"]
    assert torch.equal(shown[0], trace.query.sigma) and torch.equal(shown[1], trace.key.sigma) and len(shown) == 2
    assert torch.equal(output, trace.output) and torch.equal(layer(*given), output)
    valid, pairs = trace.mask[:, None], trace.pair_mask[:, None]
    largest, lowest = trace.geo_scaled.abs().where(pairs, 0.0).amax(-1), trace.log_det.amin(-3).where(pairs, torch.inf)
    assert torch.equal(statistics.geo_absmax, largest) and torch.equal(statistics.log_det_min, lowest.amin(-1))
    assert torch.equal(statistics.weight_max, trace.weights.amax(-1).where(valid, 0.0))
    x = trace.rigid.log_scale[..., None, None, :, :].double().numpy()
    x = x + layer.config.log_scale_max * np.tanh(trace.raw_query[1].detach().double().numpy())
    want = FLOOR + np.logaddexp(0.0, x)
    within = 2.0**-24 * (12 * want + 4 * np.maximum(np.abs(x), 1.0) * np.exp(x))
    assert bool((np.abs(trace.query.sigma.detach().double().numpy() - want) <= within).all())


@pytest.mark.parametrize(("arm", "moves"), [("floor", False), ("softplus", True)])
def test_collapsed_scales_get_a_gradient_from_the_softplus_and_none_from_the_floor(arm: str, moves: bool) -> None:
    layer = layer_of(arm)
    s, z, g, mask = inputs(-8.0)
    scale = g.log_scale.clone().requires_grad_()
    layer(s, z, GaussianRigid(g.frame, g.local_mean, scale), mask).square().sum().backward()
    for grad in (scale.grad, layer.linear_q_scales.weight.grad, layer.linear_k_scales.weight.grad):
        assert grad is not None and bool(grad.isfinite().all()) and bool((grad != 0).any()) == moves


def test_a_layer_without_sigma_has_no_such_cure() -> None:
    with pytest.raises(ValueError, match='"softplus" belongs to layer "iga"'):
        load_settings("ipa", "small", ["arm.attention.cure=softplus"])
    with pytest.raises(ValueError, match="InvariantPointAttention has no cure 'softplus'"):
        cures.cured(attention_of(load_arm("ipa"), SMALL).layer, "softplus")
