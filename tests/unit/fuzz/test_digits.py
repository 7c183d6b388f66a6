"""Codes of several digits, whose rows have the distance of all digits together."""

import torch

from iga.fuzz.branches import watch_branches

X, Y = torch.linspace(-0.9, 1.0, 20), torch.linspace(1.0, -0.9, 20)
EDGES = torch.tensor([0.15, 0.35])


def test_a_row_is_as_far_as_its_digits_are() -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        code = 0
        for quantity in (x, y, x + 2 * y):
            code = 3 * code + torch.bucketize(quantity, EDGES)
        return torch.ones(27)[code + 0] * x

    x, y = X.clone().requires_grad_(True), Y.clone().requires_grad_(True)
    _, seen = watch_branches(function, x, y, rows=len(x))
    rows = [found for name, found in seen.sites.items() if "row" in name]
    assert len(rows) == 27
    places = [torch.bucketize(q, EDGES) for q in (X, Y, X + 2 * Y)]
    code = 9 * places[0] + 3 * places[1] + places[2]
    for k, found in enumerate(rows):
        assert torch.equal(found.to_true.detach() == 0, code == k)
    middle = rows[13].to_true  # every digit 1
    slope_x, slope_y = torch.autograd.grad(middle.sum(), (x, y), retain_graph=True)
    far = (X > 0.4) & (X + 2 * Y > 0.4)
    assert bool((slope_x[far] > 0).all()), "both digits of x are too large"
    assert bool(slope_y.abs().sum() > 0)


def test_a_code_of_conditions_by_bits_or_tens_is_one() -> None:
    for code_of in (
        lambda a, b, c: a.long() + 2 * b.long() + 4 * c.long(),
        lambda a, b, c: a.int() | b.int() << 1 | c.int() << 2,
        lambda a, b, c: 4 * c.int() + (2 * b.int() + a.int()),
    ):

        def function(x: torch.Tensor, y: torch.Tensor, code_of=code_of) -> torch.Tensor:
            return torch.ones(8)[code_of(x > 0.15, y > -0.5, x + y < 0.3)] * x

        x, y = X.clone().requires_grad_(True), Y.clone().requires_grad_(True)
        _, seen = watch_branches(function, x, y, rows=len(x))
        found = [found for name, found in seen.sites.items() if "row" in name][5]  # 1, 0, 1
        inside = (X > 0.15) & ~(Y > -0.5) & (X + Y < 0.3)
        assert torch.equal(found.to_true.detach() == 0, inside) and bool(inside.any())
        (slope,) = torch.autograd.grad(found.to_true.sum(), y)
        assert bool((slope[Y > -0.5] > 0).all()), "y has to fall"
