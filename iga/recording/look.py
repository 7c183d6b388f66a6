"""One step that is looked at: which layer computes what, by hooks that are there for this step alone.

The step runs eagerly, whatever torch.compile was asked to do (`torch.compiler.set_stance`), so that a compiled step is
never broken for the sake of the recorder. Beside it, in the other steps, there is nothing: no hook, no mode, no guard.

A layer is the innermost module with parameters in whose forward a tap is shown or a softmax runs over N keys of N
queries. What `InvariantGaussianAttention` computes is taken whoever calls it, and by its trace, as is what somebody
else's layer computes whose class has `trace`.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from iga import taps
from iga._softmax import arranged as square
from iga._softmax import dot_product_rows, is_dot_product, named, operator_name, row_dimension
from iga._tap_order import arranged
from iga._typing import Tensor
from iga.attention import InvariantGaussianAttention
from iga.diagnostics import has_values
from iga.recording.reading import Rows, Seen, of_trace, rows_of

__all__ = ["Call", "Look"]

# Operators, looked up once each: thousands run in a step.
_OTHER, _SOFTMAX, _DOT_PRODUCT = 0, 1, 2
_KINDS: dict[Any, int] = {}


@dataclass(eq=False)
class Call:
    """A call of a module while it goes on, and what its layer has shown since.

    rng       torch's generators as they were before: device → state
    versions  of each tensor among the arguments, which count what is done in place
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    own: bool = False
    shown: list[tuple[str, Tensor, str, int | None]] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    rng: dict[str, Tensor] = field(default_factory=dict)
    versions: list[int | None] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)
    error: BaseException | None = None

    def begin(self) -> None:
        given = tensors_in((self.args, self.kwargs))
        self.versions = [_version(x) for x in given]
        self.rng = {"cpu": torch.get_rng_state()}
        for device in {x.device for x in given if x.device.type == "cuda"}:
            self.rng[str(device)] = torch.cuda.get_rng_state(device)
        self.error = sys.exception()

    @property
    def changed(self) -> bool:
        """Whether an argument was changed in place since the call began."""
        return self.versions != [_version(x) for x in tensors_in((self.args, self.kwargs))]


# Called as a layer's call ends: the call, and what it let see.
Told = Callable[[Call, Seen], None]


class Look:
    """Hooks on `model` from construction to `close`; `told` hears of every call of a layer.

    traced   the layers that offer a trace (`iga.diagnostics.is_watched`)
    """

    def __init__(self, model: nn.Module, traced: list[nn.Module], told: Told) -> None:
        self._told, self._thread = told, threading.get_ident()
        self._calls: list[Call] = []
        self._catcher = _Catcher(self)
        self._own = {id(one) for one in traced}
        self._left = ExitStack()
        self._left.enter_context(_eagerly())
        for one in traced:
            if isinstance(one, InvariantGaussianAttention):
                one._recorders = (*one._recorders, _OfLayer(self))
                self._left.callback(_forget, one, self)
        inside = {id(part) for one in traced for part in one.modules()}
        outside = [one for one in model.modules() if id(one) not in inside or _hooked(one, self._own)]
        with_parameters = [one for one in outside if next(one.parameters(), None) is not None]
        for one in with_parameters or outside:
            before = one.register_forward_pre_hook(_Before(self), with_kwargs=True)
            # prepended: it sees the parameters before a wrapper takes them away again
            after = one.register_forward_hook(_After(self), with_kwargs=True, always_call=True, prepend=True)
            self._left.callback(before.remove)
            self._left.callback(after.remove)

    def close(self) -> None:
        """Takes the hooks away; a second time does nothing."""
        while self._calls:
            self._calls.pop().stack.close()
        self._left.close()

    def begin(self, call: Call) -> bool:
        """Whether the call is looked at: from now on until `end` what is shown is its own."""
        if threading.get_ident() != self._thread or not has_values(call.args, call.kwargs) or _captured():
            return False
        call.begin()
        if call.own:
            call.stack.enter_context(taps.listen(None))
        elif not self._calls:
            call.stack.enter_context(taps.listen(self._hear))
            call.stack.enter_context(self._catcher)
        self._calls.append(call)
        return True

    def drop(self, module: nn.Module) -> Call | None:
        """The call of `module`, which has ended, with those inside it that ended in an error; None if there is none."""
        if threading.get_ident() != self._thread or not any(one.module is module for one in self._calls):
            return None
        while True:
            call = self._calls.pop()
            call.stack.close()
            if call.module is module:
                return call

    def end(self, call: Call, output: Any) -> None:
        """Reads a call that has ended well, if it is one of a layer."""
        given = tensors_in(output)
        with torch.no_grad(), taps.listen(None), _disable_current_modes():  # what it computes is nobody's
            if call.own:
                seen = of_trace(call.module.trace(*call.args, **call.kwargs), given)  # pyright: ignore[reportCallIssue]
            elif call.shown or call.rows:
                seen = _seen(call, given)
            else:
                return
            self._told(call, seen)

    def _hear(self, name: str, tensor: Tensor, dims: str) -> None:
        if self._calls and threading.get_ident() == self._thread:
            self._calls[-1].shown.append((name, tensor.detach(), dims, _version(tensor)))

    def catches(self) -> bool:
        """Whether a softmax is anybody's: not of a layer with a trace, which says more."""
        return bool(self._calls) and not self._calls[-1].own

    def caught(self, rows: Rows) -> None:
        self._calls[-1].rows.append(rows)

    def is_own(self, module: nn.Module) -> bool:
        return id(module) in self._own


class _Hook:
    """A copy of a module, or its file, has hooks that do nothing."""

    def __init__(self, look: Look) -> None:
        self.look = look

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Nothing, ()


class _Before(_Hook):
    """A module's forward pre-hook."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not torch.compiler.is_compiling():
            self.look.begin(Call(module, args, kwargs, own=self.look.is_own(module)))


class _After(_Hook):
    """A module's forward hook, which is called where forward raises too."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        call = self.look.drop(module)
        if call is not None and sys.exception() is call.error:  # else forward has raised
            self.look.end(call, output)


class _OfLayer(_Hook):
    """What an InvariantGaussianAttention calls in place of its forward."""

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        call = Call(layer, args, kwargs, own=True)
        if not self.look.is_own(layer) or not self.look.begin(call):
            return run()
        try:
            output = run()
        finally:
            self.look.drop(layer)
        self.look.end(call, output[0])  # statistics, beside it, are infinite where nothing is valid
        return output


class _Nothing:
    """The place of a hook in a copy."""

    def __call__(self, *call: Any) -> Any:
        return call[3]() if len(call) == 4 and callable(call[3]) else None


def _kind(func: Any) -> int:
    name = operator_name(func)
    if name in ("_softmax", "_safe_softmax"):  # a log_softmax is a loss
        return _SOFTMAX
    return _DOT_PRODUCT if is_dot_product(name) else _OTHER


class _Catcher(TorchDispatchMode):
    """Tells the look of each softmax over N keys of N queries; keeps nothing of size N²."""

    def __init__(self, look: Look) -> None:
        super().__init__()
        self._look = look

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # steps that are looked at are not compiled; to say so again costs 10 µs an operator

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs) if kwargs else func(*args)
        kind = _KINDS.get(func)
        if kind is None:
            kind = _KINDS[func] = _kind(func)
        if kind == _OTHER or not self._look.catches():
            return out
        with torch.no_grad():
            if kind == _SOFTMAX:
                self._softmax(args[0], out, args[1] % out.ndim if out.ndim else 0)
            else:
                self._dot_product(named(func, args, kwargs or {}))
        return out

    def _softmax(self, logits: Tensor, weights: Tensor, keys: int) -> None:
        rows = row_dimension(weights.shape, keys) if weights.ndim > 1 else None
        if rows is None or weights.shape[keys] < 2:
            return
        lead = tuple(size for d, size in enumerate(weights.shape) if d not in (rows, keys))
        logits, flat = (square(x, weights.shape, rows, keys) for x in (logits, weights))
        self._look.caught(rows_of(logits, flat, lead))

    def _dot_product(self, given: dict[str, Any]) -> None:
        query, key = given["query"], given["key"]
        if query.shape[-2] != key.shape[-2] or query.shape[-2] < 2:
            return
        parts = [rows_of(x, x.float().softmax(dim=-1), ()) for _, x in dot_product_rows(given)]
        names = ("largest", "entropy", "key", "valid", "others", "bad")
        if parts:
            joined = (torch.cat([getattr(one, name) for one in parts]) for name in names)
            self._look.caught(Rows(tuple(query.shape[:-2]), *joined))


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors of a tree of arguments or outputs; of an object, those that are its attributes."""
    found: list[Tensor] = []
    for one in tree_leaves(tree):
        if isinstance(one, Tensor):
            found.append(one)
        elif hasattr(one, "__dict__") and not isinstance(one, type | nn.Module) and not callable(one):
            found += tensors_in(list(vars(one).values()))
    return found


def _seen(call: Call, outputs: list[Tensor]) -> Seen:
    """What a layer without a trace has shown; a tensor that was changed since it was shown is left out."""
    seen = Seen(outputs=outputs)
    for name, tensor, dims, version in call.shown:
        if _version(tensor) == version:
            seen.tensors.setdefault(name, []).append(arranged(name, tensor, dims)[0])
    logits = seen.tensors.get("logits", [])
    if len(logits) == 1:
        seen.pairs = (logits[0] != -torch.inf).any(dim=1, keepdim=True)
    weights = seen.tensors.get("weights", [])
    if not weights:
        seen.rows = call.rows
    for number, one in enumerate(weights):
        of = logits[number] if len(logits) == len(weights) else None
        of = None if of is None else of.expand(one.shape).flatten(0, -3)
        seen.rows.append(rows_of(of, one.flatten(0, -3), tuple(one.shape[:-2])))
    return seen


_eager_now: list[Any] = []  # of looks of this process: the first sets the stance, the last puts it back


@contextmanager
def _eagerly() -> Iterator[None]:
    if not _eager_now:
        before = torch.compiler.set_stance("force_eager")
    else:
        before = _eager_now[0]
    _eager_now.append(before)
    try:
        yield
    finally:
        _eager_now.pop()
        if not _eager_now:
            before.__exit__(None, None, None)


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version


def _captured() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _hooked(module: nn.Module, traced: set[int]) -> bool:
    """Whether a layer with a trace is watched by hooks: this package's calls its recorders itself."""
    return id(module) in traced and not isinstance(module, InvariantGaussianAttention)


def _forget(layer: InvariantGaussianAttention, look: Look) -> None:
    left = tuple(one for one in layer._recorders if not (isinstance(one, _OfLayer) and one.look is look))
    if left:
        layer._recorders = left
    elif "_recorders" in vars(layer):
        del layer._recorders
