"""Conditions as numbers: what a program makes of a boolean that it casts, multiplies, counts or branches within."""

from collections.abc import Callable

import pytest
import torch

from iga.fuzz.branches import watch_branches

X, Y = torch.linspace(-0.9, 1.0, 20), torch.linspace(1.0, -0.9, 20)


def _inside(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x > 0.2) & (y > -0.3)


FORMS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "a product of casts": lambda x, y: (x > 0.2).double() * (y > -0.3).to(x.dtype),
    "one by one": lambda x, y: ((x > 0.2).float() * 2.0) * (y > -0.3),
    "what is left of 1": lambda x, y: (1.0 - (x <= 0.2).double()) * (y > -0.3).double(),
    "where of numbers": lambda x, y: torch.where(x > 0.2, 1.0, 0.0) * torch.where(y > -0.3, 1.0, 0.0),
    "where of a weight": lambda x, y: torch.where(x > 0.2, (y > -0.3).double(), torch.zeros_like(X)),
    "where of zeros and ones": lambda x, y: (
        torch.where(x > 0.2, torch.ones_like(X), torch.zeros_like(X)) * torch.heaviside(y + 0.3, torch.zeros(()))
    ),
    "the product of a stack": lambda x, y: torch.stack([(x > 0.2).double(), (y > -0.3).double()], -1).prod(-1),
    "the least of two": lambda x, y: torch.minimum((x > 0.2).float(), (y > -0.3).float()),
    "the least of a stack": lambda x, y: torch.stack([(x > 0.2).int(), (y > -0.3).int()], -1).amin(-1),
    "a weight that is compared": lambda x, y: ((x > 0.2).double() * (y > -0.3).double()) > 0.5,
    "hats": lambda x, y: torch.relu(x - 0.2) * (y + 0.3).clamp(min=0.0),
    "a weight as a boolean": lambda x, y: ((x > 0.2).double() * (y > -0.3).double()).bool(),
    "two that differ": lambda x, y: (x > 0.2) ^ ((x > 0.2) & (y <= -0.3)),
    "a count": lambda x, y: (x > 0.2).int() + (y > -0.3).int() == 2,
    "one over the other": lambda x, y: (x > 0.2).logical_and_(y > -0.3),
    "a product over the other": lambda x, y: (x > 0.2).double().mul_(y > -0.3),
    "bits": lambda x, y: ((x > 0.2).int() | (y > -0.3).int() << 1) == 3,
    "a code": lambda x, y: ((x > 0.2).long() + 2 * (y > -0.3).long()).eq(3),
    "a row of places": lambda x, y: torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])[
        3 * torch.bucketize(x, torch.tensor([0.2, 5.0])) + torch.bucketize(y, torch.tensor([-0.3, 5.0]))
    ],
    "a row of a table": lambda x, y: torch.tensor([0.0, 0.0, 0.0, 1.0])[(x > 0.2).long() + 2 * (y > -0.3).long()],
    "a count of a stack": lambda x, y: torch.stack([x > 0.2, y > -0.3], -1).sum(-1) > 1.5,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_box_made_of_numbers_is_a_side_with_a_distance(form: str) -> None:
    x, y = X.clone().requires_grad_(True), Y.clone().requires_grad_(True)
    out, seen = watch_branches(FORMS[form], x, y, rows=len(x))
    inside = _inside(x, y)
    assert torch.equal(out.detach() != 0, inside) and bool(inside.any())
    whole = list(seen.sites.values())[-1].to_true
    assert torch.equal(whole.detach() == 0, inside)
    gradients = torch.autograd.grad(whole.sum(), (x, y))
    for value, low, slope in ((x, 0.2, gradients[0]), (y, -0.3, gradients[1])):
        assert bool((slope[value < low] < 0).all()), "towards the side"


def test_branches_within_branches_are_one_side() -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0.2, torch.where(y > -0.3, torch.where(x < 0.4, 2 * x, x), x), x)

    x, y = X.clone().requires_grad_(True), Y.clone().requires_grad_(True)
    _, seen = watch_branches(function, x, y, rows=len(x))
    inside = _inside(x, y) & (x < 0.4)
    sides = [found.to_true.detach() == 0 for name, found in seen.sites.items() if "within" in name]
    assert len(sides) == 2 and torch.equal(sides[-1], inside)


def test_the_branch_that_is_left_over_is_followed_too() -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.where(x <= 0.2, x, torch.where(y > -0.3, 2 * x, x))

    x, y = X.clone().requires_grad_(True), Y.clone().requires_grad_(True)
    _, seen = watch_branches(function, x, y, rows=len(x))
    (within,) = (found for name, found in seen.sites.items() if "within" in name)
    assert torch.equal(within.to_true.detach() == 0, _inside(x, y))


def test_numbers_that_are_no_conditions_are_left_alone() -> None:
    x, y = X.clone().requires_grad_(True), Y.clone().requires_grad_(True)
    _, seen = watch_branches(lambda x, y: (x * y).double() * x.sum() + (x > 0.2) * y, x, y, rows=len(x))
    assert len(seen.sites) == 1 and not seen.blind


def test_places_among_boundaries_are_cells_with_a_slope() -> None:
    ends = torch.tensor([-0.5, 0.0, 0.7])
    x = X.clone().requires_grad_(True)
    for find in (torch.bucketize, lambda x, ends: torch.searchsorted(ends, x)):
        out, seen = watch_branches(lambda x, find=find: find(x, ends), x, rows=len(x))
        (line,) = seen.cells.values()
        inside = (x > -0.5) & (x < 0.7)
        assert bool(((line - out + 0.5).abs() <= 0.5 + 1e-6)[inside].all())
        (slope,) = torch.autograd.grad(line.sum(), x)
        assert bool((slope > 0).all()) and not seen.blind


def test_nearness_is_a_side() -> None:
    x = X.clone().requires_grad_(True)
    near, seen = watch_branches(lambda x: torch.isclose(x, torch.tensor(0.2), rtol=0.0, atol=0.06), x, rows=len(x))
    (found,) = seen.sites.values()
    assert torch.equal(found.to_true.detach() == 0, near) and bool(near.any())
    (slope,) = torch.autograd.grad(found.to_true.sum(), x)
    assert bool((slope[x > 0.3] > 0).all()) and bool((slope[x < 0.1] < 0).all())


def test_a_table_is_followed_beside_conditions() -> None:
    """Indices that are clamped, scaled, cut to integers, moved and added: cells, and on the graph, not weights."""

    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        (x > 0.2).double()
        row, column = ((one.clamp(0.0, 0.999) * 64).long().view(-1) for one in (x, y))
        return (row * 64 + column) == 700

    x, y = X.clone().requires_grad_(True), Y.clone().requires_grad_(True)
    _, seen = watch_branches(function, x, y, rows=len(x))
    assert len(seen.cells) == 2
    to_cell = list(seen.sites.values())[-1].to_true
    slopes = torch.autograd.grad(to_cell.sum(), (x, y))
    assert all(bool((slope != 0).any()) for slope in slopes)
