"""Laws of the attention and of what both layers stand on: permutations, cap, origin, softmax, value points."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.geometry import close
from helpers.layers import layer_inputs, small_layer, weighted_points
from iga._layers import centre, masked_softmax, value_points_out
from iga.frame import Frame
from iga.testing.strategies import seeds

U = 2.0**-24  # unit roundoff of float32


@settings(max_examples=25)
@given(order=st.permutations(range(6)))
def test_permuting_residues_permutes_the_output(order):
    one, given_ = small_layer(), layer_inputs(6, batch=(), dtype=torch.float64)
    one = one.double()
    index = torch.tensor(order)
    out = one(*given_)
    permuted = one(given_.s[index], given_.z[index][:, index], given_.r[index], given_.mask[index])
    # float64: sums of fewer than 100 terms in another order
    assert ((permuted - out[index]).abs() <= 100 * 2**-53 * 10 * out.abs().amax()).all()


@given(seeds(), st.integers(0, 14), st.tuples(*[st.integers(-1, 1)] * 3))
def test_centred_differences_do_not_feel_a_far_translation(seed, exponent, direction):
    # Positions are multiples of 2⁻⁹ under 8, translations whole numbers up to 2¹⁴: sums are exact in float32.
    generator = torch.Generator().manual_seed(seed)
    trans = torch.randint(-4096, 4096, (6, 3), generator=generator) / 512.0
    frame = Frame(torch.eye(3).expand(6, 3, 3), trans + torch.tensor(direction) * 2.0**exponent)
    assert torch.equal((frame.trans - torch.tensor(direction) * 2.0**exponent), trans)
    moved = centre(frame, torch.ones(6, dtype=torch.bool)).trans
    # t − c is at most 16 in size and rounded once on each side; the difference, under 32, once more
    assert close(moved[:, None] - moved, trans[:, None] - trans, (2 * 16 + 32) * U)


@given(seeds(), st.sampled_from([1.0, 30.0, 1e4]))
def test_masked_softmax_is_the_softmax_of_the_valid_keys(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(3, 4, 7, generator=generator)
    mask = torch.rand(3, 1, 7, generator=generator) > 0.4
    weights = masked_softmax(logits, mask)
    assert weights.dtype == torch.float32
    for b in range(3):
        keys = mask[b, 0].numpy()
        for q in range(4):
            row = logits[b, q].numpy().astype(np.float64)[keys]
            expected = np.zeros(7)
            if keys.any():
                exponential = np.exp(row - row.max())
                expected[keys] = exponential / exponential.sum()
            # exp of a rounded difference d: (|d| + 4) u relative, and w·|d| ≤ 1/e; sum of 7 and quotient: 8 u
            assert close(weights[b, q], expected, (1 / math.e + 4 + 8) * 2 * U)
            assert (weights[b, q].numpy()[~keys] == 0).all()


def loops(weights: np.ndarray, rot: np.ndarray, trans: np.ndarray, v: np.ndarray) -> np.ndarray:
    """[h, q, p, 3] by the definition, weight by weight."""
    heads, n, _ = weights.shape
    out = np.zeros((heads, n, v.shape[2], 3))
    for h in range(heads):
        for i in range(n):
            for j in range(n):
                for p in range(v.shape[2]):
                    position = rot[j] @ v[h, j, p] + trans[j]
                    out[h, i, p] += weights[h, i, j] * (rot[i].T @ (position - trans[i]))
    return out


@given(seeds())
def test_value_points_are_rounded_once(seed):
    weights, frame, v = weighted_points(seed)
    out = value_points_out(weights, frame, v)
    assert out.dtype == torch.float32
    expected = torch.from_numpy(loops(*(x.double().numpy() for x in (weights, frame.rot, frame.trans, v))))
    # one rounding to float32; the float64 sums of at most 5·7 terms under 100 add 35·100·2⁻⁵³
    assert close(out, expected, expected.abs() * U + 4e-13)


@given(seeds(), st.integers(0, 12))
def test_value_points_do_not_feel_a_far_translation(seed, exponent):
    weights, frame, v = weighted_points(seed)
    trans = (frame.trans * 256).round() / 256  # exact after adding 2¹², the extent being under 2⁵
    near = value_points_out(weights, Frame(frame.rot, trans), v)
    far = value_points_out(weights, Frame(frame.rot, trans + 2.0**exponent), v)
    # in float64 the translation costs 2⁻⁵³ · 2¹² a term; each side is then rounded once
    assert close(far, near, near.abs() * 2 * U + 2.0**12 * 40 * 2.0**-53)
