"""The compiled `finish_sums` is `packing.finished`, from sums as they come and from sums in tiles."""

import numpy as np
import pytest
import torch

from iga import rotation
from iga.kernels.cpu._finish import finish_sums
from iga.kernels.packing import SUMS, finished, tiled

BATCH, HEADS, POINTS, N = 2, 3, 2, 19
real = finished


def both_ways(dtype: torch.dtype, lanes: int, factor: float) -> list[tuple[torch.Tensor, ...]]:
    """(∂R, ∂μ, ∂σ) by the twin, by the kernel, and by the twin of everything's magnitude."""
    generator = torch.Generator().manual_seed(5)
    rot = rotation.random(BATCH, N, generator=generator, dtype=torch.float64).to(dtype)
    sigma = torch.rand(BATCH, HEADS, POINTS, N, 3, generator=generator, dtype=torch.float64).to(dtype) + 0.1
    sums = torch.randn(BATCH, HEADS, POINTS, N, SUMS, generator=generator, dtype=torch.float64).to(dtype)
    given = sums.flatten(3) if lanes == 1 else tiled(sums, lanes).flatten(3)
    found = torch.zeros(BATCH, N, 9, dtype=dtype), torch.empty_like(sigma), torch.empty_like(sigma)
    d_rot, d_mean, d_sigma = (t.numpy() for t in found)
    flat, kind = rot.reshape(BATCH, N, 9).numpy(), d_rot.dtype.type
    for b in range(BATCH):
        for row in range(0, N, 8):
            where = (b, row, min(N, row + 8))
            finish_sums(flat, sigma.numpy(), given.numpy(), lanes, kind(factor), *where, d_mean, d_sigma, d_rot)
    wanted = finished(rot.double(), sigma.double(), sums.double())
    sizes = finished(rot.double().abs(), sigma.double(), sums.double().abs())
    weight = (sums.double().abs()[..., 6:].sum((1, 2, -1)) * sigma.double().square().amax((1, 2, -1)) * 2)[
        ..., None, None
    ]
    magnitudes = (weight.expand_as(rot), sizes[1].abs(), sizes[2].abs())
    return [(wanted[0], -0.5 * factor * wanted[1], wanted[2]), (found[0].view_as(rot), *found[1:]), magnitudes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("lanes", "factor"), [(1, -2.0), (16, 2.0)])
def test_the_kernel_is_its_twin(dtype: torch.dtype, lanes: int, factor: float) -> None:
    for wanted, found, size in zip(*both_ways(dtype, lanes, factor), strict=True):
        # at most 8 roundings a term, and HEADS · POINTS additions; the twin, in float64, the same
        budget = 2 * (8 + HEADS * POINTS) * torch.finfo(dtype).eps / 2 * size
        assert ((found.double() - wanted).abs() <= budget).all()


@pytest.mark.parametrize("part", range(3))
def test_another_order_of_the_sums_is_seen(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    swapped = [0, 2, 1, 4, 3, 5, 7, 6, 8]
    monkeypatch.setattr(f"{__name__}.finished", lambda rot, sigma, sums: real(rot, sigma, sums[..., swapped]))
    wanted, found, size = (x[part] for x in both_ways(torch.float64, 1, -2.0))
    assert ((found - wanted).abs() > 1e-3 * size).any()
    assert np.isfinite(found.numpy()).all()
