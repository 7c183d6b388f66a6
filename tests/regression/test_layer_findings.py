"""Failures of layers of this kind, a test each, with where it was seen."""

import math
from dataclasses import replace

import pytest
import torch

from helpers.layers import Inputs, layer_inputs, small_layer
from iga import diagnostics
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.presets import preset


def protein_sized(inputs: Inputs, log_scale: float) -> Inputs:
    """Frames spread over some 4 nm, every scale e^`log_scale` nm."""
    r = inputs.r
    rigid = GaussianRigid(Frame(r.rot, 2.0 * r.trans), r.local_mean, torch.full_like(r.log_scale, log_scale))
    return Inputs(inputs.s, inputs.z, rigid, inputs.mask)


def test_collapsed_scales_gave_logits_of_ten_million_and_a_log_det_stuck_at_minus_39_and_give_neither_now() -> None:
    """Seen in training: debug/iga/global/geo_scaled_absmax at 1e7 to 1e8, wmax_sat_frac above 0.9, raw log_det_min at
    −39.37 = 3 ln(2·10⁻⁶), nothing left but the jitter; after the clamp of log_det alone, logits as large as before."""
    given = protein_sized(layer_inputs(16), log_scale=-30.0)
    with torch.no_grad():
        before, clamped, now = (small_layer(name).trace(*given) for name in ("pre_fix", "logdet_clamp", "bounded"))
    assert float(diagnostics.geo_scaled_absmax(before)) > 1e7
    assert float(diagnostics.saturated_share(before)) > 0.9
    stuck = float(diagnostics.log_det_min(before))
    assert abs(stuck - 3 * math.log(2 * (1e-6 + 1e-12))) < 16 * 2**-24 * 40
    assert float(diagnostics.geo_scaled_absmax(clamped)) > 1e7
    assert float(clamped.log_det.min()) < -39
    assert float(diagnostics.geo_scaled_absmax(now)) <= 50
    assert float(diagnostics.saturated_share(now)) < float(diagnostics.saturated_share(before))
    floor, spacing = 3 * math.log(2 * 0.03**2), 2**-19  # of float32 at 18.96
    assert floor - 4 * spacing <= float(diagnostics.log_det_min(now)) <= floor + 100 * spacing


@pytest.mark.parametrize("points", [16, 64])
def test_an_additive_mask_loses_to_the_geometry_and_this_one_does_not(points: int) -> None:
    """Origin: masks of −1e5 in IPA code. A geometry logit of −2.8·10⁴·√P outweighs them once P reaches 16."""
    config = preset("sigma_floor")
    layer = small_layer(config, no_qk_points=points)
    given = protein_sized(layer_inputs(8, batch=()), log_scale=-30.0)
    r = given.r
    # residue 0 sits far from the other valid ones, the masked residue 7 beside it
    trans = r.trans.clone()
    trans[1:7] += torch.tensor([20.0, 0.0, 0.0])
    trans[7] = trans[0] + 0.01
    given = Inputs(given.s, given.z, replace(r, frame=Frame(r.rot, trans)), given.mask)
    given.mask[7] = False
    with torch.no_grad():
        layer.geo_scale.fill_(1.0)
        # keys other than 0 and 7 only: the query's own residue would be near as well
        trace = layer.trace(*given)
        unmasked = layer.trace(given.s, given.z, given.r, torch.ones_like(given.mask))
    far, masked = unmasked.logits[:, 0, 1:7], unmasked.logits[:, 0, 7]
    assert (far.amax(dim=-1) < masked - 1e5).any()  # adding −1e5 to the masked key would leave it the winner
    assert (trace.weights[..., 7] == 0).all()
    assert torch.allclose(trace.weights[:, :7].sum(-1), torch.ones(()), atol=8 * 2**-24, rtol=0)


def test_a_row_without_keys_is_zero_and_not_nan() -> None:
    """Origin: an all-zero mask gave NaN in bf16 IPA layers."""
    layer, given = small_layer(), layer_inputs()
    given.mask[0] = False
    for context in (torch.autocast("cpu", enabled=False), torch.autocast("cpu", dtype=torch.bfloat16)):
        s = given.s.clone().requires_grad_()
        with context:
            out = layer(s, given.z, given.r, given.mask)
        out.float().square().sum().backward()
        assert (out[0] == 0).all() and out.isfinite().all()
        assert s.grad is not None and s.grad.isfinite().all() and (s.grad[0] == 0).all()


def test_a_translation_of_ten_thousand_nanometres_costs_no_more_than_the_rounding_of_the_input() -> None:
    """Origin: coordinates truncated in low precision. Moved by a multiple of the spacing there, nothing may change."""
    layer, given = small_layer(), layer_inputs()
    r = given.r
    spacing = 2.0**-10  # of float32 at 8192 to 16384
    trans = (r.trans / spacing).round() * spacing
    far = trans + torch.tensor([8192.0 + 1024.0, 8192.0 + 2048.0, 8192.0 + 4096.0])
    assert torch.equal(far - trans, (far - trans)[:1, :1].expand_as(trans))  # exact in float32
    with torch.no_grad():
        near = layer.trace(given.s, given.z, GaussianRigid(Frame(r.rot, trans), r.local_mean, r.log_scale), given.mask)
        away = layer.trace(given.s, given.z, GaussianRigid(Frame(r.rot, far), r.local_mean, r.log_scale), given.mask)
    # What is left is the rounding of the centre, at most the sum of seven numbers of 2¹⁴, in √dist_sq over √2 σ_min.
    slip = 16 * 2**-24 * (trans.abs().amax() + 1)
    moved = slip / (math.sqrt(2) * 0.03)
    change = (away.dist_sq.sqrt() - near.dist_sq.sqrt()).abs()
    assert (change <= moved + 1e3 * 2**-24 * near.dist_sq.sqrt()).all()


def test_the_hard_floor_leaves_log_scales_without_gradient_and_the_smooth_one_does_not() -> None:
    """Origin: a quarter of all scales start under a hard floor of 0.03 nm, and never learn to leave it."""
    given = protein_sized(layer_inputs(16), log_scale=math.log(0.02))
    dead = {}
    for floor in ("hard", "smooth"):
        r = given.r
        leaf = r.log_scale.clone().requires_grad_()
        rigid = GaussianRigid(r.frame, r.local_mean, leaf)
        layer = small_layer(preset("bounded", floor=floor, log_scale_max=0.1))
        layer.trace(given.s, given.z, rigid, given.mask).geo_scaled.sum().backward()
        assert leaf.grad is not None
        dead[floor] = float((leaf.grad == 0).double().mean())
    assert dead == {"hard": 1.0, "smooth": 0.0}
