"""Frames made in float32 are rotations to the rounding of their entries, however long the chain of products."""

import math

import pytest
import torch

from iga import rotation
from iga.bounds import ROUNDED_DRIFT
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.testing.judges.overlap import drift, nearest_rotation

U = 2.0**-24
# 1.5 ε² of what drifted by 100 u, in u, and the rounding of the threshold's own float64
HYPOTHESIS = ROUNDED_DRIFT + 1.5 * 100**2 * U + 1e-6
N = 3000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def made():
    g = generator()
    frame, update = Frame.random(N, generator=g), 0.5 * torch.randn(N, 6, generator=g)
    return {
        "random": frame.rot,
        "from_quaternion": rotation.from_quaternion(torch.randn(N, 4, generator=g)),
        "from_vector_part": rotation.from_vector_part(torch.randn(N, 3, generator=g)),
        "exp": rotation.exp(torch.randn(N, 3, generator=g)),
        "gram_schmidt": rotation.gram_schmidt(*torch.randn(2, N, 3, generator=g))[0],
        "compose": frame.compose(Frame.random(N, generator=g)).rot,
        "compose_q_update_vec": frame.compose_q_update_vec(update).rot,
        "compose_r": frame.get_rots().compose_r(Frame.random(N, generator=g).get_rots()).rot,
    }


def worst(rot):
    return float(drift(rot).amax()) / U


@pytest.mark.parametrize("name", made())
def test_what_makes_a_frame_makes_a_rotation_to_its_rounding(name):
    assert worst(made()[name]) <= HYPOTHESIS


@pytest.mark.parametrize("name", made())
def test_without_the_correction_it_does_not(name, monkeypatch):
    monkeypatch.setattr(rotation, "orthonormalised", lambda rot: rot)
    assert worst(made()[name]) > HYPOTHESIS


def test_a_chain_of_a_thousand_compositions_does_not_drift():
    g = generator(1)
    chain, plain = rotation.random(200, generator=g), rotation.random(200, generator=g)
    for _ in range(1000):
        step = rotation.random(generator=g)
        chain, plain = rotation.compose(chain, step), rotation.multiply(plain, step)
    assert worst(chain) <= HYPOTHESIS < 20 < worst(plain)


def test_the_correction_goes_to_the_nearest_rotation_and_rounds_once():
    rot = rotation.random(N, generator=generator(2))
    noise = 30 * U * torch.randn(N, 3, 3, generator=generator(3))
    off = (rot.double() + noise).float()
    found = rotation.orthonormalised(off)
    # one rounding of each entry, and 1.5 ε² of the step
    assert ((found.double() - nearest_rotation(off)).abs() <= U * found.double().abs() + 1e-4 * U).all()


def test_what_is_a_rotation_to_its_rounding_keeps_its_bits():
    rot = rotation.random(N, generator=generator(4), dtype=torch.float64).float()
    assert torch.equal(rotation.orthonormalised(rot), rot)
    corrected = rotation.orthonormalised(rotation.multiply(rot, rot.flip(0)))
    assert torch.equal(rotation.orthonormalised(corrected), corrected)


def test_a_frame_that_no_update_moves_keeps_its_bits():
    frame = Frame.random(N, generator=generator(5))
    assert torch.equal(frame.compose(Frame.identity(N)).rot, frame.rot)
    still = frame.compose_q_update_vec(torch.randn(N, 6, generator=generator(6)), update_mask=torch.zeros(N, 1))
    assert torch.equal(still.rot, frame.rot)


@pytest.mark.parametrize(
    "wrong", [torch.zeros(3, 3), 2 * torch.eye(3), torch.full((3, 3), math.nan), 1.002 * torch.eye(3)]
)
def test_what_is_no_rotation_is_not_repaired(wrong):
    assert torch.equal(rotation.orthonormalised(wrong).nan_to_num(), wrong.nan_to_num())


def test_float64_is_left_as_it_is():
    rot = rotation.random(4, generator=generator(7), dtype=torch.float64) * (1 + 1e-12)
    assert rotation.orthonormalised(rot) is rot


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch's own forward mode
def test_the_gradient_is_that_of_the_matrix_without_the_correction():
    left, right = (rotation.random(8, generator=generator(seed)).requires_grad_() for seed in (8, 9))
    weight = torch.randn(8, 3, 3, generator=generator(10))
    of_corrected = torch.autograd.grad((rotation.compose(left, right) * weight).sum(), (left, right))
    of_product = torch.autograd.grad((rotation.multiply(left, right) * weight).sum(), (left, right))
    assert all(torch.equal(a, b) for a, b in zip(of_corrected, of_product, strict=True))
    _, tangent = torch.func.jvp(rotation.orthonormalised, (left.detach(),), (weight,))
    assert torch.equal(tangent, weight)


def test_the_verb_corrects_a_rigid_object_and_keeps_what_it_carries():
    rot = rotation.random(N, generator=generator(11))
    for _ in range(20):
        rot = rotation.multiply(rot, rotation.random(generator=generator(12)))
    trans, mean, scale = torch.randn(3, N, 3, generator=generator(13))
    found = GaussianRigid(Frame(rot, trans), mean, scale).orthonormalised()
    assert worst(rot) > 5 and worst(found.rot) <= HYPOTHESIS
    assert (
        torch.equal(found.trans, trans) and torch.equal(found.local_mean, mean) and torch.equal(found.log_scale, scale)
    )
