"""Calls of OpenFold's IPA upon both layers: the constructor's options, the call's extras, the shapes, the weights.

Found with OpenFold's own StructureModule and tests run upon these classes, and se3_diffusion's and FrameFlow's weights.
"""

import inspect
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import helpers.ipa
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
    monomer_tables,
    multimer_tables,
    openfold_rigid,
)
from iga import Frame, GaussianRigid, InvariantGaussianAttention, InvariantPointAttention
from iga.frame import Rotations
from iga.testing.layer.subject import randomise

SIZES = (C_S, C_Z, C, H, P, PV)
LAYERS = pytest.mark.parametrize("kind", [InvariantPointAttention, InvariantGaussianAttention])
pytestmark = pytest.mark.usefixtures("without_shape_checks")


def built(kind, *options, **named):
    return randomise(kind(*SIZES, *options, **named), 0).eval()


def inputs(*shape: int):
    return helpers.ipa.inputs(*shape)


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


Z, OTHER = torch.zeros(2, 5, 5, C_Z), torch.ones(2, 5, 5, C_Z)
WRONG_CALLS = {
    "a list without offload": ({"_z_reference_list": [Z]}, "_z_reference_list belongs to _offload_inference=True"),
    "two different z": ({"_offload_inference": True, "_z_reference_list": [OTHER]}, "hold different tensors"),
    "an empty list": ({"z": None, "_offload_inference": True, "_z_reference_list": []}, "must hold one tensor"),
    "two in the list": ({"_offload_inference": True, "_z_reference_list": [Z, Z]}, "must hold one tensor, z, got 2"),
    "no z to offload": ({"z": None, "_offload_inference": True}, "_z_reference_list=.z., or from z itself"),
    "a tensor for a flag": ({"inplace_safe": torch.ones(2, 5, 3)}, "inplace_safe must be True or False, got Tensor"),
    "None for a flag": ({"_offload_inference": None}, "_offload_inference must be True or False"),
}
WRONG_OPTIONS = {
    "inf must be a number at least 746": [{"inf": 100.0}, {"inf": -1e5}, {"inf": float("nan")}],
    "eps must be a number of nm² in .1.18e-38, 3.4e.38.": [{"eps": e} for e in (0.0, -1e-8, 1e-50, float("inf"))],
    "is_multimer must be True or False": [{"is_multimer": "no"}],
}


@LAYERS
def test_options_and_extras_that_contradict_or_mean_something_else_are_refused_by_name(kind) -> None:
    s, _, frame, mask = inputs(2, 5)
    for changes, message in WRONG_CALLS.values():
        with pytest.raises(ValueError, match=message):
            kind(*SIZES)(**{"s": s, "z": Z, "r": frame, "mask": mask} | changes)
    for message, several in WRONG_OPTIONS.items():
        for options in several:
            with pytest.raises(ValueError, match=message):
                kind(*SIZES, **options)


@LAYERS
def test_any_inf_that_leaves_nothing_of_a_masked_key_is_the_exact_exclusion(kind) -> None:
    s, z, frame, mask = inputs(2, 5)
    mask[:, 3] = False
    first, *others = (built(kind, inf)(s, z, frame, mask) for inf in (1e5, 746.0, 1e9, float("inf")))
    assert all(torch.equal(other, first) for other in others) and math.exp(-746.0) == 0


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
def test_any_rigid_object_is_read_and_half_precision_as_float32(kind) -> None:
    """Its frames alone: OpenFold's Rigid, a Rigid3Array, and for IPA a GaussianRigid too."""
    layer, (s, z, frame, mask) = built(kind), inputs(2, 5)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        rot, trans = frame.rot.to(dtype), frame.trans.to(dtype)
        expected = layer(s, z, Frame(rot.float(), trans.float()), mask)
        for rigid in (openfold_rigid, rigid3):
            assert torch.equal(layer(s, z, rigid(rot, trans), mask), expected), (rigid, dtype)
    if kind is InvariantPointAttention:
        gaussian = GaussianRigid(frame, torch.ones_like(frame.trans), torch.zeros_like(frame.trans))
        assert torch.equal(layer(s, z, gaussian, mask), layer(s, z, frame, mask))


@LAYERS
def test_rigid_objects_whose_tensors_were_cast_in_place_of_the_constructor_are_promoted(kind) -> None:
    """What casts every tensor of a call goes through the pytree, which does not pass the constructor."""
    layer, (s, z, frame, mask) = built(kind), inputs(2, 5)
    for r in (frame, GaussianRigid.around(frame)):
        cast = torch.utils._pytree.tree_map(lambda x: x.bfloat16(), r)
        assert cast.dtype == torch.bfloat16
        expected = torch.utils._pytree.tree_map(lambda x: x.bfloat16().float(), r)
        assert torch.equal(layer(s, z, cast, mask), layer(s, z, expected, mask))


@LAYERS
def test_leading_dimensions_of_one_are_those_of_s(kind) -> None:
    layer, (s, z, frame, mask) = built(kind), inputs(3, 5)
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
    layer, (s, z, frame, _) = built(kind), inputs(5)
    mask = torch.tensor([True, True, False, True, True])
    expected = layer(s, z, frame, mask)
    for dtype in (torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float64):
        assert torch.equal(layer(s, z, frame, mask.to(dtype)), expected), dtype


# Weights


PARTS = ("weight", "bias")
DOWN = 3


def drawn(prefix: str = "", only: tuple[str, ...] = PARTS, **sizes: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Random numbers for linear layers of the sizes (out, in); dots are two underscores."""
    generator = torch.Generator().manual_seed(5)
    shapes = {f"{name}.{part}": (o, i) if part == "weight" else (o,) for name, (o, i) in sizes.items() for part in only}
    return {
        prefix + name.replace("__", "."): 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def within(layer: nn.Module) -> nn.Module:
    return nn.ModuleDict({"trunk": nn.ModuleDict({"ipa_0": layer})})


MONOMER = {"linear_q": (H * C, C_S), "linear_kv": (2 * H * C, C_S), "linear_b": (H, C_Z)}
POINTS = {"linear_q_points": (H * P * 3, C_S), "linear_kv_points": (H * (P + PV) * 3, C_S)}
HEADS = torch.linspace(-0.5, 0.5, H, dtype=torch.float64)


@pytest.mark.parametrize("rbf", [True, False], ids=["se3_diffusion", "FrameFlow"])
def test_weights_with_down_z_load_and_mean_what_they_meant(rbf: bool) -> None:
    sizes = MONOMER | POINTS | {"down_z": (DOWN, C_Z), "linear_out": (C_S, H * (DOWN + C + 4 * PV))}
    w = drawn(**sizes | ({"linear_rbf": (1, 20)} if rbf else {})) | {"head_weights": HEADS}
    weights = {f"trunk.ipa_0.{name}": value for name, value in w.items()}
    names = set(weights)
    layer = InvariantPointAttention(*SIZES, pair_value_dim=DOWN).double()
    within(layer).load_state_dict(weights, strict=True)
    assert set(weights) == names, "the caller's dict was changed"
    s, z, frame, mask = helpers.ipa.inputs(5, dtype=torch.float64)
    lower = torch.zeros(5, 5, DOWN, dtype=torch.float64)
    for c in range(DOWN):
        lower[..., c] = sum(w["down_z.weight"][c, k] * z[..., k] for k in range(C_Z)) + w["down_z.bias"][c]
    for pair, values in ((z, lower), (None, None)):
        expected = algorithm_22(monomer_tables, w, s, pair, frame, mask, c_z=DOWN, pair_values=values)
        assert_within(layer(s, pair, frame, mask) - expected, 1e-9)


def test_weights_with_down_z_say_how_the_layer_has_to_be_built() -> None:
    with pytest.raises(RuntimeError, match=r"trunk.ipa_0.down_z: build the layer with pair_value_dim=3"):
        within(InvariantPointAttention(*SIZES)).load_state_dict(drawn("trunk.ipa_0.", **MONOMER, down_z=(DOWN, C_Z)))
    for sizes, dim in ((SIZES, 0), ((C_S, 0, *SIZES[2:]), 2)):
        with pytest.raises(ValueError, match="pair_value_dim must be (at least 1|None where c_z = 0)"):
            InvariantPointAttention(*sizes, pair_value_dim=dim)


@pytest.mark.parametrize("inner", ["", ".linear"], ids=["own spelling", "OpenFold's spelling"])
@pytest.mark.parametrize("is_multimer", [True, False], ids=["into a multimer layer", "into a monomer layer"])
def test_multimer_weights_load_into_both_layouts(inner: str, is_multimer: bool) -> None:
    points = {f"linear_{x}_points__linear": (H * 3 * count, C_S) for x, count in (("q", P), ("k", P), ("v", PV))}
    weights = drawn(only=("weight",), **{f"linear_{x}": (H * C, C_S) for x in "qkv"}) | {"head_weights": HEADS}
    weights |= drawn(**points, linear_b=(H, C_Z), linear_out=(C_S, H * (C_Z + C + 4 * PV)))
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
