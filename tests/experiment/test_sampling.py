"""The sampler and superposition: Euler's formulas, and an oracle that is reached."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from helpers.flow import each_mode, in_float64, values
from helpers.geometry import close, eps, is_rotation
from iga.experiment.task.chains import Batch, chains_of, collate
from iga.experiment.task.flow import draw_noise, noised
from iga.experiment.task.sampling import ca_rmsd, sample
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.structure.synthetic import synthetic_structures

EPS = eps(torch.float64)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return in_float64(collate(chains_of(synthetic_structures(3, seed=6, lengths=(16, 30)))[0], [3, 4, 50]))


class Recorder(nn.Module):
    """A network that answers with `answer`, whatever it sees, and keeps what it saw."""

    def __init__(self, answer: GaussianRigid) -> None:
        super().__init__()
        self.answer, self.seen, self.modes = answer, [], []
        self.inner, self.frozen = nn.Linear(1, 1), nn.Linear(1, 1)

    def forward(self, x: GaussianRigid, t: torch.Tensor, mask: torch.Tensor, index: torch.Tensor) -> GaussianRigid:
        self.seen.append((x, t, mask, index))
        self.modes.append([m.training for m in self.modules()] + [torch.is_grad_enabled()])
        return self.answer


def angle_between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Radians, from the chord: ‖a − b‖_F = √8 sin(θ/2)."""
    return 2 * torch.arcsin(((a - b).square().sum(dim=(-2, -1)).sqrt() / math.sqrt(8)).clamp(max=1))


def turned(axis: Sequence[float], angle: float) -> torch.Tensor:
    """The rotation by Rodrigues' formula, float64."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return torch.from_numpy(np.eye(3) + math.sin(angle) * k + (1 - math.cos(angle)) * k @ k)


# sampler


@each_mode
def test_an_oracle_is_reached_from_noise_and_by_the_last_step(batch: Batch, gaussians: str) -> None:
    network = Recorder(batch.gaussian)
    final = sample(network, batch, seed=1, gaussians=gaussians)
    assert len(network.seen) == 101
    first, last = network.seen[0][0], network.seen[-1][0]
    valid = batch.mask
    assert float((first.trans - batch.gaussian.trans)[valid].norm(dim=-1).mean()) > 0.5
    # The last step takes all that is left of a line, and each of the 100 leaves 1 − 10 · 0.0099 of an angle ≤ π.
    left = math.pi * (1 - 10 * 0.0099) ** 100
    assert close(last.trans[valid], batch.gaussian.trans[valid].numpy(), 8 * EPS * 5)
    assert close(angle_between(last.rot, batch.gaussian.rot)[valid], 0.0, left + 100 * 32 * EPS)
    assert close(last.local_mean[valid], batch.gaussian.local_mean[valid].numpy(), 8 * EPS)
    assert close(last.log_scale[valid], batch.gaussian.log_scale[valid].numpy(), 8 * EPS * 5)
    assert all(torch.equal(x[valid], y[valid]) for x, y in zip(values(final), values(batch.gaussian), strict=True))
    assert is_rotation(last.rot, 100 * 16 * EPS)


def test_the_answer_is_the_prediction_at_the_last_time_not_the_last_state(batch: Batch) -> None:
    class Counting(Recorder):
        def forward(self, x, t, mask, index):
            super().forward(x, t, mask, index)
            return replace(x, frame=Frame(x.rot, torch.full_like(x.trans, float(len(self.seen)))))

    final = sample(Counting(batch.gaussian), batch, steps=4, seed=1)
    assert bool((final.trans[batch.mask] == 5).all()) and not final.trans[~batch.mask].any()


def test_times_go_from_a_hundredth_to_one_in_equal_steps(batch: Batch) -> None:
    network = Recorder(batch.gaussian)
    sample(network, batch, steps=9, seed=1)
    times = torch.stack([t for _, t, _, _ in network.seen])
    assert close(times, np.linspace(0.01, 1.0, 10)[:, None].repeat(3, axis=1), 4 * EPS)
    assert bool((times[-1] == 1).all())
    for _, _, mask, index in network.seen:
        assert torch.equal(mask, batch.mask) and torch.equal(index, batch.index)


@each_mode
def test_a_step_is_eulers(batch: Batch, gaussians: str) -> None:
    network = Recorder(batch.gaussian)
    sample(network, batch, steps=20, seed=2, gaussians=gaussians, rate=4.0)
    target, valid = batch.gaussian, batch.mask
    for k in (0, 7, 19):
        x, after, t, dt = network.seen[k][0], network.seen[k + 1][0], 0.01 + 0.0495 * k, 0.0495
        expected = x.trans + dt * (target.trans - x.trans) / (1 - t)
        assert close(after.trans[valid], expected[valid].numpy(), 32 * EPS * 5)
        # Along the geodesic: from x by the share rate · dt, to the target by the rest.
        whole, near_pi = angle_between(x.rot, target.rot)[valid], math.sqrt(64 * EPS)  # where arcsin is steep
        assert close(angle_between(x.rot, after.rot)[valid], 4.0 * dt * whole, near_pi)
        assert close(angle_between(after.rot, target.rot)[valid], (1 - 4.0 * dt) * whole, near_pi)
        for name in ("local_mean", "log_scale"):
            a, b, got = (getattr(g, name)[valid] for g in (x, target, after))
            assert close(got, (a + dt * (b - a) / (1 - t)).numpy(), 32 * EPS * 5)


def test_the_rate_is_10_unless_told_and_may_be_under_1(batch: Batch) -> None:
    states = []
    for options in ({}, {"rate": 10.0}, {"rate": 0.5}):
        network = Recorder(batch.gaussian)
        sample(network, batch, steps=20, seed=2, **options)
        states.append(network.seen[1][0].rot)
    assert torch.equal(states[0], states[1])
    start = network.seen[0][0].rot
    assert bool((angle_between(start, states[2]) < angle_between(start, states[0]))[batch.mask].all())


def test_a_rate_that_overshoots_lands_on_the_prediction(batch: Batch) -> None:
    network = Recorder(batch.gaussian)
    sample(network, batch, steps=3, seed=2, rate=50.0)
    assert close(network.seen[1][0].rot[batch.mask], batch.gaussian.rot[batch.mask].numpy(), 64 * EPS)


@pytest.mark.parametrize("stress", [False, True])
def test_fixed_gaussians_are_those_of_the_template_at_every_step(batch: Batch, stress: bool) -> None:
    network = Recorder(batch.gaussian)
    sample(network, batch, steps=3, seed=2, stress=stress)
    expected = noised(batch, seed=2, stress=stress, t=0.5).gaussian
    for x, *_ in network.seen:
        assert torch.equal(x.log_scale[batch.mask], expected.log_scale[batch.mask])
        assert torch.equal(x.local_mean[batch.mask], expected.local_mean[batch.mask])


@each_mode
def test_the_start_is_the_noise_of_the_draw(batch: Batch, gaussians: str) -> None:
    network = Recorder(batch.gaussian)
    sample(network, batch, steps=1, seed=2, gaussians=gaussians)
    start = network.seen[0][0]
    for row, (draw, n) in enumerate(zip(batch.draws.tolist(), batch.mask.sum(dim=1).tolist(), strict=True)):
        noise = draw_noise(2, draw, n)
        assert close(start.trans[row, :n], noise.trans, 0.0)
        if gaussians == "learned":
            assert close(start.log_scale[row, :n], noise.log_scale, 0.0)


@each_mode
def test_nothing_of_the_templates_frames_is_used(batch: Batch, gaussians: str) -> None:
    nowhere = Frame(*(torch.full_like(x, math.nan) for x in (batch.gaussian.rot, batch.gaussian.trans)))
    other = replace(batch, gaussian=replace(batch.gaussian, frame=nowhere))
    seen = []
    for template in (batch, other):
        network = Recorder(batch.gaussian)
        sample(network, template, steps=2, seed=2, gaussians=gaussians)
        seen.append([value for x, *_ in network.seen for value in values(x)])
    assert all(bool(x.isfinite().all()) and torch.equal(x, y) for x, y in zip(*seen, strict=True))


def test_padded_rows_are_neutral_whatever_the_network_says(batch: Batch) -> None:
    padded = ~batch.mask
    assert padded.any()
    answer = replace(
        batch.gaussian, frame=Frame(batch.gaussian.rot, batch.gaussian.trans.masked_fill(padded[..., None], math.nan))
    )
    network = Recorder(answer)
    final = sample(network, batch, steps=2, seed=0)
    for g in (final, *(x for x, *_ in network.seen)):
        assert not g.trans[padded].any() and bool(g.trans.isfinite().all())


def test_a_module_is_in_eval_mode_meanwhile_and_as_it_was_afterwards(batch: Batch) -> None:
    network = Recorder(batch.gaussian)
    network.frozen.eval()
    before = [m.training for m in network.modules()]
    assert before == [True, True, False]
    sample(network, batch, steps=2, seed=0)
    assert network.modes == [[False] * 4] * 3
    assert [m.training for m in network.modules()] == before and torch.is_grad_enabled()

    class Failing(Recorder):
        def forward(self, x, t, mask, index):
            raise RuntimeError("no answer")

    failing = Failing(batch.gaussian)
    with pytest.raises(RuntimeError, match="no answer"):
        sample(failing, batch, steps=2, seed=0)
    assert all(m.training for m in failing.modules()) and torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be an integer ≥ 1, got 0"),
        ({"rate": 0.0}, "rate must be a finite number > 0, got 0.0"),
        ({"rate": math.nan}, "rate must be a finite number > 0, got nan"),
        ({"rate": math.inf}, "rate must be a finite number > 0, got inf"),
        ({"gaussians": "moving"}, 'gaussians must be "fixed", "learned" or "free"'),
    ],
)
def test_arguments_of_the_sampler_are_refused_by_name(batch: Batch, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(Recorder(batch.gaussian), batch, **({"seed": 0} | change))


# superposition


def test_rmsd_is_zero_for_a_rigid_motion_and_never_less_than_that(batch: Batch) -> None:
    a = batch.gaussian.trans
    b = (turned((1, -2, 0.5), 2.2) @ a[..., None])[..., 0] + torch.tensor([4.0, -3.0, 9.0])
    # Positions within 10 nm, in Å; each is rounded a few times, and the rotation of the SVD to a few eps of it.
    assert close(ca_rmsd(a, b, batch.mask), 0.0, 10 * 10 * 64 * EPS)
    assert ca_rmsd(a, b, batch.mask).dtype == torch.float64


def test_rmsd_of_a_scaled_copy_is_what_the_scale_adds_to_the_radius_of_gyration(batch: Batch) -> None:
    a = batch.gaussian.trans
    b = (turned((3, 1, 1), 1.0) @ (1.3 * a)[..., None])[..., 0] - 2.0
    for row in range(3):
        x = a[row][batch.mask[row]].numpy()
        gyration = math.sqrt(x.var(axis=0).sum())
        got = ca_rmsd(a[row], b[row], batch.mask[row])
        assert close(got, 0.3 * gyration * 10, 1000 * 64 * EPS)


def test_rmsd_of_a_mirror_image_is_not_zero() -> None:
    """Six points on the axes: reflecting the shortest is the best that a proper rotation can do; 4 z² at two of six."""
    a = torch.tensor([[3, 0, 0], [-3, 0, 0], [0, 2, 0], [0, -2, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float64)
    mask = torch.ones(6, dtype=torch.bool)
    expected = 10 * math.sqrt(4 * 2 / 6)
    for flip in ((1, 1, -1), (-1, 1, 1), (-1, -1, -1)):
        mirrored = (turned((1, 2, 3), 0.7) @ (a * torch.tensor(flip)).T).T + 1.0
        assert close(ca_rmsd(a, mirrored, mask), expected, 1000 * EPS)
        assert close(ca_rmsd(mirrored, a, mask), expected, 1000 * EPS)


def test_each_chain_of_a_batch_has_the_rmsd_that_it_has_alone(batch: Batch) -> None:
    a = batch.gaussian.trans
    b = a * torch.tensor([1.1, 1.3, 1.7])[:, None, None]
    alone = torch.stack([ca_rmsd(x, y, m) for x, y, m in zip(a, b, batch.mask, strict=True)])
    assert len(set(alone.tolist())) == 3
    assert close(ca_rmsd(a, b, batch.mask), alone.numpy(), 1000 * 64 * EPS)
    one = torch.zeros_like(batch.mask)
    one[:, 0] = True
    assert close(ca_rmsd(a, b, one), 0.0, 1000 * 64 * EPS)  # one position can be laid on any other


def test_rmsd_of_known_displacements() -> None:
    """Two points at ±1 nm against ±1.5 nm: each is 5 Å off, along any direction."""
    a, b = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]), torch.tensor([[0, 0, 11.5], [0, 0, 8.5]])
    assert close(ca_rmsd(a, b, torch.ones(2, dtype=torch.bool)), 5.0, 100 * EPS)


def test_rmsd_reads_valid_positions_only_and_refuses_a_chain_without_any(batch: Batch) -> None:
    a, b = batch.gaussian.trans, batch.gaussian.trans * 1.1
    spoilt = [x.masked_fill(~batch.mask[..., None], math.nan) for x in (a, b)]
    assert torch.equal(ca_rmsd(*spoilt, batch.mask), ca_rmsd(a, b, batch.mask))
    with pytest.raises(ValueError, match="mask must leave at least one position"):
        ca_rmsd(a, b, batch.mask & torch.tensor([True, False, True])[:, None])
