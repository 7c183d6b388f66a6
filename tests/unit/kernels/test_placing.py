"""Value points into space and back: torch and machine code against NumPy in float64.

A coordinate is three products and four sums: at most 4u of Σ|R||x| + |t|, and as much again for the difference y − t.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from iga.kernels import placing
from iga.kernels.cpu.engine import FEW_NUMBERS, CpuEngine
from iga.kernels.engine import Engine, Geometry, Score

UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
MOVERS = {"torch": (placing.out, placing.back), "cpu": (CpuEngine.out, CpuEngine.back)}


def drawn(
    batch: int = 2, heads: int = 3, n: int = 7, points: int = 5, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(batch, heads, n, 3 * points, generator=generator, dtype=torch.float64)
    rot = torch.linalg.qr(torch.randn(batch, n, 3, 3, generator=generator, dtype=torch.float64))[0]
    trans = 10 * torch.randn(batch, n, 3, generator=generator, dtype=torch.float64)
    return x.to(dtype), rot.to(dtype), trans.to(dtype)


def moved(kind: str, name: str, x: Tensor, rot: Tensor, trans: Tensor) -> Tensor:
    function = MOVERS[kind][("out", "back").index(name)]
    return function(x, rot, trans) if kind == "torch" else function(None, x, rot, trans)  # pyright: ignore


def expected(name: str, x: Tensor, rot: Tensor, trans: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The result and Σ|·|, the size of what is summed."""
    p = x.double().numpy().reshape(*x.shape[:-1], -1, 3)
    r, t = rot.double().numpy(), trans.double().numpy()[:, None, :, None]
    if name == "out":
        value = np.einsum("bnij,bhnpj->bhnpi", r, p) + t
        return value, np.einsum("bnij,bhnpj->bhnpi", abs(r), abs(p)) + abs(t)
    return np.einsum("bnij,bhnpi->bhnpj", r, p - t), np.einsum("bnij,bhnpi->bhnpj", abs(r), abs(p) + abs(t))


@pytest.mark.parametrize("kind", MOVERS)
@pytest.mark.parametrize("name", ["out", "back"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("points", [1, 12, 33])
def test_points_go_where_numpy_puts_them(kind: str, name: str, dtype: torch.dtype, points: int) -> None:
    given = drawn(points=points, dtype=dtype)
    found = moved(kind, name, *given).double().numpy()
    value, size = expected(name, *given)
    assert found.shape == given[0].shape
    # NumPy's own rounding counts too, where both are float64
    assert (abs(found - value.reshape(found.shape)) <= 8 * UNIT[dtype] * size.reshape(found.shape)).all()


@pytest.mark.parametrize("name", ["out", "back"])
def test_threads_share_what_is_much_and_leave_no_row_out(name: str) -> None:
    given = drawn(batch=1, heads=2, n=FEW_NUMBERS // 12 + 3, points=4)
    found = moved("cpu", name, *given).double().numpy()
    value, size = expected(name, *given)
    assert (abs(found - value.reshape(found.shape)) <= 8 * UNIT[torch.float32] * size.reshape(found.shape)).all()


def test_the_gradient_of_a_rotation_is_the_sum_of_outer_products() -> None:
    (a, _, _), b = drawn(dtype=torch.float64), drawn(dtype=torch.float64)[0].roll(1, 0)
    one, two = (x.numpy().reshape(*x.shape[:-1], -1, 3) for x in (a, b))
    value = np.einsum("bhnpi,bhnpj->bnij", one, two)
    size = np.einsum("bhnpi,bhnpj->bnij", abs(one), abs(two))
    assert (abs(placing.outer(a, b).numpy() - value) <= 2 * 15 * UNIT[torch.float64] * size).all()


def test_no_residues_have_no_points() -> None:
    empty = torch.zeros(0)
    geometry = Geometry(empty.reshape(1, 0, 3, 3), empty.bool().reshape(1, 0), *(empty.reshape(1, 1, 1, 0, 3),) * 4)
    engine = Engine(geometry, Score("gaussian", 1.0, float("-inf")))
    given = (empty.reshape(1, 1, 0, 6), geometry.rot, empty.reshape(1, 0, 3))
    assert engine.out(*given).shape == engine.back(*given).shape == (1, 1, 0, 6)
