"""The flow-matching task: noise, path, losses and baselines, against NumPy and the matrix exponential in float64."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from geometry_support import close, eps, is_rotation
from iga.experiment.chains import Batch, chains_of, collate
from iga.experiment.flow import (
    Noised,
    draw_noise,
    interpolate,
    losses,
    mean_frame,
    nearest_rotation,
    noised,
    shuffled,
)
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.synthetic import synthetic_structures

EPS = eps(torch.float64)
each_mode = pytest.mark.parametrize("gaussians", ["fixed", "learned"])
each_stress = pytest.mark.parametrize("stress", [False, True], ids=["plain", "stress"])


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Four chains of 16 to 40 residues, float32."""
    chains = chains_of(synthetic_structures(4, seed=3, lengths=(16, 40)))[0]
    return collate(chains, [5, 6, 70, 800])


@pytest.fixture(scope="module")
def exact(batch: Batch) -> Batch:
    """The same in float64, its rotations orthonormal and its padded rows neutral to float64."""
    g = batch.gaussian.to(dtype=torch.float64)
    u, _, vh = torch.linalg.svd(g.rot)
    log_scale = g.log_scale.masked_fill(~batch.mask[..., None], math.log(0.1))
    return replace(batch, gaussian=GaussianRigid(Frame(u @ vh, g.trans), g.local_mean, log_scale))


def skew(v: torch.Tensor) -> torch.Tensor:
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*v.shape, 3)


def turn(v: torch.Tensor) -> torch.Tensor:
    """The rotation about v, by the matrix exponential."""
    return torch.linalg.matrix_exp(skew(v))


def vectors(seed: int, *shape: int, longest: float = 3.0) -> torch.Tensor:
    """Rotation vectors [*shape, 3] in random directions, lengths uniform up to `longest` < π."""
    rng = np.random.default_rng(seed)
    v = rng.standard_normal((*shape, 3))
    v *= rng.uniform(0.05, longest, (*shape, 1)) / np.linalg.norm(v, axis=-1, keepdims=True)
    return torch.from_numpy(v)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def state(seed: int, b: int, n: int) -> GaussianRigid:
    frame = Frame(turn(vectors(seed, b, n)), normal(seed + 1, b, n, 3))
    return GaussianRigid(frame, 0.1 * normal(seed + 2, b, n, 3), -2 + 0.5 * normal(seed + 3, b, n, 3))


def values(g: GaussianRigid) -> tuple[torch.Tensor, ...]:
    return g.rot, g.trans, g.local_mean, g.log_scale


def moved(g: GaussianRigid, rot: torch.Tensor, trans: torch.Tensor) -> GaussianRigid:
    """Rotated and shifted, by matmul."""
    return replace(g, frame=Frame(rot @ g.rot, (rot @ g.trans[..., None])[..., 0] + trans))


# noise


def test_noise_is_centred_and_has_the_stated_sizes() -> None:
    drawn = [draw_noise(0, draw, 50) for draw in range(200)]
    count = 200 * 50 * 3
    pooled = {name: np.concatenate([getattr(x, name) for x in drawn]) for name in ("trans", "local_mean", "log_scale")}
    for x in drawn:
        assert np.abs(x.trans.mean(axis=0)).max() <= 50 * np.finfo(float).eps
    # Centring takes 1/50 of the variance. A deviation is known to 1/√(2 count) of itself, a mean to 1/√count.
    for name, mean, deviation in (
        ("trans", 0.0, math.sqrt(49 / 50)),
        ("local_mean", 0.0, 0.1),
        ("log_scale", math.log(0.1), 0.5),
    ):
        assert abs(pooled[name].std() / deviation - 1) < 5 / math.sqrt(2 * count), name
        assert abs(pooled[name].mean() - mean) < 5 * deviation / math.sqrt(count), name


def test_times_are_uniform_between_a_hundredth_and_one() -> None:
    times = np.sort([draw_noise(0, draw, 1).t for draw in range(2000)])
    assert times[0] >= 0.01 and times[-1] <= 1.0
    # Kolmogorov–Smirnov: √n D > 1.95 has probability 10⁻³.
    uniform = (times - 0.01) / 0.99
    steps = np.arange(2001) / 2000
    assert max(np.abs(uniform - steps[1:]).max(), np.abs(uniform - steps[:-1]).max()) < 1.95 / math.sqrt(2000)


def test_rotations_of_the_noise_are_uniform(exact: Batch) -> None:
    rot = torch.cat(
        [
            noised(replace(exact, draws=exact.draws + k), seed=1, t=0.0).gaussian.rot[exact.mask]
            for k in range(0, 400, 10)
        ]
    )
    count = len(rot)
    assert is_rotation(rot, 16 * EPS)
    # Haar: entries have mean 0 and variance 1/3; the angle has the density (1 − cos θ)/π, so mean π/2 + 2/π.
    assert rot.mean(dim=0).abs().max() < 5 / math.sqrt(3 * count)
    assert (rot.square().mean(dim=0) - 1 / 3).abs().max() < 5 / math.sqrt(count)
    angle = torch.arccos(((rot.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1))
    assert abs(float(angle.mean()) - (math.pi / 2 + 2 / math.pi)) < 5 * float(angle.std()) / math.sqrt(count)


def test_noise_differs_between_draws_seeds_and_residues() -> None:
    drawn = [draw_noise(seed, draw, 20) for seed in (0, 1) for draw in (0, 1, 2)]
    assert len({x.t for x in drawn}) == 6
    for name in ("trans", "quaternion", "local_mean", "log_scale", "needle", "shift"):
        rows = np.concatenate([getattr(x, name) for x in drawn])
        assert len(np.unique(rows, axis=0)) == 120, name


@each_mode
@each_stress
def test_what_a_sample_becomes_does_not_depend_on_padding_batch_or_place(
    batch: Batch, gaussians: str, stress: bool
) -> None:
    chains = chains_of(synthetic_structures(4, seed=3, lengths=(16, 40)))[0]
    together = noised(batch, seed=11, gaussians=gaussians, stress=stress)
    assert len(set(batch.mask.sum(dim=1).tolist())) > 1
    for order in ([0], [3, 0], [2, 1, 0, 3]):
        other = noised(
            collate([chains[i] for i in order], [int(batch.draws[i]) for i in order]),
            seed=11,
            gaussians=gaussians,
            stress=stress,
        )
        for row, i in enumerate(order):
            n = len(chains[i])
            assert other.t[row] == together.t[i]
            for which in ("gaussian", "target"):
                pairs = zip(values(getattr(other, which)), values(getattr(together, which)), strict=True)
                rot, *rest = [(x[row, :n], y[i, :n]) for x, y in pairs]
                # sin, cos and atan2 may be vectorised or not: an ulp each, in vectors of up to π.
                assert close(rot[0], rot[1], 16 * eps(torch.float32))
                assert all(torch.equal(x, y) for x, y in rest)


def test_noise_leaves_the_global_generators_alone(batch: Batch) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)
    first, second = (noised(batch, seed=1, gaussians="learned", stress=True) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy_state)
    assert all(torch.equal(x, y) for x, y in zip(values(first.gaussian), values(second.gaussian), strict=True))


def test_modes_share_times_and_frames(batch: Batch) -> None:
    drawn = [noised(batch, seed=2, gaussians=g, stress=s) for g in ("fixed", "learned") for s in (False, True)]
    for other in drawn[1:]:
        assert torch.equal(other.t, drawn[0].t)
        assert torch.equal(other.gaussian.rot, drawn[0].gaussian.rot)
        assert torch.equal(other.gaussian.trans, drawn[0].gaussian.trans)


# path


@each_mode
def test_the_path_starts_at_the_noise_and_ends_at_the_data(exact: Batch, gaussians: str) -> None:
    start, end = (noised(exact, seed=4, gaussians=gaussians, t=t) for t in (0.0, 1.0))
    for row, (draw, n) in enumerate(zip(exact.draws.tolist(), exact.mask.sum(dim=1).tolist(), strict=True)):
        noise = draw_noise(4, draw, n)
        w, x, y, z = (noise.quaternion / np.linalg.norm(noise.quaternion, axis=-1, keepdims=True)).T
        rot = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        ).transpose(2, 0, 1)
        assert close(start.gaussian.rot[row, :n], rot, 16 * EPS)
        assert close(start.gaussian.trans[row, :n], noise.trans, 0.0)
        if gaussians == "learned":
            assert close(start.gaussian.local_mean[row, :n], noise.local_mean, 0.0)
            assert close(start.gaussian.log_scale[row, :n], noise.log_scale, 0.0)
    rot, *rest = zip(values(end.gaussian), values(exact.gaussian), strict=True)
    assert close(rot[0], rot[1], 32 * EPS)  # through log and exp of angles up to π
    assert all(torch.equal(x, y) for x, y in rest)
    assert all(torch.equal(x, y) for x, y in zip(values(end.target), values(exact.gaussian), strict=True))


@pytest.mark.parametrize("t", [0.01, 0.3, 0.9, 1.0])
def test_the_path_is_a_line_and_a_geodesic(t: float) -> None:
    start, v, end = state(0, 2, 9), vectors(50, 2, 9), state(20, 2, 9)
    end = replace(end, frame=Frame(start.rot @ turn(v), end.trans))
    between = interpolate(start, end, torch.full((2,), t, dtype=torch.float64))
    # matrix_exp and its products are good to a few eps, log at angles up to 3 to 1/(π − 3) of that.
    assert close(between.rot, start.rot @ turn(t * v), 64 * EPS / (math.pi - 3))
    for name in ("trans", "local_mean", "log_scale"):
        a, b = getattr(start, name), getattr(end, name)
        assert close(getattr(between, name), a + t * (b - a), 4 * EPS * (a.abs() + b.abs()))


def test_each_sample_has_its_own_time() -> None:
    start, end = state(0, 3, 5), state(30, 3, 5)
    times = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    together = interpolate(start, end, times)
    for row in range(3):
        alone = interpolate(start[row : row + 1], end[row : row + 1], times[row : row + 1])
        assert close(together.trans[row], alone.trans[0], 0.0)
        assert close(together.rot[row], alone.rot[0], 16 * EPS)


def test_the_path_moves_with_a_rigid_motion_of_its_ends() -> None:
    start, end = state(0, 2, 7), state(40, 2, 7)
    rot, trans = turn(torch.tensor([0.3, -2.0, 1.1], dtype=torch.float64)), torch.tensor([40.0, -7.0, 3.0]).double()
    times = torch.tensor([0.2, 0.7], dtype=torch.float64)
    first = interpolate(moved(start, rot, trans), moved(end, rot, trans), times)
    then = moved(interpolate(start, end, times), rot, trans)
    # Random ends may be near a half turn apart, where log is known to eps over what is missing.
    angle = torch.arccos((((start.rot.mT @ end.rot).diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1))
    assert float(angle.max()) < math.pi - 0.01
    assert close(first.rot, then.rot, 64 * EPS / 0.01)
    assert close(first.trans, then.trans, 16 * EPS * 60)
    assert torch.equal(first.local_mean, then.local_mean) and torch.equal(first.log_scale, then.log_scale)


@each_mode
@each_stress
def test_padded_rows_are_neutral_at_every_time(batch: Batch, gaussians: str, stress: bool) -> None:
    padded = ~batch.mask
    spoilt = GaussianRigid(
        Frame(
            *(
                x.masked_fill(padded.reshape(*padded.shape, *(1,) * (x.ndim - 2)), math.nan)
                for x in values(batch.gaussian)[:2]
            )
        ),
        *(x.masked_fill(padded[..., None], math.nan) for x in values(batch.gaussian)[2:]),
    )
    for source in (batch, replace(batch, gaussian=spoilt)):
        made = noised(source, seed=0, gaussians=gaussians, stress=stress)
        for g in (made.gaussian, made.target):
            assert all(bool(x.isfinite().all()) for x in values(g))
            assert torch.equal(g.rot[padded], torch.eye(3).expand_as(g.rot[padded]))
            assert not g.trans[padded].any() and not g.local_mean[padded].any()
            assert close(g.log_scale[padded], math.log(0.1), 2 * eps(torch.float32) * abs(math.log(0.1)))


@each_stress
def test_fixed_gaussians_are_the_same_at_every_time_and_in_the_target(batch: Batch, stress: bool) -> None:
    seen = [noised(batch, seed=3, stress=stress, t=t) for t in (0.0, 0.37, 1.0)]
    for made in seen:
        for g in (made.gaussian, made.target):
            assert torch.equal(g.local_mean, batch.gaussian.local_mean)
            assert torch.equal(g.log_scale, seen[0].gaussian.log_scale)
    assert torch.equal(seen[0].gaussian.log_scale, batch.gaussian.log_scale) != stress


@each_mode
def test_stress_shifts_all_scales_and_makes_every_fourth_residue_a_needle(exact: Batch, gaussians: str) -> None:
    made = noised(exact, seed=8, gaussians=gaussians, stress=True, t=0.0).gaussian.log_scale
    base = torch.full_like(made, math.log(0.1)) if gaussians == "learned" else exact.gaussian.log_scale
    sigmas = []
    for row in range(len(exact.mask)):
        valid = exact.mask[row]
        n, change, log_scale = int(valid.sum()), (made - base)[row][valid], made[row][valid]
        needle = log_scale > -1e-9  # log 1 nm; the others are under log 0.31 − 4
        assert int(needle.any(dim=-1).sum()) == n // 4 and int(needle.sum(dim=-1).max()) == 1
        sigmas.append(log_scale[needle].exp())
        assert bool((change[~needle] >= -8 - 1e-9).all() and (change[~needle] <= -4 + 1e-9).all())
        # One shift a residue: its axes keep their ratios.
        plain = ~needle.any(dim=-1)
        spread = change[plain].amax(dim=-1) - change[plain].amin(dim=-1)
        assert close(spread, 0.0, 16 * 8 * EPS)
        assert len(change[plain][:, 0].unique()) == int(plain.sum())
    sigma = torch.cat(sigmas)
    assert bool((sigma >= 1 - 1e-9).all() and (sigma <= 148 * (1 + 1e-9)).all())


def test_needles_are_uniform_in_log_and_on_all_axes() -> None:
    drawn = [draw_noise(0, draw, 40) for draw in range(100)]
    axes = np.sum([x.is_needle.sum(axis=0) for x in drawn], axis=0)
    assert axes.sum() == 1000 and np.abs(axes - 1000 / 3).max() < 5 * math.sqrt(1000 * 2 / 9)
    logs = np.concatenate([x.needle[x.is_needle] for x in drawn])
    top = math.log(148)
    assert abs(logs.mean() - top / 2) < 5 * top / math.sqrt(12 * 1000)
    assert abs(logs.std() - top / math.sqrt(12)) < 5 * top / math.sqrt(12 * 1000)
    shifts = np.concatenate([x.shift[:, 0] for x in drawn])
    assert abs(shifts.mean() + 6) < 5 * 4 / math.sqrt(12 * 4000)


def test_under_stress_learned_gaussians_still_end_at_the_data(exact: Batch) -> None:
    made = noised(exact, seed=8, gaussians="learned", stress=True, t=1.0)
    assert torch.equal(made.target.log_scale, exact.gaussian.log_scale)
    assert torch.equal(made.gaussian.log_scale, exact.gaussian.log_scale)


# losses


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


# baselines


def test_the_mean_frame_is_the_mean_position_and_the_rotation_closest_to_all(exact: Batch) -> None:
    made = noised(exact, seed=1)
    off_centre = made.target.trans + torch.arange(12.0).reshape(4, 1, 3)
    made = replace(made, target=replace(made.target, frame=Frame(made.target.rot, off_centre)))
    mean = mean_frame(made, exact.mask)
    for row in range(len(exact.mask)):
        valid = exact.mask[row]
        rots, trans = made.target.rot[row][valid], made.target.trans[row][valid].numpy()
        # A sum of up to 40 numbers of up to 15 nm.
        assert close(mean.trans[row][valid], trans.mean(axis=0), 40 * 15 * EPS)
        rot = mean.rot[row][valid]
        assert torch.equal(rot, rot[:1].expand_as(rot)) and is_rotation(rot, 16 * EPS)
        best = float((rots - rot).square().sum())
        # A local minimum of a chordal distance on SO(3) that no large turn beats either.
        for size in (1e-3, 0.1, 1.0, 3.0):
            for other in turn(vectors(row, 30, longest=3.0) * size / 3.0):
                assert float((rots - rot[0] @ other).square().sum()) > best
    assert torch.equal(mean.log_scale, made.target.log_scale) and torch.equal(mean.local_mean, made.target.local_mean)
    padded = ~exact.mask
    assert not mean.trans[padded].any() and torch.equal(
        mean.rot[padded], torch.eye(3).double().expand(int(padded.sum()), 3, 3)
    )


def test_the_mean_frame_has_mean_gaussians_where_they_are_learned(exact: Batch) -> None:
    made = noised(exact, seed=1, gaussians="learned")
    mean = mean_frame(made, exact.mask)
    for row in range(len(exact.mask)):
        valid = exact.mask[row]
        for name in ("local_mean", "log_scale"):
            expected = getattr(made.target, name)[row][valid].numpy().mean(axis=0)
            got = getattr(mean, name)[row][valid]
            assert close(got, expected, 40 * 4 * EPS)


def test_the_mean_frame_of_like_frames_is_that_frame() -> None:
    x = state(3, 1, 1)
    frame = Frame(x.rot.expand(1, 5, 3, 3), x.trans.expand(1, 5, 3))
    target = GaussianRigid(frame, x.local_mean.expand(1, 5, 3), x.log_scale.expand(1, 5, 3))
    made = Noised(torch.tensor([0.5]).double(), target, target, torch.tensor([0]), False)
    mean = mean_frame(made, torch.ones(1, 5, dtype=torch.bool))
    assert close(mean.rot, target.rot, 16 * EPS) and close(mean.trans, target.trans, 8 * EPS * 3)


@pytest.mark.parametrize("diagonal", [(3.0, 2.0, -1.0), (3.0, 2.0, 1.0), (-3.0, -2.0, -1.0), (1.0, 0.0, 0.0)])
def test_the_nearest_rotation_is_proper_and_no_other_is_nearer(diagonal: tuple[float, ...]) -> None:
    outer, inner = turn(vectors(1, 1))[0], turn(vectors(2, 1))[0]
    matrix = outer @ torch.diag(torch.tensor(diagonal, dtype=torch.float64)) @ inner
    rot = nearest_rotation(matrix)
    assert is_rotation(rot, 32 * EPS)
    best = float((rot - matrix).norm())
    for other in turn(vectors(3, 500)):
        assert float((other - matrix).norm()) >= best - 64 * EPS * 5


def test_shuffling_permutes_the_input_frames_of_each_chain_and_nothing_else(batch: Batch) -> None:
    made = noised(batch, seed=1, gaussians="learned")
    mixed = shuffled(made, batch.mask, seed=5)
    for row in range(len(batch.mask)):
        valid = batch.mask[row]
        before, after = made.gaussian.trans[row][valid], mixed.gaussian.trans[row][valid]
        where = (after[:, None] == before).all(dim=-1)
        assert bool((where.sum(dim=0) == 1).all() and (where.sum(dim=1) == 1).all())
        source = where.long().argmax(dim=1)
        assert torch.equal(mixed.gaussian.rot[row][valid], made.gaussian.rot[row][valid][source])
        # About one fixed point on average.
        assert int((source == torch.arange(len(source))).sum()) < len(source) // 2
        assert torch.equal(mixed.gaussian.trans[row][~valid], made.gaussian.trans[row][~valid])
    for name in ("local_mean", "log_scale"):
        assert torch.equal(getattr(mixed.gaussian, name), getattr(made.gaussian, name))
    assert mixed.target is made.target and mixed.t is made.t


def test_a_shuffle_depends_on_the_seed_and_the_draw_alone(batch: Batch) -> None:
    made = noised(batch, seed=1)
    mixed = shuffled(made, batch.mask, seed=5)
    rows = slice(1, 3)
    part = Noised(made.t[rows], made.gaussian[rows], made.target[rows], made.draws[rows], made.learned)
    assert torch.equal(shuffled(part, batch.mask[rows], seed=5).gaussian.trans, mixed.gaussian.trans[rows])
    for other in (
        shuffled(made, batch.mask, seed=6),
        shuffled(replace(made, draws=made.draws + 1), batch.mask, seed=5),
    ):
        assert not torch.equal(other.gaussian.trans, mixed.gaussian.trans)


# refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: noised(b, seed=0, gaussians="free"), 'gaussians must be "fixed" or "learned", got \'free\''),
        (lambda b: noised(b, seed=0, t=1.5), r"t must lie in \[0, 1\] .* got 1.5"),
        (lambda b: noised(b, seed=0, t=math.nan), r"t must lie in \[0, 1\] .* got nan"),
        (lambda b: noised(b, seed=-1), "seed must be an integer ≥ 0, got -1"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(
    batch: Batch, call: Callable[[Batch], Noised], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(batch)


def test_a_noised_batch_moves_as_a_whole(batch: Batch) -> None:
    there = noised(batch, seed=0).to("meta")
    assert {x.device.type for x in (there.t, there.gaussian.rot, there.target.trans, there.draws)} == {"meta"}
