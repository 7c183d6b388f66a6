"""The arms taken apart, the public cures by their laws, the parts of the stress, and Gaussians that no loss holds."""

from dataclasses import replace

import pytest
import torch

from helpers.flow import small_batch
from helpers.network import TINY
from iga import taps
from iga.experiment.cures import ARMS_APART
from iga.experiment.model import cures
from iga.experiment.model.arms import attention_of, load_arm, network_of
from iga.experiment.model.cures import CAP, attended
from iga.experiment.settings import Stress, load_settings
from iga.experiment.task.flow import NEEDLE_SIGMA, losses, noised
from iga.presets import preset

SMALL = replace(TINY, points=2)


def settings_of(arm: str, gaussians: str = "fixed"):
    return replace(load_settings(arm, "small"), model=replace(SMALL, gaussians=gaussians))


@pytest.mark.parametrize("arm", ARMS_APART)
def test_an_arm_of_the_table_makes_a_step_with_finite_gradients(arm: str) -> None:
    batch = small_batch()
    x = noised(batch, seed=0, stress=Stress(needles=False))
    made = network_of(settings_of(arm))
    watched = []
    found = losses(made(x.gaussian, x.t, batch.mask, batch.index, watched), x, batch.mask)
    found.se3_vf.mean().backward()
    gradients = [p.grad for p in made.parameters() if p.grad is not None]
    assert gradients and all(bool(g.isfinite().all()) for g in gradients) and len(watched) == SMALL.blocks


def test_the_factorial_is_every_combination_of_floor_scaling_and_form() -> None:
    names = ("logdet_clamp", "sigma_floor", *list(ARMS_APART)[:10])
    configs = [load_arm(name).config for name in names]
    found = {(c.sigma_min, c.point_scaling, c.form) for c in configs if c is not None}
    assert len(found) == 12 == len(names)
    base = preset("logdet_clamp")
    for config in filter(None, configs):
        changed = {"sigma_min": base.sigma_min, "point_scaling": base.point_scaling, "form": base.form}
        assert replace(config, **changed, jitter=base.jitter) == base


PROJECTIONS = ("q", "kv", "q_points", "kv_points", "q_offsets", "k_offsets", "q_scales", "k_scales")


def attention_logits(arm: str, factor: float) -> torch.Tensor:
    """The logits of an attention whose projections of queries and keys are `factor` times as large, biases too."""
    torch.manual_seed(0)
    layer = attention_of(load_arm(arm), SMALL).layer
    batch, heard = small_batch(), []
    with torch.no_grad():
        for name in PROJECTIONS:
            if (projection := getattr(layer, f"linear_{name}", None)) is not None:
                torch.nn.init.normal_(projection.bias, std=0.3)
                projection.weight.mul_(factor)
                projection.bias.mul_(factor)
        s = torch.randn(*batch.mask.shape, SMALL.c_s, generator=torch.Generator().manual_seed(1))
        z = torch.zeros(*batch.mask.shape, batch.mask.shape[1], SMALL.c_z)
        with taps.listen(lambda name, tensor, dims: heard.append((name, tensor))):
            layer.with_statistics(s, z, batch.gaussian, batch.mask)
    (logits,) = (tensor for name, tensor in heard if name == "logits")
    valid = (batch.mask[:, :, None] & batch.mask[:, None, :])[:, None].expand(logits.shape)
    return logits[valid]


@pytest.mark.parametrize("arm", ["qk_norm", "ipa_qk_norm"])
def test_of_the_size_of_normalised_projections_nothing_is_left_but_their_epsilon(
    arm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """x/√(mean x² + ε) is the same of (c x, c² ε), and so is LayerNorm. c = 2⁷ scales every rounding with it: equal to
    the bit. So c W is W with ε/c², and the logits have a limit where plain ones grow without end."""
    c = 2.0**7
    before = attention_logits(arm, 1.0)
    monkeypatch.setattr(cures, "_EPS_CONTENT", c * c * cures._EPS_CONTENT)
    monkeypatch.setattr(cures, "_EPS_GEOMETRY", c * c * cures._EPS_GEOMETRY)
    assert torch.equal(attention_logits(arm, c), before)
    assert not torch.equal(attention_logits(arm, 1.0), before)  # ε is seen: the sizes are not beyond its reach
    plain = "ipa" if arm.startswith("ipa") else "logdet_clamp"
    small, large = (float(attention_logits(plain, factor).abs().max()) for factor in (c**3, c**4))
    assert large > c * small  # as c², once the content is all


@pytest.mark.parametrize("arm", ["qk_norm", "ipa_qk_norm"])
@pytest.mark.parametrize("part", ["content", "geometry"])
def test_projections_of_which_a_part_is_not_normalised_are_noticed(
    arm: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if part == "content":
        monkeypatch.setattr(cures.F, "layer_norm", lambda x, *rest, **options: x)
    else:
        monkeypatch.setattr(cures, "_unit", lambda x, gain, over: gain * x)
    with pytest.raises(AssertionError):
        test_of_the_size_of_normalised_projections_nothing_is_left_but_their_epsilon(arm, monkeypatch)


@pytest.mark.parametrize("arm", ["soft_cap", "ipa_soft_cap"])
def test_a_soft_cap_holds_the_whole_logit(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of a row lie within e^(2c): what softmax is given is seen where the tap does not show it."""
    seen = []
    right = cures.masked_softmax
    monkeypatch.setattr(cures, "masked_softmax", lambda x, mask: seen.append(x) or right(x, mask))
    monkeypatch.setattr("iga.ipa.masked_softmax", lambda x, mask: seen.append(x) or right(x, mask))
    attention_logits(arm, 1e4)
    assert seen and all(float(x.abs().max()) <= CAP for x in seen)
    seen.clear()
    attention_logits("ipa" if arm.startswith("ipa") else "logdet_clamp", 1e4)
    assert all(float(x.abs().max()) > CAP for x in seen)


@pytest.mark.parametrize("arm", ["spectral", "ipa_spectral"])
def test_a_reparametrised_projection_has_its_gain_as_spectral_norm(arm: str) -> None:
    layer = attention_of(load_arm(arm), SMALL).layer.eval()
    weights = [module.weight for name, module in layer.named_children() if hasattr(module, "parametrizations")]
    assert len(weights) == (6 if arm == "spectral" else 4)
    for weight in weights:
        assert float(torch.linalg.matrix_norm(weight.detach().double(), 2)) == pytest.approx(1.0, rel=0.05)


def test_attended_with_the_logits_of_its_trace_is_the_call_and_with_others_is_not() -> None:
    torch.manual_seed(0)
    layer = attention_of(load_arm("bounded"), SMALL).layer
    batch = small_batch()
    torch.nn.init.normal_(layer.linear_out.weight)
    s, z = torch.randn(*batch.mask.shape, SMALL.c_s), torch.randn(*batch.mask.shape, batch.mask.shape[1], SMALL.c_z)
    trace = layer.trace(s, z, batch.gaussian, batch.mask)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    same, _ = attended(layer, trace, trace.logits)  # pyright: ignore[reportArgumentType]
    other, _ = attended(layer, trace, trace.logits - trace.geo_scaled)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(same, trace.output)
    assert float((other - trace.output).detach().abs().max()) > 1e-3


# the stress and its parts


def test_the_parts_of_the_stress_are_those_of_both_and_a_dose_is_the_same_for_all() -> None:
    batch = small_batch()
    scales = {
        name: noised(batch, seed=0, stress=stress).gaussian.log_scale[batch.mask]
        for name, stress in {
            "none": None,
            "both": True,
            "collapse": Stress(needles=False),
            "needles": Stress(collapse=False),
            "dose": Stress(needles=False, dose=-3.0),
        }.items()
    }
    needle = scales["needles"] != scales["none"]
    assert 0 < int(needle.any(dim=-1).sum()) <= len(needle) // 4 and int(needle.sum(dim=-1).max()) == 1
    assert float(scales["needles"][needle].exp().min()) >= NEEDLE_SIGMA[0] * (1 - 1e-6)
    torch.testing.assert_close(
        torch.where(needle, scales["needles"], scales["collapse"]), scales["both"], rtol=0, atol=0
    )
    torch.testing.assert_close(scales["dose"] - scales["none"], torch.full_like(scales["none"], -3.0))
    shift = scales["collapse"] - scales["none"]
    assert float(shift.max()) < -3.99 and float(shift.min()) > -8.01 and float(shift.std()) > 0.5


# Gaussians that no loss holds


def test_free_gaussians_start_as_the_datas_move_and_have_no_loss() -> None:
    batch = small_batch()
    fixed, free = (noised(batch, seed=0, gaussians=mode) for mode in ("fixed", "free"))
    assert torch.equal(fixed.gaussian.log_scale, free.gaussian.log_scale)
    made = network_of(settings_of("bounded", "free"))
    for block in made.blocks:
        torch.nn.init.normal_(block.update.weight, std=0.1)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    with torch.no_grad():
        predicted = made(free.gaussian, free.t, batch.mask, batch.index)
    moved = (predicted.log_scale - free.gaussian.log_scale)[batch.mask].abs()
    assert float(moved.max()) > 0.01
    assert float(losses(predicted, free, batch.mask).gaussian.abs().max()) == 0.0
    assert network_of(settings_of("bounded")).blocks[0].update.out_features == 6  # pyright: ignore[reportAttributeAccessIssue]
