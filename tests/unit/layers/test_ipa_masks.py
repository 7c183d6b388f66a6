"""Laws of InvariantPointAttention's masks and shapes: the masked is absent, and a batch is its samples."""

import math

import pytest
import torch

from helpers.ipa import C_S, NAN, assert_within, inputs, leaves, randomised, run
from iga.frame import Frame


@pytest.mark.parametrize("poison", [NAN, math.inf, 1e30])
@pytest.mark.parametrize("as_float", [False, True])
def test_what_stands_behind_the_mask_leaves_no_trace(poison, as_float):
    layer, (s, z, frame, _) = randomised(), inputs(2, 6)
    mask = torch.tensor([[1, 1, 0, 1, 0, 1], [0, 1, 1, 0, 1, 1]], dtype=torch.bool)
    pairs = mask[..., :, None] & mask[..., None, :]
    poisoned = (
        torch.where(mask[..., None], s, poison),
        torch.where(pairs[..., None], z, poison),
        torch.where(mask[..., None, None], frame.rot, poison),
        torch.where(mask[..., None], frame.trans, poison),
    )
    given_mask = mask.float() if as_float else mask
    clean, clean_grads = run(layer, *leaves(s, z, frame), given_mask)
    output, grads = run(layer, *(x.requires_grad_() for x in poisoned), given_mask)
    assert torch.equal(output, clean)
    for a, b in zip(grads, clean_grads, strict=True):
        assert torch.isfinite(a).all() and torch.equal(a, b)
    assert (output[~mask] == 0).all() and (output[mask].abs().amax(dim=-1) > 0).all()
    for gradient, kept in zip(grads, (mask, pairs, mask, mask), strict=False):
        assert (gradient[~kept] == 0).all() and (gradient[kept] != 0).any()


def test_masked_residues_are_as_good_as_absent():
    layer, (s, z, frame, _) = randomised(dtype=torch.float64), inputs(6, dtype=torch.float64)
    mask = torch.tensor([1, 0, 1, 1, 0, 1], dtype=torch.bool)
    present = layer(s[mask], z[mask][:, mask], Frame(frame.rot[mask], frame.trans[mask]), mask[mask])
    assert_within(layer(s, z, frame, mask)[mask] - present, 1e-11)


def test_a_key_that_would_win_every_row_loses_to_the_mask():
    # The masked residue sits on top of the others' points with a pair bias that no additive mask of −10⁵ could beat.
    layer, (s, z, frame, mask) = randomised(), inputs(5)
    mask[2] = False
    z[:, 2] = 1e8
    tempting = layer(s, z, frame, mask)
    z[:, 2] = 0.0
    assert torch.equal(tempting, layer(s, z, frame, mask))


def test_a_sample_without_residues_is_zero_with_zero_gradients_beside_one_that_is_not():
    layer, (s, z, frame, mask) = randomised(), inputs(2, 5)
    mask[0] = False
    output, (gs, gz, grot, gtrans, *rest) = run(layer, *leaves(s, z, frame), mask)
    assert (output[0] == 0).all() and (output[1] != 0).any()
    for gradient in (gs, gz, grot, gtrans):
        assert (gradient[0] == 0).all() and (gradient[1] != 0).any() and torch.isfinite(gradient).all()
    assert all(torch.isfinite(gradient).all() for gradient in rest)


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 1), (2, 2, 3), (0,), (2, 0), (0, 4)])
def test_small_and_empty_shapes_work(shape):
    layer, (s, z, frame, mask) = randomised(), inputs(*shape)
    for pair in (z, None):
        output = layer(s, pair, frame, mask)
        assert output.shape == (*shape, C_S) and torch.isfinite(output).all()
        assert output.numel() == 0 or (output != 0).any()


def test_a_batch_is_its_samples():
    layer, (s, z, frame, mask) = randomised(dtype=torch.float64), inputs(2, 3, 5, dtype=torch.float64)
    mask[1, 2, 3:] = False
    batched = layer(s, z, frame, mask)
    for a in range(2):
        for b in range(3):
            sample = layer(s[a, b], z[a, b], Frame(frame.rot[a, b], frame.trans[a, b]), mask[a, b])
            assert_within(batched[a, b] - sample, 1e-11)
