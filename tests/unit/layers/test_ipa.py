"""Laws of InvariantPointAttention: it is algorithm 22, its gradients are finite differences', and misuse is named."""

import math

import pytest
import torch

from helpers.ipa import (
    C_S,
    C_Z,
    NAN,
    PV,
    C,
    H,
    P,
    algorithm_22,
    assert_within,
    inputs,
    leaves,
    monomer_tables,
    openfold_rigid,
    randomised,
    run,
)
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.ipa import InvariantPointAttention


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("valid", [[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1], [0, 0, 0, 1, 0, 0]])
def test_layer_is_algorithm_22(seed, valid):
    layer = randomised(seed, dtype=torch.float64)
    s, z, frame, _ = inputs(6, seed=seed + 10, dtype=torch.float64)
    mask = torch.tensor(valid)
    expected = algorithm_22(monomer_tables, layer.state_dict(), s, z, frame, mask)
    output = layer(s, z, frame, mask)
    assert output.dtype == torch.float64
    # float64 on both sides: logits of some hundreds carry 2⁻⁵³·10³·(their ~100 operations), outputs are of order 10
    assert_within(output - expected, 1e-9)
    assert (expected[mask.bool()].abs() > 1e-3).any(), "vacuous"


def test_without_pair_features_bias_and_values_are_zero():
    layer, plain = randomised(dtype=torch.float64), randomised(c_z=0, dtype=torch.float64)
    s, _, frame, mask = inputs(5, dtype=torch.float64)
    expected = algorithm_22(monomer_tables, layer.state_dict(), s, None, frame, mask)
    assert_within(layer(s, None, frame, mask) - expected, 1e-9)
    expected = algorithm_22(monomer_tables, plain.state_dict(), s, None, frame, mask, c_z=0)
    assert_within(plain(s, None, frame, mask) - expected, 1e-9)
    assert not any(name.startswith("linear_b") for name in plain.state_dict())


def test_eps_stands_under_the_root_of_the_norms():
    s, z, frame, mask = inputs(4, dtype=torch.float64)
    layer = InvariantPointAttention(C_S, C_Z, C, H, P, PV, eps=0.25).double()
    layer.load_state_dict(randomised(dtype=torch.float64).state_dict())
    expected = algorithm_22(monomer_tables, layer.state_dict(), s, z, frame, mask, eps=0.25)
    assert_within(layer(s, z, frame, mask) - expected, 1e-9)


# Gradients


@pytest.mark.parametrize("with_pairs", [True, False])
def test_gradients_are_those_of_finite_differences(with_pairs):
    layer, (s, z, frame, mask) = randomised(dtype=torch.float64), inputs(4, dtype=torch.float64)
    mask[2] = False
    names = [name for name, _ in layer.named_parameters() if with_pairs or not name.startswith("linear_b")]
    values = dict(layer.named_parameters())

    def call(s, z, rot, trans, *parameters):
        arguments = (s, z if with_pairs else None, Frame(rot, trans), mask)
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), arguments)

    arguments = [*leaves(s, z, frame), *(values[name].detach().clone().requires_grad_() for name in names)]
    if not with_pairs:
        arguments[1] = z
    assert torch.autograd.gradcheck(call, arguments, fast_mode=True)


def test_gradients_are_finite_where_value_points_meet_the_origin():
    layer, (s, z, frame, mask) = randomised(), inputs(3)
    with torch.no_grad():
        layer.linear_kv_points.weight.zero_()
        layer.linear_kv_points.bias.zero_()
    together = Frame(frame.rot, torch.zeros_like(frame.trans))
    output, gradients = run(layer, *leaves(s, z, together), mask)
    assert torch.isfinite(output).all() and all(torch.isfinite(gradient).all() for gradient in gradients)


# Arguments


@pytest.mark.parametrize(
    "position, name", list(enumerate(["c_s", "c_z", "c_hidden", "no_heads", "no_qk_points", "no_v_points"]))
)
def test_sizes_that_cannot_be_are_named(position, name):
    sizes = [C_S, C_Z, C, H, P, PV]
    sizes[position] = -1
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        InvariantPointAttention(*sizes)


@pytest.mark.parametrize("eps", [0.0, -1e-8, NAN, math.inf])
def test_eps_that_cannot_be_is_named(eps):
    with pytest.raises(ValueError, match="eps must be"):
        InvariantPointAttention(C_S, C_Z, C, H, P, PV, eps=eps)


def test_arguments_that_do_not_fit_are_named():
    layer, (s, z, frame, mask) = randomised(), inputs(2, 4)
    with pytest.raises(ValueError, match="s must be"):
        layer(s[..., :-1], z, frame, mask)
    with pytest.raises(ValueError, match="z must be"):
        layer(s, z[..., :-1], frame, mask)
    with pytest.raises(ValueError, match="r must have one frame per residue"):
        layer(s, z, Frame(frame.rot[0], frame.trans[0]), mask)
    with pytest.raises(ValueError, match="mask must be"):
        layer(s, z, frame, mask[0])
    with pytest.raises(ValueError, match="pass z=None"):
        randomised(c_z=0)(s, z, frame, mask)


def test_any_rigid_object_will_do_and_nothing_else():
    layer, (s, z, frame, mask) = randomised(), inputs(5)
    expected = layer(s, z, frame, mask)
    assert torch.equal(layer(s, z, openfold_rigid(frame.rot, frame.trans), mask), expected)
    gaussian = GaussianRigid(frame, torch.ones_like(frame.trans), torch.zeros_like(frame.trans))
    assert torch.equal(layer(s, z, gaussian, mask), expected)
    with pytest.raises(TypeError, match="r must be"):
        layer(s, z, frame.trans, mask)
