"""Calls of the operator: its flat arguments, and as a function of three numbers with derivatives by differences."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from iga import rotation
from iga.kernels import gaussian_attention
from iga.testing.judges.attention_problem import Problem, random_problem

SIZE, OUTPUTS = 3, 4
Function = Callable[[torch.Tensor], torch.Tensor]


def by(implementation: str) -> Callable[..., Any]:
    """The attention by this implementation."""
    return partial(gaussian_attention, implementation=implementation)


def flat_arguments(
    *, grad: bool = True, bias: bool = True, z: bool = True, dtype: torch.dtype = torch.float32
) -> tuple:
    t = random_problem("bounded", seed=0, batch=1, residues=5, dtype=dtype).tensors
    points = t["value_points"].flatten(-2)
    given = [t["q"], t["k"], t["v"], points, t["trans"], t["rot"], t["q_mean"], t["q_sigma"], t["k_mean"], t["k_sigma"]]
    mask = torch.ones(1, 5, dtype=torch.bool)
    given += [mask, t["geo_scale"].exp()[None], t["geo_bias"], t["bias"] if bias else None]
    given += [t["z"] if z else None, t["z_weight"] if z else None]
    leaves = [x.clone().requires_grad_() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in given]
    return (*leaves, "student_t", 4.0, -8.0, 50.0, "cpu", True)


def call_of_three_numbers(
    implementation: str, dtype: torch.dtype = torch.float64, *, wants_gradients: bool = False
) -> Function:
    """f: [3] → [4]. Rotations turn, scales grow, everything else is shifted, each along three directions of its own;
    four weighted sums of all outputs come back. `wants_gradients`: the tensors moved are leaves, as parameters are."""
    problem = random_problem("bounded", seed=11, batch=1, residues=4, points=2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(12)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    directions = {
        name: 0.2 * normal(SIZE, *(t.shape[:-1] if name == "rot" else t.shape)) for name, t in problem.tensors.items()
    }
    base = {name: t.to(dtype).requires_grad_(wants_gradients) for name, t in problem.tensors.items()}
    weights: list[torch.Tensor] = []

    def f(x: torch.Tensor) -> torch.Tensor:
        moved = {}
        for name, t in base.items():
            step = torch.tensordot(x, directions[name], 1)
            if name == "rot":
                moved[name] = rotation.multiply(t, rotation.exp(step))
            else:
                moved[name] = t * step.exp() if name.endswith("sigma") else t + step
        out = Problem("moved", moved, problem.mask, problem.config).call(by(implementation))
        lse = torch.where(out.lse == -torch.inf, 0.0, out.lse)
        flat = torch.cat([part.flatten() for part in (out.values, out.points, out.pair, lse)])
        if not weights:
            weights.append(normal(OUTPUTS, flat.shape[-1]) / flat.shape[-1])
        return weights[0] @ flat

    f(torch.zeros(SIZE, dtype=dtype))
    return f


def differences(f: Function, x: torch.Tensor) -> tuple[torch.Tensor, float]:
    """(∂f/∂x [..., 3] by central differences in float64, the error of that).

    The error at h is a quarter of that at 2h: their difference is three times it. Rounding: a sum of under 10³ terms,
    u |f|, over h.
    """
    x, found = x.detach(), []
    for h in (2.0**-14, 2.0**-15):
        steps = h * torch.eye(SIZE, dtype=x.dtype)
        found.append(torch.stack([(f(x + step) - f(x - step)).detach() / (2 * h) for step in steps], dim=-1))
    rounding = 1e3 * 2.0**-53 * float(f(x).detach().abs().max()) * 2.0**15
    return found[1], float((found[0] - found[1]).abs().max()) + rounding
