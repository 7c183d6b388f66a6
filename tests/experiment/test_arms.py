"""The arms: one call for all, what each config is, equal starts outside the attention, statistics that are true."""

import math
from dataclasses import replace

import pytest
import torch

from helpers.network import TINY, chains, network, numbers
from iga import rotation
from iga.attention import InvariantGaussianAttention
from iga.experiment.model.arms import ARMS, ArmAttention, attention_of, load_arm, network_of
from iga.experiment.settings import load_settings
from iga.gaussian import GaussianRigid
from iga.ipa import InvariantPointAttention
from iga.presets import PRESETS, preset

IGA_ARMS = [arm for arm in ARMS if arm != "ipa"]


def settings_of(arm: str, seed: int = 0, gaussians: str = "fixed"):
    settings = load_settings(arm, "small", [f"training.seed={seed}"])
    return replace(settings, model=replace(TINY, gaussians=gaussians))


# What they are


def test_arms_are_in_the_order_of_tables_and_labelled_in_the_manner_of_the_runs_before() -> None:
    assert {arm: load_arm(arm).label for arm in ARMS} == {
        "ipa": "_ipa",
        "pre_fix": "_preFix",
        "logdet_clamp": "_logdetClamp20",
        "sigma_floor": "_sigmaMin03nm_scaleP",
        "soft_start": "_sigmaMin03nm_scaleP_softStart",
        "bounded": "_bounded",
        "gaussian_tanh": "_gaussMean_tanh10",
        "bounded_time_gate": "_bounded_timeGate1",
    }
    assert ARMS[0] == "ipa" and list(PRESETS) == [arm for arm in ARMS if arm in PRESETS]
    assert all(load_arm(arm).name == arm and load_arm(arm).note for arm in ARMS)


def test_an_arm_has_the_geometry_that_its_name_says() -> None:
    assert load_arm("ipa").config is None
    for arm in PRESETS:
        assert load_arm(arm).config == PRESETS[arm]
    assert load_arm("bounded_time_gate").config == preset("bounded", time_gate=1.0)
    assert load_arm("gaussian_tanh").config == preset(
        "bounded",
        score="gaussian",
        point_scaling="mean",
        geo_scale_init=-4.0,
        logit_cap=10.0,
        floor="hard",
        sigma_max=None,
    )


@pytest.mark.parametrize("arm", ARMS)
def test_an_attention_has_the_layer_the_sizes_and_the_config_of_its_arm(arm: str) -> None:
    model = replace(TINY, c_hidden=5, heads=3, points=4, value_points=7)
    layer = attention_of(load_arm(arm), model).layer
    assert (layer.c_s, layer.c_z, layer.c_hidden) == (16, 8, 5)
    assert (layer.no_heads, layer.no_qk_points, layer.no_v_points) == (3, 4, 7)
    if arm == "ipa":
        assert isinstance(layer, InvariantPointAttention)
    else:
        assert isinstance(layer, InvariantGaussianAttention) and layer.config == load_arm(arm).config


def test_the_implementation_of_a_kernel_is_a_value_of_the_config() -> None:
    for name in ("auto", "reference"):
        given = [f"arm.attention.implementation={name}"]
        layer = attention_of(load_settings("bounded", "small", given).arm, TINY).layer
        assert isinstance(layer, InvariantGaussianAttention) and layer.implementation == name


# Equal starts


def test_networks_of_one_seed_have_the_same_weights_outside_the_attention_whatever_the_arm() -> None:
    states = {arm: network_of(settings_of(arm)).state_dict() for arm in ARMS}
    outside = [name for name in states["ipa"] if ".attention.layer." not in name]
    assert len(outside) > 30
    for state in states.values():
        assert [name for name in state if ".attention.layer." not in name] == outside
        assert all(torch.equal(state[name], states["ipa"][name]) for name in outside)
    for arm in IGA_ARMS:
        for name, value in states[arm].items():
            if not name.endswith("geo_scale"):
                assert torch.equal(value, states["bounded"][name]), name
    other = network_of(settings_of("bounded", seed=1)).state_dict()
    drawn = [name for name in other if other[name].std() > 0 and "norm" not in name]
    assert len(drawn) > 20
    assert not any(torch.equal(other[name], states["bounded"][name]) for name in drawn)


def test_blocks_start_apart_and_a_deeper_network_starts_as_the_shallow_one() -> None:
    settings = settings_of("bounded")
    deep = network_of(replace(settings, model=replace(settings.model, blocks=3)))
    shallow = network_of(settings)
    first, second = (deep.get_submodule(f"blocks.{number}.attention.layer.linear_q") for number in (0, 1))
    assert not torch.equal(first.weight, second.weight)  # pyright: ignore
    assert torch.equal(first.weight, shallow.get_submodule("blocks.0.attention.layer.linear_q").weight)  # pyright: ignore


def test_building_a_network_neither_reads_nor_moves_the_global_generator() -> None:
    torch.manual_seed(5)
    before, first = torch.get_rng_state(), network_of(settings_of("ipa")).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    second = network_of(settings_of("ipa")).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


# What they compute


def loss_of(found: GaussianRigid, target: GaussianRigid) -> torch.Tensor:
    turned = rotation.log(rotation.multiply(rotation.transpose(found.rot), target.rot))
    return sum(
        (x.square().mean() for x in (found.trans - target.trans, turned, found.log_scale - target.log_scale)),
        start=torch.zeros(()),
    )


@pytest.mark.training
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_takes_training_steps_with_finite_gradients_from_a_healthy_start(arm: str) -> None:
    built, given, target = network_of(settings_of(arm, gaussians="learned")), chains(seed=1), chains(seed=2).gaussian
    optimiser = torch.optim.Adam(built.parameters(), lr=1e-3)
    first = None
    for _ in range(3):  # in the first step all but the updates have gradient zero
        loss = loss_of(built(*given), target)
        optimiser.zero_grad()
        loss.backward()
        for name, parameter in built.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        optimiser.step()
        first = loss.item() if first is None else first
    assert math.isfinite(first) and loss_of(built(*given), target).item() < first


# Constants of a row, which softmax cancels: what every key shares, up to rounding.
CANCELLED = ("geo_bias", "linear_b.bias")


@pytest.mark.parametrize("arm", ["ipa", "bounded", "bounded_time_gate"])
def test_every_weight_has_a_say_in_the_prediction(arm: str) -> None:
    built, given = network(arm, gaussians="learned"), chains()
    found = numbers(built(*given))
    weights = torch.linspace(-1, 2, found.numel()).reshape(found.shape)
    slopes = torch.autograd.grad((found * weights).sum(), list(built.parameters()))
    for (name, _), slope in zip(built.named_parameters(), slopes, strict=True):
        assert torch.isfinite(slope).all(), name
        assert name.endswith(CANCELLED) or (slope != 0).any(), name


def test_only_a_gated_arm_hears_the_time_and_at_time_one_it_is_the_arm_without_the_gate() -> None:
    (gaussian, _, mask, _), generator = chains(), torch.Generator().manual_seed(4)
    s, z = torch.randn(2, 9, 16, generator=generator), torch.randn(2, 9, 9, 8, generator=generator)

    def call(arm: str, t: float) -> tuple[torch.Tensor, torch.Tensor]:
        attention = network(arm).get_submodule("blocks.0.attention")
        assert isinstance(attention, ArmAttention)
        output, statistics = attention(s, z, gaussian, mask, torch.full((2,), t))
        return output, statistics.geo_absmax

    for arm in ("ipa", "bounded"):
        assert torch.equal(call(arm, 0.1)[0], call(arm, 1.0)[0])
    assert torch.equal(call("bounded_time_gate", 1.0)[0], call("bounded", 1.0)[0])
    assert not torch.equal(call("bounded_time_gate", 0.5)[0], call("bounded", 0.5)[0])
    assert (call("bounded_time_gate", 0.0)[1] == 0).all() and (call("bounded", 0.0)[1] > 0).all()


@pytest.mark.parametrize("arm", IGA_ARMS)
def test_statistics_of_the_network_are_those_of_dense_traces_of_its_blocks(arm: str) -> None:
    built, given = network(arm, dtype=torch.float64), chains(dtype=torch.float64)
    given.mask[0, 3] = False
    dense, found = [], []

    def trace(attention: ArmAttention, arguments: tuple) -> None:
        s, z, gaussian, mask, t = arguments
        assert isinstance(attention.layer, InvariantGaussianAttention)
        dense.append(attention.layer.trace(s, z, gaussian, mask, t=t if attention.gated else None))

    for block in built.blocks:
        block.attention.register_forward_pre_hook(trace)  # pyright: ignore
    built(*given, found)
    assert len(found) == len(dense) == TINY.blocks
    for statistics, seen in zip(found, dense, strict=True):
        pairs = seen.pair_mask[:, None]
        absmax = torch.where(pairs, seen.geo_scaled.abs(), 0.0).amax(dim=-1)
        lowest = torch.where(pairs, seen.log_det.amin(dim=-3), math.inf).amin(dim=-1)
        largest = torch.where(pairs, seen.weights, 0.0).amax(dim=-1)
        sigma = torch.cat([seen.query.sigma, seen.key.sigma])
        # iga.bounds: eps × (15 + 2κ) of a closed form, κ = (σ_max/σ_min)² of a textbook one, summed over few points
        kappa = (sigma.amax() / sigma.amin()).item() ** 2
        budget = 8 * 2.0**-52 * (15 + 2 * kappa)
        assert budget < 1e-6
        top = absmax.max().item()
        assert (statistics.geo_absmax - absmax).abs().max().item() <= budget * top
        # a weight moves by no more than twice its logit, whose scalar and pair parts are of order ten
        assert (statistics.weight_max - largest).abs().max().item() <= 4 * budget * (top + 10)
        valid = lowest < math.inf
        assert torch.equal(statistics.log_det_min < math.inf, valid)
        assert (statistics.log_det_min - lowest)[valid].abs().max().item() <= budget * lowest[valid].abs().max().item()
        assert (statistics.geo_absmax[0, :, 3] == 0).all()


@pytest.mark.parametrize("learned", [False, True])
def test_statistics_of_the_baseline_have_no_log_det(learned: bool) -> None:
    built, given, found = network("ipa", gaussians="learned" if learned else "fixed"), chains(), []
    built(*given, found)
    for statistics in found:
        assert (statistics.log_det_min == math.inf).all()
        assert (statistics.geo_absmax > 0).all()
        assert ((statistics.weight_max > 1 / 9) & (statistics.weight_max <= 1)).all()
