"""Cells of a table that stand out are sides, however the table is looked up."""

import pytest
import torch

from iga.fuzz.branches import watch_branches
from iga.fuzz.cells import standing_out
from iga.fuzz.overlap import OverlapStream
from iga.fuzz.seeking import FAR, _damped
from iga.overlap import gaussian_overlap
from iga.testing.checks import checks_of
from iga.testing.faults.corners import CORNERS
from iga.testing.overlap.subject import OverlapSubject

X, Y = torch.linspace(0.01, 0.99, 40), torch.linspace(0.99, 0.01, 40)
CLEAN = OverlapSubject("iga", gaussian_overlap)
N = 8


def test_what_differs_from_those_beside_it_stands_out_also_of_a_slope() -> None:
    ramp = torch.arange(30.0)[:, None] + torch.zeros(30, 20)
    ramp[7, 11] += 5.0
    assert (7, 11) in standing_out(ramp, 2)
    flat = torch.ones(5, 6, 7)
    assert standing_out(flat, 3) == []
    for cell in ((4, 0, 6), (1, 2, 3)):  # two tables that are alike but for the place
        table = flat.clone()
        table[cell] = 1.25
        assert standing_out(table, 3)[0] == cell
    for end in (0, 4):  # of a row: what is beside it does not stand out with it
        row = torch.zeros(5)
        row[end] = 1.0
        assert standing_out(row, 1) == [(end,)]
    rows = torch.zeros(100, 3)
    rows[42, 1] = torch.inf
    assert standing_out(rows, 1)[0] == (42,)
    bits = torch.zeros(100, dtype=torch.bool)
    bits[99] = True
    assert (99,) in standing_out(bits, 1)


def _places(x: torch.Tensor) -> torch.Tensor:
    return x.detach().mul(N).floor().clamp(0, N - 1).long()


LOOKED_UP = {
    "by two numbers": lambda t, x, y: t[_places(x), _places(y)],
    "by one": lambda t, x, y: t.flatten()[_places(x) * N + _places(y)],
    "by floats": lambda t, x, y: t.flatten()[((x * N).floor() * N + (y * N).floor()).long()],
    "take": lambda t, x, y: torch.take(t, _places(y) + N * _places(x)),
    "gather": lambda t, x, y: t.flatten().gather(0, (x * N).long() * N + (y * N).int()),
    "index_select": lambda t, x, y: t.flatten().index_select(0, _places(x) * N + _places(y)),
    "rows": lambda t, x, y: torch.nn.functional.embedding(_places(x) * N + _places(y), t.reshape(-1, 1))[:, 0],
}


@pytest.mark.parametrize("way", LOOKED_UP)
def test_the_cell_is_as_far_as_its_numbers_are_and_a_slope_leads_there(way: str) -> None:
    table = torch.ones(N, N)
    table[5, 2] = 1.5

    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * LOOKED_UP[way](table, x, y)

    x, y = X.clone().requires_grad_(True), Y.clone().requires_grad_(True)
    _, seen = watch_branches(function, x, y, rows=len(x))
    (found,) = [found for name, found in seen.sites.items() if " cell (" in name]
    inside = ((X * N).floor() == 5) & ((Y * N).floor() == 2)
    assert torch.equal(found.to_true.detach() == 0, inside) and bool(inside.any())
    slopes = torch.autograd.grad(found.to_true.sum(), (x, y))
    for slope, given, cell in zip(slopes, (X, Y), (5, 2), strict=True):
        under, over = (given * N).floor() < cell, (given * N).floor() > cell
        assert bool((slope[under] < 0).all()) and bool((slope[over] > 0).all())


def test_a_table_of_six_dimensions_is_sought_by_its_cell() -> None:
    (fault,) = (one for one in CORNERS if one.name.startswith("one of 4 million cells of five"))
    checks = [checks_of("overlap")["accuracy"]]
    stream = OverlapStream(fault.planted(CLEAN), checks=checks, engines=("branches",))
    stream.halvings = 1
    assert any(stream.round().candidates for _ in range(12))


def test_what_is_far_has_a_slope_and_does_not_drown_what_is_near() -> None:
    x = torch.tensor([0.5, FAR, 6.0, 100.0, torch.inf], dtype=torch.float64, requires_grad=True)
    damped = _damped(x)
    assert torch.equal(damped[:2], x[:2]) and bool((damped.diff() > 0).all()) and float(damped[3].detach()) < 10.0
    (slope,) = torch.autograd.grad(damped[:4].sum(), x)
    assert bool((slope[:4] > 0).all())
