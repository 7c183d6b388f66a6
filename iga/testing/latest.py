"""The latest call of the accused, kept while findings are to be saved, so that a tally can take what broke it.

Nothing is kept otherwise, and of inputs only references are, until a tally takes copies. Calls inside a transform
(compile, vmap, functional derivatives) hold no numbers, and are passed over.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from iga._typing import Tensor

__all__ = ["Call", "built", "called", "keeping", "taken"]


@dataclass(frozen=True, eq=False)
class Call:
    """Inputs by name, and of a layer what builds it again."""

    kind: str
    inputs: dict[str, Tensor]
    layer: dict[str, Any] = field(default_factory=dict)


class _Memory:
    on = False
    call: Call | None = None
    layers: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - of the one memory there is


@contextmanager
def keeping(*, on: bool) -> Iterator[None]:
    """Within it calls are kept, if `on`; afterwards all is forgotten."""
    _Memory.on, _Memory.call, _Memory.layers = on, None, {}
    try:
        yield
    finally:
        _Memory.on, _Memory.call, _Memory.layers = False, None, {}


def built(name: str, facts: Mapping[str, Any]) -> None:
    """What builds the latest layer of the subject `name` again."""
    if _Memory.on:
        _Memory.layers[name] = dict(facts)


def called(kind: str, inputs: Mapping[str, Any], name: str = "") -> None:
    """A call of the accused on these inputs, by the subject `name`; what is None is left out."""
    if not _Memory.on or torch.compiler.is_compiling():
        return
    given = {key: x.detach() for key, x in inputs.items() if isinstance(x, Tensor)}
    if all(type(x) is Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(x) for x in given.values()):  # pyright: ignore[reportAttributeAccessIssue]
        _Memory.call = Call(kind, given, _Memory.layers.get(name, {}))


def taken(inputs: Mapping[str, Tensor] | None = None) -> Call | None:
    """Copies of the latest call's inputs, or of these in their place; None where nothing is kept."""
    if not _Memory.on or _Memory.call is None:
        return None
    given = _Memory.call.inputs if inputs is None else inputs
    copies = {name: x.detach().clone() for name, x in given.items()}
    return Call(_Memory.call.kind, copies, _Memory.call.layer)
