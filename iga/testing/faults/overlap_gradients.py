"""Slips of overlap functions in their gradients: asked of some operands only, of some pairs, of one answer, twice."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from iga._typing import Tensor
from iga.testing.faults.fault import Fault
from iga.testing.faults.overlap_sizes import Values, number, overlap_slips, pairs_shape
from iga.testing.faults.slips import Both, Passed, graded, in_backward, moving, plain, recording
from iga.testing.judges.overlap import condition
from iga.testing.overlap.subject import OverlapSubject

__all__ = ["FAULTS"]

OPERANDS = ("q_rot", "q_mean", "q_sigma", "k_rot", "k_mean", "k_sigma")


def _held(when: Callable[..., bool], *lost: int) -> Callable[..., Values]:
    """The gradient of some operands (all, unless named) does not come back."""
    chosen = lost or range(6)

    def wrong(right: Any, *pair: Tensor) -> Values:
        if not when(*pair):
            return right(*pair)
        return right(*(x.detach() if k in chosen else x for k, x in enumerate(pair)))

    return wrong


def _wanted(*pair: Tensor) -> tuple[bool, ...]:
    return tuple(torch.is_grad_enabled() and x.requires_grad for x in pair)


def _alone(operand: int) -> Callable[..., bool]:
    return lambda *pair: _wanted(*pair) == tuple(k == operand for k in range(6))


def _beyond(kappa: float) -> Callable[..., Values]:
    """In float32 the gradient of dist_sq is a tenth too large where κ is beyond."""

    def wrong(right: Any, *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        far = condition(pair[2].detach(), pair[5].detach()) > kappa
        factor = torch.where(far, 1.1 if dist_sq.dtype == torch.float32 else 1.0, 1.0).to(dist_sq.dtype)
        return graded(dist_sq, factor), log_det

    return wrong


def _where(chosen: Callable[..., Tensor], *operands: int) -> Callable[..., Values]:
    """Pairs that are `chosen` give the operands no gradient."""

    def wrong(right: Any, *pair: Tensor) -> Values:
        drop = chosen(*(x.detach() for x in pair))
        still = right(*(x.detach() if k in operands else x for k, x in enumerate(pair)))
        return tuple(torch.where(drop, a, b) for a, b in zip(still, right(*pair), strict=True))  # pyright: ignore[reportReturnType]

    return wrong


def _frames_equal(*pair: Tensor) -> Tensor:
    return (pair[0] == pair[3]).flatten(-2).all(-1)


def _means_equal(*pair: Tensor) -> Tensor:
    return (pair[1] == pair[4]).all(-1)


def _spheres(*pair: Tensor) -> Tensor:
    return (pair[2] == pair[2][..., :1]).all(-1)


def _late(*pair: Tensor) -> Tensor:
    return (torch.arange(number(*pair)) >= 256).view(pairs_shape(*pair))


def _judged(judge: Callable[..., Any]) -> Callable[..., Values]:
    def wrong(right: Any, *pair: Tensor) -> Values:
        answers = right(*pair)
        return Both.apply(*answers, judge) if plain(*pair) and recording(*pair) else answers  # pyright: ignore[reportReturnType]

    return wrong


def _ruled(rule: Callable[[], Callable[[Tensor], Tensor]]) -> Callable[..., Values]:
    """The gradient of dist_sq goes through a rule, made for each call."""

    def wrong(right: Any, *pair: Tensor) -> Values:
        dist_sq, log_det = right(*pair)
        if plain(*pair) and recording(dist_sq):
            dist_sq = Passed.apply(dist_sq, rule())
        return dist_sq, log_det  # pyright: ignore[reportReturnType]

    return wrong


def _first_number(g: Tensor) -> Tensor:
    """An expanded gradient, that of a sum, holds one number: what follows in memory is not it."""
    if g.numel() < 2 or any(g.stride()):
        return g
    dense = torch.zeros_like(g, memory_format=torch.contiguous_format)
    dense.view(-1)[0] = g.flatten()[0]
    return dense


def _tangent_of_sigma(right: Any, *pair: Tensor) -> Values:
    """torch.func.jvp, which wraps its operands, drops the tangents of σ."""
    if plain(*pair) or not moving(*pair):
        return right(*pair)
    still = [x.detach() if k in (2, 5) else x for k, x in enumerate(pair)]
    return right(*still)


class _Kept(torch.autograd.Function):
    """Its operands are kept as they lie in memory, and the way back computes from what stands there by then."""

    @staticmethod
    def forward(ctx: Any, right: Any, *pair: Tensor) -> Any:
        ctx.right, ctx.pair = right, [x.detach() for x in pair]
        return tuple(x.clone() for x in right(*ctx.pair))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        leaves = [x.detach().requires_grad_() for x in ctx.pair]
        with torch.enable_grad():
            values = ctx.right(*leaves)
        return None, *torch.autograd.grad(values, leaves, gradients, allow_unused=True)


def _by_then(right: Any, *pair: Tensor) -> Values:
    return _Kept.apply(right, *pair) if plain(*pair) and recording(*pair) and not in_backward() else right(*pair)  # pyright: ignore[reportReturnType]


def _once() -> Callable[[Tensor], Tensor]:
    """What was kept for the backward pass is changed in place by the first one."""
    calls = itertools.count()
    return lambda g: g if next(calls) == 0 else 0.5 * g


def _one_number(g: Tensor) -> Tensor:
    """A gradient without a first stride is taken for that of a sum: one number for all."""
    return g.flatten()[0].expand(g.shape).contiguous() if g.numel() and g.ndim and g.stride(0) == 0 else g


def _first_derivative_only(right: Any, *pair: Tensor) -> Values:
    return _ruled(lambda: lambda g: g.detach())(right, *pair)


def _constant_at_equal_means(right: Any, *pair: Tensor) -> Values:
    """An early answer: the value and its first derivative are those of the formula, the second is not."""
    dist_sq, log_det = right(*pair)
    return torch.where((pair[1] == pair[4]).all(-1), torch.zeros_like(dist_sq), dist_sq), log_det


def _float32_alone(slip: Callable[..., Values], name: str, region: str) -> Fault:
    """A slip of a function that claims float32 alone, so that no check can ask for more."""

    def plant(clean: OverlapSubject, _: float) -> OverlapSubject:
        return replace(clean, name=name, dtypes=(torch.float32,), function=lambda *pair: slip(clean.function, *pair))

    return Fault(name, "gradients", plant, ("second_derivatives",), region=region)


FAULTS: tuple[Fault, ...] = overlap_slips(
    "gradients",
    [
        (
            "fixed means: no gradient to σ and frames",
            "neither mean requires a gradient",
            _held(lambda *pair: not (_wanted(*pair)[1] or _wanted(*pair)[4]), 0, 2, 3, 5),
        ),
        (
            "fixed keys: no gradient to the queries",
            "no operand of the keys requires a gradient",
            _held(lambda *pair: not any(_wanted(*pair)[3:]), 0, 1, 2),
        ),
        (
            "fixed queries: no gradient to the keys",
            "no operand of the queries requires a gradient",
            _held(lambda *pair: not any(_wanted(*pair)[:3]), 3, 4, 5),
        ),
        *(
            (f"{name} alone gets no gradient", f"only {name} requires one", _held(_alone(k), k))
            for k, name in enumerate(OPERANDS)
        ),
        (
            "σ that is a parameter counts as a constant",
            "operands that are torch.nn.Parameter",
            lambda right, *pair: right(*(x.detach() if isinstance(x, torch.nn.Parameter) else x for x in pair)),
        ),
        ("float32 gradients a tenth too large for needles", "κ > 10", _beyond(10.0), "gradient_values"),
        ("float32 gradients a tenth too large for long needles", "κ > 100", _beyond(100.0), "gradient_values"),
        (
            "equal frames get no turning gradient",
            "frames equal to the bit",
            _where(_frames_equal, 0, 3),
            "",
            "where frames are equal to the bit no derivative by a turn is judged",
        ),
        (
            "equal means get no gradient to σ",
            "means equal to the bit",
            _where(_means_equal, 2, 5),
            "",
            "where means are equal to the bit no derivative by σ is judged",
        ),
        ("spheres get no gradient to σ", "σ equal on all axes", _where(_spheres, 2), "gradient_values"),
        (
            "the gradient of the first block of pairs only",
            "pairs past the 256th",
            _where(_late, *range(6)),
            "gradient_values",
        ),
        (
            "a loss of log_det alone has no gradient",
            "dist_sq not used",
            _judged(lambda *both: both if both[0] is not None else (None, None)),
            "gradient_values",
        ),
        (
            "a loss of dist_sq alone has no gradient",
            "log_det not used",
            _judged(lambda *both: both if both[1] is not None else (None, None)),
            "gradient_values",
        ),
        (
            "an expanded gradient is read as a dense one",
            "the gradient of a plain sum",
            _ruled(lambda: _first_number),
            "gradient_values",
        ),
        (
            "a gradient expanded over rows is taken for that of a sum",
            "an answer [a, b] added up over a",
            _ruled(lambda: _one_number),
        ),
        ("forward-mode derivatives by σ are dropped", "torch.func.jvp, σ alone moves", _tangent_of_sigma),
        ("the gradient is that of what the inputs are by then", "changed before the way back", _by_then),
        ("a second backward pass has half the gradient", "retain_graph=True", _ruled(_once), "second_derivatives"),
        ("dist_sq of equal means is a constant", "equal means", _constant_at_equal_means, "second_derivatives"),
        ("the gradient has no gradient", "double backward", _first_derivative_only, "second_derivatives"),
    ],
) + (
    _float32_alone(_constant_at_equal_means, "float32 alone: dist_sq of equal means is a constant", "equal means"),
    _float32_alone(_first_derivative_only, "float32 alone: the gradient has no gradient", "double backward"),
)
