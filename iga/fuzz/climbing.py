"""The climb by gradient up the error of the accused; any check's value over limit is climbed by `iga.search.climb`.

What has no branch, a bump or a wrong constant, shows only as error. In float64 its tail is visible long before it is
over any budget, several widths away: there the logarithm of the error is climbed by Adam, where the accused is
differentiable and takes float64. The climb by mutation works for every check, whatever
the accused.
"""

from collections.abc import Callable
from typing import Any

import torch

from iga._typing import Float, Tensor
from iga.search.pair_space import PairSpace
from iga.testing.judges.overlap import condition, overlap_reference

__all__ = ["climb_error"]

RATES = (0.05, 0.002)  # of Adam: from the first step to the last


def climb_error(
    function: Callable[..., Any], space: PairSpace, genome: Float[Tensor, "n genes"], steps: int
) -> Float[Tensor, "n genes"]:
    """The genomes where the float64 error, in units of what rounding explains, was largest on the way up its slope."""
    genome = genome.clone()
    best, top = genome.clone(), torch.full((len(genome),), -torch.inf, dtype=torch.float64)
    first, second = torch.zeros_like(genome), torch.zeros_like(genome)
    for step in range(steps):
        numbers = genome.requires_grad_(True)
        with torch.enable_grad():
            error = _error(function, space.decode(numbers, torch.float64))
        now = error.detach().nan_to_num(nan=torch.inf)
        better = now > top
        best = torch.where(better[:, None], genome.detach(), best)
        top = torch.where(better, now, top)
        if not error.requires_grad:
            break
        (slope,) = torch.autograd.grad(error.sum(), numbers)
        slope = slope.nan_to_num(0.0, 0.0, 0.0)
        first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope.square()
        rate = RATES[0] * (RATES[1] / RATES[0]) ** (step / max(steps - 1, 1))
        step_size = first / (1 - 0.9 ** (step + 1)) / ((second / (1 - 0.99 ** (step + 1))).sqrt() + 1e-12)
        genome = space.confined(genome.detach() + rate * step_size)
    return best


def _error(function: Callable[..., Any], pair: Any) -> Tensor:
    """ln of the larger error of the two values over κ² 2⁻⁵³, a size that any correct form in float64 is allowed."""
    values, right = function(*(x.clone() for x in pair)), overlap_reference(*pair)
    size = condition(pair[2], pair[5]).detach().square() * 2.0**-53
    relative = (values[0].double() - right[0]).abs() / right[0].detach().clamp(min=1e-30)
    absolute = (values[1].double() - right[1]).abs()
    return (torch.maximum(relative, absolute) / size + 1e-3).log()
