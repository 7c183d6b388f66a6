"""The helpers that both attention layers stand on: masks, origin, softmax, value points, initial weights."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.geometry import close
from helpers.layers import weighted_points
from iga import rotation
from iga._layers import centre, lecun_normal_, linear, masked_softmax, sanitise, value_points_out
from iga.frame import Frame

U = 2.0**-24  # unit roundoff of float32
NAN = float("nan")


class Matmuls(TorchDispatchMode):
    """Records the dtype of every matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm, torch.ops.aten.mv):
            self.dtypes.append(result.dtype)
        return result


@pytest.mark.parametrize("poison", [NAN, math.inf, -math.inf])
@pytest.mark.parametrize("trailing", [(), (4,), (3, 3)])
def test_sanitise_zeroes_what_is_masked_keeps_the_rest_and_passes_no_gradient_there(poison, trailing):
    mask = torch.tensor([[True, False, True], [False, False, True]])
    x = torch.randn(2, 3, *trailing)
    kept = mask.reshape(mask.shape + (1,) * len(trailing)).expand_as(x)
    x = torch.where(kept, x, poison).requires_grad_()
    y = sanitise(x, mask)
    assert torch.equal(y[kept], x[kept]) and (y[~kept] == 0).all()
    (y * 2).sum().backward()
    assert torch.equal(x.grad, torch.where(kept, 2.0, 0.0))


def test_centre_puts_masked_frames_at_the_identity_whatever_they_held():
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[True, True, False, True], [False] * 4])
    rot, trans = rotation.random(2, 4, generator=generator), torch.randn(2, 4, 3, generator=generator)
    rot, trans = rot.masked_fill(~mask[..., None, None], NAN), trans.masked_fill(~mask[..., None], math.inf)
    rot, trans = rot.requires_grad_(), trans.requires_grad_()
    result = centre(Frame(rot, trans), mask)
    assert torch.equal(result.rot[mask], rot[mask])
    assert (result.rot[~mask] == torch.eye(3)).all() and (result.trans[~mask] == 0).all()
    # mean of three numbers under 4 in size: rounding of the sum, the quotient and the differences
    assert close(result.trans[0, mask[0]].mean(dim=0), 0.0, 4 * 8 * U)
    (result.rot.square().sum() + result.trans.square().sum()).backward()
    assert torch.isfinite(rot.grad).all() and torch.isfinite(trans.grad).all()
    assert (rot.grad[~mask] == 0).all() and (trans.grad[~mask] == 0).all()


def test_centre_keeps_the_dtype_and_passes_the_whole_gradient_of_a_function_of_differences():
    trans = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    frame = Frame(torch.eye(3, dtype=torch.float64).expand(5, 3, 3), trans)
    mask = torch.tensor([True, True, False, True, True])

    def energy(t: torch.Tensor) -> torch.Tensor:
        return (t[mask][:, None] - t[mask]).square().sum(dim=-1).sin().sum()

    centred = centre(frame, mask).trans
    assert centred.dtype == torch.float64
    (through,) = torch.autograd.grad(energy(centred), trans)
    (direct,) = torch.autograd.grad(energy(trans), trans)
    assert close(through, direct, 1e-12)


@pytest.mark.parametrize("behind", [NAN, math.inf, 3e38])
def test_a_masked_key_has_weight_zero_and_no_gradient_whatever_its_logit(behind):
    logits = torch.tensor([[0.5, behind, -1.0], [-2e4, behind, -3e4]], requires_grad=True)
    mask = torch.tensor([True, False, True])
    weights = masked_softmax(logits, mask)
    assert (weights[:, 1] == 0).all()
    assert close(weights.sum(dim=-1), 1.0, 4 * U)
    # what multiplies a masked weight downstream may be NaN as well
    (weights * torch.tensor([1.0, NAN, 2.0]))[:, mask].sum().backward()
    assert torch.isfinite(logits.grad).all() and (logits.grad[:, 1] == 0).all() and (logits.grad[0] != 0).any()


def test_a_row_without_keys_has_zero_weights_and_zero_gradients():
    logits = torch.full((2, 3), NAN, requires_grad=True)
    # anomaly mode, with which people hunt NaN, raises at a NaN inside the backward pass even where it is dropped later
    with torch.autograd.set_detect_anomaly(True):
        weights = masked_softmax(logits, torch.zeros(2, 3, dtype=torch.bool))
        assert (weights == 0).all()
        weights.sum().backward()
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("dtype, expected", [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_masked_softmax_works_in_float32_or_better_under_autocast_too(dtype, expected):
    logits, mask = torch.randn(4, 5).to(dtype), torch.ones(5, dtype=torch.bool)
    plain = masked_softmax(logits, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = masked_softmax(logits, mask)
    assert plain.dtype == cast.dtype == expected
    assert torch.equal(plain, cast)


def test_masked_softmax_of_nothing_is_nothing():
    assert masked_softmax(torch.zeros(2, 0, 0), torch.zeros(2, 1, 0, dtype=torch.bool)).shape == (2, 0, 0)


def test_rows_without_keys_give_zero_value_points_and_gradients():
    weights, frame, v = weighted_points(0)
    weights = (weights * torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0])[:, None]).requires_grad_()
    out = value_points_out(weights, frame, v)
    assert (out[:, 1] == 0).all() and (out[:, 0] != 0).all()
    out.sum().backward()
    assert weights.grad.dtype == torch.float32 and torch.isfinite(weights.grad).all()


def test_value_points_leave_no_matrix_product_that_tf32_or_autocast_could_reach():
    weights, frame, v = weighted_points(1)
    plain = value_points_out(weights, frame, v)
    with torch.autocast("cpu", dtype=torch.bfloat16), Matmuls() as matmuls:
        cast = value_points_out(weights, frame, v)
    assert torch.equal(plain, cast)
    assert set(matmuls.dtypes) == {torch.float64}


def test_value_points_keep_float64_and_have_the_gradient_of_finite_differences():
    weights, frame, v = weighted_points(2, torch.float64)
    assert value_points_out(weights, frame, v).dtype == torch.float64
    inputs = [x.clone().requires_grad_() for x in (weights, frame.rot, frame.trans, v)]
    assert torch.autograd.gradcheck(lambda w, r, t, x: value_points_out(w, Frame(r, t), x), inputs)


def test_lecun_weights_have_variance_one_over_fan_in_after_the_cut():
    torch.manual_seed(0)
    weight = lecun_normal_(torch.empty(500, 400))
    density = math.exp(-2.0) / math.sqrt(2 * math.pi)
    std_of_cut = math.sqrt(1 - 4 * density / math.erf(math.sqrt(2)))
    assert weight.abs().max() <= 2 / 20 / std_of_cut * (1 + 4 * U)
    # 2·10⁵ samples of kurtosis under 3: the standard error of the variance is at most √(2/2·10⁵) = 0.32 %; five of them
    assert abs(weight.var().item() * 400 - 1) < 0.016
    assert abs(weight.mean().item()) < 5 / 20 / math.sqrt(2e5)


def test_linear_starts_as_its_name_says():
    assert (linear(4, 5, init="final").weight == 0).all() and (linear(4, 5, init="final").bias == 0).all()
    assert (linear(4, 5, init="gating").weight == 0).all() and (linear(4, 5, init="gating").bias == 1).all()
    assert (linear(4, 5).weight != 0).any() and (linear(4, 5).bias == 0).all()
    assert linear(4, 5, bias=False).bias is None
    with pytest.raises((ValueError, TypeError)):
        linear(4, 5, init="xavier")


def test_each_sample_has_its_own_origin_and_one_valid_residue_is_its_own():
    trans = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]).expand(3, 3, 3)
    mask = torch.tensor([[True, True, False], [False, True, False], [True, True, True]])
    found = centre(Frame(torch.eye(3).expand(3, 3, 3, 3), trans), mask).trans
    one = torch.ones(3)
    assert torch.equal(found[0], torch.stack([-1.5 * one, 1.5 * one, 0 * one]))
    assert torch.equal(found[1], torch.zeros(3, 3))
    assert torch.equal(found[2], torch.stack([-3 * one, 0 * one, 3 * one]))


def test_a_row_without_keys_beside_one_with_keys_has_no_nan_inside_the_backward_pass_either():
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    mask = torch.tensor([[True, False], [False, False]])
    with torch.autograd.set_detect_anomaly(True):
        weights = masked_softmax(logits, mask)
        assert weights.tolist() == [[1.0, 0.0], [0.0, 0.0]]
        weights.square().sum().backward()
    assert (logits.grad == 0).all()
