"""Layers that a layer has to equal with the same weights: found by name, and their parameters paired.

"iga:PRESET"        this package's layer, "ipa" its InvariantPointAttention: from the formulas (`judges.layers`)
"file.py:factory"   somebody's; a path is taken from the folder of the target's file
"package.module:factory", or the factory itself: called as the target's is
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from iga._typing import Tensor
from iga.presets import IGAConfig, preset
from iga.testing.contract import Contract
from iga.testing.judges.layers import DefinedGaussianAttention, DefinedPointAttention
from iga.testing.layer.cases import LOG_SCALE_ROOM, Case
from iga.testing.targets import Target, load_target

__all__ = ["Reference", "Unpaired", "find_reference", "paired", "parameters_of"]

LISTED = 8  # parameters that a message names


class Unpaired(ValueError):
    """A layer and its reference have not the same parameters: the layer is not the one that it is said to equal."""


@dataclass(frozen=True)
class Reference:
    """What a layer has to equal with the same weights.

    factory   builds it: factory(*, c_s, …, no_v_points) → Module
    names     its parameter → that of the accused
    defined   whether it is of `judges.layers`
    textbook  the config of a layer that builds the covariance and factors it, which errs by κ times more
    odd       what is wrong where parameters do not pair: there is nothing to compare, and that is what is broken
    """

    name: str
    factory: Callable[..., nn.Module]
    names: Mapping[str, str] = field(default_factory=dict)
    defined: bool = False
    textbook: IGAConfig | None = None
    odd: str = ""

    def condition(self, case: Case, contract: Contract) -> float:
        """κ of the widest pair that there can be: each scale moved by its largest d, within floor and ceiling.

        Those of the contract; of the textbook form its own, and its jitter is part of the covariance.
        """
        low, high, jitter = contract.sigma_min, contract.sigma_max, 0.0
        if self.textbook is not None:
            low, high, jitter = self.textbook.sigma_min, self.textbook.sigma_max or math.inf, self.textbook.jitter
        scales = case.rigid.log_scale.double()[case.mask]
        ends = (scales.amax() + LOG_SCALE_ROOM, scales.amin() - LOG_SCALE_ROOM)
        largest, smallest = (end.exp().clamp(min=low, max=high).square() + jitter for end in ends)
        return float((largest / smallest).sqrt())

    @torch.no_grad()
    def take(self, layer: nn.Module, accused: nn.Module) -> nn.Module:
        """`layer`, built by the factory, with the accused's parameters, and its buffers of the same name, in place."""
        given = parameters_of(accused)
        for name, parameter in parameters_of(layer).items():
            parameter.copy_(given[self.names[name]])
        buffers = dict(accused.named_buffers())
        for name, buffer in layer.named_buffers():
            if name in buffers and buffers[name].shape == buffer.shape:
                buffer.copy_(buffers[name])
        return layer


def parameters_of(layer: nn.Module) -> dict[str, nn.Parameter]:
    """All names, two of a parameter that stands in two places: a reference may have one in each."""
    return dict(layer.named_parameters(remove_duplicate=False))


def find_reference(claim: Any, place: str | None = None) -> Reference:
    """The reference that a target claims, its parameters not yet paired. Raises ValueError for none.

    `place` is where the target was loaded from: files are looked for in its folder.
    """
    if claim == "ipa":
        return Reference("ipa", DefinedPointAttention, defined=True)
    if isinstance(claim, str) and claim.startswith("iga:"):
        config = preset(claim.removeprefix("iga:"))
        textbook = config if config.form == "textbook" else None
        factory = partial(DefinedGaussianAttention, config=config)
        return Reference(claim, factory, defined=True, textbook=textbook)
    if not isinstance(claim, str):
        return Reference(getattr(claim, "__qualname__", type(claim).__name__), _function(claim))
    if ":" not in claim:
        raise ValueError(f'reference {claim!r} must be "ipa", "iga:PRESET", "file.py:factory" or a factory')
    file, _, attribute = claim.rpartition(":")
    beside = place.rpartition(":")[0] if place else ""
    if file.endswith(".py") and beside.endswith(".py"):
        file = os.fspath(Path(beside).parent / file)
    try:
        return Reference(claim, load_target(f"{file}:{attribute}", kind="layer").function)
    except ValueError as error:
        raise ValueError(f"reference {claim!r}: {error}") from error


def paired(reference: Mapping[str, Tensor], accused: Mapping[str, Tensor]) -> dict[str, str]:
    """Parameter of the reference → parameter of the accused, each with its one partner of the same shape.

    By name, apart from a prefix that all have (a layer inside a module) and parts called "linear" (a projection inside
    a module); what has no partner then, by a shape that occurs once on either side. Raises Unpaired, one line, with
    what has none.
    """
    there, here = _spelled(reference), _spelled(accused)
    found = {there[name]: here[name] for name in there if name in here}
    odd = [f"{a} is {list(reference[a].shape)} there and {list(accused[b].shape)} here" for a, b in found.items()]
    odd = [words for words, (a, b) in zip(odd, found.items(), strict=True) if reference[a].shape != accused[b].shape]
    taken = set(found.values())
    left = {name: x for name, x in reference.items() if name not in found}
    free = {name: x for name, x in accused.items() if name not in taken}
    shapes, own = (Counter(tuple(x.shape) for x in some.values()) for some in (left, free))
    for name, x in list(left.items()):
        shape = tuple(x.shape)
        if shapes[shape] == own[shape] == 1:
            found[name] = next(other for other, y in free.items() if tuple(y.shape) == shape)
            del left[name], free[found[name]]
    lacking = [f"the layer lacks {_listed(left)}"] * bool(left) + [f"the reference lacks {_listed(free)}"] * bool(free)
    if odd or lacking:
        raise Unpaired("; ".join([*odd, *lacking]) + ": give parameters that correspond the same names")
    return found


def _spelled(parameters: Mapping[str, Tensor]) -> dict[str, str]:
    """Name without what all share in front and without "linear" → name; the whole name where that is not unique."""
    parts = {name: name.split(".") for name in parameters}
    shared = len(os.path.commonprefix([some[:-1] for some in parts.values()])) if parts else 0
    short = {name: ".".join(part for part in some[shared:] if part != "linear") for name, some in parts.items()}
    times = Counter(short.values())
    return {short[name] if times[short[name]] == 1 else name: name for name in parameters}


def _listed(parameters: Mapping[str, Tensor]) -> str:
    words = [f"{name} {list(x.shape)}" for name, x in parameters.items()]
    return ", ".join(words[:LISTED]) + (f" and {len(words) - LISTED} more" if len(words) > LISTED else "")


def _function(claim: Any) -> Callable[..., nn.Module]:
    """The factory itself, of a Target too."""
    return claim.function if isinstance(claim, Target) else claim
