"""A layer in one situation: what its ways of calling may need, and its plain call with the budgets of both comparisons.

The budget of an output is twice that of one evaluation (`sensitivity`), that of a gradient twice one's own (`slopes`).
The plain call itself is judged against float64, within one budget and what float64 rounds.
"""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from iga import bounds
from iga._typing import Tensor
from iga.testing.contract import Contract
from iga.testing.layer.cases import Case, perturbed_case
from iga.testing.layer.edits import cast, native, rebuilt, redrawn, tensors
from iga.testing.layer.guards import rolled
from iga.testing.layer.sensitivity import Sensitivity, sensitivity
from iga.testing.layer.slopes import Slopes, slopes, torque
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally
from iga.testing.ways import Inputs, Plain, Scene, plain_call

__all__ = ["Situation", "layer_scene", "plain_of", "situation_of"]

DEGENERATE = ("collapsed and coincident", "needles in nearly shared frames")


@dataclass(frozen=True, eq=False)
class Situation:
    """A layer and a case of one sample, as `Scene.details`.

    points, seed  that the layer was built with
    contract      what degenerate neighbours keep to
    """

    subject: Subject
    layer: nn.Module
    case: Case
    contract: Contract
    points: int
    seed: int

    def case_of(self, inputs: Inputs) -> Case:
        """The case with these numbers in place of its own; its mask if the size is its own, else all are valid."""
        s = inputs["s"]
        n = s.shape[-2]
        own = self.case.mask[0] if n == self.case.s.shape[-2] else torch.ones(n, dtype=torch.bool)
        return replace(rebuilt(self.case, dict(inputs)), mask=own.expand(s.shape[:-1]))

    def output(self, case: Case, layer: nn.Module | None = None) -> Tensor:
        """What the layer, or another in its place, gives for a case."""
        return self.subject.output(self.layer if layer is None else layer, case)

    def arguments(self, case: Case) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and named arguments of forward."""
        return self.subject.call(case), self.subject.inputs(case)

    @cached_property
    def neighbours(self) -> list[Case]:
        """What may lie beside the case in a batch: other features elsewhere, degenerate geometry, nothing valid."""
        plain = replace(self.case, mask=torch.ones_like(self.case.mask))
        found = [redrawn(rolled(plain), self.seed + 1)]
        found += [
            redrawn(perturbed_case(plain, name, self.contract, seed=self.seed), self.seed + 2) for name in DEGENERATE
        ]
        found[1] = replace(found[1], mask=torch.zeros_like(found[1].mask))  # a sample without a valid residue
        return [cast(one, native(self.subject)) for one in found]

    @cached_property
    def valid(self) -> Tensor:
        """Where outputs are judged, [1, n, 1]: what a layer gives at masked residues is its own affair."""
        return self.case.mask[..., None]


def situation_of(scene: Scene) -> Situation:
    """The situation of a layer's scene."""
    assert isinstance(scene.details, Situation)
    return scene.details


def layer_scene(here: Situation, other: Case) -> Scene:
    """The scene of a situation; `other` is a case of another size."""
    return Scene(
        call=lambda inputs: {"output": here.output(here.case_of(inputs))},
        other=_inputs(here.subject, other),
        accused=here.layer,
        details=here,
        held={f"parameter {name}": x for name, x in here.layer.named_parameters() if x.requires_grad},
    )


def plain_of(scene: Scene, tally: Tally, where: str) -> tuple[Plain, Sensitivity]:
    """The plain call with its budgets, judged against float64 on the way; gradients unless it claims to have none."""
    here = situation_of(scene)
    subject, layer, case, dtype = here.subject, here.layer, here.case, native(here.subject)
    generator = torch.Generator().manual_seed(here.seed)
    weights = torch.randn(case.s.shape, generator=generator, dtype=torch.float64) * here.valid
    rounding = sensitivity(subject, layer, case, here.seed, tally)
    u = bounds.unit_roundoff(dtype)
    inputs = _inputs(subject, case)
    with_gradients = "gradients" not in subject.claims.lacking
    names = (*inputs, *scene.held) if with_gradients else ()
    found = slopes(subject, layer, case, weights, rounding.terms, here.seed) if with_gradients else Slopes({}, {})
    answers, gradients = plain_call(scene, inputs, {"output": weights}, names)
    read = {"rotations": partial(torque, inputs["rotations"])}

    own = rounding.budget(u)
    exact = {name: found.exact[name.removeprefix("parameter ")] for name in names}
    budgets = {name: found.budgets[name.removeprefix("parameter ")] for name in names}
    if torch.float64 in subject.dtypes and dtype != torch.float64:
        valid = here.valid[..., 0]
        error = (answers["output"].double() - rounding.output)[valid].abs() / own[valid]
        able = own[valid] < rounding.output[valid].abs().amax()
        tally.add(error, 1.0, f"{where}, float32 against float64: value", could_fail=able)
        for name in names:
            if gradients[name].numel():
                gradient = read[name](gradients[name]) if name in read else gradients[name]
                worst = (gradient.double() - exact[name]).abs().amax()
                able = found.able(name.removeprefix("parameter "))
                limit = max(budgets[name], 1e-300)
                tally.add(worst / limit, 1.0, f"{where}, float32 against float64: gradient of {name}", could_fail=able)
    plain = Plain(
        inputs,
        answers,
        {"output": weights},
        gradients,
        {"output": 2 * own},
        {name: torch.as_tensor(2 * budgets[name], dtype=torch.float64) for name in names},
        {"output": here.valid},
        read,
    )
    return plain, rounding


def _inputs(subject: Subject, case: Case) -> dict[str, Tensor]:
    return {name: x for name, x in tensors(case).items() if name != "z" or subject.pair_features}
