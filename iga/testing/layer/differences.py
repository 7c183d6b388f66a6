"""Differences against which gradients are compared, and the kinks that spoil them.

Gradients at the kinks of a traced layer: the hard floor, the ceiling of log σ, the clamp of log_det.

A log scale is moved to where one Gaussian's σ meets the floor or the ceiling, or all of them together to where one
pair's log_det meets its clamp. There the function has two slopes, and autograd has to give one of them or something
between: nothing else is a derivative. A quarter of an e-fold to either side there is one slope, which autograd has to
give. Steps are short enough that no other kink of the trace lies within them.

Derivatives of a function of one number, by differences of its values, with a bound on their error.

    central    D(h) = (F(h) − F(−h))/2h          error c h² + O(h⁴)
    one-sided  D(h) = (F(h) − F(0))/h            error c h  + O(h²)

Richardson: R = (4 D(h/2) − D(h))/3, resp. 2 D(h/2) − D(h), drops the term in c, which |R − D(h/2)| measures. A kink
within a central step shows in the second difference B(h) = (F(h) − 2F(0) + F(−h))/h, which a smooth F halves with h, so
that B(h) − 2B(h/2) is O(h³). Three times the first plus the second bounds what one kink anywhere in (0, h) does to R
(docs/theory.md, 13.4). Each value errs by at most `noise`: 40 noise/h in all, one-sided 10 noise/h.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from iga import bounds
from iga._typing import Tensor
from iga.functional import Trace
from iga.presets import IGAConfig
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import gradients, leaves, rebuilt
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally

__all__ = ["central", "judge_kinks", "kinks", "one_sided", "roughness"]

CLAMP = "the log-det clamp"
STEPS = (2.0**-14, 2.0**-17, 2.0**-20)
ASIDE = 0.25  # e-folds
AT = (0, 1, 2)  # sample, residue, axis of the log scale that is moved
BISECTIONS = 46  # to 52/2⁴⁶ = 7·10⁻¹³, of the shortest step 10⁻⁶
LOWEST, HIGHEST = -40.0, 12.0  # what is added to log scales


def kinks(config: IGAConfig) -> dict[str, Callable[[Trace], Tensor]]:
    """Name → what grows with the log scales and has a kink where it is 0: for each Gaussian, or each pair."""
    found: dict[str, Callable[[Trace], Tensor]] = {}
    if config.floor == "hard":
        floor = math.log(config.sigma_min)
        found["the floor"] = lambda trace: _log_sigma(trace, config) - floor
    if config.sigma_max is not None:
        ceiling = math.log(config.sigma_max)
        found["the ceiling"] = lambda trace: _log_sigma(trace, config) - ceiling
    if config.log_det_min is not None:
        clamp = config.log_det_min
        found[CLAMP] = lambda trace: trace.log_det - clamp
    return found


def judge_kinks(
    subject: Subject, layer: nn.Module, case: Case, terms: int, seed: int, where: str, tally: Tally
) -> None:
    """Distance of autograd's derivative from the slope, or the interval of two, over the slopes' error; float64."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(case.s.shape, generator=generator, dtype=torch.float64)
    heights = kinks(subject.iga_config)
    for name, height in heights.items():
        direction = torch.ones_like(case.rigid.log_scale)
        if name != CLAMP:
            direction = torch.zeros_like(direction)
            direction[AT] = 1.0
        line = _Line(subject, layer, case, direction, weights, list(heights.values()))

        def target(x: float, line: _Line = line, height: Callable[[Trace], Tensor] = height) -> float:
            heights = height(line.trace(x))
            return float(heights[_target(heights)])

        with torch.no_grad():
            place = _root(target)
        if place is None:  # out of reach: a floor above a clamp, say
            continue
        noise = terms * bounds.unit_roundoff(torch.float64) * float(line.size(place))
        for label, x, crossings in (
            (f"at {name}", place, 1),
            (f"under {name}", place - ASIDE, 0),
            (f"over {name}", place + ASIDE, 0),
        ):
            step = next((h for h in STEPS if line.crossings(x - h, x + h) == crossings), None)
            if step is None:  # no step without another kink in it
                continue
            with torch.no_grad():
                f = line.around(x)
                sides = (
                    [one_sided(f, step, noise), one_sided(f, -step, noise)] if crossings else [central(f, step, noise)]
                )
            slopes = torch.stack([slope for slope, _ in sides])
            error = torch.stack([bound for _, bound in sides]).sum().clamp(min=1e-300)
            actual = line.autograd(x)
            outside = torch.relu(actual - slopes.amax()) + torch.relu(slopes.amin() - actual)
            could_fail = error < 0.1 * slopes.abs().amax()
            tally.add(outside / error, 1.0, f"{where}: gradient {label}", could_fail=could_fail)


@dataclass(frozen=True, eq=False)
class _Line:
    """The layer's projected output along `direction` in its log scales."""

    subject: Subject
    layer: nn.Module
    case: Case
    direction: Tensor
    weights: Tensor
    heights: list[Callable[[Trace], Tensor]]

    def at(self, x: float) -> Case:
        return rebuilt(self.case, {"log scales": self.case.rigid.log_scale + x * self.direction})

    def trace(self, x: float) -> Trace:
        return self.subject.trace(self.layer, self.at(x))

    def terms(self, x: float) -> Tensor:
        return self.subject.output(self.layer, self.at(x)) * self.weights

    def size(self, x: float) -> Tensor:
        return self.terms(x).detach().abs().sum()

    def around(self, x: float) -> Callable[[float], Tensor]:
        return lambda e: self.terms(x + e).sum()

    def autograd(self, x: float) -> Tensor:
        leaf, inputs = leaves(self.at(x), ("log scales",))
        value = (self.subject.output(self.layer, leaf) * self.weights).sum()
        gradient = gradients(value, inputs)["log scales"]
        return torch.zeros_like(value) if gradient is None else (gradient * self.direction).sum()

    def crossings(self, low: float, high: float) -> int:
        """How many kinks of the trace lie between two places."""
        with torch.no_grad():
            below, above = self.trace(low), self.trace(high)
            return sum(int(((of(below) < 0) != (of(above) < 0)).sum()) for of in self.heights)


def _log_sigma(trace: Trace, config: IGAConfig) -> Tensor:
    """log s + d of every Gaussian, queries and keys, before floor and ceiling: [2, *b, h, p, n, 3]."""
    change = torch.stack([trace.raw_query[1], trace.raw_key[1]]).tanh()
    return trace.rigid.log_scale[..., None, None, :, :] + config.log_scale_max * change


def _target(heights: Tensor) -> tuple[int, ...]:
    """The Gaussian that is moved to its kink, or the pair: queries' head 0, point 0."""
    _, residue, axis = AT
    if heights.ndim == 6:
        return (0, 0, 0, 0, residue, axis)
    return (0, 0, 0, residue, residue + 1)


def _root(height: Callable[[float], float]) -> float | None:
    """Where an increasing function crosses 0, to the last bits; None if it does not."""
    low, high = LOWEST, HIGHEST
    if not height(low) < 0 < height(high):
        return None
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if height(middle) < 0 else (low, middle)
    return high


def central(f: Callable[[float], Tensor], h: float, noise: Tensor | float) -> tuple[Tensor, Tensor]:
    """(dF/dx at 0, a bound on its error), entry by entry of what `f` returns, float64."""
    start, up, down, half_up, half_down = (f(x) for x in (0.0, h, -h, h / 2, -h / 2))
    whole, half = (up - down) / (2 * h), (half_up - half_down) / h
    best = (4 * half - whole) / 3
    bend = ((up - start) + (down - start)) / h - 4 * ((half_up - start) + (half_down - start)) / h
    return best, 3 * (best - half).abs() + bend.abs() + 40 * noise / h


def roughness(f: Callable[[float], Tensor], h: float, far: float, noise: Tensor | float) -> tuple[Tensor, Tensor]:
    """(|F(h) − 2F(0) + F(−h)|, a bound on it for a function with a kink or without, whose values err by `noise`).

    The bound is 8 noise + 2h|B(far)|, h ≪ far: a smooth F gives h²F'' = h (h/far) B(far), a kink at most h·B(far). A
    function that rounds its values to r gives r, far above it.
    """
    start = f(0.0)

    def bend(x: float) -> Tensor:
        return ((f(x) - start) + (f(-x) - start)).abs()

    return bend(h), 8 * noise + 2 * h * bend(far) / far


def one_sided(f: Callable[[float], Tensor], h: float, noise: Tensor | float) -> tuple[Tensor, Tensor]:
    """The same towards positive x (h > 0) or negative x (h < 0), where there is no kink."""
    start = f(0.0)
    whole, half = (f(h) - start) / h, 2 * (f(h / 2) - start) / h
    best = 2 * half - whole
    return best, (best - half).abs() + 10 * noise / abs(h)
