"""The judge of attention implementations: a dense float64 evaluation by QR, and how far rounding may move each result.

The reference shares no code with the implementations: overlaps by `overlap_reference` (QR of the 6×3 factor), softmax
and sums written out, gradients by autograd of that. The budget of every output and gradient is that of section 13 of
docs/theory.md: the same evaluation in float64 with every input turned by random signs of relative size s (rotations by
s radians) changes a result by s·S; a backward stable implementation with p roundings along its longest chain of sums
errs by at most p·u·(S + |result|). S scales with κ, and κ² where the conditioning does.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from iga import rotation
from iga._typing import Tensor
from iga.testing.judges.attention_problem import HALF, OUTPUTS, Problem
from iga.testing.judges.overlap import overlap_reference

__all__ = ["Expected", "Judged", "expected", "judge", "reference_attention"]

PROBES = 3
# Of the reference only: per pair and point, and a budget.
INNER = ("dist_sq", "log_det", "torque")
# p of docs/theory.md, 14: the roundings of any backward stable overlap.
OVERLAP_ROUNDINGS = 64
Attention = Callable[..., Any]


@dataclass(frozen=True)
class Judged:
    """One output or gradient: its largest error over its budget (NaN or inf count as inf), and whether the budget is
    smaller than the result somewhere, so that zeros in its place would have been noticed."""

    name: str
    ratio: float
    could_fail: bool


def reference_attention(problem: Problem, slope_error: float = 0.0) -> dict[str, Tensor]:
    """The outputs and row statistics of a float64 problem, differentiable, N² · H · P numbers and all.

    `slope_error` is added to the slope of the cap: 1 − tanh² of a rounded tanh errs by 2u however small it is.
    """
    t, config, mask = problem.tensors, problem.config, problem.mask
    dist_sq, log_det = overlap_reference(
        t["rot"][:, None, None, :, None],
        t["q_mean"][..., :, None, :],
        t["q_sigma"][..., :, None, :],
        t["rot"][:, None, None, None],
        t["k_mean"][..., None, :, :],
        t["k_sigma"][..., None, :, :],
    )
    clamped = log_det if config.log_det_min is None else log_det.clamp(min=config.log_det_min)
    if config.score == "student_t":
        score = -0.5 * (config.dof + 3) * torch.log1p(dist_sq / config.dof) - 0.5 * clamped
    else:
        score = -0.5 * dist_sq - 0.5 * clamped
    points = score.shape[2]
    share = {"sum": 1.0, "rsqrt": points**-0.5, "mean": 1.0 / points}[config.point_scaling]
    weight = torch.log1p(torch.exp(t["geo_scale"]))[None, :] * share / config.temperature
    if "gate" in t:
        weight = weight * t["gate"][:, None]
    geo = weight[..., None, None] * score.sum(2)
    if config.logit_cap is not None:
        geo = config.logit_cap * torch.tanh(geo / config.logit_cap) + slope_error * (geo - geo.detach())
    logits = torch.einsum("bhqc,bhkc->bhqk", t["q"], t["k"]) / t["q"].shape[-1] ** 0.5 + geo
    logits = logits + t["geo_bias"][None, :, None, None]
    if "bias" in t:
        logits = logits + t["bias"]
    if "z" in t and "z_weight" in t:
        logits = logits + torch.einsum("bqkz,hz->bhqk", t["z"], t["z_weight"])
    valid = (mask[:, :, None] & mask[:, None, :])[:, None].expand_as(logits)
    top = logits.detach().masked_fill(~valid, -1e300).amax(-1, keepdim=True)
    raised = torch.where(valid, torch.exp(torch.where(valid, logits - top, torch.zeros_like(logits))), 0.0)
    total = raised.sum(-1, keepdim=True)
    some = total > 0
    attention = raised / torch.where(some, total, torch.ones_like(total))
    world = torch.einsum("bnxy,bhnpy->bhnpx", t["rot"], t["value_points"]) + t["trans"][:, None, :, None]
    relative = world[:, :, None] - t["trans"][:, None, :, None, None]  # [b, h, q, k, pv, 3]
    points_out = torch.einsum("bqyx,bhqk,bhqkpy->bhqpx", t["rot"], attention, relative)
    found = {
        "values": torch.einsum("bhqk,bhkc->bhqc", attention, t["v"]),
        "points": points_out,
        "lse": torch.where(some, torch.where(some, total, torch.ones_like(total)).log() + top, -torch.inf)[..., 0],
    }
    if "z" in t:
        found["pair"] = torch.einsum("bhqk,bqkz->bhqz", attention, t["z"])
    found |= {"dist_sq": dist_sq, "log_det": log_det}
    infinite = torch.full_like(log_det, torch.inf)
    found["geo_absmax"] = torch.where(valid, geo.abs(), torch.zeros_like(geo)).amax(-1)
    found["log_det_min"] = torch.where(valid[:, :, None], log_det, infinite).amin((2, -1))
    found["weight_max"] = attention.amax(-1)
    return found


@dataclass(frozen=True, eq=False)
class Expected:
    """The reference on a problem: values by name, what a relative error of 1 may change of each, and torques."""

    exact: dict[str, Tensor]
    change: dict[str, Tensor]
    torque: Tensor | None


def expected(problem: Problem, *, gradients: bool = True, seed: int = 0) -> Expected:
    """What is right on `problem`, whoever is judged: make it once for several."""
    outputs, slopes = _evaluate(_doubled(problem), gradients)
    exact = {name: value for name, value in (outputs | slopes).items() if name not in INNER}
    budget = {name: torch.zeros_like(value) for name, value in exact.items()}
    # float64 results are judged by steps that float64 can still resolve
    u = torch.finfo(problem.tensors["rot"].dtype).eps / 2
    step = max(u, 2.0**-30)
    for index in range(PROBES):
        moved = {}
        shaken = _shaken(_doubled(problem), step, seed + index)
        for part in _evaluate(shaken, gradients, error=2 * step):
            moved |= part
        for name, value in exact.items():
            change = _finite(moved[name] - value).abs() / step
            budget[name] = torch.maximum(budget[name], _spread(change))
    return Expected(exact, budget, slopes.get("torque"))


def judge(
    problem: Problem,
    attention: Attention,
    *,
    device: str = "cpu",
    gradients: bool = True,
    seed: int = 0,
    right: Expected | None = None,
) -> list[Judged]:
    """Every output, row statistic and gradient of `attention` on `problem` as it is, against the reference.

    attention    called as `iga.kernels.gaussian_attention` is, with statistics=True
    right        `expected` of this problem, where it is known already
    """
    right = expected(problem, gradients=gradients, seed=seed) if right is None else right
    u = torch.finfo(problem.tensors["rot"].dtype).eps / 2
    terms = _chain(problem)
    given = replace(
        problem, tensors={n: t.to(device) for n, t in problem.tensors.items()}, mask=problem.mask.to(device)
    )
    found = _found(given, attention, gradients)
    smallest = torch.finfo(problem.tensors["rot"].dtype).tiny
    judged = []
    for name, value in right.exact.items():
        # What underflows errs by the smallest normal number in place of u times itself.
        underflow = smallest * max(1.0, float(_finite(value).abs().amax()))
        allowed = terms * (u * (right.change[name] + _finite(value).abs()) + underflow)
        if name == "d_rot" and right.torque is not None:
            allowed = allowed + u * right.torque
        judged.append(_judged(name, found[name].double().cpu(), value, allowed, _out_eps(problem, name)))
    return judged


def _judged(name: str, got: Tensor, exact: Tensor, budget: Tensor, rounding: float) -> Judged:
    if got.shape != exact.shape:
        return Judged(name, float("inf"), True)
    same = (got == exact) | (~exact.isfinite() & (got == exact))
    allowed = budget + rounding * exact.abs()
    ratio = torch.where(same, 0.0, (got - exact).abs() / allowed).nan_to_num(nan=torch.inf)
    size = _finite(exact).abs()
    return Judged(name, float(ratio.amax()), bool((allowed < size).any()))


def _out_eps(problem: Problem, name: str) -> float:
    """The rounding of a result that leaves in half precision."""
    source = "v" if name == "values" else name.removeprefix("d_")
    if source in HALF and source in problem.tensors:
        dtype = problem.tensors[source].dtype
        return torch.finfo(dtype).eps if dtype in (torch.float16, torch.bfloat16) else 0.0
    return 0.0


def _doubled(problem: Problem) -> Problem:
    """In float64 what stands behind the mask is of no account: zeros, so that NaN there cannot reach the judge."""
    doubled = problem.to(torch.float64)
    mask, tensors = problem.mask, dict(doubled.tensors)
    pair = mask[:, :, None] & mask[:, None, :]
    for name, t in tensors.items():
        keep = None
        if name in ("q", "k", "v"):
            keep = mask[:, None, :, None]
        elif name == "value_points" or name.endswith("_mean"):
            keep = mask[:, None, :, None, None] if name == "value_points" else mask[:, None, None, :, None]
        elif name == "trans":
            keep = mask[..., None]
        elif name == "bias":
            keep = pair[:, None]
        elif name == "z":
            keep = pair[..., None]
        if keep is not None:
            tensors[name] = torch.where(keep, t, 0.0)
        elif name == "rot":
            tensors[name] = torch.where(mask[..., None, None], t, torch.eye(3, dtype=t.dtype))
        elif name.endswith("_sigma"):
            tensors[name] = torch.where(mask[:, None, None, :, None], t, 1.0)
    return replace(doubled, tensors=tensors)


def _evaluate(problem: Problem, gradients: bool, error: float = 0.0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    p = problem.leaves() if gradients else problem
    outputs = reference_attention(p, slope_error=error)
    plain = {name: value.detach() for name, value in outputs.items()}
    return plain, _slopes(p, outputs, error) if gradients else {}


def _found(problem: Problem, attention: Attention, gradients: bool) -> dict[str, Tensor]:
    p = problem.leaves() if gradients else problem
    attended = p.call(attention, statistics=True)
    outputs = {name: getattr(attended, name) for name in OUTPUTS if getattr(attended, name) is not None}
    found = {name: value.detach() for name, value in outputs.items()}
    assert attended.statistics is not None
    found |= attended.statistics._asdict()
    return found | (_slopes(p, outputs) if gradients else {})


def _slopes(problem: Problem, outputs: dict[str, Tensor], error: float = 0.0) -> dict[str, Tensor]:
    """dLoss/d each tensor, Loss = Σ ⟨cotangent, output⟩ over finite outputs; rotations along the tangent.

    The gradient of a logit is a (∂out·value − Δ), where both terms may cancel: `error` · Σ |∂out · out| is added to Δ,
    which is what a cotangent of lse does.
    """
    some = problem.mask & problem.mask.any(-1, keepdim=True)
    loss = torch.zeros((), dtype=torch.float64, device=problem.mask.device)
    for name in OUTPUTS:
        if name in outputs:
            value = outputs[name]
            kept = some[:, None].reshape(*some.shape[:1], 1, -1, *(1,) * (value.ndim - 3))
            safe = torch.where(kept, value, torch.zeros_like(value))
            cotangent = problem.cotangent(name, value.detach().cpu()).to(value)
            loss = loss + (cotangent * safe).double().sum()
            if error and name != "lse":
                far = problem.tensors["trans"].detach().abs().amax() if name == "points" else 0.0
                size = (cotangent.abs() * (safe.detach().abs() + far)).flatten(3).sum(-1)
                lse = torch.where(some[:, None], outputs["lse"], torch.zeros_like(outputs["lse"]))
                loss = loss + error * (size * lse).sum()
    named = list(problem.tensors)
    found = torch.autograd.grad(loss, [problem.tensors[name] for name in named], retain_graph=True)
    slopes = {f"d_{name}": value for name, value in zip(named, found, strict=True)}
    rot = problem.tensors["rot"].detach().double()
    rot = torch.where(problem.mask[..., None, None], rot, torch.zeros_like(rot))
    turned = (rot[..., :, :, None] * slopes["d_rot"].double()[..., :, None, :]).sum(-3)  # Rᵀ dR
    slopes["d_rot"] = torch.stack([turned[..., a, b] - turned[..., b, a] for a, b in ((0, 1), (1, 2), (2, 0))], dim=-1)
    if "dist_sq" in outputs:
        slopes["torque"] = _torque_budget(problem, outputs, loss)
    return slopes


def _torque_budget(problem: Problem, outputs: dict[str, Tensor], loss: Tensor) -> Tensor:
    """What 14.2 allows a torque beside all else, in units of u: 4.1pκ² (|∂dist_sq| dist_sq + |∂log_det|) of every pair.

    A float32 matrix is a rotation but for u, and forms that are equal on SO(3) differ by κ² of that off it.
    """
    t = problem.tensors
    by_dist, by_log = torch.autograd.grad(loss, (outputs["dist_sq"], outputs["log_det"]))
    sigmas = t["q_sigma"].detach()[..., :, None, :], t["k_sigma"].detach()[..., None, :, :]
    highest = torch.maximum(sigmas[0].amax(-1), sigmas[1].amax(-1))
    kappa = highest / torch.minimum(sigmas[0].amin(-1), sigmas[1].amin(-1))
    size = by_dist.abs() * outputs["dist_sq"].detach() + by_log.abs()
    of_pairs = (4.1 * OVERLAP_ROUNDINGS * kappa.square() * size).sum((1, 2))
    return (of_pairs.sum(-1) + of_pairs.sum(-2))[..., None]


def _shaken(problem: Problem, size: float, seed: int) -> Problem:
    """Every number with a relative error of `size` and a random sign; rotations turned by `size` about each axis too.

    Means move relative to the centre of the structure, which is where the operator's callers have put the origin.
    """
    generator = torch.Generator().manual_seed(seed)

    def signs(shape: torch.Size) -> Tensor:
        return size * (2.0 * torch.randint(0, 2, shape, generator=generator).double() - 1.0)

    tensors = {name: t * (1 + signs(t.shape)) for name, t in problem.tensors.items()}
    turn = rotation.exp(signs(problem.tensors["trans"].shape))
    tensors["rot"] = rotation.multiply(tensors["rot"], turn)
    return replace(problem, tensors=tensors)


def _spread(change: Tensor) -> Tensor:
    """The largest change of each residue's row: single entries may stand still by chance."""
    return change.amax(dim=-1, keepdim=True).expand_as(change) if change.ndim else change


def _finite(x: Tensor) -> Tensor:
    return torch.where(x.isfinite(), x, torch.zeros_like(x))


def _chain(problem: Problem) -> int:
    """p: the sums of a logit, over points, of softmax and the values, and of a gradient over heads and rows."""
    t = problem.tensors
    _, heads, points, n, _ = t["q_mean"].shape
    return t["q"].shape[-1] + 3 * points + 3 * n + heads * points + (t["z"].shape[-1] if "z" in t else 0) + 64
