"""Laws of InvariantPointAttention's precision: what autocast, TF32, distance and the dtype of frames may touch."""

import math

import pytest
import torch

from helpers.ipa import C_S, PV, C, H, P, U, assert_within, inputs, randomised, rotations
from iga.frame import Frame
from iga.ipa import InvariantPointAttention
from iga.testing.modes import ShortProducts


def geometry_alone(seed: int) -> tuple[InvariantPointAttention, Frame]:
    """A layer whose weights hang on the frames alone, with local points that bfloat16 and TF32 hold exactly.

    Points are biases, multiples of 1/32 under ½; scalar queries and pair bias are zero. All is small, so that logits
    are of order 1 and the budget stays well under the 10⁻³ nm by which ten bits of a coordinate of 1 nm are off.
    """
    layer = randomised(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in ("linear_q", "linear_kv", "linear_q_points", "linear_kv_points", "linear_b"):
            getattr(layer, name).weight.zero_()
            getattr(layer, name).bias.zero_()
        for name in ("linear_q_points", "linear_kv_points"):
            bias = getattr(layer, name).bias
            bias.copy_(torch.randint(-15, 16, bias.shape, generator=generator) / 32)
    trans = (0.5 * torch.randn(9, 3, generator=generator) * 512).round() / 512
    return layer, Frame(rotations(9, generator=generator).float(), trans)


def point_features(layer: InvariantPointAttention, frame: Frame) -> torch.Tensor:
    """What the last projection reads of the value points and their norms."""
    seen = []
    handle = layer.linear_out.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    n = frame.trans.shape[0]
    dtype = layer.head_weights.dtype
    with torch.no_grad():
        layer(torch.ones(n, C_S, dtype=dtype), None, frame, torch.ones(n))
    handle.remove()
    return seen[0][:, H * C : H * (C + 4 * PV)]


def geometry_error(layer: InvariantPointAttention, frame: Frame) -> float:
    """nm: how far float32 value points may be off, from the budget of the logits alone (see test_ipa_invariance)."""
    biases = torch.cat([layer.linear_q_points.bias, layer.linear_kv_points.bias]).detach()
    local = biases.abs().max().item() * math.sqrt(3)
    distance = (frame.trans[:, None] - frame.trans).norm(dim=-1).max().item()
    extent = distance + 2 * local
    gamma = torch.nn.functional.softplus(layer.head_weights).max().item() / math.sqrt(3 * 9 / 2 * P)
    error = 2 * U * (12 * local + 4 * (distance + local))
    logit = 0.5 * gamma * P * (2 * extent * error + (3 * P + 8) * U * extent**2)
    return extent * (math.expm1(2 * logit) + 17 * U)


@pytest.mark.parametrize("seed", range(5))
def test_short_matrix_products_autocast_and_distance_do_not_reach_the_geometry(seed):
    """TF32 keeps ten bits, bfloat16 seven; far away are sixteen thousand nanometres, which add exactly."""
    layer, frame = geometry_alone(seed)
    budget = geometry_error(layer, frame)
    assert budget < 1.2e-4, "a budget as wide as the error of ten bits proves nothing"
    seen, short = point_features(layer, frame), {}
    for bits in (10, 7):
        with ShortProducts(bits):
            short[bits] = point_features(layer, frame)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = point_features(layer, frame)
    far = Frame(frame.rot, frame.trans + 2.0**14)  # multiples of 2⁻⁹: exact
    assert torch.equal(far.trans - 2.0**14, frame.trans)
    assert_within(point_features(layer, far) - seen, 2 * budget)
    exact = point_features(layer.double(), Frame(frame.rot.double(), frame.trans.double()))
    for found in short.values():
        assert_within(found.double() - exact, budget)
    # the finished features are rounded to bfloat16 on their way into the last projection, and nothing before
    assert_within(cast.double() - exact, budget + exact.abs() * 2.0**-8)


def test_bfloat16_autocast_keeps_neighbours_apart_a_thousand_nanometres_away():
    layer, (s, z, frame, mask) = randomised(), inputs(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near, far = layer(s, z, frame, mask), layer(s, z, Frame(frame.rot, frame.trans + 1024.0), mask)
    # the same features but for float32 rounding, which may tip a rounding to bfloat16: one step of the largest feature
    with torch.no_grad():
        features = frame.trans.norm(dim=-1).max() * 2 + 2 * layer.linear_kv_points(s).abs().max()
        step = 2.0**-8 * layer.linear_out.weight.abs().sum(dim=-1) * features
    assert near.dtype == torch.bfloat16
    assert_within(far.float() - near.float(), 2 * step)


def test_float64_frames_are_not_rounded_to_the_dtype_of_s():
    layer, (s, z, frame, mask) = randomised(), inputs(6)
    nudge = frame.trans.double() + torch.linspace(0, 1e-3, 18, dtype=torch.float64).reshape(6, 3)
    wide = Frame(frame.rot.double(), nudge + 2.0**20)  # float32 would keep 1/16 nm of it
    assert_within(layer(s, z, wide, mask) - layer(s, z, Frame(frame.rot.double(), nudge), mask), 1e-4)
    assert layer(s, z, wide, mask).dtype == torch.float32


def test_float64_input_gives_float64_digits():
    layer, (s, z, frame, mask) = randomised(dtype=torch.float64), inputs(6, dtype=torch.float64)
    moved = Frame(frame.rot, frame.trans + 1024.0)
    assert_within(layer(s, z, moved, mask) - layer(s, z, frame, mask), 1e-10)
