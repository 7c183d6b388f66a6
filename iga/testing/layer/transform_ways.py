"""Ways of calling a layer through torch's transforms: functional calls, vmap, vjp, compilers, export."""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch

from iga._typing import Tensor
from iga.gaussian import GaussianRigid
from iga.testing.layer.bridge import bridged
from iga.testing.layer.edits import redrawn, stacked
from iga.testing.layer.guards import rolled
from iga.testing.layer.scene import situation_of
from iga.testing.layer.state_ways import moved
from iga.testing.modes import quiet
from iga.testing.ways import THOROUGH, Answers, Inputs, Scene, Way

__all__ = ["COMPILERS", "EXPORT", "INDUCTOR", "TRACED", "TRANSFORMS"]


def _parameters(scene: Scene) -> dict[str, Tensor]:
    return dict(situation_of(scene).layer.named_parameters())


def _functional(scene: Scene, inputs: Inputs) -> Answers:
    """A copy with other parameters, called with those of the layer."""
    here = situation_of(scene)
    args, options = here.arguments(here.case_of(inputs))
    other = moved(copy.deepcopy(here.layer))
    return {"output": torch.func.functional_call(other, _parameters(scene), args, options)}


def _mapped(scene: Scene, inputs: Inputs) -> Answers:
    """vmap over the sample and another."""
    here = situation_of(scene)
    case = here.case_of(inputs)
    (s, z, rigid, mask), options = here.arguments(stacked([case, redrawn(rolled(case), here.seed + 1)]))
    parameters = _parameters(scene) | dict(here.layer.named_buffers())

    def one(s: Tensor, z: Any, rigid: GaussianRigid, mask: Tensor, options: dict[str, Tensor]) -> Tensor:
        arguments = (s[None], None if z is None else z[None], rigid[None], mask[None])
        named = {name: value[None] for name, value in options.items()}
        return torch.func.functional_call(here.layer, parameters, arguments, named)[0]

    dims = (0, None if z is None else 0, 0, 0, 0)
    return {"output": torch.func.vmap(one, in_dims=dims)(s, z, rigid, mask, options)[:1]}


def _pulled_back(scene: Scene, inputs: Inputs) -> Answers:
    """torch.func.vjp by inputs and parameters."""
    here, own = situation_of(scene), {name: x.detach() for name, x in inputs.items()}
    parameters = {name: x.detach() for name, x in _parameters(scene).items()}

    def function(own: dict[str, Tensor], parameters: dict[str, Tensor]) -> Tensor:
        args, options = here.arguments(here.case_of(own))
        return torch.func.functional_call(here.layer, parameters, args, options)

    output, back = cast(tuple[Tensor, Callable[[Tensor], Any]], torch.func.vjp(function, own, parameters))

    def gradients(gradient: Tensor) -> Sequence[Tensor | None]:
        by_input, by_parameter = back(gradient)
        return [*by_input.values(), *(by_parameter[name.removeprefix("parameter ")] for name in scene.held)]

    return {"output": bridged(output, gradients, [*inputs.values(), *scene.held.values()])}


def _compiled(**how: Any) -> Callable[[Scene, Inputs], Answers]:
    """Called on another case of the shape first, as a loop over batches would."""

    def run(scene: Scene, inputs: Inputs) -> Answers:
        here = situation_of(scene)
        case = here.case_of(inputs)
        torch.compiler.reset()
        try:
            with quiet(), warnings.catch_warnings():
                # dynamo reads .grad of inputs that are no leaves
                warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
                compiled = torch.compile(here.layer, **how)
                args, options = here.arguments(redrawn(rolled(case), here.seed + 1))
                compiled(*args, **options)
                args, options = here.arguments(case)
                output = compiled(*args, **options)
        finally:
            torch.compiler.reset()
        return {"output": output}

    return run


def _exported(scene: Scene, inputs: Inputs) -> Answers:
    """Exported from another case of the shape."""
    here = situation_of(scene)
    case = here.case_of(inputs)
    with torch.no_grad(), quiet():
        args, options = here.arguments(redrawn(rolled(case), here.seed + 1))
        module = torch.export.export(here.layer, args, options).module()
        args, options = here.arguments(case)
        return {"output": module(*args, **options)}


TRANSFORMS: tuple[Way, ...] = (
    # A layer that checkpoints itself computes again with what parameters it has by then: it lacks all three.
    Way(name="functional_call", claim="functional", run=_functional, excused=("vmap",)),
    Way(name="vmap", claim="vmap", run=_mapped),
    Way(name="torch.func.vjp", claim="functional", run=_pulled_back, excused=("vmap",)),
)
# Python's part alone, in seconds: what a layer does otherwise while it is traced, forward and backward.
DYNAMO = Way(name="torch.compile, dynamo alone", claim="compile", run=_compiled(fullgraph=True, backend="eager"))
TRACED = Way(
    name="torch.compile, aot_eager",
    claim="compile",
    run=_compiled(fullgraph=True, backend="aot_eager"),
    profiles=THOROUGH,
)
# The default backend; its C++ takes half a minute of a layer, whatever its sizes.
INDUCTOR = Way(name="torch.compile", claim="compile", run=_compiled(), profiles=THOROUGH)
EXPORT = Way(name="torch.export", claim="export", run=_exported, gradients=False)
COMPILERS: tuple[Way, ...] = (DYNAMO, TRACED, INDUCTOR, EXPORT)
