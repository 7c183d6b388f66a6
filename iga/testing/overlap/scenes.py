"""Scenes of an overlap function: operands of given leading shapes, the plain call of them, and its budgets.

The plain call takes every pair once, in one dense list without gaps: what a way gives is compared with that. Gradients
are those of Σ w dist_sq + w' log_det with weights of each pair's own size, so that near pairs count beside far ones;
an operand that several pairs share gets the sum of theirs. Of a gradient by a rotation the turn is compared,
R exp([ω]×): what it is off SO(3) is the algorithm's own.

Two calls are each within one budget of `budgets`, so their difference is within two. A sum of m gradients in the
operand's precision rounds by m u Σ|g|, where |g| is at most its budget over 2p κ u: m/2p budgets more for each call.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from iga import rotation
from iga._typing import Tensor
from iga.testing.judges import overlap as oracle
from iga.testing.overlap import budgets
from iga.testing.overlap.gradients import torque
from iga.testing.overlap.subject import OverlapSubject, Pair
from iga.testing.targets import TargetError
from iga.testing.ways import Answers, Inputs, Plain, Scene, plain_call

__all__ = ["CORES", "OPERANDS", "Assign", "Shapes", "Stage", "as_pair", "dense", "draw", "leading", "stage"]

OPERANDS = ("q_rot", "q_mean", "q_sigma", "k_rot", "k_mean", "k_sigma")
CORES = {name: 2 if name.endswith("rot") else 1 for name in OPERANDS}  # dimensions that are no pairs
SPREAD = 10.0  # largest κ: where the budgets are tightest
Shapes = tuple[tuple[int, ...], ...]  # leading, of the six operands
Assign = Callable[[Inputs], Pair]


def as_pair(inputs: Inputs) -> Pair:
    """The six operands in the order of a call."""
    return tuple(inputs[name] for name in OPERANDS)  # pyright: ignore[reportReturnType] - six of them


def leading(name: str, x: Tensor) -> torch.Size:
    """Of an operand the dimensions that count pairs."""
    return x.shape[: x.ndim - CORES[name]]


def draw(shapes: Shapes, sigma_range: tuple[float, float], dtype: torch.dtype, seed: int) -> dict[str, Tensor]:
    """Operands of the leading shapes: random frames, κ ≤ 10, means about three σ apart, as in crowded geometry."""
    generator = torch.Generator().manual_seed(seed)
    low, high = (math.log(x) for x in sigma_range)
    width = min(math.log(SPREAD), high - low)
    start = low + (high - low - width) * float(torch.rand((), generator=generator, dtype=torch.float64)) / 2
    size = math.exp(start + width / 2)
    inputs = {}
    for name, shape in zip(OPERANDS, shapes, strict=True):
        if name.endswith("rot"):
            x = rotation.random(math.prod(shape), generator=generator, dtype=torch.float64).view(*shape, 3, 3)
        elif name.endswith("mean"):
            x = 2 * size * torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
        else:
            x = (start + width * torch.rand(*shape, 3, generator=generator, dtype=torch.float64)).exp()
        inputs[name] = x.to(dtype)
    return inputs


def dense(pair: Pair) -> Pair:
    """The operands of every pair in one list [n, …], each in memory of its own."""
    named = dict(zip(OPERANDS, pair, strict=True))
    batch = torch.broadcast_shapes(*(leading(name, x) for name, x in named.items()))

    def listed(name: str, x: Tensor) -> Tensor:
        core = x.shape[x.ndim - CORES[name] :]
        return x.expand(*batch, *core).reshape(-1, *core).clone(memory_format=torch.contiguous_format)

    return tuple(listed(name, x) for name, x in named.items())  # pyright: ignore[reportReturnType]


@dataclass(frozen=True, eq=False)
class Stage:
    """A scene with its plain call, and whether that one's gradients are finite."""

    scene: Scene
    plain: Plain
    finite: bool


def stage(
    function: OverlapSubject,
    inputs: Inputs,
    other: Inputs,
    seed: int,
    assign: Assign = as_pair,
    *,
    gradients: bool = True,
) -> Stage:
    """The plain call of the operands that `assign` makes of the inputs; the scene's `call` takes them as they are.

    Answers have the pairs' shape. Raises TargetError for what the function cannot even do plainly.
    """
    shape = torch.broadcast_shapes(*(leading(n, x) for n, x in zip(OPERANDS, assign(inputs), strict=True)))
    gradients = gradients and not function.claims.inference_only

    def plainly(given: Inputs) -> Answers:
        dist_sq, log_det = function(*dense(assign(given)))
        return {"dist_sq": dist_sq.view(shape), "log_det": log_det.view(shape)}

    double = tuple(x.double() for x in dense(assign(inputs)))
    dist_sq, log_det = (x.view(shape) for x in oracle.overlap_reference(*double))
    kappa = oracle.condition(double[2], double[5]).view(shape)
    dtype = inputs[next(iter(inputs))].dtype
    weights = _weights(dist_sq, seed)
    names = tuple(inputs) if gradients else ()
    answers, slopes = plain_call(Scene(plainly, other, function.function), inputs, weights, names)
    allowed = budgets.value_budgets(dist_sq, log_det, kappa, dtype)
    limits = {name: 2 * limit for name, limit in allowed.items()}
    read = {name: partial(_turn, x.double()) for name, x in inputs.items() if x.shape[-2:] == (3, 3) and "rot" in name}
    bends = _bends(inputs, assign, weights, dist_sq, kappa, dtype)
    kinds = {name: x.dtype for name, x in answers.items()}

    def call(given: Inputs) -> Answers:
        dist_sq, log_det = function(*assign(given))
        values = {"dist_sq": dist_sq, "log_det": log_det}
        for name, value in values.items():
            if value.dtype != kinds[name]:
                raise TargetError(f"{name} is {value.dtype}, and {kinds[name]} in a plain call")
        return values

    scene = Scene(call, other, function.function, details=function)
    finite = all(bool(slope.isfinite().all()) for slope in slopes.values())
    return Stage(scene, Plain(inputs, answers, weights, slopes, limits, bends, read=read), finite)


def _turn(rot: Tensor, gradient: Tensor) -> Tensor:
    return torque(rot, gradient.double())


def _weights(dist_sq: Tensor, seed: int) -> Answers:
    """Of either sign, 0.5 to 1 in size; of dist_sq over itself, so that each term's gradient is of order 1."""
    generator = torch.Generator().manual_seed(seed)

    def some() -> Tensor:
        draws = torch.rand(2, *dist_sq.shape, generator=generator, dtype=torch.float64)
        return (0.5 + 0.5 * draws[0]) * torch.where(draws[1] < 0.5, -1.0, 1.0)

    return {"dist_sq": some() / dist_sq.clamp(min=1e-2), "log_det": some()}


def _bends(
    inputs: Inputs, assign: Assign, weights: Answers, dist_sq: Tensor, kappa: Tensor, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The budgets of gradients by the inputs: those of each pair, led back to the inputs as gradients are, all with +.

    They are the derivative, by the inputs, of a form that is linear in the operands and whose slopes are the budgets.
    """
    leaves = {name: x.detach().double().requires_grad_(True) for name, x in inputs.items()}
    pair = dict(zip(OPERANDS, dense(assign(leaves)), strict=True))
    sigmas = {"q": pair["q_sigma"].detach(), "k": pair["k_sigma"].detach()}
    smallest = torch.minimum(sigmas["q"].amin(-1), sigmas["k"].amin(-1)).view(dist_sq.shape)
    each = budgets.gradient_budgets(dist_sq, kappa, smallest, dtype)
    total = torch.zeros((), dtype=torch.float64)
    for name, x in pair.items():
        by = {"rot": "rotation", "mean": "mean", "sigma": "log sigma"}[name[2:]]
        allowed = sum(weights[value].abs() * each[f"{value} by {by}"] for value in ("dist_sq", "log_det"))
        assert isinstance(allowed, Tensor)
        allowed = allowed.reshape(-1, *(1,) * CORES[name]).expand(x.shape)
        total = total + (x * (allowed / sigmas[name[0]] if name.endswith("sigma") else allowed)).sum()
    found = torch.autograd.grad(total, list(leaves.values()))
    bends = {}
    for (name, x), bend in zip(inputs.items(), found, strict=True):
        shared = dist_sq.numel() / max(math.prod(x.shape[: x.ndim - (2 if "rot" in name else 1)]), 1)
        several = 2 * (1 + max(shared, 1.0) / (2 * budgets.BACKWARD))
        # of a rotation the three components of its turn are compared; each of its nine numbers has their budget
        bends[name] = several * (bend.amax(dim=-1) if x.shape[-2:] == (3, 3) and "rot" in name else bend)
    return bends
