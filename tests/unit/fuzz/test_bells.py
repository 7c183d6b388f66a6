"""Factors without a branch that are next to nothing but in a small place."""

from collections.abc import Callable

import pytest
import torch

from iga.fuzz.branches import watch_branches

X, Y = torch.linspace(-0.9, 1.0, 20), torch.linspace(1.0, -0.9, 20)
Function = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _argument(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((x - 0.1).square() + (y - 0.2).square()) / 0.15**2


FORMS: dict[str, Function] = {
    "exp": lambda x, y: torch.exp(-_argument(x, y)),
    "exp2": lambda x, y: torch.exp2(-_argument(x, y)),
    "exp in place": lambda x, y: (-_argument(x, y)).exp_(),
    "a power of a number": lambda x, y: 2.71828 ** (-_argument(x, y)),
    "a high power": lambda x, y: torch.cos((x - 0.1).hypot(y - 0.2)) ** 40,
    "a product": lambda x, y: torch.exp(-((x - 0.1) ** 2) / 0.0225) * (0.5 * torch.exp(-((y - 0.2) ** 2) / 0.0225)),
    "a product of a stack": lambda x, y: torch.stack(
        [torch.exp(-((x - 0.1) ** 2) / 0.0225), torch.exp(-((y - 0.2) ** 2) / 0.0225)], -1
    ).prod(-1),
    "windows": lambda x, y: torch.sigmoid((x + 0.1) / 0.03) * torch.sigmoid((0.3 - x) / 0.03) * torch.sigmoid(y / 0.03),
    "a hyperbolic secant": lambda x, y: 1.0 / torch.cosh(_argument(x, y)),
    "the complement of erf": lambda x, y: torch.erfc(_argument(x, y)),
    "a condition and a bell": lambda x, y: (x < 0.3) * torch.exp(-_argument(x, y)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_bell_is_a_side_with_a_slope_towards_its_middle(form: str) -> None:
    x, y = X.clone().requires_grad_(True), Y.clone().requires_grad_(True)
    out, seen = watch_branches(FORMS[form], x, y, rows=len(x))
    middle = list(seen.sites.values())[-1].to_true
    assert not seen.blind
    reached = middle.detach() == 0
    assert bool(reached.any()) and bool((~reached).any())
    assert float(out.detach()[reached].min()) > float(out.detach()[~reached].max()), "the largest factors are inside"
    (slope,) = torch.autograd.grad(middle.sum(), x)
    away = ~reached & ((x.detach() - 0.1).abs() > 0.35)
    assert bool((slope[away] * (x.detach()[away] - 0.1) > 0).all()), "the distance falls towards the middle"


INVERSE: dict[str, Function] = {
    "a rational bell": lambda x, y: 1.0 / (1.0 + _argument(x, y) ** 8),
    "a power in place": lambda x, y: 1.0 / (1.0 + (0.5 * _argument(x, y)).pow_(8)),
    "a step of Fermi": lambda x, y: 1.0 / (1.0 + torch.exp(_argument(x, y) - 1.0)),
}


@pytest.mark.parametrize("form", INVERSE)
def test_an_inverse_is_a_bell_where_what_it_inverts_is_small(form: str) -> None:
    x, y = X.clone().requires_grad_(True), Y.clone().requires_grad_(True)
    out, seen = watch_branches(INVERSE[form], x, y, rows=len(x))
    (found,) = seen.sites.values()
    reached = found.to_false.detach() == 0
    assert bool(reached.any()) and float(out.detach()[reached].min()) > float(out.detach()[~reached].max())
    (slope,) = torch.autograd.grad(found.to_false.sum(), x)
    away = ~reached & ((x.detach() - 0.1).abs() > 0.35)
    assert bool((slope[away] * (x.detach()[away] - 0.1) > 0).all())


def test_the_other_side_of_a_narrow_bell_is_everywhere() -> None:
    x, y = X.clone().requires_grad_(True), Y.clone().requires_grad_(True)
    _, seen = watch_branches(FORMS["exp"], x, y, rows=len(x))
    (found,) = seen.sites.values()
    assert bool((found.to_false == 0).all())


ORDINARY: dict[str, Function] = {
    "a square": lambda x, y: x**2 + y.square(),
    "a cube": lambda x, y: (x + y).pow(3),
    "an inverse": lambda x, y: (x**-1.0) + y,
    "a power by a tensor": lambda x, y: x.abs() ** y,
}


@pytest.mark.parametrize("form", ORDINARY)
def test_what_is_no_bell_is_no_side(form: str) -> None:
    x, y = X.clone().requires_grad_(True), Y.clone().requires_grad_(True)
    _, seen = watch_branches(ORDINARY[form], x, y, rows=len(x))
    assert not [name for name in seen.sites if "abs" not in name] and not seen.blind
