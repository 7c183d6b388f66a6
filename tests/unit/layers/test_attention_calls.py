"""The layer: what goes in, what comes out, and what may not matter."""

import pytest
import torch

from helpers.ipa import openfold_rigid
from helpers.layers import SIZES, layer_inputs, small_layer
from iga import rotation
from iga.attention import InvariantGaussianAttention
from iga.frame import Frame
from iga.functional import point_gaussians, point_scores
from iga.gaussian import GaussianRigid
from iga.presets import PRESETS, preset
from iga.testing.modes import ShortProducts


def test_gaussians_beside_a_plain_rigid_object_are_those_of_a_gaussian_rigid_and_not_given_twice():
    one, given_ = small_layer(), layer_inputs()
    beside = {"local_mean": given_.r.local_mean, "log_scale": given_.r.log_scale}
    plain = openfold_rigid(given_.r.rot, given_.r.trans)
    assert torch.equal(one(given_.s, given_.z, plain, given_.mask, **beside), one(*given_))
    with pytest.raises(ValueError, match="local_mean and log_scale belong beside a plain rigid object"):
        one(*given_, **beside)


def test_a_fresh_layer_starts_as_zero_because_its_last_projection_does():
    assert (InvariantGaussianAttention(**SIZES)(*layer_inputs()) == 0).all()


def test_absent_gaussians_are_isotropic_at_the_ca():
    one, given_ = small_layer(), layer_inputs()
    default = GaussianRigid(
        given_.r.frame,
        torch.zeros_like(given_.r.local_mean),
        torch.full_like(given_.r.log_scale, one.config.default_sigma).log(),
    )
    plain = one(given_.s, given_.z, given_.r.frame, given_.mask)
    assert torch.equal(plain, one(given_.s, given_.z, default, given_.mask))
    assert not torch.equal(plain, one(*given_))


def test_pair_features_may_be_absent_for_the_call_or_for_the_layer():
    given_ = layer_inputs()
    with_z, without = small_layer(), small_layer(c_z=0)
    assert without(given_.s, None, given_.r, given_.mask).isfinite().all()
    assert not any(name.startswith(("linear_b", "down_z")) for name, _ in without.named_parameters())
    assert not torch.equal(with_z(given_.s, None, given_.r, given_.mask), with_z(*given_))


def test_the_time_gate_silences_geometry_at_noise_and_frees_it_at_data():
    given_ = layer_inputs()
    gated, plain = small_layer(preset("bounded", time_gate=2.0)), small_layer()
    quiet = gated.trace(*given_, t=torch.tensor([0.0, 1.0]))
    free = plain.trace(*given_)
    assert (quiet.geo_scaled[0] == 0).all()
    assert torch.equal(quiet.geo_scaled[1], free.geo_scaled[1])
    half = gated.trace(*given_, t=0.5)
    expected = 0.25 * free.geo_weight * free.geo_raw
    cap = plain.config.logit_cap
    assert cap is not None
    expected = cap * torch.tanh(expected / cap)
    assert ((half.geo_scaled - expected).abs() <= 16 * 2**-24 * (expected.abs() + cap)).all()


def test_geo_bias_cancels_in_the_softmax():
    one, given_ = small_layer(), layer_inputs(dtype=torch.float64)
    one = one.double()
    before = one(*given_)
    with torch.no_grad():
        one.geo_bias.add_(3.0)
    assert ((one(*given_) - before).abs() <= 1e3 * 2**-53 * before.abs().amax()).all()


@pytest.mark.parametrize("name", PRESETS)
def test_matrix_products_of_ten_bits_and_autocast_leave_the_geometry_alone(name):
    """TF32, simulated: it shortens the operands of every float32 matrix product, so the geometry may have none."""
    one, given_ = small_layer(name), layer_inputs()
    with torch.no_grad():
        exact = one.trace(*given_)
        for shortened in (ShortProducts(10), torch.autocast("cpu", dtype=torch.bfloat16)):
            with shortened:
                short = one.trace(*given_)
            assert not torch.equal(short.scalar, exact.scalar)  # it reaches what it may reach
            # the same raw projections, outside, give the same scores to the bit
            query = point_gaussians(short.rigid, *short.raw_query, one.config)
            key = point_gaussians(short.rigid, *short.raw_key, one.config)
            assert torch.equal(query.mean, short.query.mean) and torch.equal(query.sigma, short.query.sigma)
            expected = point_scores(query, key, one.config)
            for found, wanted in zip((short.dist_sq, short.log_det, short.score), expected, strict=True):
                assert found.dtype == torch.float32 and torch.equal(found, wanted)


@pytest.mark.parametrize("name", ["bounded", "sigma_floor"])
def test_gradients_agree_with_finite_differences(name):
    one = small_layer(name, no_heads=2, no_qk_points=2, no_v_points=1).double()
    given_ = layer_inputs(3, batch=(), dtype=torch.float64)

    def call(s, z, rotvec, trans, local_mean, log_scale):
        frame = Frame(rotation.multiply(given_.r.rot, rotation.exp(rotvec)), trans)
        return one(s, z, GaussianRigid(frame, local_mean, log_scale), given_.mask)

    r = given_.r
    arguments = (given_.s, given_.z, torch.zeros(3, 3, dtype=torch.float64), r.trans, r.local_mean, r.log_scale)
    assert torch.autograd.gradcheck(call, tuple(a.clone().requires_grad_() for a in arguments), fast_mode=True)


def test_a_state_dict_round_trip_reproduces_the_output():
    one, given_ = small_layer(seed=1), layer_inputs()
    other = small_layer(seed=2)
    assert not torch.equal(one(*given_), other(*given_))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(*given_), other(*given_))
