"""Masks and shapes of both layers: the masked is absent, a batch is its samples, and the smallest call works."""

import math

import pytest
import torch
from torch import nn

from helpers.ipa import assert_within
from helpers.layers import LAYERS, SIZES, Inputs, layer_inputs, small_layer
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.presets import PRESETS
from iga.testing.layer.subject import randomise

EACH = pytest.mark.parametrize("name", [*PRESETS, "IPA"])
BOTH = pytest.mark.parametrize("name", ["bounded", "IPA"])


def layer(name: str) -> nn.Module:
    return randomise(LAYERS["IPA"](**SIZES), 0) if name == "IPA" else small_layer(name)


def tensors(given: Inputs) -> list[torch.Tensor]:
    return [given.s, given.z, given.r.rot, given.r.trans, given.r.local_mean, given.r.log_scale]


def run(made: nn.Module, leaves: list[torch.Tensor], mask: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The output, and the gradients of s, z, the frames and every parameter."""
    leaves = [x.detach().clone().requires_grad_() for x in leaves]
    s, z, rot, trans, local_mean, log_scale = leaves
    output = made(s, z, GaussianRigid(Frame(rot, trans), local_mean, log_scale), mask)
    weights = torch.linspace(-1, 2, output.numel()).reshape(output.shape)
    return output.detach(), list(torch.autograd.grad((output * weights).sum(), [*leaves[:4], *made.parameters()]))


def picked(given: Inputs, index, pairs) -> list[torch.Tensor]:
    return [x[pairs if x is given.z else index] for x in tensors(given)]


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e30])
@BOTH
def test_what_stands_behind_the_mask_leaves_no_trace(name: str, poison: float) -> None:
    made, given = layer(name), layer_inputs(6)
    mask = torch.tensor([[1, 1, 0, 1, 0, 1], [0, 1, 1, 0, 1, 1]], dtype=torch.bool)
    pairs = mask[..., :, None] & mask[..., None, :]
    kept = [pairs if x is given.z else mask for x in tensors(given)]
    poisoned = [
        torch.where(k[(..., *(None,) * (x.ndim - k.ndim))], x, poison)
        for x, k in zip(tensors(given), kept, strict=True)
    ]
    clean, clean_grads = run(made, tensors(given), mask)
    for same in (mask, mask.float()):
        output, grads = run(made, poisoned, same)
        assert torch.equal(output, clean)
        assert all(a.isfinite().all() and torch.equal(a, b) for a, b in zip(grads, clean_grads, strict=True))
    assert (clean[~mask] == 0).all() and (clean[mask].abs().amax(dim=-1) > 0).all()
    for gradient, k in zip(clean_grads[:4], kept, strict=False):
        assert (gradient[~k] == 0).all() and (gradient[k] != 0).any()


@BOTH
def test_masked_residues_are_as_good_as_absent(name: str) -> None:
    made, given = layer(name).double(), layer_inputs(6, batch=(), dtype=torch.float64)
    mask = torch.tensor([1, 0, 1, 1, 0, 1], dtype=torch.bool)
    rows = mask.nonzero()[:, 0]
    present, _ = run(made, picked(given, rows, (rows[:, None], rows)), mask[mask])
    assert_within(run(made, tensors(given), mask)[0][mask] - present, 1e-11)


@BOTH
def test_a_key_that_would_win_every_row_loses_to_the_mask(name: str) -> None:
    """Its pair bias could be beaten by no additive mask of −10⁵."""
    made, given = layer(name), layer_inputs(5)
    given.mask[:, 2] = False
    given.z[:, :, 2] = 1e8
    tempting = made(*given)
    given.z[:, :, 2] = 0.0
    assert torch.equal(tempting, made(*given))


@EACH
def test_a_sample_without_residues_is_zero_with_zero_gradients_beside_one_that_is_not(name: str) -> None:
    made, given = layer(name), layer_inputs(5)
    given.mask[0] = False
    output, gradients = run(made, tensors(given), given.mask)
    assert (output[0] == 0).all() and (output[1] != 0).any()
    for gradient in gradients[:4]:
        assert (gradient[0] == 0).all() and (gradient[1] != 0).any()
    assert all(gradient.isfinite().all() for gradient in gradients)


@EACH
def test_small_and_empty_shapes_work_with_pair_features_and_without(name: str) -> None:
    made = layer(name)
    for *batch, n in ((1,), (2,), (3, 1), (2, 2, 3), (0,), (2, 0), (0, 4)):
        given = layer_inputs(n, batch=tuple(batch))
        for pair in (given.z, None):
            output = made(given.s, pair, given.r, given.mask)
            assert output.shape == given.s.shape and output.dtype == given.s.dtype and output.isfinite().all()
            assert output.numel() == 0 or (output != 0).any()


@BOTH
def test_a_batch_is_its_samples(name: str) -> None:
    made, given = layer(name).double(), layer_inputs(5, batch=(2, 3), dtype=torch.float64)
    given.mask[1, 2, 3:] = False
    batched = made(*given)
    for sample in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        index = tuple(sample)
        alone = made(given.s[index], given.z[index], given.r[index], given.mask[index])
        assert_within(batched[index] - alone, 1e-11)
