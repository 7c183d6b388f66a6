"""A batch is its items: nothing that a function does to one leaks into another, whatever stands beside it.

Each function runs on a batch of very unlike items (nearly equal rotations, half turns, lengths from 10⁻³⁰ to 10³⁰) and
on each of them alone. The arithmetic is the same; only sin, cos, exp, atan2 and log may be another routine, vectorised,
which errs by up to an ulp or two.
"""

import math
from collections.abc import Callable

import pytest
import torch

from helpers.geometry import close, each_dtype, eps
from iga import rotation
from iga.frame import Frame
from iga.gaussian import GaussianRigid, floored_sigma
from iga.overlap import gaussian_overlap, gaussian_overlap_textbook, gaussian_score, student_t_score

ANGLES = (0.0, 1e-30, 1e-9, 1e-3, 0.7, 2.0, math.pi - 1e-3, math.pi)


def rotations(dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """[8, 3, 3], one an angle, about axes that have nothing in common."""
    axes = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    axes = axes / axes.norm(dim=-1, keepdim=True)
    x, y, z = axes.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    angle = torch.tensor(ANGLES, dtype=torch.float64)[:, None, None]
    return (torch.eye(3) + angle.sin() * cross + 2 * (angle / 2).sin().square() * cross @ cross).to(dtype)


def vectors(dtype: torch.dtype, seed: int = 1) -> torch.Tensor:
    """[8, 3] of lengths 10⁻³⁰ to 10³⁰."""
    unit = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    exponents = torch.tensor([0, -30, -12, -3, 1, 6, 15, 30], dtype=torch.float64)
    return (unit * 10.0 ** exponents[:, None]).to(dtype)


def turns(dtype: torch.dtype) -> torch.Tensor:
    """Rotation vectors [8, 3] of the angles above."""
    unit = torch.randn(8, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return (unit / unit.norm(dim=-1, keepdim=True) * torch.tensor(ANGLES, dtype=torch.float64)[:, None]).to(dtype)


def scales(dtype: torch.dtype, seed: int = 3) -> torch.Tensor:
    """σ [8, 3] between 0.03 and 30 nm."""
    return (0.03 * 10 ** (3 * torch.rand(8, 3, generator=torch.Generator().manual_seed(seed)))).to(dtype)


def atoms(dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(3, 8, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(dtype)


def pair(dtype: torch.dtype) -> list[torch.Tensor]:
    near = [vectors(torch.float64, seed).clamp(-5, 5).to(dtype) for seed in (5, 6)]
    return [rotations(dtype), near[0], scales(dtype), rotations(dtype, 7), near[1], scales(dtype, 8)]


def parts(*outputs: object) -> list[torch.Tensor]:
    """Every tensor of a result, frames and Gaussians taken apart."""
    found: list[torch.Tensor] = []
    for x in outputs:
        if isinstance(x, torch.Tensor):
            found.append(x)
        elif isinstance(x, Frame):
            found += [x.rot, x.trans]
        elif isinstance(x, GaussianRigid):
            found += [x.rot, x.trans, x.local_mean, x.log_scale, x.mean, x.sigma, x.covariance()]
        elif isinstance(x, tuple):
            found += parts(*x)
    return found


# function of a batch, and its arguments
FUNCTIONS: dict[str, tuple[Callable, Callable[[torch.dtype], list[torch.Tensor]]]] = {
    "exp": (rotation.exp, lambda d: [turns(d)]),
    "log": (rotation.log, lambda d: [rotations(d)]),
    "to_quaternion": (rotation.to_quaternion, lambda d: [rotations(d)]),
    "from_quaternion": (
        rotation.from_quaternion,
        lambda d: [torch.cat([vectors(d)[:, :1], vectors(d)], dim=-1)],
    ),
    "geodesic_distance": (
        rotation.geodesic_distance,
        lambda d: [rotations(d), torch.eye(3, dtype=d).expand(8, 3, 3)],
    ),
    "multiply": (rotation.multiply, lambda d: [rotations(d), rotations(d, 9)]),
    "rotate": (rotation.rotate, lambda d: [rotations(d), vectors(d)]),
    "rotate_inverse": (rotation.rotate_inverse, lambda d: [rotations(d), vectors(d)]),
    "cross": (rotation.cross, lambda d: [vectors(d).clamp(-1e6, 1e6), vectors(d, 9).clamp(-1e6, 1e6)]),
    "gram_schmidt": (rotation.gram_schmidt, lambda d: [vectors(d), vectors(d, 9).flip(0)]),
    "compose": (
        lambda a, s, b, t: Frame(a, s).compose(Frame(b, t)),
        lambda d: [rotations(d), vectors(d), rotations(d, 9), vectors(d, 9)],
    ),
    "invert": (lambda a, s: Frame(a, s).invert(), lambda d: [rotations(d), vectors(d)]),
    "4x4": (lambda a, s: Frame(a, s).to_4x4(unit="angstrom"), lambda d: [rotations(d), vectors(d)]),
    "7": (lambda a, s: Frame(a, s).to_7(unit="angstrom"), lambda d: [rotations(d), vectors(d)]),
    "perturbed": (
        lambda a, s, m, x, u, e: GaussianRigid(Frame(a, s), m, x.log()).perturbed(u, e),
        lambda d: [rotations(d), vectors(d), vectors(d, 9), scales(d), scales(d, 10), scales(d, 11).log()],
    ),
    "floored_sigma": (
        lambda x: floored_sigma(x.log(), sigma_min=0.1, sigma_max=7.0, floor="smooth"),
        lambda d: [scales(d)],
    ),
    "gaussian_overlap": (gaussian_overlap, pair),
    "gaussian_overlap_textbook": (gaussian_overlap_textbook, pair),
    "gaussian_score": (
        lambda a, b: gaussian_score(a, b.log(), log_det_min=-1.0),
        lambda d: [scales(d)[:, 0], scales(d)[:, 1]],
    ),
    "student_t_score": (
        lambda a, b: student_t_score(a, b.log(), dof=3.0, log_det_min=-1.0),
        lambda d: [scales(d)[:, 0], scales(d)[:, 1]],
    ),
}


@each_dtype
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_batch_is_its_items(dtype: torch.dtype, name: str) -> None:
    function, arguments = FUNCTIONS[name]
    given = arguments(dtype)
    together = parts(function(*given))
    assert together
    for k in range(8):
        for whole, alone in zip(together, parts(function(*(x[k] for x in given))), strict=True):
            assert whole[k].shape == alone.shape and whole.dtype == alone.dtype
            if alone.dtype == torch.bool:
                assert torch.equal(whole[k], alone)
                continue
            # Two ulps of a transcendental, doubled by the products that it enters; relative to the item's own size,
            # and to 1 where a logarithm made it.
            size = float(alone.abs().max()) if alone.isfinite().all() else math.nan
            assert close(whole[k], alone.double(), 8 * eps(dtype) * max(size, 1.0 if "log" in name else 0.0)), k


@each_dtype
def test_a_batch_of_distances_keeps_the_digits_of_the_smallest(dtype: torch.dtype) -> None:
    found = rotation.geodesic_distance(rotations(dtype), torch.eye(3, dtype=dtype))
    expected = torch.tensor(ANGLES, dtype=torch.float64)
    # 8 eps relative (see test_rotation), and near π the rounding of a half turn's matrix, 12 eps
    assert close(found, expected, 12 * eps(dtype) * expected)


@each_dtype
def test_a_batch_of_vectors_keeps_the_digits_of_the_smallest(dtype: torch.dtype) -> None:
    found = rotation.log(rotations(dtype)).double().norm(dim=-1)
    expected = torch.tensor(ANGLES, dtype=torch.float64)
    assert close(found, expected, 12 * eps(dtype) * expected)


def test_the_device_asked_for_is_the_device_of_every_part() -> None:
    frame = Frame.identity(4, device="meta")
    assert frame.rot.device.type == frame.trans.device.type == frame.device.type == "meta"
    assert frame.to("meta").trans.device.type == "meta" and Frame.identity(4).device.type == "cpu"
    g = GaussianRigid(Frame.identity(4), torch.zeros(4, 3), torch.zeros(4, 3)).to("meta")
    assert g.device.type == g.local_mean.device.type == g.log_scale.device.type == "meta"


def test_a_random_frame_is_drawn_from_its_generator_alone_within_four_nanometres() -> None:
    def draw(seed: int) -> Frame:
        torch.manual_seed(seed)  # what the process would draw from otherwise
        return Frame.random(2000, generator=torch.Generator().manual_seed(1))

    first, again = draw(0), draw(2)
    assert torch.equal(first.rot, again.rot) and torch.equal(first.trans, again.trans)
    # Of 6000 coordinates uniform in ±2 nm, all within nine tenths of that: 0.9^6000.
    assert (first.trans.abs() <= 2.0).all() and first.trans.max() > 1.8 and first.trans.min() < -1.8
    assert Frame.random(dtype=torch.float64).trans.shape == (3,)


def test_random_draws_go_to_the_device_asked_for_or_the_generators_not_to_the_default_one() -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        drawn = [rotation.random(3, device="cpu"), rotation.random(3, generator=generator)]
        frames = [Frame.random(3, device="cpu"), Frame.random(3, generator=generator)]
    assert {x.device.type for x in parts(*drawn, *frames)} == {"cpu"}


def test_a_dtype_may_be_asked_for_by_name() -> None:
    g = GaussianRigid(Frame.identity(4), torch.zeros(4, 3), torch.zeros(4, 3)).to(dtype=torch.float64)
    assert g.rot.dtype == g.trans.dtype == g.local_mean.dtype == g.log_scale.dtype == torch.float64


def test_the_default_perturbation_has_the_hard_floor_at_three_hundredths_of_a_nanometre() -> None:
    """Exactly: σ = max(e^(log s + d), 0.03), and no ceiling."""
    logs = torch.tensor([[-30.0, 0.0, 9.0]], dtype=torch.float64)
    g = GaussianRigid(Frame.identity(1, dtype=torch.float64), torch.zeros_like(logs), logs)
    found = g.perturbed(torch.ones_like(logs), torch.zeros_like(logs)).local_mean
    assert close(found, torch.tensor([[0.03, 1.0, math.exp(9.0)]], dtype=torch.float64), 2 * 2**-52 * found)
