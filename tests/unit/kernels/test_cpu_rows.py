"""The elementary functions behind the rows of logits on a CPU, against float64; and rows against plain torch.

Roundings are counted in units u of the dtype: beside each bound stands where it comes from.
"""

import numpy as np
import pytest
import torch
from numba import njit

from iga.kernels.cpu import _rows
from iga.kernels.cpu.engine import CpuEngine
from iga.kernels.engine import Engine, Geometry, Score
from iga.rotation import random

U = 2.0**-24


@njit
def exponentials(x, out):
    for i in range(x.shape[0]):
        out[i] = _rows._exp(x[i])


@njit
def capped(x, cap, out, slope):
    one = cap / cap
    for i in range(x.shape[0]):
        out[i], slope[i] = _rows._capped(x[i], cap, one / cap, one)


def arguments(lowest: float, highest: float, count: int = 200_000) -> np.ndarray:
    return np.linspace(lowest, highest, count).astype(np.float32)


def test_the_exponential_is_right_over_all_of_its_range() -> None:
    x = arguments(-87.0, 0.0)
    got = np.empty_like(x)
    exponentials(x, got)
    exact = np.exp(x.astype(np.float64))
    # the polynomial 0.2, its rounded argument 0.35, three operations after it, the last of them in full
    assert (np.abs(got - exact) <= 3 * U * exact).all()


def test_the_exponential_ends_in_zero_and_keeps_nan() -> None:
    x = np.array([0.0, -0.0, -87.0, -87.5, -1e30, -np.inf, np.nan], dtype=np.float32)
    got = np.empty_like(x)
    exponentials(x, got)
    assert got[0] == got[1] == 1 and got[2] > 0 and (got[3:6] == 0).all() and np.isnan(got[6])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_cap_and_its_slope_are_right_from_zero_to_saturation(dtype: type) -> None:
    u = np.finfo(dtype).eps / 2
    small = np.geomspace(1e-12, 1.0, 50_000)
    x = np.concatenate([small, -small, np.linspace(-60, 60, 100_001)]).astype(dtype)
    got, slope = np.empty_like(x), np.empty_like(x)
    capped(x, dtype(1.0), got, slope)
    y = torch.from_numpy(x).double()
    exact = torch.tanh(y).numpy()
    assert (np.abs(got) <= 1).all()
    # e errs by 3: 1 − e by 3e, its quotient by 3e/(1 − e); near 0 the series, and four operations in either
    e = np.exp(-2 * np.maximum(np.abs(x.astype(np.float64)), 0.15))
    assert (np.abs(got - exact) <= (4 + 3 * e / (1 - e)) * u * np.abs(exact)).all()
    near = np.abs(x) < 40
    exact = (1 / torch.cosh(y).square()).numpy()[near]
    # 3 of e, twice 4 of 1/(1 + e), three products
    assert (np.abs(slope[near] - exact) <= 14 * u * exact).all()


def engine_and_block(dtype: torch.dtype) -> tuple[CpuEngine, list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    b, h, p, n, r = 2, 3, 1, 37, 11
    mask = torch.rand(b, n, generator=generator) > 0.3
    mask[1, :5] = False
    ones = torch.ones(b, h, p, n, 3, dtype=dtype)
    geometry = Geometry(random(b, n, dtype=dtype), mask, ones, ones, ones, ones)
    block = [3 * torch.randn(b, h, r, n, generator=generator, dtype=dtype) for _ in range(3)]
    block[0][0, 0, 2, 3] = -torch.inf
    return (
        CpuEngine(geometry, Score("gaussian", 1.0, -torch.inf)),
        block,
        torch.rand(b, h, generator=generator).to(dtype),
    )


@pytest.mark.parametrize("cap", [5.0, float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_are_those_of_plain_torch(dtype: torch.dtype, cap: float) -> None:
    engine, (logits, scores, d_weights), weight = engine_and_block(dtype)
    plain = Engine(engine.geometry, engine.score)
    # |logit| < 30 gives e^logit 30 u twice, sums of 37 terms one each
    size = 200 * torch.finfo(dtype).eps
    found = [x.clone() for x in (logits, scores)]
    expected = [x.clone() for x in (logits, scores)]
    got = engine.weigh(*found, weight, cap, 3, True)
    right = plain.weigh(*expected, weight, cap, 3, True)
    for mine, theirs in zip([*got, found[0]], [*right, expected[0]], strict=True):
        same = (mine == theirs) | ((mine - theirs).abs() <= size * (1 + theirs.abs()))
        valid = engine.geometry.mask[:, None, 3:14].expand(mine.shape[:3])
        assert bool(same[valid].all())
    assert bool((found[0].sum(-1) > 0.5).any()) and bool((found[0].sum(-1) == 0).any())
    lse, d_lse = right[0], torch.ones_like(right[0])
    found, expected = ([x.clone() for x in (logits, scores, d_weights)] for _ in range(2))
    got_weight = engine.weigh_back(*found, weight, cap, 3, lse, d_lse)
    right_weight = plain.weigh_back(*expected, weight, cap, 3, lse, d_lse)
    for mine, theirs in zip([*found, got_weight], [*expected, right_weight], strict=True):
        assert bool(((mine - theirs).abs() <= size * (1 + theirs.abs().max())).all())
    assert bool(found[2].abs().amax() > 0)


def test_nan_in_a_valid_logit_reaches_its_row_and_no_other_and_behind_the_mask_none() -> None:
    engine, (logits, scores, _), weight = engine_and_block(torch.float32)
    logits.masked_fill_(~engine.geometry.mask[:, None, None, :], torch.nan)
    row, key = int(engine.geometry.mask[0, 3:14].nonzero()[0]), int(engine.geometry.mask[0].nonzero()[0])
    logits[0, 1, row, key] = torch.nan
    engine.weigh(logits, scores, weight, 5.0, 3, False)
    wrong = logits.isnan().any(-1)
    assert bool(wrong[0, 1, row]) and int(wrong.sum()) == 1
