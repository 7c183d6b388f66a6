"""The inside of a call as far as a layer shows it or it can be caught: taps, outputs of named submodules, softmax.

Three sources, of which the first that has a tap counts: `iga.taps` and the submodules that a target names
(`@target(taps={"log_det": "attn.log_det"})`) are *shown*, a softmax that nobody shows is *caught* (`softmax`).
Tensors are put in one order, [b, h, p, q, k], with dimensions of size 1 where a layer has none.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import torch
from torch import nn

from iga import taps
from iga._tap_order import NEEDED, ORDER, arranged
from iga._typing import Tensor
from iga.testing.layer.softmax import SoftmaxCatcher
from iga.testing.targets import TargetError

__all__ = ["Hook", "Seen", "dims_of", "hooks_of", "watched"]


@dataclass(frozen=True)
class Hook:
    """A submodule whose output is a tap."""

    name: str
    path: str
    dims: str


@dataclass(eq=False)
class Seen:
    """One call: its output, and tensors by tap in `iga._tap_order`, a list for layers that attend several times.

    sources   tap → "shown" or "caught"
    """

    output: Tensor
    sources: dict[str, str] = field(default_factory=dict)
    _tensors: dict[str, list[Tensor]] = field(default_factory=dict)
    _sides: dict[str, list[str]] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether this call let see it: a layer that leaves residues out may do other things in other calls."""
        return name in self._tensors

    def all(self, name: str) -> list[Tensor]:
        """Every tensor of this tap. Raises TargetError where there is none."""
        if not self.has(name):
            raise TargetError(f"{name} was not shown in this call, though it was in others")
        return self._tensors[name]

    def heads(self, name: str) -> Tensor:
        """The tap with the heads of all attentions of the call side by side, [b, h, q, k] (of [b, h, p, q, k])."""
        return torch.cat(self.all(name), dim=1)

    def pairs(self, name: str) -> list[tuple[Tensor, Tensor]]:
        """ "sigma" or "mean" of the (queries, keys), each [b, h, p, n, x]; empty where one side is not shown."""
        sides = dict.fromkeys("qkn")
        found: dict[str, list[Tensor]] = {side: [] for side in sides}
        for tensor, side in zip(self._tensors.get(name, []), self._sides.get(name, []), strict=True):
            found[side].append(tensor)
        both = [(one, one) for one in found["n"]]
        return both or list(zip(found["q"], found["k"], strict=False))


@contextmanager
def watched(
    layer: nn.Module, residues: int, hooks: tuple[Hook, ...] = (), *, catch: bool = True
) -> Iterator[Callable[[Tensor], Seen]]:
    """While inside, calls of `layer` are watched; what it gives makes a Seen of their output.

    Raises TargetError for a tap whose dimensions are not those of this call, ValueError as `iga.taps.show` does.
    """
    seen = Seen(torch.empty(0))

    def hear(name: str, tensor: Tensor, dims: str) -> None:
        try:
            ordered, side = arranged(name, tensor, dims, residues)
        except ValueError as error:
            raise TargetError(str(error)) from error
        seen._tensors.setdefault(name, []).append(ordered)
        seen._sides.setdefault(name, []).append(side)
        seen.sources[name] = "shown"

    catcher = SoftmaxCatcher(residues)
    with ExitStack() as stack:
        for hook in hooks:
            handle = layer.get_submodule(hook.path).register_forward_hook(_told(hook, hear))
            stack.callback(handle.remove)
        stack.enter_context(taps.listen(hear))
        if catch:
            stack.enter_context(catcher)

        def done(output: Tensor) -> Seen:
            seen.output = output
            for logits, weights in catcher.found:
                for name, one in (("logits", logits), ("weights", weights)):
                    if one is not None and seen.sources.get(name) != "shown":
                        seen.sources[name] = "caught"
                        seen._tensors.setdefault(name, []).append(one[None])
            return seen

        yield done


def _told(hook: Hook, hear: Callable[[str, Tensor, str], None]) -> Callable[..., None]:
    def forward_hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise TargetError(f"taps: {hook.path} returns a {type(output).__name__}, and {hook.name} is a tensor")
        taps.show(hook.name, output, dims=hook.dims)

    return forward_hook


def hooks_of(
    claimed: Mapping[str, str], layer: nn.Module, sizes: Mapping[str, int], call: Callable[[], Any]
) -> tuple[Hook, ...]:
    """The hooks that a target's `taps` ask for: "attn.log_det", or "attn.log_det: b h p q k".

    Where no dimensions are given, those of one `call` with different `sizes` ("h", "p", "n", …) say them, if they do.
    Raises ValueError, one line, for a submodule that is not there or not called, and for dimensions that stay open.
    """
    asked: list[Hook] = []
    for name, text in claimed.items():
        path, _, dims = (part.strip() for part in text.partition(":"))
        try:
            layer.get_submodule(path)
        except AttributeError:
            known = ", ".join([one for one, _ in layer.named_modules() if one][:12]) or "none"
            raise ValueError(f"taps: {name}: no submodule {path!r}; there are {known}") from None
        asked.append(Hook(name, path, dims))
    shapes: dict[str, torch.Size | None] = {}

    def noted(path: str) -> Callable[..., None]:
        return lambda module, inputs, output: shapes.__setitem__(path, getattr(output, "shape", None))

    handles = [layer.get_submodule(one.path).register_forward_hook(noted(one.path)) for one in asked]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    for hook in asked:
        if hook.path not in shapes:
            raise ValueError(f"taps: {hook.name}: the submodule {hook.path} is there, but forward does not call it")
    return tuple(Hook(one.name, one.path, one.dims or dims_of(one, shapes[one.path], sizes)) for one in asked)


def dims_of(hook: Hook, shape: torch.Size | None, sizes: Mapping[str, int]) -> str:
    """The dimensions of a submodule's output by their sizes; ValueError where they allow none or several orders.

    Queries stand before keys, as everywhere.
    """
    known = {**sizes, "q": sizes["n"], "k": sizes["n"], "x": 3, "b": 1}
    letters = ORDER[hook.name]
    fitting: set[str] = set()
    for count in range(len(letters) + 1):
        for order in permutations(letters, count):
            if (
                shape is not None
                and len(order) == len(shape)
                and all(letter in known and known[letter] == size for letter, size in zip(order, shape, strict=True))
            ):
                text = " ".join(order)
                if set(NEEDED[letters]) <= set(order) and ("q" not in order or order.index("q") < order.index("k")):
                    fitting.add(text)
    if len(fitting) != 1:
        what = "none" if shape is None else f"{list(shape)}"
        raise ValueError(
            f'taps: {hook.name}: {hook.path} gives {what}; say its dimensions: "{hook.path}: {" ".join(letters)}"'
        )
    return fitting.pop()
