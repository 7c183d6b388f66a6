"""The rounding budget of a layer's gradients, measured as that of its output. Derived in docs/theory.md, section 13.4.

    budget = (2p + n²) · u · (S + |g|)

S is the largest change of the gradient, per unit of error, when everything that enters errs by small amounts: features
and parameters, geometry, and origins in turn. Backward repeats the forward sums, 2p for p; the gradient of a parameter
adds up over n² pairs. Backward of one layer is one computation with one condition, whoever asks for it: the budget of a
case is measured once, and all ways of calling share it.

Of a gradient by rotations the part along the rotations is compared, a torque: off SO(3) two formulas of one score are
two functions (docs/theory.md, 15.1).
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from iga import bounds
from iga._typing import Tensor
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import cast, gradients, leaves, native
from iga.testing.layer.sensitivity import FEATURES, GEOMETRY, POSITION, shaken
from iga.testing.layer.subject import Subject

__all__ = ["Slopes", "all_gradients", "slopes", "torque"]

PROBES = 2


@dataclass(frozen=True, eq=False)
class Slopes:
    """Gradients by name, of inputs and of parameters, and the absolute budget of one evaluation of each.

    exact    in float64 where that is claimed, else in the native dtype; zeros where no path leads
    budgets  a number for each tensor; infinite where the gradient cancels altogether, as that of a bias which softmax
             does not see: what is left is the rounding of its terms, which nothing here measures
    """

    exact: dict[str, Tensor]
    budgets: dict[str, float]

    def able(self, name: str) -> bool:
        """Whether the budget is smaller than the gradient, so that a wrong one would show."""
        return self.budgets[name] < float(self.exact[name].abs().amax()) if self.exact[name].numel() else False


def all_gradients(
    subject: Subject, layer: nn.Module, case: Case, weights: Tensor | None, names: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """Gradients of Σ output · weights, or of Σ output² / 2, by every input and parameter; zeros where no path leads.

    Of rotations the torques.
    """
    leaf, inputs = leaves(case)
    wanted = inputs | {name: x for name, x in layer.named_parameters() if x.requires_grad}
    if not subject.pair_features:
        wanted.pop("z")
    output = subject.output(layer, leaf)
    loss = output.square().sum() / 2 if weights is None else (output * weights.to(case.s.dtype)).sum()
    found = gradients(loss, wanted)
    there = {name: torch.zeros_like(wanted[name]) if g is None else g.detach() for name, g in found.items()}
    return there | {"rotations": torque(case.rigid.rot, there["rotations"])}


def torque(rot: Tensor, gradient: Tensor) -> Tensor:
    """The derivative by ω at 0 of R(1 + [ω]×), [..., 3], from that by the nine entries of R, [..., 3, 3]."""
    a = (rot[..., :, :, None] * gradient[..., :, None, :]).sum(dim=-3)  # Rᵀ G
    return torch.stack([a[..., i, j] - a[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0))], dim=-1)


def slopes(subject: Subject, layer: nn.Module, case: Case, weights: Tensor | None, terms: int, seed: int) -> Slopes:
    """The gradients of Σ output · weights (None: of Σ output² / 2) with their budgets.

    Seven evaluations, of which six are of shaken inputs.
    """
    if torch.float64 in subject.dtypes:
        layer, case, step = copy.deepcopy(layer).double(), cast(case, torch.float64), 2.0**-24
    else:
        layer, case, step = copy.deepcopy(layer), cast(case, native(subject)), 2.0**-12
    u, n = bounds.unit_roundoff(native(subject)), case.s.shape[-2]
    exact = all_gradients(subject, layer, case, weights)
    near = [
        all_gradients(subject, *shaken(layer, case, step, what, seed + index), weights)
        for index in range(PROBES)
        for what in (FEATURES, GEOMETRY, POSITION)
    ]
    largest = max((_size(g) for g in exact.values()), default=0.0)
    rounded = (2 * terms + n * n) * u
    # what float64 leaves of a gradient that is 0 is far under u of the others; what float32 leaves is its rounding
    nothing = (u if torch.float64 in subject.dtypes else rounded) * largest

    def budget(name: str, gradient: Tensor) -> float:
        # exactly 0 by chance, it is not so beside; where no path leads it is 0 everywhere
        if 0 < max(_size(gradient), *(_size(other[name]) for other in near)) <= nothing:
            return math.inf
        change = max(_size(other[name] - gradient) for other in near) / step
        return rounded * (change + _size(gradient))

    return Slopes(exact, {name: budget(name, gradient) for name, gradient in exact.items()})


def _size(x: Tensor) -> float:
    return float(x.abs().amax()) if x.numel() else 0.0
