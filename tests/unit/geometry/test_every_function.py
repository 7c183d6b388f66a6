"""Every function of the geometry: a batch is its items, and autocast reaches none.

Each function runs on a batch of very unlike items (nearly equal rotations, half turns, lengths from 10⁻³⁰ to 10³⁰) and
on each of them alone. The arithmetic is the same; only sin, cos, exp, atan2 and log may be another routine, vectorised,
which errs by up to an ulp or two.
"""

import math
from collections.abc import Callable

import pytest
import torch

from helpers.geometry import ANGLES, close, each_dtype, eps, rotations
from iga import rotation
from iga.frame import Frame
from iga.gaussian import GaussianRigid, floored_sigma
from iga.overlap import gaussian_overlap, gaussian_overlap_textbook, gaussian_score, student_t_score


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


def atoms(dtype: torch.dtype) -> list[torch.Tensor]:
    return list(torch.randn(3, 8, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(dtype))


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
    "from_quaternion": (rotation.from_quaternion, lambda d: [torch.cat([vectors(d)[:, :1], vectors(d)], dim=-1)]),
    "geodesic_distance": (rotation.geodesic_distance, lambda d: [rotations(d), torch.eye(3, dtype=d).expand(8, 3, 3)]),
    "multiply": (rotation.multiply, lambda d: [rotations(d), rotations(d, 9)]),
    "rotate": (rotation.rotate, lambda d: [rotations(d), vectors(d)]),
    "rotate_inverse": (rotation.rotate_inverse, lambda d: [rotations(d), vectors(d)]),
    "cross": (rotation.cross, lambda d: [vectors(d).clamp(-1e6, 1e6), vectors(d, 9).clamp(-1e6, 1e6)]),
    "gram_schmidt": (rotation.gram_schmidt, lambda d: [vectors(d), vectors(d, 9).flip(0)]),
    "compose": (
        lambda a, s, b, t: Frame(a, s).compose(Frame(b, t)),
        lambda d: [rotations(d), vectors(d), rotations(d, 9), vectors(d, 9)],
    ),
    "apply": (
        lambda a, s, x: (Frame(a, s).apply(x), Frame(a, s).invert_apply(x)),
        lambda d: [rotations(d), vectors(d), vectors(d, 9)],
    ),
    "from_backbone": (lambda n, ca, c: Frame.from_backbone(n, ca, c, return_valid=True), atoms),
    "invert": (lambda a, s: Frame(a, s).invert(), lambda d: [rotations(d), vectors(d)]),
    "4x4": (lambda a, s: Frame(a, s).to_4x4(unit="angstrom"), lambda d: [rotations(d), vectors(d)]),
    "7": (lambda a, s: Frame(a, s).to_7(unit="angstrom"), lambda d: [rotations(d), vectors(d)]),
    "scaled": (
        lambda a, s, m, x: GaussianRigid(Frame(a, s), m, x.log()).scaled(10.0),
        lambda d: [rotations(d), vectors(d), vectors(d, 9), scales(d)],
    ),
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
def test_a_batch_is_its_items(dtype, name):
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
@pytest.mark.parametrize("name", FUNCTIONS)
def test_autocast_reaches_no_function(dtype, name):
    function, arguments = FUNCTIONS[name]
    plain = parts(function(*arguments(dtype)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = parts(function(*arguments(dtype)))
    for a, b in zip(plain, cast, strict=True):
        assert a.dtype == b.dtype and a.dtype in (dtype, torch.bool) and torch.equal(a, b)
