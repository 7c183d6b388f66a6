"""An overlap function under test, called with care: what it raises or returns wrongly is a finding about it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from iga._typing import Tensor
from iga.testing.latest import called
from iga.testing.state.watch import left_alone
from iga.testing.steady import require_steady_dtype
from iga.testing.tally import Tally
from iga.testing.targets import DTYPES, Claims, Target, TargetError, Unloadable, one_line

__all__ = ["ARGUMENTS", "OverlapSubject", "Pair", "overlap_subject", "require_answers"]

# (q_rot [..., 3, 3], q_mean [..., 3], q_sigma [..., 3], k_rot, k_mean, k_sigma): nm, leading dimensions broadcast
Pair = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
ARGUMENTS = ("q_rot", "q_mean", "q_sigma", "k_rot", "k_mean", "k_sigma")
CALL = "f(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma) -> (dist_sq, log_det)"


@dataclass(frozen=True)
class OverlapSubject:
    """`function` claims to be correct for σ in `sigma_range` (nm), in `dtypes`."""

    name: str
    function: Callable[..., Any]
    sigma_range: tuple[float, float] = (0.03, 150.0)
    dtypes: tuple[torch.dtype, ...] = DTYPES
    foreign: bool = True
    claims: Claims = field(default_factory=Claims)

    def __call__(self, *pair: Tensor) -> tuple[Tensor, Tensor]:
        """(dist_sq [...], log_det [...]). Raises TargetError for an exception, a wrong shape, device or type, and for a
        dtype that is not that of earlier calls."""
        called("overlap", dict(zip(ARGUMENTS, pair, strict=False)))
        try:
            with left_alone("a call"):
                returned = self.function(*pair)
        except Exception as error:  # whatever somebody else's function raises is a finding about that function
            raise TargetError(f"it raised {one_line(error)}") from error
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            raise TargetError(f"expected two tensors, (dist_sq, log_det), got {_kind(returned)}")
        cores = (2, 1, 1, 2, 1, 1)
        shape = torch.broadcast_shapes(*(x.shape[: x.ndim - c] for x, c in zip(pair, cores, strict=True)))
        for name, value in zip(("dist_sq", "log_det"), returned, strict=True):
            if not isinstance(value, Tensor) or not value.dtype.is_floating_point:
                raise TargetError(f"{name} must be a tensor of floating point, got {_kind(value)}")
            if value.shape != shape:
                raise TargetError(f"{name} must have the pairs' shape {list(shape)}, got {list(value.shape)}")
            if value.device != pair[0].device:
                raise TargetError(f"{name} is on {value.device}, its inputs on {pair[0].device}")
            require_steady_dtype(self.function, (x.dtype for x in pair), name, value)
        return returned[0], returned[1]

    def on_copies(self, *pair: Tensor) -> tuple[Tensor, Tensor]:
        """The same of copies: what the accused does to its inputs is `determinism`'s finding, and reaches neither what
        is right, which is computed from the pair afterwards, nor the case that is kept."""
        return self(*(x.clone() for x in pair))


def overlap_subject(target: Target) -> OverlapSubject:
    """The OverlapSubject of a target, after two calls on ordinary pairs: a plain batch, and one that broadcasts.

    Raises ValueError, one line, for what is not an overlap function: a wrong signature, wrong shapes, a wrong device.
    Unloadable for what answers to one of the two calls alone.
    """
    subject = OverlapSubject(target.name, target.function, target.sigma_range, target.dtypes, claims=target.claims)
    sigma = (target.sigma_range[0] * target.sigma_range[1]) ** 0.5
    failed: list[ValueError] = []
    for queries, keys in (shapes := (((4,), (4,)), ((3, 1), (2,)))):
        rot, mean = torch.eye(3), torch.ones(3)
        pair = tuple(
            x.expand(*batch, *x.shape).to(target.dtypes[0]).clone()
            for batch, shift in ((queries, 0.0), (keys, sigma))
            for x in (rot, mean * shift, mean * sigma)
        )
        try:
            subject(*pair)
        except TargetError as error:
            where = f"on pairs of shapes {list(queries)} and {list(keys)}"
            words = f"{target.name} cannot be called as an overlap, {CALL}: {where}, {error}"
            failed.append(ValueError(words).with_traceback(error.__traceback__))
    if failed:
        raise failed[0] if len(failed) == len(shapes) else Unloadable(str(failed[0]))
    return subject


def require_answers(values: tuple[Tensor, Tensor], tally: Tally) -> None:
    """Void the tally if dist_sq or log_det is the same for all pairs: it then shows nothing."""
    for name, value in zip(("dist_sq", "log_det"), values, strict=True):
        flat = value.detach().flatten()
        if len(flat) > 1 and bool((flat == flat[0]).all()):
            tally.void(f"{name} is {float(flat[0]):g} whatever the pair")


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {list(value.shape)}"
    if isinstance(value, tuple | list):
        return f"{len(value)} values"
    return type(value).__name__
