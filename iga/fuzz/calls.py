"""Around the operations of a watched call: where they stand in the code, what records them, whose rows they see.

Inside an `autograd.Function` torch records nothing, under `vmap` a function sees one sample, and a rule of
differentiation runs only once a derivative is asked for; conditions stand in all three.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.autograd.graph import _engine_run_backward

from iga._typing import Tensor

__all__ = ["differentiate", "of_all_samples", "on_the_graph", "place", "recorded"]

_MODULES = ("torch", "iga.fuzz", "jaxtyping", "beartype")  # whose frames are no place of the accused


def recorded(func: Any, args: Any, kwargs: Any) -> Any:
    """func(*args, **kwargs) on the autograd graph, though gradients be off; off it where it can only be so."""
    if not torch.is_grad_enabled():
        with contextlib.suppress(RuntimeError), on_the_graph():  # in place, or out=: those raise
            return func(*args, **kwargs)
    return func(*args, **kwargs)


@contextlib.contextmanager
def on_the_graph() -> Iterator[None]:
    """Gradients on, under inference_mode too."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def differentiate(result: Any, inputs: tuple[Tensor, ...]) -> None:
    """Go once through the derivative of the sum of the results; what cannot be differentiated is passed over."""
    outputs = [x for x in (result if isinstance(result, tuple | list) else (result,)) if isinstance(x, Tensor)]
    outputs, leaves = (tuple(x for x in some if x.requires_grad) for some in (outputs, inputs))
    if not outputs or not leaves:
        return
    with contextlib.suppress(Exception):  # somebody's backward may raise whatever it likes: the checks ask it
        ones = tuple(torch.ones_like(x) for x in outputs)
        # autograd.grad would do the same with no mode listening.
        _engine_run_backward(outputs, ones, True, True, leaves, True, accumulate_grad=False)


def of_all_samples(x: Tensor) -> Tensor:
    """Of what a function under vmap sees of one sample, that of all, which are its first dimension."""
    while functorch.is_batchedtensor(x):
        x = functorch.get_unwrapped(x).movedim(functorch.maybe_get_bdim(x), 0)
    return x


def place() -> str:
    """file:line of the innermost frame that is not of torch, of the fuzzer, or of what checks types."""
    frame = sys._getframe(1)
    while frame is not None and _passed_over(frame.f_code.co_filename, frame.f_globals.get("__name__") or ""):
        frame = frame.f_back
    return "?" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _passed_over(file: str, module: str) -> bool:
    own = module in _MODULES or module.startswith(tuple(f"{name}." for name in _MODULES))
    return own or file.startswith("<@beartype")
