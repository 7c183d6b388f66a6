"""Conditions where torch records nothing, sees one sample, or is not yet: autograd functions, vmap, derivatives."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from iga.fuzz.branches import BACKWARD, Seen, watch_branches

X = torch.linspace(-0.9, 1.0, 20)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return torch.where(x > 0.3, 3 * x, 2 * x)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return torch.where(x > 0.6, 0.0, 2 * slopes[0])


class InPlace(Doubled):
    """Writes in a way that is allowed only where nothing is recorded."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x.clone())
        out = torch.empty_like(x)
        torch.mul(x, 2.0, out=out)
        return out


class Refuses(Doubled):
    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no derivative")


def _hooked(x: torch.Tensor) -> torch.Tensor:
    out = 2 * x
    out.register_hook(lambda slope: torch.where(x > 0.6, 0.0, slope))
    return out


def _seen(function: Callable[..., torch.Tensor], *, backward: bool = True) -> tuple[Seen, torch.Tensor]:
    x = X.clone().requires_grad_(True)
    return watch_branches(function, x, rows=len(x), backward=backward)[1], x


def test_a_condition_in_a_function_of_its_own_has_a_slope() -> None:
    seen, x = _seen(Doubled.apply, backward=False)
    (found,) = seen.sites.values()
    assert torch.equal(found.to_true.detach() == 0, X > 0.3)
    (slope,) = torch.autograd.grad(found.to_true.sum(), x)
    assert bool((slope[X <= 0.3] < 0).all())


@pytest.mark.parametrize("function", [Doubled.apply, InPlace.apply, _hooked])
def test_a_condition_in_a_derivative_is_a_site_with_a_slope(function: Callable[..., torch.Tensor]) -> None:
    seen, x = _seen(function)
    (found,) = (found for name, found in seen.sites.items() if BACKWARD in name)
    assert torch.equal(found.to_true.detach() == 0, X > 0.6) and not seen.blind
    (slope,) = torch.autograd.grad(found.to_true.sum(), x)
    assert bool((slope[X <= 0.6] < 0).all())
    assert not [name for name in _seen(function, backward=False)[0].sites if BACKWARD in name]


def test_a_derivative_that_raises_leaves_what_was_seen() -> None:
    seen, _ = _seen(Refuses.apply)
    assert len(seen.sites) == 1


def test_a_condition_on_one_sample_under_vmap_is_one_on_all() -> None:
    def one(x: torch.Tensor) -> torch.Tensor:
        return torch.where((x > 0.3) & (x < 0.7), 2 * x, x)

    seen, x = _seen(torch.vmap(one))
    both = list(seen.sites.values())[2]
    assert torch.equal(both.to_true.detach() == 0, (X > 0.3) & (X < 0.7))
    (slope,) = torch.autograd.grad(both.to_true.sum(), x)
    assert bool((slope[X <= 0.3] < 0).all())


def test_a_table_under_vmap_is_a_row_of_cells() -> None:
    table = torch.arange(8.0)
    seen, _ = _seen(torch.vmap(lambda x: table[(4 * (x + 1)).long().clamp(0, 7)].sum()))
    (numbers,) = seen.cells.values()
    assert torch.allclose(numbers.float(), 4 * (X + 1))


def test_vmap_over_two_dimensions_keeps_their_order() -> None:
    given = X.reshape(4, 5).clone().requires_grad_(True)
    one = torch.vmap(torch.vmap(lambda x: torch.where(x > 0.3, 2 * x, x)))
    _, seen = watch_branches(one, given, rows=4)
    reached = torch.stack([x.to_true.detach() == 0 for x in seen.sites.values()], -1)
    assert torch.equal(reached, given > 0.3)


def test_what_shows_no_operation_is_said() -> None:
    with pytest.warns(DeprecationWarning, match="jit"):
        scripted = torch.jit.trace(lambda x: torch.where(x > 0.3, 2 * x, x), X, check_trace=False)
    seen, _ = _seen(scripted, backward=False)
    assert not seen.sites and [name for name in seen.blind if name.startswith("all of it")]
    assert not _seen(Doubled.apply)[0].blind
