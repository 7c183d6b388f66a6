"""The losses of the flow: their formulas in NumPy, clamp, masks, and gradients by finite differences, in float64."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.flow import each_mode, each_stress, moved, normal, state, turn, values, vectors
from helpers.geometry import close, eps
from iga.experiment.task.chains import Batch
from iga.experiment.task.flow import Noised, losses, noised
from iga.frame import Frame
from iga.gaussian import GaussianRigid

EPS = eps(torch.float64)


def problem(
    t: float, *, learned: bool = True, error: float = 0.1
) -> tuple[GaussianRigid, Noised, torch.Tensor, dict[str, np.ndarray]]:
    """A prediction with known errors: trans in nm, v − v̂ in radians, and those of the Gaussians."""
    b, n = 3, 6
    mask = torch.ones(b, n, dtype=torch.bool)
    mask[0, 4:] = mask[2, 1:] = False
    target, x = state(1, b, n), state(60, b, n)
    v, v_hat = vectors(70, b, n), vectors(71, b, n)
    target = replace(target, frame=Frame(x.rot @ turn(v), target.trans))
    errors = {
        "trans": error * normal(80, b, n, 3),
        "rots": v - v_hat,
        "local_mean": 0.05 * normal(81, b, n, 3),
        "log_scale": 0.3 * normal(82, b, n, 3),
    }
    predicted = GaussianRigid(
        Frame(x.rot @ turn(v_hat), target.trans - errors["trans"]),
        target.local_mean - errors["local_mean"],
        target.log_scale - errors["log_scale"],
    )
    times = torch.full((b,), t, dtype=torch.float64)
    made = Noised(times, x, target, torch.arange(b), learned)
    return predicted, made, mask, {name: e.numpy() for name, e in errors.items()}


@pytest.mark.parametrize("t", [0.01, 0.5, 0.9, 0.95, 1.0])
def test_losses_are_their_formulas(t: float) -> None:
    predicted, made, mask, errors = problem(t)
    got = losses(predicted, made, mask)
    left = 1 - min(t, 0.9)
    for row in range(3):
        valid = mask[row].numpy()
        angstrom = errors["trans"][row][valid] * 10
        trans = 2 * np.mean((angstrom * 0.1 / left) ** 2)
        rots = np.mean((errors["rots"][row][valid] / left) ** 2)
        six = np.concatenate([errors["local_mean"][row][valid] / 0.1, errors["log_scale"][row][valid]], axis=-1)
        # Differences of numbers of size ≤ 5, then squares; log at angles up to 3 is good to eps/(π − 3).
        for name, expected, condition in (
            ("trans_raw", trans, 64 * 5),
            ("rots_vf", rots, 256 / (math.pi - 3)),
            ("gaussian", np.mean((six / left) ** 2), 64 * 50),
        ):
            limit = condition * EPS * (expected + 1 / left**2)
            assert close(getattr(got, name)[row], expected, limit), (name, row)
        assert close(got.trans[row], min(trans, 5.0), 64 * 5 * EPS * (trans + 1 / left**2))
        assert got.se3_vf[row] == got.trans[row] + got.rots_vf[row]
        assert got.se3_vf_raw[row] == got.trans_raw[row] + got.rots_vf[row]


def test_the_gaussian_loss_is_zero_unless_gaussians_are_learned() -> None:
    predicted, made, mask, _ = problem(0.5, learned=False)
    assert not losses(predicted, made, mask).gaussian.any()


@each_mode
@each_stress
def test_the_target_itself_has_no_loss(batch: Batch, gaussians: str, stress: bool) -> None:
    made = noised(batch, seed=1, gaussians=gaussians, stress=stress)
    got = losses(made.target, made, batch.mask)
    assert not torch.stack([got.trans, got.trans_raw, got.rots_vf, got.gaussian]).any()


def test_losses_do_not_change_under_a_rigid_motion() -> None:
    predicted, made, mask, _ = problem(0.6)
    rot, trans = turn(torch.tensor([1.0, -0.2, 2.0], dtype=torch.float64)), torch.tensor([20.0, 5.0, -9.0]).double()
    there = replace(made, gaussian=moved(made.gaussian, rot, trans), target=moved(made.target, rot, trans))
    before, after = losses(predicted, made, mask), losses(moved(predicted, rot, trans), there, mask)
    left = 1 - 0.6
    # Positions near 25 nm are rounded before they are subtracted; angles as in the formulas' test.
    assert close(after.trans_raw, before.trans_raw.numpy(), 64 * 25 * EPS * (before.trans_raw + 1) / left**2)
    assert close(after.rots_vf, before.rots_vf.numpy(), 512 / (math.pi - 3) * EPS * (before.rots_vf + 1) / left**2)
    assert torch.equal(after.gaussian, before.gaussian)


def test_losses_are_of_each_sample_alone_and_ignore_what_is_masked() -> None:
    predicted, made, mask, _ = problem(0.4)
    expected = losses(predicted, made, mask)
    spoilt = GaussianRigid(
        Frame(*(x.masked_fill(~mask.reshape(3, 6, *(1,) * (x.ndim - 2)), math.nan) for x in values(predicted)[:2])),
        *(x.masked_fill(~mask[..., None], math.nan) for x in values(predicted)[2:]),
    )
    leaves = [x.clone().requires_grad_(True) for x in values(spoilt)]
    got = losses(GaussianRigid(Frame(*leaves[:2]), *leaves[2:]), made, mask)
    for name in ("trans", "rots_vf", "gaussian"):
        assert torch.equal(getattr(got, name), getattr(expected, name))
    (got.se3_vf + got.gaussian).sum().backward()
    for leaf in leaves:
        assert leaf.grad is not None and bool(leaf.grad.isfinite().all())
        assert not leaf.grad[~mask].any() and leaf.grad[mask].any()
    one = losses(
        predicted[1:2], replace(made, t=made.t[1:2], gaussian=made.gaussian[1:2], target=made.target[1:2]), mask[1:2]
    )
    assert close(one.rots_vf, expected.rots_vf[1:2].numpy(), 64 * EPS * (1 + expected.rots_vf[1:2]))


def test_a_clamped_sample_has_loss_five_and_no_gradient_through_its_translations() -> None:
    predicted, made, mask, _ = problem(0.95, error=1.0)
    predicted = replace(predicted, frame=Frame(predicted.rot, predicted.trans.clone()))
    predicted.trans[1] = made.target.trans[1] - 1e-3
    trans = predicted.trans.clone().requires_grad_(True)
    got = losses(replace(predicted, frame=Frame(predicted.rot, trans)), made, mask)
    assert got.trans[0] == 5 and got.trans[2] == 5 and 0 < got.trans[1] < 5
    assert bool((got.trans_raw[[0, 2]] > 5).all()) and got.trans_raw[1] == got.trans[1]
    (gradient,) = torch.autograd.grad(got.trans.sum(), trans, retain_graph=True)
    assert not gradient[[0, 2]].any() and gradient[1].any()
    (raw,) = torch.autograd.grad(got.trans_raw.sum(), trans)
    assert raw[0].any() and raw[2].any()


def test_gradients_are_those_of_finite_differences() -> None:
    predicted, made, mask, _ = problem(0.3)
    rows = (slice(0, 2), slice(3, 5))  # one of these residues is masked
    predicted, mask, draws = predicted[rows], mask[rows], made.draws[:2]
    made = Noised(made.t[:2], made.gaussian[rows], made.target[rows], draws, made.learned)
    parts = [x.clone().requires_grad_(True) for x in values(predicted)]

    def total(
        rot: torch.Tensor, trans: torch.Tensor, local_mean: torch.Tensor, log_scale: torch.Tensor
    ) -> torch.Tensor:
        got = losses(GaussianRigid(Frame(rot, trans), local_mean, log_scale), made, mask)
        return got.trans_raw + got.rots_vf + got.gaussian

    # Differences over 10⁻⁶ in float64 err by 10⁻¹⁶/10⁻⁶ of values under 10⁴, and by 10⁻¹² for the curvature.
    assert torch.autograd.gradcheck(total, parts, eps=1e-6, atol=1e-6, rtol=1e-5)


HALF_TURNS = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 0.0), (1.0, -2.0, 3.0)]


@pytest.mark.parametrize("axis", HALF_TURNS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("offset", [0.0, 1e-7, 1e-4, -1e-7])
def test_gradients_are_finite_at_the_identity_and_around_a_half_turn(
    axis: tuple[float, ...], dtype: torch.dtype, offset: float
) -> None:
    a = torch.tensor(axis, dtype=torch.float64)
    a = a / a.norm()
    base = turn(vectors(5, 1, 1))[0, 0]
    near_half, near_none = turn(a * (math.pi - offset)), turn(a * offset)
    for to_target, to_predicted in (
        (near_half, near_none),
        (near_none, near_half),
        (near_half, near_half),
        (near_none, near_none),
    ):
        x, target, predicted = (
            GaussianRigid(
                Frame(r[None, None].to(dtype), torch.zeros(1, 1, 3, dtype=dtype)), *torch.zeros(2, 1, 1, 3, dtype=dtype)
            )
            for r in (base, base @ to_target, base @ to_predicted)
        )
        rot = predicted.rot.clone().requires_grad_(True)
        made = Noised(torch.tensor([0.95], dtype=dtype), x, target, torch.tensor([0]), False)
        got = losses(replace(predicted, frame=Frame(rot, predicted.trans)), made, torch.ones(1, 1, dtype=torch.bool))
        (gradient,) = torch.autograd.grad(got.rots_vf.sum(), rot)
        assert bool(got.rots_vf.isfinite().all() and gradient.isfinite().all())


def test_a_small_error_at_the_identity_costs_its_square_and_points_back() -> None:
    """At R_t = R_1, v = 0: the loss of a turn by w is |w/(1 − c)|²/3, and its slope along w is 2|w|²/(3(1 − c)²)."""
    x = state(2, 1, 1)
    made = Noised(torch.tensor([1.0], dtype=torch.float64), x, x, torch.tensor([0]), False)
    w = torch.tensor([1e-5, -2e-5, 3e-5], dtype=torch.float64)
    factor = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    frame = Frame(x.rot @ turn(factor * w), x.trans)
    loss = losses(replace(x, frame=frame), made, torch.ones(1, 1, dtype=torch.bool)).rots_vf
    expected = float(w.square().sum()) * 100 / 3
    # The turn itself is known to a few eps, out of 4·10⁻⁵.
    limit = 64 * EPS / 4e-5 * expected
    assert close(loss, expected, limit)
    (slope,) = torch.autograd.grad(loss.sum(), factor)
    assert close(slope, 2 * expected, 4 * limit)
