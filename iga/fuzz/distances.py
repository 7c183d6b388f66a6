"""Branch distances: how far each example is from the other side of a condition, as numbers with a gradient.

A condition on row r has a pair (to_true, to_false), each ≥ 0 and 0 exactly where the condition has that value. For a
comparison a > b with the margin m = (a − b)/(|a| + |b|) they are (max(0, −m), max(0, m)); conjunctions add the
distances to true and take the smaller of those to false; disjunctions the other way round (Tracey, Clark, Mander,
McDermid 1998; Fu and Su, PLDI 2017 and 2019).
"""

from dataclasses import dataclass

import torch

from iga._typing import Tensor

__all__ = ["Distances", "all_of", "any_of", "at_least", "both", "constant", "either", "equal", "negated"]

STEP = 1e-7  # past the boundary: at it a strict comparison has not changed sides


@dataclass(frozen=True, eq=False)
class Distances:
    """Shapes as the condition's."""

    to_true: Tensor
    to_false: Tensor

    def mapped(self, function) -> "Distances":  # noqa: ANN001 - any function of a tensor
        """The same function of both."""
        return Distances(function(self.to_true), function(self.to_false))


def margin(a: Tensor, b: Tensor) -> Tensor:
    """(a − b)/(|a| + |b|), in [−1, 1]; 0 where both are 0."""
    a, b = a.double(), b.double()
    size = (a.detach().abs() + b.detach().abs()).clamp(min=1e-30)
    return ((a - b) / size).nan_to_num(nan=0.0, posinf=1.0, neginf=-1.0)


def at_least(a: Tensor, b: Tensor, value: Tensor) -> Distances:
    """Of a > b or a ≥ b, which was `value`: the side taken has distance 0 even at the boundary."""
    m = margin(a, b)
    to_true = torch.where(value, 0.0 * m, (STEP - m).clamp(min=0.0))
    to_false = torch.where(value, (m + STEP).clamp(min=0.0), 0.0 * m)
    return Distances(to_true, to_false)


def equal(a: Tensor, b: Tensor, value: Tensor) -> Distances:
    """Of a = b: nearer is nearer, and one step leaves it."""
    m = margin(a, b).abs()
    return Distances(torch.where(value, 0.0 * m, m.clamp(min=1e-30)), torch.where(value, STEP + 0.0 * m, 0.0 * m))


def constant(value: Tensor) -> Distances:
    """Of a condition of which only the value is known: no gradient, and 1 away from the other side."""
    known = value.double()
    return Distances(1.0 - known, known)


def negated(x: Distances) -> Distances:
    return Distances(x.to_false, x.to_true)


def both(x: Distances, y: Distances) -> Distances:
    return Distances(x.to_true + y.to_true, torch.minimum(*torch.broadcast_tensors(x.to_false, y.to_false)))


def either(x: Distances, y: Distances) -> Distances:
    return negated(both(negated(x), negated(y)))


def all_of(x: Distances, dims: list[int], keepdim: bool = False) -> Distances:
    """The conjunction over dimensions."""
    if not dims:
        return x
    return Distances(x.to_true.sum(dims, keepdim=keepdim), x.to_false.amin(dims, keepdim=keepdim))


def any_of(x: Distances, dims: list[int], keepdim: bool = False) -> Distances:
    return negated(all_of(negated(x), dims, keepdim))
