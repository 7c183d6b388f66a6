"""Masks, s and z that cannot be meant: both layers refuse them by name.

Origin: a NaN in a mask excluded every residue. (Dtypes and layouts of every argument: test_arguments_by_name.py.)
"""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from helpers.layers import LAYERS
from iga import Frame
from iga._layers import check_inputs

pytestmark = pytest.mark.usefixtures("without_shape_checks")

N, C_S, C_Z = 4, 8, 6
FRAME = Frame(torch.eye(3).expand(2, N, 3, 3), torch.zeros(2, N, 3))
GIVEN = {"s": torch.zeros(2, N, C_S), "z": torch.zeros(2, N, N, C_Z), "r": FRAME, "mask": torch.ones(2, N)}


def mask_with(value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    mask = torch.ones(2, N, dtype=dtype)
    mask[1, 2] = value
    return mask


WRONG = {
    "no mask": ({"mask": None}, "mask must be a tensor, got NoneType"),
    "a NaN in a mask": ({"mask": mask_with(math.nan)}, "mask must hold 1 .valid. and 0 .not. alone, got nan"),
    "a NaN in a bf16 mask": ({"mask": mask_with(math.nan, torch.bfloat16)}, "mask must hold .* got nan"),
    "an infinity in a mask": ({"mask": mask_with(math.inf)}, "mask must hold .* got inf"),
    "an additive mask": ({"mask": (mask_with(0) - 1) * 1e9}, "mask must hold .* got -1e[+]09.*mask == 0"),
    "a soft mask": ({"mask": mask_with(0.7)}, "mask must hold .* got 0.7"),
    "counts for a mask": ({"mask": mask_with(3, torch.int64)}, "mask must hold .* got 3"),
    "a mask elsewhere": ({"mask": torch.ones(2, N, device="meta")}, "mask is on meta and s on cpu"),
    "no s": ({"s": None}, "s must be a tensor"),
    "a z elsewhere": ({"z": torch.zeros(2, N, N, C_Z, device="meta")}, "z is on meta and s on cpu"),
    "frames elsewhere": ({"r": FRAME.to("meta")}, "r is on meta and s on cpu"),
    "no residues": ({"s": torch.zeros(C_S)}, r"s must be \[\*, n, c_s = 8\], got \[8\]"),
    "too few channels": ({"s": GIVEN["s"][..., 1:]}, r"s must be \[\*, n, c_s = 8\], got \[2, 4, 7\]"),
    "too few pair channels": ({"z": GIVEN["z"][..., 1:]}, r"z must be \[2, 4, 4, 6\] .* got \[2, 4, 4, 5\]"),
    "a frame short": ({"r": FRAME[:, 1:]}, r"r must have one frame per residue of s, \[2, 4\], got \[2, 3\]"),
    "one mask of two": ({"mask": torch.ones(N)}, r"mask must be \[2, 4\], one per residue of s, got \[4\]"),
    "a list for frames": ({"r": [FRAME]}, "r must be a Frame, a GaussianRigid, or a rigid object .* got list"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("kind", LAYERS)
def test_an_argument_that_cannot_be_meant_is_refused_by_name(kind: str, case: str) -> None:
    changes, message = WRONG[case]
    with pytest.raises(TypeError if "list" in case else ValueError, match=message):
        LAYERS[kind](C_S, C_Z, 4, 2, 2, 2)(**GIVEN | changes)


@pytest.mark.parametrize("kind", LAYERS)
def test_pair_features_are_refused_by_a_layer_without_them(kind: str) -> None:
    with pytest.raises(ValueError, match="z was given to a layer built with c_z = 0; pass z=None"):
        LAYERS[kind](C_S, 0, 4, 2, 2, 2)(**GIVEN)


def valid(mask: torch.Tensor) -> torch.Tensor:
    return check_inputs(GIVEN["s"], GIVEN["z"], FRAME, mask, c_s=C_S, c_z=C_Z)


def test_a_call_that_is_traced_or_mapped_has_no_values_to_look_at() -> None:
    """vmap over the masks, and fake tensors: a look would raise there, on a mask that is sound."""
    masks = torch.stack([mask_with(0.0), mask_with(1.0)])
    assert torch.equal(torch.func.vmap(valid)(masks), masks > 0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        traced = valid(torch.ones(2, N))
    assert traced.shape == (2, N) and traced.dtype == torch.bool


def test_where_values_are_not_looked_at_a_nan_or_one_half_excludes_its_residue_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU, or under torch.compile: a comparison is false for a NaN, and ½ is not above ½."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for value, kept in ((math.nan, False), (0.5, False), (0.75, True), (0.25, False)):
        expected = torch.ones(2, N, dtype=torch.bool)
        expected[1, 2] = kept
        assert torch.equal(valid(mask_with(value)), expected), value
