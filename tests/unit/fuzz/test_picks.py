"""Conditions on the rows that a program has picked out before."""

from collections.abc import Callable

import pytest
import torch

from iga.fuzz.branches import watch_branches

X, Y = torch.linspace(-0.9, 1.0, 20), torch.linspace(1.0, -0.9, 20)


def _added(places: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return x.index_add(0, places, torch.ones(len(places)))


def _by_nonzero(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    places = (x > 0.2).nonzero().squeeze(-1)
    return _added(places[y[places] > -0.3], x)


def _by_where(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    (places,) = torch.where(x > 0.2)
    return _added(places[y.index_select(0, places) > -0.3], x)


def _by_a_mask(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    mask = x > 0.2
    out = x.clone()
    out[mask] = torch.where(y[mask] > -0.3, x[mask] + 1.0, x[mask])
    return out


def _by_masked_select(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    mask = x > 0.2
    inside = torch.masked_select(y, mask) > -0.3
    return x + torch.zeros_like(x).masked_scatter(mask, inside.to(x.dtype))


FORMS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "nonzero": _by_nonzero,
    "where with one argument": _by_where,
    "a mask": _by_a_mask,
    "masked_select": _by_masked_select,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_condition_on_picked_rows_has_a_distance_on_all(form: str) -> None:
    x, y = X.clone().requires_grad_(True), Y.clone().requires_grad_(True)
    out, seen = watch_branches(FORMS[form], x, y, rows=len(x))
    inside = (x > 0.2) & (y > -0.3)
    assert torch.equal(out.detach() - x.detach() > 0.5, inside) and bool(inside.any())
    (found,) = (x for x in seen.sites.values() if torch.equal(x.to_true.detach() == 0, inside))
    assert torch.equal(found.to_false.detach() == 0, (x > 0.2) & (y <= -0.3)), "who was not picked took no side"
    by_x, by_y = torch.autograd.grad(found.to_true.sum(), (x, y))
    assert bool((by_x[x <= 0.2] < 0).all()), "towards being picked"
    assert bool((by_y[(x > 0.2) & (y <= -0.3)] < 0).all()), "then towards the side"


def test_rows_picked_of_picked_rows_are_followed() -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        first = (x > -0.4).nonzero().squeeze(-1)
        second = first[y[first] > -0.5]
        return _added(second[x[second] < 0.1], x)

    x, y = X.clone().requires_grad_(True), Y.clone().requires_grad_(True)
    out, seen = watch_branches(function, x, y, rows=len(x))
    inside = (out - x).detach() > 0.5
    sides = [found.to_true.detach() == 0 for found in seen.sites.values()]
    assert any(torch.equal(side, inside) for side in sides) and bool(inside.any())


def test_rows_picked_by_what_is_not_known_are_left_alone() -> None:
    known = torch.arange(20) % 3 == 0

    x, y = X.clone().requires_grad_(True), Y.clone().requires_grad_(True)
    _, seen = watch_branches(lambda x, y: y[known].clamp(min=0.5), x, y, rows=len(x))
    assert not seen.sites and not seen.blind
