"""Laws of the flow network: it moves with its input, starts as the identity, and never looks at masked residues."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from helpers.network import TINY, Inputs, chains, network, numbers, rounding_budget
from iga import rotation
from iga.experiment.model import features
from iga.experiment.model.network import FlowNetwork, turn
from iga.frame import Frame
from iga.gaussian import GaussianRigid

MODES = ("fixed", "learned")


def moved(gaussian: GaussianRigid, motion: Frame) -> GaussianRigid:
    return GaussianRigid(motion.compose(gaussian.frame), gaussian.local_mean, gaussian.log_scale)


# Symmetry


@pytest.mark.parametrize("arm", ["ipa", "sigma_floor", "bounded", "bounded_time_gate"])
@pytest.mark.parametrize("gaussians", MODES)
def test_the_prediction_moves_with_a_rigid_motion_of_the_input(arm: str, gaussians: str) -> None:
    built, given = network(arm, gaussians=gaussians, dtype=torch.float64), chains(dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    motion = Frame(rotation.random(generator=generator, dtype=torch.float64), torch.tensor([3.0, -4.0, 5.0]).double())
    distances = (given.gaussian.trans[:, :, None] - given.gaussian.trans[:, None]).norm(dim=-1)
    edges = torch.linspace(0.1, 2.0, 22, dtype=torch.float64)
    assert (distances[..., None] - edges).abs().min() > 1e-9, "a distance on an edge may fall on either side of it"
    expected = moved(built(*given), motion)
    found = built(moved(given.gaussian, motion), given.t, given.mask, given.index)
    # The motion rounds the input too, to the size of its translation, 7 nm: eight times more than the budget's step.
    budget = 8 * rounding_budget(built, given)
    error = (numbers(found) - numbers(expected)).abs().max().item()
    assert math.isfinite(error) and error <= budget < 1e-6, f"{error:.3g} nm, budget {budget:.3g}"
    assert (built(*given).trans - given.gaussian.trans).norm(dim=-1).min() > 0.01, "vacuous"


@pytest.mark.parametrize("gaussians", MODES)
def test_a_new_network_predicts_its_input_to_the_bit(gaussians: str) -> None:
    given = chains()
    found = network("bounded", gaussians=gaussians, moved=False)(*given)
    assert torch.equal(numbers(found), numbers(given.gaussian))


# Masks


def with_rubbish(given: Inputs, rubbish: float) -> Inputs:
    """Residues 2 and 8 of the first chain and 0 of the second masked, and everything that they hold overwritten."""
    mask = given.mask.clone()
    mask[0, 2] = mask[0, 8] = mask[1, 0] = False

    def overwritten(x: torch.Tensor) -> torch.Tensor:
        return x.masked_fill(~mask.reshape(mask.shape + (1,) * (x.ndim - 2)), rubbish)

    g = given.gaussian
    frame = Frame(overwritten(g.rot), overwritten(g.trans))
    index = given.index.masked_fill(~mask, 0 if math.isnan(rubbish) else 99)
    return Inputs(GaussianRigid(frame, overwritten(g.local_mean), overwritten(g.log_scale)), given.t, mask, index)


@pytest.mark.parametrize("arm", ["ipa", "pre_fix", "bounded"])
@pytest.mark.parametrize("rubbish", [math.nan, 1e30, 0.0])
def test_masked_residues_change_nothing_and_come_back_as_they_were(arm: str, rubbish: float) -> None:
    built, clean = network(arm, gaussians="learned"), with_rubbish(chains(), 1.0)
    dirty = with_rubbish(chains(), rubbish)
    expected, found = built(*clean), built(*dirty)
    valid = clean.mask
    assert torch.equal(numbers(found)[valid], numbers(expected)[valid])
    assert torch.isfinite(numbers(found)[valid]).all()
    assert torch.equal(numbers(found)[~valid].nan_to_num(7.0), numbers(dirty.gaussian)[~valid].nan_to_num(7.0))
    slopes = torch.autograd.grad(numbers(found)[valid].square().sum(), list(built.parameters()))
    others = torch.autograd.grad(numbers(expected)[valid].square().sum(), list(built.parameters()))
    assert all(torch.equal(a, b) and torch.isfinite(a).all() for a, b in zip(slopes, others, strict=True))


@pytest.mark.parametrize("arm", ["ipa", "bounded"])
def test_padding_does_not_change_the_prediction(arm: str) -> None:
    built, given = network(arm, gaussians="learned", dtype=torch.float64), chains(dtype=torch.float64)
    pad = chains(4, seed=5, dtype=torch.float64)
    wide = [torch.cat([a, b], dim=1) for a, b in zip(parts(given.gaussian), parts(pad.gaussian), strict=True)]
    mask = torch.cat([given.mask, torch.zeros_like(pad.mask)], dim=1)
    padded = GaussianRigid(Frame(wide[0], wide[1]), wide[2], wide[3])
    found = numbers(built(padded, given.t, mask, torch.cat([given.index, pad.index], dim=1)))[:, :9]
    error, budget = (found - numbers(built(*given))).abs().max().item(), rounding_budget(built, given)
    assert error <= budget < 1e-6, f"{error:.3g}, budget {budget:.3g}"


def parts(g: GaussianRigid) -> tuple[torch.Tensor, ...]:
    return g.rot, g.trans, g.local_mean, g.log_scale


def test_a_chain_without_valid_residues_leaves_the_others_and_all_gradients_finite() -> None:
    built, given = network("bounded"), chains()
    expected = built(*given)
    given.mask[1] = False
    found = built(*given)
    assert torch.equal(numbers(found)[0], numbers(expected)[0])
    assert torch.equal(numbers(found)[1], numbers(given.gaussian)[1])
    slopes = torch.autograd.grad(numbers(found)[given.mask].square().sum(), list(built.parameters()))
    assert all(torch.isfinite(slope).all() for slope in slopes)
    built.eval()
    with torch.no_grad():  # torch has another path of the encoder for this
        evaluated = built(*given)
    assert torch.equal(numbers(evaluated)[1], numbers(given.gaussian)[1])
    assert torch.isfinite(numbers(evaluated)).all()


def test_chains_of_a_batch_do_not_see_each_other() -> None:
    built, given, other = network("bounded"), chains(), chains(seed=9)
    mixed = [x.clone() for x in parts(given.gaussian)]
    for x, y in zip(mixed, parts(other.gaussian), strict=True):
        x[1] = y[1]
    found = built(GaussianRigid(Frame(mixed[0], mixed[1]), mixed[2], mixed[3]), given.t, given.mask, given.index)
    assert torch.equal(numbers(found)[0], numbers(built(*given))[0])
    assert not torch.equal(numbers(found)[1], numbers(built(*given))[1])


# What is predicted, and from what


def test_learned_gaussians_move_and_fixed_ones_come_back_to_the_bit() -> None:
    given = chains()
    fixed, learned = (network("bounded", gaussians=mode)(*given) for mode in MODES)
    assert torch.equal(fixed.local_mean, given.gaussian.local_mean)
    assert torch.equal(fixed.log_scale, given.gaussian.log_scale)
    for name in ("local_mean", "log_scale"):
        assert ((getattr(learned, name) - getattr(given.gaussian, name)).abs() > 1e-4).all()


@pytest.mark.parametrize("arm", ["ipa", "bounded"])
def test_the_prediction_depends_on_every_input(arm: str) -> None:
    built, given = network(arm), chains()
    plain, g = numbers(built(*given))[..., :12], given.gaussian
    changed = {
        "time": (g, given.t + 0.05, given.mask, given.index),
        "position in the chain": (g, given.t, given.mask, given.index + (given.index > 6)),
        "rotation": (GaussianRigid(Frame(g.rot.roll(1, 1), g.trans), g.local_mean, g.log_scale), *list(given)[1:]),
        "translation": (GaussianRigid(Frame(g.rot, g.trans.roll(1, 1)), g.local_mean, g.log_scale), *list(given)[1:]),
        "local mean": (GaussianRigid(g.frame, g.local_mean + 0.01, g.log_scale), *list(given)[1:]),
        "log scale": (GaussianRigid(g.frame, g.local_mean, g.log_scale + 0.1), *list(given)[1:]),
    }
    for name, arguments in changed.items():
        step = numbers(built(*arguments))[..., :12] - numbers(arguments[0])[..., :12] + numbers(g)[..., :12] - plain
        assert step.abs().max() > 1e-4, name


def test_statistics_come_one_a_block_and_asking_for_them_changes_nothing() -> None:
    built, given, found = network("bounded"), chains(), []
    assert torch.equal(numbers(built(*given, found)), numbers(built(*given)))
    assert len(found) == TINY.blocks
    assert all(x.shape == (2, TINY.heads, 9) for statistics in found for x in statistics)
    assert not torch.equal(found[0].geo_absmax, found[1].geo_absmax)


@pytest.mark.parametrize("arm", ["ipa", "pre_fix", "bounded"])
def test_two_calls_agree_to_the_bit_forward_and_backward(arm: str) -> None:
    runs = []
    for _ in range(2):
        built, given = network(arm, gaussians="learned"), chains()
        found = built(*given)
        runs.append([numbers(found), *torch.autograd.grad(numbers(found).square().sum(), list(built.parameters()))])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_evaluation_without_gradients_predicts_what_training_does() -> None:
    built, given = network("bounded", dtype=torch.float64), chains(dtype=torch.float64)
    expected, budget = numbers(built(*given)), rounding_budget(built, given)
    given.mask[0, 4] = False
    masked = numbers(built(*given))
    built.eval()
    with torch.no_grad():  # torch has another path of the encoder for this
        assert (numbers(built(*given)) - masked)[given.mask].abs().max() <= budget
        given.mask[0, 4] = True
        assert (numbers(built(*given)) - expected).abs().max() <= budget < 1e-6


def test_shapes_that_do_not_fit_are_named() -> None:
    built, (gaussian, t, mask, index) = network("bounded"), chains()
    for arguments in (
        (gaussian[0], t, mask, index),
        (gaussian, t[:1], mask, index),
        (gaussian, t, mask[:, 1:], index),
        (gaussian, t, mask, index[:, 1:]),
    ):
        with pytest.raises(ValueError, match=r"gaussian, mask and index must be \[b, n\] and t \[b\], got"):
            built(*arguments)
    with pytest.raises(ValueError, match="mask must be bool"):
        built(gaussian, t, mask.float(), index)


def test_the_attention_is_made_once_a_block_in_order() -> None:
    made: list[nn.Module] = []

    def factory() -> nn.Module:
        made.append(nn.Identity())
        return made[-1]

    built = FlowNetwork(replace(TINY, blocks=3), factory)
    assert [block.attention for block in built.blocks] == made and len(made) == 3


# Parts


def test_turn_is_the_rotation_of_the_quaternion_1_v() -> None:
    generator = torch.Generator().manual_seed(2)
    v = torch.randn(200, 3, generator=generator, dtype=torch.float64) * torch.logspace(-9, 4, 200).double()[:, None]
    found = turn(v)
    # eps × (some 20 operations on numbers of at most 2)
    tolerance = 40 * torch.finfo(torch.float64).eps
    expected = rotation.from_quaternion(torch.cat([torch.ones(200, 1).double(), v], dim=-1))
    assert (found - expected).abs().max() <= tolerance
    identity = torch.eye(3, dtype=torch.float64)
    assert (rotation.multiply(found, rotation.transpose(found)) - identity).abs().max() <= tolerance
    assert torch.equal(turn(torch.zeros(3)), torch.eye(3))


def test_a_diverging_update_shows_as_numbers_that_are_not_finite_and_raises_nothing() -> None:
    for bad in (math.nan, math.inf, 1e30):
        assert not torch.isfinite(turn(torch.tensor([bad, 0.0, 0.0]))).all()
    built, given = network("bounded"), chains()
    with torch.no_grad():
        built.blocks[0].update.bias[0] = math.nan  # pyright: ignore
    assert not torch.isfinite(numbers(built(*given))).all()


def test_distances_fall_into_the_bins_that_numpy_finds() -> None:
    x = torch.tensor([0.0, 0.05, 0.15, 0.35, 0.99, 2.5, 40.0], dtype=torch.float64)
    trans = torch.stack([x, 2 * x, -2 * x], dim=-1) / 3  # distances are those of x
    edges = np.linspace(0.1, 2.0, 22)
    expected = np.digitize(np.abs(x[:, None].numpy() - x.numpy()), edges)
    assert np.array_equal(features.distance_bins(trans).numpy(), expected)
    assert set(expected.flatten()) >= {0, 1, 22}


def test_sinusoids_have_the_shortest_and_the_longest_wave_that_were_asked_for() -> None:
    x = torch.tensor([0.0, 1.0, 2.5], dtype=torch.float64)
    found = features.sinusoids(x, shortest=4.0, longest=4096.0)
    for column, wave in ((0, 4.0), (15, 4096.0)):
        angle = 2 * math.pi * x / wave
        # eps × (16 for the power of the ratio) × (the angle, at most 4)
        assert (found[:, column] - angle.sin()).abs().max() <= 64 * 2.0**-52
        assert (found[:, column + 16] - angle.cos()).abs().max() <= 64 * 2.0**-52


def test_an_ordinary_isotropic_gaussian_at_ca_is_six_zeros() -> None:
    zeros = torch.zeros(2, 3, dtype=torch.float64)
    ordinary = GaussianRigid(Frame.identity(2, dtype=torch.float64), zeros, zeros + math.log(0.1))
    assert torch.equal(features.gaussian_numbers(ordinary), torch.zeros(2, 6, dtype=torch.float64))
    other = GaussianRigid(ordinary.frame, zeros + 0.2, zeros)
    one_rounding = torch.finfo(torch.float64).eps  # of the quotient; 0.2 and 0.1 are rounded alike
    means = features.gaussian_numbers(other)[:, :3]
    assert torch.allclose(means, torch.full((2, 3), 2.0).double(), rtol=one_rounding, atol=0)
