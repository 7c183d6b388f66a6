"""Baselines of a trained network: the mean frame, the nearest rotation, and shuffled input."""

from dataclasses import replace

import pytest
import torch

from helpers.flow import state, turn, vectors
from helpers.geometry import close, eps, is_rotation
from iga.experiment.task.chains import Batch
from iga.experiment.task.flow import Noised, mean_frame, nearest_rotation, noised, shuffled
from iga.frame import Frame
from iga.gaussian import GaussianRigid

EPS = eps(torch.float64)


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


@pytest.mark.parametrize("gaussians", ["fixed", "learned"])
def test_the_mean_frame_of_one_residue_is_its_own_and_of_its_type(batch: Batch, gaussians: str) -> None:
    one = torch.zeros_like(batch.mask)
    one[:, 0] = True
    made = noised(batch, seed=1, gaussians=gaussians)
    mean = mean_frame(made, one)
    for name, limit in (("rot", 8 * eps(torch.float32)), ("trans", 0.0), ("local_mean", 0.0), ("log_scale", 0.0)):
        got, expected = getattr(mean, name)[:, 0], getattr(made.target, name)[:, 0]
        assert got.dtype == torch.float32 and close(got, expected.numpy(), limit), name


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
