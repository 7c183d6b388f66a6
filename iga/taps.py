"""Taps: names under which a layer shows what it computes on the way, to whoever listens.

A line a tensor in the layer, `iga.taps.show("log_det", log_det, dims="b h p q k")`, and `iga verify` judges it. While
nobody listens a tap is one read of a global: it keeps nothing, and breaks no graph under torch.compile. A compiled
graph shows nothing at all.

Names: `log_det` [ln nm⁶] and `dist_sq` [1] of a pair of Gaussians and `score` [nat] made of them; `geometry_logit`, a
head's whole geometry term; `logits`, which softmax takes; `weights`, which it gives; `sigma` and `mean` of Gaussians
[nm], of queries, of keys or of both; `values`. Dimensions: b batch, h heads, p points, q queries, k keys, n residues
that are both, x coordinates, c channels. A leading b stands for any number of dimensions, none included.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from iga._typing import Tensor

__all__ = ["DIMS", "NAMES", "listen", "listening", "show"]

NAMES = ("log_det", "dist_sq", "score", "geometry_logit", "logits", "weights", "sigma", "mean", "values")
DIMS = "bhpqknxc"

Heard = Callable[[str, Tensor, str], None]
_heard: Heard | None = None


def listening() -> bool:
    """Whether somebody listens: for a layer that would have to compute what it shows."""
    return _heard is not None and not torch.compiler.is_compiling()


def show(name: str, tensor: Tensor, *, dims: str) -> None:
    """Show `tensor` as `name`, one of `NAMES`; `dims` names its dimensions in order, "b h p q k" (see above).

    Does nothing while nobody listens. Else raises ValueError for an unknown name or dimensions that don't fit.
    """
    if _heard is not None and not torch.compiler.is_compiling():
        _check(name, tensor, dims)
        _heard(name, tensor, dims)


@contextmanager
def listen(heard: Heard | None) -> Iterator[None]:
    """While inside, every tap of this process calls heard(name, tensor, dims); listeners inside hear alone, and None is
    a listener who hears nothing."""
    global _heard
    before, _heard = _heard, heard
    try:
        yield
    finally:
        _heard = before


def _check(name: str, tensor: Tensor, dims: str) -> None:
    letters = dims.split()
    if name not in NAMES:
        raise ValueError(f"no tap {name!r}; taps: {', '.join(NAMES)}")
    rest = letters[1:] if letters[:1] == ["b"] else letters
    fits = tensor.ndim >= len(rest) if rest != letters else tensor.ndim == len(letters)
    if not fits or len(set(letters)) < len(letters) or not set(letters) <= set(DIMS):
        raise ValueError(
            f"{name}: dims={dims!r} must name the {tensor.ndim} dimensions of shape {list(tensor.shape)}: different "
            f"letters of {DIMS!r} with spaces between, a leading b for any number of them"
        )
