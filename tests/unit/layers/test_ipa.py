"""Laws of InvariantPointAttention: algorithm 22, gradients by finite differences, OpenFold's parameters."""

import pytest
import torch

from helpers.ipa import (
    C_S,
    C_Z,
    PV,
    C,
    H,
    P,
    U,
    algorithm_22,
    assert_within,
    inputs,
    leaves,
    monomer_tables,
    randomised,
    run,
)
from iga.frame import Frame
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


# Parameters


def test_parameters_are_openfolds_by_name_and_shape():
    state = InvariantPointAttention(384, 128, 16, 12, 4, 8).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "linear_q.weight": (192, 384),
        "linear_q.bias": (192,),
        "linear_kv.weight": (384, 384),
        "linear_kv.bias": (384,),
        "linear_q_points.weight": (144, 384),
        "linear_q_points.bias": (144,),
        "linear_kv_points.weight": (432, 384),
        "linear_kv_points.bias": (432,),
        "linear_b.weight": (12, 128),
        "linear_b.bias": (12,),
        "head_weights": (12,),
        "linear_out.weight": (384, 12 * (128 + 16 + 8 * 4)),
        "linear_out.bias": (384,),
    }


def test_a_new_layer_has_unit_point_weights_zero_biases_and_a_zero_output():
    layer = InvariantPointAttention(C_S, C_Z, C, H, P, PV)
    assert_within(torch.nn.functional.softplus(layer.head_weights.detach()) - 1, 2 * U)
    assert all((value == 0).all() for name, value in layer.state_dict().items() if name.endswith("bias"))
    assert (layer.linear_out.weight == 0).all() and (layer(*inputs(4)) == 0).all()
    others = ("linear_q", "linear_kv", "linear_q_points", "linear_kv_points", "linear_b")
    assert all((getattr(layer, name).weight != 0).all() for name in others)


@pytest.mark.parametrize("prefix", ["", "structure_module.ipa."])
def test_point_projections_load_under_both_of_openfolds_spellings(prefix):
    source, target = randomised(3).state_dict(), InvariantPointAttention(C_S, C_Z, C, H, P, PV)
    state = {prefix + name.replace("_points.", "_points.linear."): value for name, value in source.items()}
    assert prefix + "linear_kv_points.linear.bias" in state
    names, model = list(state), target
    for part in reversed(prefix.split(".")[:-1]):
        model = torch.nn.ModuleDict({part: model})
    model.load_state_dict(state, strict=True)
    assert all(torch.equal(value, source[name]) for name, value in target.state_dict().items())
    assert list(state) == names, "the caller's dict was changed"


def test_strict_loading_still_refuses_what_does_not_belong():
    state = randomised().state_dict()
    with pytest.raises(RuntimeError, match="linear_g"):
        randomised().load_state_dict({**state, "linear_g.weight": torch.zeros(2)})
    del state["linear_b.bias"]
    with pytest.raises(RuntimeError, match="linear_b.bias"):
        randomised().load_state_dict(state)
