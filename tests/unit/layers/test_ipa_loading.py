"""Laws of the parameters of InvariantPointAttention: OpenFold's names, shapes and spellings, and initial values."""

import pytest
import torch

from helpers.ipa import C_S, C_Z, PV, C, H, P, U, algorithm_22, assert_within, inputs, multimer_tables, randomised
from iga.ipa import InvariantPointAttention


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
    source = randomised(3)
    state = {}
    for name, value in source.state_dict().items():
        wrapped = name.replace("_points.", "_points.linear.")
        state[prefix + wrapped] = value
    assert prefix + "linear_kv_points.linear.bias" in state
    names = list(state)
    target = InvariantPointAttention(C_S, C_Z, C, H, P, PV)
    model = target
    for part in reversed(prefix.split(".")[:-1]):
        model = torch.nn.ModuleDict({part: model})
    model.load_state_dict(state, strict=True)
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())
    assert list(state) == names, "the caller's dict was changed"


@pytest.mark.parametrize("prefix", ["", "structure_module.ipa."])
def test_multimer_weights_load_in_their_own_layout(prefix):
    generator = torch.Generator().manual_seed(5)
    sizes = {
        "linear_q.weight": (H * C, C_S),
        "linear_k.weight": (H * C, C_S),
        "linear_v.weight": (H * C, C_S),
        "linear_b.weight": (H, C_Z),
        "linear_b.bias": (H,),
        "head_weights": (H,),
        "linear_out.weight": (C_S, H * (C_Z + C + 4 * PV)),
        "linear_out.bias": (C_S,),
    }
    for name, count in (("q", P), ("k", P), ("v", PV)):
        sizes[f"linear_{name}_points.linear.weight"] = (H * 3 * count, C_S)
        sizes[f"linear_{name}_points.linear.bias"] = (H * 3 * count,)
    state = {name: 0.5 * torch.randn(size, generator=generator, dtype=torch.float64) for name, size in sizes.items()}
    layer = randomised(dtype=torch.float64)
    model = layer
    for part in reversed(prefix.split(".")[:-1]):
        model = torch.nn.ModuleDict({part: model})
    model.load_state_dict({prefix + name: value for name, value in state.items()}, strict=True)
    s, z, frame, mask = inputs(5, dtype=torch.float64)
    expected = algorithm_22(multimer_tables, state, s, z, frame, mask)
    assert_within(layer(s, z, frame, mask) - expected, 1e-9)


def test_strict_loading_still_refuses_what_does_not_belong():
    state = randomised().state_dict()
    with pytest.raises(RuntimeError, match="linear_g"):
        randomised().load_state_dict({**state, "linear_g.weight": torch.zeros(2)})
    del state["linear_b.bias"]
    with pytest.raises(RuntimeError, match="linear_b.bias"):
        randomised().load_state_dict(state)
