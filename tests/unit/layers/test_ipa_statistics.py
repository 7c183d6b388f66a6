"""Statistics of InvariantPointAttention's rows: those that plain loops find, beside the output of forward."""

import math

import pytest
import torch

from helpers.ipa import H, assert_within, by_loops, inputs, monomer_tables, randomised


@pytest.mark.parametrize("valid", [[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1], [0, 0, 0, 1, 0, 0]])
def test_statistics_are_the_largest_point_term_and_weight_of_every_row(valid):
    layer = randomised(3, dtype=torch.float64)
    s, z, frame, _ = inputs(6, seed=13, dtype=torch.float64)
    mask = torch.tensor(valid).bool()
    _, found = layer.with_statistics(s, z, frame, mask)
    _, absmax, largest = by_loops(monomer_tables, layer.state_dict(), s, z, frame, mask)
    # float64 on both sides: as in test_ipa, logits of some hundreds carry 2⁻⁵³·10³·(their ~100 operations)
    assert_within(found.geo_absmax - absmax, 1e-9)
    assert_within(found.weight_max - largest, 1e-9)
    assert torch.equal(found.log_det_min, torch.full((H, 6), math.inf, dtype=torch.float64))
    assert (found.geo_absmax[:, ~mask] == 0).all() and (found.weight_max[:, ~mask] == 0).all()
    assert (found.geo_absmax[:, mask] > 1).any(), "vacuous"


def test_the_output_beside_the_statistics_is_that_of_forward_to_the_bit_and_so_are_its_gradients():
    layer, (s, z, frame, mask) = randomised(), inputs(2, 7)
    mask[0, 2] = False
    s.requires_grad_()
    plain, (watched, statistics) = layer(s, z, frame, mask), layer.with_statistics(s, z, frame, mask)
    assert torch.equal(plain, watched)
    slopes = [torch.autograd.grad(x.square().sum(), [s, *layer.parameters()]) for x in (plain, watched)]
    assert all(torch.equal(a, b) for a, b in zip(*slopes, strict=True))
    assert not any(x.requires_grad for x in statistics)


def test_masked_residues_are_not_seen_in_the_statistics_whatever_they_hold():
    layer, (s, z, frame, mask) = randomised(), inputs(2, 7)
    mask[:, 3] = False
    expected = layer.with_statistics(s, z, frame, mask)[1]
    s[:, 3], z[:, 3], z[:, :, 3] = math.nan, math.inf, math.nan
    frame.trans[:, 3] = 1e30
    found = layer.with_statistics(s, z, frame, mask)[1]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_without_residues_or_without_valid_ones_the_statistics_are_as_empty():
    layer, (s, z, frame, mask) = randomised(), inputs(2, 0)
    output, found = layer.with_statistics(s, z, frame, mask)
    assert output.shape == s.shape and all(x.shape == (2, H, 0) for x in found)
    s, z, frame, mask = inputs(2, 4)
    found = layer.with_statistics(s, z, frame, torch.zeros_like(mask))[1]
    assert (found.geo_absmax == 0).all() and (found.weight_max == 0).all()
