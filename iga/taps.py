"""Taps: names under which a layer shows what it computes on the way, to whoever listens.

A line a tensor in the layer, `iga.taps.show("log_det", log_det, dims="b h p q k")`, and `iga verify` judges it. While
nobody listens a tap is one read of a global: it keeps nothing, and breaks no graph under torch.compile.

Names: `log_det` [ln nm⁶] and `dist_sq` [1] of a pair of Gaussians and `score` [nat] made of them; `geometry_logit`, a
head's whole geometry term; `logits`, which softmax takes; `weights`, which it gives; `sigma` and `mean` of Gaussians
[nm]; `values`. Dimensions: b batch (there may be several), h heads, p points, q queries, k keys, n residues that are
both, x coordinates, c channels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from iga._typing import Tensor

__all__ = ["DIMS", "NAMES", "listen", "show"]

NAMES = ("log_det", "dist_sq", "score", "geometry_logit", "logits", "weights", "sigma", "mean", "values")
DIMS = "bhpqknxc"

Heard = Callable[[str, Tensor, str], None]
_heard: Heard | None = None


def show(name: str, tensor: Tensor, *, dims: str) -> None:
    """Show `tensor` as `name`, one of `NAMES`; `dims` names its dimensions in order, "b h p q k" (see above).

    Does nothing while nobody listens. Else raises ValueError for an unknown name or dimensions that don't fit.
    """
    if _heard is not None:
        _check(name, tensor, dims)
        _heard(name, tensor, dims)


@contextmanager
def listen(heard: Heard) -> Iterator[None]:
    """While inside, every tap of this process calls heard(name, tensor, dims); listeners inside hear alone."""
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
    if any(letter not in DIMS or len(letter) != 1 for letter in letters) or len(letters) != tensor.ndim:
        raise ValueError(
            f"{name}: dims={dims!r} must name the {tensor.ndim} dimensions of shape {list(tensor.shape)}, "
            f"letters of {DIMS!r} with spaces between"
        )
