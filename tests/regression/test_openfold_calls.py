"""Both layers take what OpenFold's callers hand to its IPA: the constructor's options, the call's extras, the shapes.

Found with OpenFold's own StructureModule and tests run upon these classes, and se3_diffusion's and FrameFlow's weights.
"""

import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import jaxtyping
import numpy as np
import pytest
import torch
from torch import nn

import helpers.ipa
from helpers.ipa import C_S, C_Z, PV, C, H, P, U, algorithm_22, assert_within, monomer_tables, multimer_tables
from iga import Frame, GaussianRigid, InvariantGaussianAttention, InvariantPointAttention
from iga.frame import Rotations
from iga.testing.layer.subject import randomise

SIZES = (C_S, C_Z, C, H, P, PV)
LAYERS = pytest.mark.parametrize("kind", [InvariantPointAttention, InvariantGaussianAttention])


@pytest.fixture(autouse=True)
def no_annotations(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is examined is what users get."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def built(kind, *options, seed: int = 0, **named):
    layer = kind(*SIZES, *options, **named)
    randomise(layer, seed)
    return layer.eval()


def inputs(*shape: int, seed: int = 1):
    return helpers.ipa.inputs(*shape, seed=seed)


@LAYERS
def test_positional_arguments_stand_in_openfolds_order(kind) -> None:
    names = list(inspect.signature(kind).parameters)[:9]
    assert names[6:] == ["inf", "eps", "is_multimer"]
    defaults = [inspect.signature(kind).parameters[name].default for name in names[6:]]
    assert defaults == [1e5, 1e-8, False]
    call = list(inspect.signature(kind.forward).parameters)[1:8]
    assert call == ["s", "z", "r", "mask", "inplace_safe", "_offload_inference", "_z_reference_list"]


@LAYERS
def test_the_extras_of_the_call_change_where_z_comes_from_and_nothing_else(kind) -> None:
    layer, (s, z, frame, mask) = built(kind), inputs(2, 5)
    plain, kept = layer(s, z, frame, mask), [z]
    calls = {
        "in place": (z, frame, mask, True),
        "in place, offloaded, from the list": (None, frame, mask, True, True, kept),
        "offloaded, from the list": (None, frame, mask, False, True, kept),
        "offloaded, from z": (z, frame, mask, False, True),
        "both, the same tensor": (z, frame, mask, True, True, kept),
    }
    for name, call in calls.items():
        assert torch.equal(layer(s, *call), plain), name
    assert len(kept) == 1 and kept[0] is z


@LAYERS
def test_a_z_kept_on_another_device_is_brought_to_s_under_offload_and_only_there(kind) -> None:
    """The meta device stands for the accelerator: it knows shapes and devices, and cannot mix with the CPU."""
    layer, (s, z, frame, mask) = kind(*SIZES).to("meta"), inputs(2, 5)
    if kind is InvariantGaussianAttention:
        layer.implementation = "reference"
    moved = (frame.to("meta"), mask.to("meta"))
    for z_given, kept in ((None, [z]), (z, None)):
        out = layer(s.to("meta"), z_given, *moved, True, True, kept)
        assert out.shape == s.shape and out.device.type == "meta"
    assert z.device.type == "cpu"
    with pytest.raises(ValueError, match="z is on cpu and s on meta"):
        layer(s.to("meta"), z, *moved)


WRONG_CALLS = {
    "a list without offload": ({"_z_reference_list": ["z"]}, "_z_reference_list belongs to _offload_inference=True"),
    "two different z": ({"_offload_inference": True, "_z_reference_list": ["other"]}, "hold different tensors"),
    "an empty list": ({"z": None, "_offload_inference": True, "_z_reference_list": []}, "must hold one tensor"),
    "two in the list": (
        {"z": None, "_offload_inference": True, "_z_reference_list": ["z", "z"]},
        "must hold one tensor, z, got 2",
    ),
    "no z to offload": ({"z": None, "_offload_inference": True}, "_z_reference_list=.z., or from z itself"),
    "a tensor for a flag": ({"inplace_safe": torch.ones(2, 5, 3)}, "inplace_safe must be True or False, got Tensor"),
    "None for a flag": ({"_offload_inference": None}, "_offload_inference must be True or False"),
}


@LAYERS
@pytest.mark.parametrize("case", WRONG_CALLS)
def test_extras_that_contradict_are_refused_by_name(kind, case: str) -> None:
    changes, message = WRONG_CALLS[case]
    s, z, frame, mask = inputs(2, 5)
    held = {"z": z, "other": z + 1}
    call = {"s": s, "z": z, "r": frame, "mask": mask} | changes
    if call.get("_z_reference_list"):
        call["_z_reference_list"] = [held[name] for name in call["_z_reference_list"]]
    with pytest.raises(ValueError, match=message):
        kind(*SIZES)(**call)


@LAYERS
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inf": 100.0}, "inf must be a number at least 746"),
        ({"inf": -1e5}, "inf must be"),
        ({"inf": float("nan")}, "inf must be"),
        ({"eps": 0.0}, "eps must be"),
        ({"eps": -1e-8}, "eps must be"),
        ({"eps": 1e-50}, "eps must be a number of nm² in .1.18e-38, 3.4e.38."),
        ({"eps": float("inf")}, "eps must be"),
        ({"is_multimer": "no"}, "is_multimer must be True or False"),
    ],
)
def test_options_that_would_mean_something_else_are_refused(kind, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(*SIZES, **options)


@LAYERS
def test_any_inf_that_leaves_nothing_of_a_masked_key_is_the_exact_exclusion(kind) -> None:
    (s, z, frame, mask), outputs = inputs(2, 5), []
    mask = mask.clone()
    mask[:, 3] = False
    for inf in (1e4, 1e5, 1e9, float("inf")):
        outputs.append(built(kind, inf)(s, z, frame, mask))
    assert all(torch.equal(out, outputs[0]) for out in outputs) and np.exp(-746.0) == 0


def test_eps_stands_under_the_root_of_the_norms_of_both_layers() -> None:
    """A huge eps makes every norm √eps, and the output what the last projection makes of that."""
    s, z, frame, mask = inputs(5)
    for kind in (InvariantPointAttention, InvariantGaussianAttention):
        layer, eps = built(kind, 1e5, 2.0**40), 2.0**40
        for implementation in ("reference", "cpu") if kind is InvariantGaussianAttention else ("",):
            layer.implementation = implementation
            seen = []
            layer.linear_out.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
            layer(s, z, frame, mask)
            norms = seen[0][:, H * (C + 3 * PV) : H * (C + 4 * PV)]
            assert (norms == eps**0.5).all()


def rigid3(rot: torch.Tensor, trans: torch.Tensor) -> SimpleNamespace:
    """A struct of arrays, as AlphaFold-Multimer's geometry has it."""
    entries = {i + j: rot[..., a, b] for a, i in enumerate("xyz") for b, j in enumerate("xyz")}
    axes = {i: trans[..., a] for a, i in enumerate("xyz")}
    return SimpleNamespace(rotation=SimpleNamespace(**entries), translation=SimpleNamespace(**axes))


@LAYERS
def test_a_rigid3array_is_read_by_its_components(kind) -> None:
    layer, (s, z, frame, mask) = built(kind), inputs(2, 5)
    assert torch.equal(layer(s, z, rigid3(frame.rot, frame.trans), mask), layer(s, z, frame, mask))
    rot, trans = frame.rot.half(), frame.trans.half()
    short = layer(s, z, rigid3(rot, trans), mask)
    assert torch.equal(short, layer(s, z, Frame(rot.float(), trans.float()), mask))


@LAYERS
def test_rigid_objects_whose_tensors_were_cast_in_place_of_the_constructor_are_promoted(kind) -> None:
    """What casts every tensor of a call goes through the pytree, which does not pass the constructor."""
    layer, (s, z, frame, mask) = built(kind), inputs(2, 5)
    gaussian = GaussianRigid.around(frame)
    for r in (frame, gaussian):
        cast = torch.utils._pytree.tree_map(lambda x: x.bfloat16(), r)
        assert cast.dtype == torch.bfloat16
        out = layer(s, z, cast, mask)
        expected = torch.utils._pytree.tree_map(lambda x: x.bfloat16().float(), r)
        assert torch.equal(out, layer(s, z, expected, mask))


@LAYERS
def test_leading_dimensions_of_one_are_those_of_s(kind) -> None:
    layer, (s, z, frame, mask) = built(kind), inputs(3, 5)
    mask = mask.clone()
    mask[0, 3] = False
    mask = mask[:1]
    z = z[:1].requires_grad_()
    whole = layer(s, z.expand(3, -1, -1, -1), frame[:1].expand(3, 5), mask.expand(3, 5))
    (expected,) = torch.autograd.grad(whole.square().sum(), z)
    for given in (z, z[0]):
        out = layer(s, given, frame[:1], mask)
        assert torch.equal(out, whole)
        (found,) = torch.autograd.grad(out.square().sum(), z)
        assert torch.equal(found, expected)
    assert torch.equal(layer(s[None], z, frame[None], mask[None])[0], layer(s, z, frame, mask))
    with pytest.raises(ValueError, match="z must be"):
        layer(s, z.expand(2, -1, -1, -1), frame, mask)
    with pytest.raises(ValueError, match="mask must be"):
        layer(s, z, frame, mask[0])


@LAYERS
def test_a_mask_of_any_dtype_is_one_mask(kind) -> None:
    layer, (s, z, frame, mask) = built(kind), inputs(5)
    mask = torch.tensor([True, True, False, True, True])
    expected = layer(s, z, frame, mask)
    for dtype in (torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float64):
        assert torch.equal(layer(s, z, frame, mask.to(dtype)), expected), dtype


def drawn(shapes: dict[str, tuple[int, ...]], seed: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def linear_shapes(**sizes: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (o, i) if part == "weight" else (o,) for name, (o, i) in sizes.items() for part in PARTS}


PARTS = ("weight", "bias")
DOWN = 3


def frame_diffusion_weights(prefix: str = "") -> dict[str, torch.Tensor]:
    """The names and shapes of se3_diffusion's IPA and of FrameFlow's, which has no linear_rbf; pair values of DOWN."""
    shapes = linear_shapes(
        linear_q=(H * C, C_S),
        linear_kv=(2 * H * C, C_S),
        linear_q_points=(H * P * 3, C_S),
        linear_kv_points=(H * (P + PV) * 3, C_S),
        linear_b=(H, C_Z),
        down_z=(DOWN, C_Z),
        linear_out=(C_S, H * (DOWN + C + 4 * PV)),
        linear_rbf=(1, 20),
    )
    return {prefix + name: value for name, value in drawn(shapes | {"head_weights": (H,)}).items()}


@pytest.mark.parametrize("rbf", [True, False], ids=["se3_diffusion", "FrameFlow"])
def test_weights_with_down_z_load_and_mean_what_they_meant(rbf: bool) -> None:
    weights = frame_diffusion_weights("trunk.ipa_0.")
    if not rbf:
        weights = {name: value for name, value in weights.items() if "rbf" not in name}
    names = set(weights)
    layer = InvariantPointAttention(*SIZES, pair_value_dim=DOWN).double()
    model = nn_of(layer)
    model.load_state_dict(weights, strict=True)
    assert set(weights) == names, "the caller's dict was changed"
    s, z, frame, mask = helpers.ipa.inputs(5, dtype=torch.float64)
    w = {name.removeprefix("trunk.ipa_0."): value for name, value in weights.items()}
    lower = torch.zeros(5, 5, DOWN, dtype=torch.float64)
    for i in range(5):
        for j in range(5):
            for c in range(DOWN):
                lower[i, j, c] = sum(w["down_z.weight"][c, k] * z[i, j, k] for k in range(C_Z)) + w["down_z.bias"][c]
    expected = algorithm_22(monomer_tables, w, s, z, frame, mask, pair_values=lower)
    assert_within(layer(s, z, frame, mask) - expected, 1e-9)
    without = algorithm_22(monomer_tables, w, s, None, frame, mask, c_z=DOWN)
    assert_within(layer(s, None, frame, mask) - without, 1e-9)


def nn_of(layer: torch.nn.Module) -> torch.nn.Module:
    return torch.nn.ModuleDict({"trunk": torch.nn.ModuleDict({"ipa_0": layer})})


def test_weights_with_down_z_say_how_the_layer_has_to_be_built() -> None:
    with pytest.raises(RuntimeError, match=r"trunk.ipa_0.down_z: build the layer with pair_value_dim=3"):
        nn_of(InvariantPointAttention(*SIZES)).load_state_dict(frame_diffusion_weights("trunk.ipa_0."))
    for wrong in ({"pair_value_dim": 0}, {"c_z": 0, "pair_value_dim": 2}):
        sizes = dict(zip(("c_s", "c_z", "c_hidden", "no_heads", "no_qk_points", "no_v_points"), SIZES, strict=True))
        with pytest.raises(ValueError, match="pair_value_dim must be (at least 1|None where c_z = 0)"):
            InvariantPointAttention(**(sizes | wrong))


@pytest.mark.parametrize("inner", ["", ".linear"], ids=["own spelling", "OpenFold's spelling"])
@pytest.mark.parametrize("is_multimer", [True, False], ids=["into a multimer layer", "into a monomer layer"])
def test_multimer_weights_load_into_both_layouts(inner: str, is_multimer: bool) -> None:
    shapes: dict[str, tuple[int, ...]] = {f"linear_{x}.weight": (H * C, C_S) for x in "qkv"}
    points = {f"linear_{x}_points.linear": (H * 3 * count, C_S) for x, count in (("q", P), ("k", P), ("v", PV))}
    shapes |= linear_shapes(**points, linear_b=(H, C_Z), linear_out=(C_S, H * (C_Z + C + 4 * PV)))
    weights = drawn(shapes | {"head_weights": (H,)})
    layer = InvariantPointAttention(*SIZES, is_multimer=is_multimer).double()
    layer.load_state_dict({name.replace(".linear.", f"{inner}."): value for name, value in weights.items()})
    s, z, frame, mask = helpers.ipa.inputs(5, dtype=torch.float64)
    expected = algorithm_22(multimer_tables, weights, s, z, frame, mask)
    assert_within(layer(s, z, frame, mask) - expected, 1e-9)
    again = InvariantPointAttention(*SIZES, is_multimer=is_multimer).double()
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(s, z, frame, mask), layer(s, z, frame, mask))


def test_point_projections_are_found_where_openfold_keeps_them() -> None:
    """OpenFold's importer of AlphaFold's parameters writes into `linear_q_points.linear`."""
    for is_multimer, names in ((False, ("q", "kv")), (True, ("q", "k", "v"))):
        layer = InvariantPointAttention(*SIZES, is_multimer=is_multimer)
        for name in names:
            projection = getattr(layer, f"linear_{name}_points")
            assert projection.linear.weight is projection.weight and isinstance(projection.linear, nn.Linear)
            assert layer.get_submodule(f"linear_{name}_points.linear").bias is projection.bias
        assert not any(".linear." in name for name in layer.state_dict())


def test_a_multimer_layer_of_either_kind_has_no_bias_on_queries_keys_and_values() -> None:
    for kind in (InvariantPointAttention, InvariantGaussianAttention):
        layer, (s, z, frame, mask) = built(kind, is_multimer=True), inputs(5)
        names = {name for name, _ in layer.named_parameters()}
        assert not names & {f"linear_{x}.bias" for x in ("q", "k", "v", "kv")}
        out = layer(s, z, frame, mask)
        assert out.isfinite().all() and out.abs().max() > U


def test_the_guide_lists_what_there_is() -> None:
    """The verbs of its table exist, and its sizes of FrameFlow's layer build one."""
    guide = (Path(__file__).resolve().parents[2] / "docs" / "swap.md").read_text(encoding="utf-8")
    table = guide[guide.index("## Rigid's verbs") : guide.index("Not offered:")].splitlines()
    rows = {
        row.split("|")[1].strip(): re.findall(r"`([a-z_][a-z_0-9]*)", row.split("|")[2]) for row in table if "| " in row
    }
    named = {name for row, names in rows.items() if row != "of `get_rots()`" for name in names}
    assert len(named) > 25 and len(rows["of `get_rots()`"]) > 12
    assert {name for name in named if not hasattr(Frame, name) and not hasattr(GaussianRigid, name)} == set()
    assert {name for name in rows["of `get_rots()`"] if not hasattr(Rotations, name) and name != "get_rots"} == set()
    (example,) = re.findall(r"```python\n(from iga import InvariantPointAttention\n.*?)```", guide, flags=re.DOTALL)
    names: dict = {}
    exec(example, names)
    assert names["ipa"].down_z.out_features == 32
