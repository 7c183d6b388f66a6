"""The path of the flow: noise and interpolation, against NumPy and the matrix exponential in float64."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.flow import each_mode, each_stress, moved, state, turn, values, vectors
from helpers.geometry import close, eps, is_rotation
from iga.experiment.task.chains import Batch, chains_of, collate
from iga.experiment.task.flow import Noised, draw_noise, interpolate, noised
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.structure.synthetic import synthetic_structures

EPS = eps(torch.float64)


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


def test_times_are_of_the_batchs_type(batch: Batch, exact: Batch) -> None:
    for given, dtype in ((batch, torch.float32), (exact, torch.float64)):
        made = noised(given, seed=1)
        assert made.t.dtype == dtype
        assert close(made.t, [draw_noise(1, int(d), 20).t for d in given.draws], eps(dtype))


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
    # each needle has an axis of its own: ten of one chain all along the same happen once in 3⁹ chains
    assert sum(bool((x.is_needle.sum(axis=0) == 10).any()) for x in drawn) <= 1
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


# refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda b: noised(b, seed=0, gaussians="moving"),
            'gaussians must be "fixed", "learned" or "free", got \'moving\'',
        ),
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
