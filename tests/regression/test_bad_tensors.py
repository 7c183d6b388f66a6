"""What both layers say to a mask, s or z that cannot be meant, found where a NaN in a mask excluded every residue."""

import math
import subprocess
import sys
import textwrap

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from iga import Frame
from iga._layers import check_inputs

N, C_S, C_Z = 4, 8, 6


def arguments(**changes: object) -> dict:
    made = {
        "s": torch.zeros(2, N, C_S),
        "z": torch.zeros(2, N, N, C_Z),
        "frame": Frame(torch.eye(3).expand(2, N, 3, 3), torch.zeros(2, N, 3)),
        "mask": torch.ones(2, N),
    }
    return made | changes


def mask_with(value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    mask = torch.ones(2, N, dtype=dtype)
    mask[1, 2] = value
    return mask


WRONG = {
    "no mask": ({"mask": None}, "mask must be a tensor, got NoneType"),
    "a list for a mask": ({"mask": [[True] * N] * 2}, "mask must be a tensor, got list"),
    "a NaN in a mask": ({"mask": mask_with(math.nan)}, "mask must hold 1 .valid. and 0 .not. alone, got nan"),
    "a NaN in a bf16 mask": ({"mask": mask_with(math.nan, torch.bfloat16)}, "mask must hold .* got nan"),
    "an infinity in a mask": ({"mask": mask_with(math.inf)}, "mask must hold .* got inf"),
    "an additive mask": ({"mask": (mask_with(0) - 1) * 1e9}, "mask must hold .* got -1e[+]09.*mask == 0"),
    "a soft mask": ({"mask": mask_with(0.7)}, "mask must hold .* got 0.7"),
    "counts for a mask": ({"mask": mask_with(3, torch.int64)}, "mask must hold .* got 3"),
    "a complex mask": ({"mask": torch.ones(2, N, dtype=torch.complex64)}, "mask must be one of .*complex64"),
    "a mask elsewhere": ({"mask": torch.ones(2, N, device="meta")}, "mask is on meta and s on cpu"),
    "no s": ({"s": None}, "s must be a tensor"),
    "an integer s": ({"s": torch.zeros(2, N, C_S, dtype=torch.int64)}, "s must be one of .*int64"),
    "a bool s": ({"s": torch.zeros(2, N, C_S, dtype=torch.bool)}, "s must be one of .*bool"),
    "a complex s": ({"s": torch.zeros(2, N, C_S, dtype=torch.complex64)}, "s must be one of .*complex64"),
    "a float8 s": ({"s": torch.zeros(2, N, C_S).to(torch.float8_e5m2)}, "s must be one of .*float8"),
    "an integer z": ({"z": torch.zeros(2, N, N, C_Z, dtype=torch.int32)}, "z must be one of .*int32"),
    "a complex z": ({"z": torch.zeros(2, N, N, C_Z, dtype=torch.complex64)}, "z must be one of .*complex64"),
    "a z elsewhere": ({"z": torch.zeros(2, N, N, C_Z, device="meta")}, "z is on meta and s on cpu"),
    "frames elsewhere": (
        {"frame": Frame(torch.eye(3, device="meta").expand(2, N, 3, 3), torch.zeros(2, N, 3, device="meta"))},
        "r is on meta and s on cpu",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_argument_that_cannot_be_meant_is_a_value_error_that_names_it(case: str) -> None:
    changes, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        check_inputs(**arguments(**changes), c_s=C_S, c_z=C_Z)


def test_both_layers_refuse_them_for_a_user_whose_shapes_nobody_checks() -> None:
    """Here jaxtyping stands before the layers, and would refuse first."""
    code = """
        import torch
        from iga import Frame, InvariantGaussianAttention, InvariantPointAttention
        s, z = torch.zeros(1, 4, 8), torch.zeros(1, 4, 4, 6)
        r, mask = Frame.identity(1, 4), torch.ones(1, 4)
        nan = mask.clone()
        nan[0, 1] = float("nan")
        calls = {"mask": [(s, z, r, None), (s, z, r, nan)], "s": [(s.long(), z, r, mask), (s.cfloat(), z, r, mask)]}
        for layer in (InvariantGaussianAttention, InvariantPointAttention):
            for name, given in calls.items():
                for one in given:
                    try:
                        layer(8, 6, 4, 2, 2, 2)(*one)
                    except ValueError as error:
                        assert str(error).startswith(name + " must"), error
                    else:
                        raise AssertionError((layer, name, one))
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_a_call_that_is_traced_or_mapped_has_no_values_to_look_at() -> None:
    """vmap over the masks, and fake tensors: a look would raise there, on a mask that is sound."""

    def valid(mask: torch.Tensor) -> torch.Tensor:
        return check_inputs(**arguments(mask=mask), c_s=C_S, c_z=C_Z)

    masks = torch.stack([mask_with(0.0), mask_with(1.0)])
    assert torch.equal(torch.func.vmap(valid)(masks), masks > 0)
    with FakeTensorMode():
        traced = valid(torch.ones(2, N))
    assert traced.shape == (2, N) and traced.dtype == torch.bool


def test_where_values_are_not_looked_at_a_nan_excludes_its_residue_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, or under torch.compile: the comparison is false for a NaN."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    expected = torch.ones(2, N, dtype=torch.bool)
    expected[1, 2] = False
    assert torch.equal(check_inputs(**arguments(mask=mask_with(math.nan)), c_s=C_S, c_z=C_Z), expected)
