"""Outputs and gradients lie in memory as the fake kernels promise, whatever the layout of what was given.

Seen: torch.compile's default backend lays out memory by the fake kernels and checks them. They promised contiguous
gradients of q, k and v; the kernels gave them the strides of transposed inputs, and every backward pass failed.
"""

import itertools

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from helpers.operators import flat_arguments
from iga.kernels import ops
from iga.kernels.ops import TENSORS, gaussian_attention_backward_op, gaussian_attention_op


def transposed(x: torch.Tensor) -> torch.Tensor:
    """Dense, with its dimensions in memory the other way round."""
    order = list(reversed(range(x.ndim)))
    return x.permute(order).contiguous().permute(order)


def expanded(x: torch.Tensor) -> torch.Tensor:
    """One number along each dimension in turn, so that elements share memory: the longest of them."""
    longest = max(range(x.ndim), key=lambda d: x.shape[d])
    return x.narrow(longest, 0, 1).expand_as(x)


def strided(x: torch.Tensor) -> torch.Tensor:
    """Every second element of something larger, not from its beginning."""
    room = torch.ones(*(2 * n + 1 for n in x.shape), dtype=x.dtype)
    part = room[tuple(slice(1, None, 2) for _ in x.shape)]
    return part.copy_(x)


def by_rows(x: torch.Tensor) -> torch.Tensor:
    """Residues before heads, as projections come: dimensions 1 and −2 change places."""
    return x.transpose(1, -2).contiguous().transpose(1, -2) if x.ndim > 2 else x


LAYOUTS = {f.__name__: f for f in (torch.Tensor.contiguous, transposed, expanded, strided, by_rows)}
PRECISE = ("rot", "q_mean", "q_sigma", "k_mean", "k_sigma", "points", "trans", "geo_weight", "geo_bias")


def given(layout: str, dtype: torch.dtype, half: torch.dtype, *, pair: bool, masked: bool) -> list:
    args = list(flat_arguments(bias=pair, z=pair, dtype=dtype))
    for position, name in enumerate(TENSORS):
        x = args[position]
        if x is None:
            continue
        if name == "mask":
            x = torch.arange(5)[None] != 2 if masked else x
        elif layout == "expanded" and name in ("rot", "q_sigma", "k_sigma"):
            x = x.detach()  # rotations, and scales above zero, stay what they are
        elif name not in PRECISE:
            x = x.detach().to(half)
        args[position] = LAYOUTS[layout](x.detach())
    return args


def described(x: torch.Tensor) -> tuple:
    return tuple(x.shape), x.stride(), x.dtype, x.device.type, x.storage_offset()


def assert_as_promised(op: object, args: list, label: tuple) -> list[torch.Tensor]:
    real = list(op(*args))  # pyright: ignore[reportCallIssue]
    with FakeTensorMode() as mode:
        promised = op(*(mode.from_tensor(x) if isinstance(x, torch.Tensor) else x for x in args))  # pyright: ignore[reportCallIssue]
    for number, (have, want) in enumerate(zip(real, promised, strict=True)):
        assert described(have) == described(want), (label, number)
        assert have.is_contiguous(), (label, number)
    # memory of their own: an output may share none with another, nor with what was given
    own, others = (
        [x.untyped_storage().data_ptr() for x in those if isinstance(x, torch.Tensor) and x.numel()]
        for those in (real, args)
    )
    assert len(set(own)) == len(own) and not set(own) & set(others), label
    return real


DTYPES = [(torch.float32, torch.float32), (torch.float64, torch.float64), (torch.float32, torch.bfloat16)]


def every_promise(layout: str, implementation: str, dtypes: tuple, wants: list[tuple[bool, bool, bool]]) -> None:
    for pair, masked in ((True, True), (False, False)):
        args = given(layout, *dtypes, pair=pair, masked=masked)
        args[-2:] = [implementation, masked]
        label = (layout, implementation, dtypes, pair, masked)
        out = assert_as_promised(gaussian_attention_op, args, label)
        slopes = [LAYOUTS[layout](torch.ones_like(x)) for x in out[:4]]
        for want in wants:
            assert_as_promised(gaussian_attention_backward_op, [*slopes, out[1], out[3], *args, *want], (*label, want))


# Which gradients are wanted: every choice once, and all or none where the layout or the dtype is the question.
EVERY, ENDS = list(itertools.product((True, False), repeat=3)), [(True,) * 3, (False,) * 3]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_outputs_and_gradients_lie_as_promised_for_every_layout(layout: str) -> None:
    every_promise(layout, "cpu", DTYPES[2], EVERY if layout == "by_rows" else ENDS)


@pytest.mark.parametrize("dtypes", DTYPES[:2], ids=str)
def test_outputs_and_gradients_lie_as_promised_in_either_precision(dtypes: tuple) -> None:
    every_promise("transposed", "cpu", dtypes, ENDS)


@pytest.mark.parametrize(("layout", "flash"), [("by_rows", False), ("transposed", True)])
def test_the_fused_kernels_lay_out_their_outputs_as_promised(
    layout: str, flash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "FLASH_FROM", 0 if flash else 1 << 40)
    args = given(layout, *DTYPES[2], pair=not flash, masked=True)
    args[-2:] = ["fused", True]
    out = assert_as_promised(gaussian_attention_op, args, (layout, flash))
    slopes = [torch.ones_like(x) for x in out[:4]]
    given_back = [*slopes, out[1], out[3], *args, True, True, True]
    assert_as_promised(gaussian_attention_backward_op, given_back, (layout, flash))


@pytest.mark.parametrize("shape", [(0, 2), (1, 0)])
def test_empty_calls_lie_as_promised(shape: tuple[int, int]) -> None:
    batch, n = shape
    args = given("by_rows", *DTYPES[0], pair=True, masked=False)
    for position, name in enumerate(TENSORS):
        if name in ("geo_bias", "z_weight"):
            continue
        sizes = [n if s == 5 and name != "geo_weight" else s for s in args[position].shape]
        if name == "v":
            sizes[-1] = 5  # five value channels, not five residues
        args[position] = args[position].new_ones(batch, *sizes[1:])
    out = assert_as_promised(gaussian_attention_op, args, shape)
    slopes = [torch.ones_like(x) for x in out[:4]]
    assert_as_promised(gaussian_attention_backward_op, [*slopes, out[1], out[3], *args, True, True, True], shape)


def test_the_gradients_of_every_layout_are_those_of_the_contiguous_one() -> None:
    plain = given("contiguous", *DTYPES[1], pair=True, masked=True)
    found = {}
    for layout in ("contiguous", "transposed", "strided", "by_rows"):
        args = [LAYOUTS[layout](x) if isinstance(x, torch.Tensor) else x for x in plain]
        out = gaussian_attention_op(*args)
        slopes = [LAYOUTS[layout](torch.where(x.isfinite(), x, 0.0)) for x in out[:4]]
        given_back = [*slopes, out[1], out[3], *args, True, True, True]
        found[layout] = [*out[:3], *gaussian_attention_backward_op(*given_back)]
    for layout, parts in found.items():
        for number, (mine, plainly) in enumerate(zip(parts, found["contiguous"], strict=True)):
            # another order of a product's sums: under 10² terms, a condition of under 10³
            error = 1e5 * 2.0**-53 * float(plainly.abs().max()) if plainly.numel() else 0.0
            assert bool(((mine - plainly).abs() <= error).all()), (layout, number)
