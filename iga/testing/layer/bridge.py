"""A detour whose gradients come back by a way of its own: `torch.func.vjp`, a copy's parameters.

`bridged(output, back, leaves)` has the value of `output`, and for gradients what back(gradient of the output) gives.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from iga._typing import Tensor

__all__ = ["bridged", "fresh"]

Back = Callable[[Tensor], Sequence[Tensor | None]]


class _Bridge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, back: Back, output: Tensor, *leaves: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.back = back
        return output.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        with torch.enable_grad():
            return (None, None, *ctx.back(gradient))


def bridged(output: Tensor, back: Back, leaves: Sequence[Tensor]) -> Tensor:
    """`output` as a function of `leaves`, whose gradients `back` gives in their order."""
    return _Bridge.apply(back, output.detach(), *leaves)


def fresh(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leaves of their own with the same numbers, which want gradients as those of `inputs` do."""
    return {name: x.detach().clone().requires_grad_(x.requires_grad) for name, x in inputs.items()}
