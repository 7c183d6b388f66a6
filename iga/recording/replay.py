"""A recorded call run again, alone: its metrics, whether its limits are still crossed, and what crossed them where."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from iga._typing import Tensor
from iga.diagnostics import is_watched
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.recording.arguments import decoded
from iga.recording.folder import Record
from iga.recording.limits import Limits
from iga.recording.look import Call, Look
from iga.recording.own import built, state_of
from iga.recording.places import place_of
from iga.recording.reading import Seen, reading

__all__ = ["Replay", "Verdict", "replayed"]


@dataclass(frozen=True)
class Verdict:
    """A limit of the record: then, now, and where it is worst now, in words."""

    kind: str
    limit: float
    then: float
    now: float | None
    crossed: bool
    where: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Replay:
    """metrics: by name, without prefix; notes: what is not as it was when the call was recorded."""

    metrics: dict[str, float]
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1 while a limit is crossed."""
        return int(any(one.crossed for one in self.verdicts))


def replayed(
    record: Record,
    tensors: Mapping[str, Tensor],
    factory: Callable[[], nn.Module] | None = None,
    classes: Mapping[str, type] | None = None,
) -> Replay:
    """Runs the call that `iga.recording.folder.read` gave.

    factory   makes the layer, whose parameters are then those of the record; None: this package's layer of its words
    classes   those that arguments may have, by name, beside iga.Frame and iga.GaussianRigid
    Raises ValueError, one line, where there is no layer, or another than was recorded, and for damaged words.
    """
    notes: list[str] = []
    device = _device(record["device"], notes)
    layer = _layer(record, factory, device)
    _take_state(layer, {name[6:]: x for name, x in tensors.items() if name.startswith("layer.")}, device)
    layer.train(record["layer"]["training"])
    known = {"Frame": Frame, "GaussianRigid": GaussianRigid, **(classes or {})}
    args, kwargs = (decoded(record[part], tensors, known, device) for part in ("args", "kwargs"))
    if not isinstance(args, tuple) or not isinstance(kwargs, dict):
        raise ValueError("call.json is damaged: args must be a tuple and kwargs a dict")
    if record["changed_in_place"]:
        notes.append("the layer changed its inputs in place: they are kept as it left them")
    limits = _limits(record)
    found: list[Seen] = []
    with _modes(record), _randomness(record, tensors, device):
        _call(layer, args, kwargs, found)
    if not found:
        raise ValueError(
            "the layer shows no tap and runs no softmax over N keys of N queries; is it the right --target?"
        )
    seen = found[-1]
    read = reading(seen)
    crossed = limits.crossed(read.values)
    verdicts = []
    for one in record["crossed"]:
        kind = one["kind"]
        where = place_of(kind, seen)
        names = read.not_finite if kind == "non_finite" else ()
        now = read.values.get(kind)
        verdicts.append(Verdict(kind, one["limit"], float(one["value"]), now, kind in crossed, where, names))
    held = [name for name, x in tensors.items() if not name.startswith("rng.") and not _finite(x)]
    if held:
        notes.append(f"not finite before the call: {', '.join(sorted(held)[:8])}{', …' if len(held) > 8 else ''}")
    return Replay(read.metrics, tuple(verdicts), tuple(notes))


def _call(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], found: list[Seen]) -> None:
    """What the outermost layer shows in each of its calls, in order."""

    def told(call: Call, seen: Seen) -> None:
        found.append(seen)

    look = Look(layer, [layer] if is_watched(layer) else [], told)
    try:
        with torch.no_grad():
            layer(*args, **kwargs)
    except Exception as error:  # whatever the target's forward raises on what it was recorded with
        raise ValueError(f"the layer raised {one_line(error)}") from error
    finally:
        look.close()


def _layer(record: Record, factory: Callable[[], nn.Module] | None, device: torch.device) -> nn.Module:
    kind, build = record["layer"]["kind"], record["layer"]["build"]
    if factory is None:
        if build is None:
            raise ValueError(f"the layer was a {kind}: name what makes one like it, --target file.py:factory")
        elsewhere = {"implementation": "auto"} if "implementation" in build and device.type != record["device"] else {}
        return built(build | elsewhere).to(device)
    try:
        layer: Any = factory()
    except Exception as error:  # whatever a user's factory raises is the user's to read
        raise ValueError(
            f"--target raised {one_line(error)}; it makes the layer, a {kind}, without arguments"
        ) from error
    if not isinstance(layer, nn.Module):
        raise ValueError(f"--target must make the layer, a {kind}, without arguments; it gave a {type(layer).__name__}")
    return layer.to(device)


def _take_state(layer: nn.Module, state: Mapping[str, Tensor], device: torch.device) -> None:
    own = state_of(layer)
    lacking, strange = sorted(set(state) - set(own)), sorted(set(own) - set(state))
    if lacking or strange:
        words = [f"lacks {lacking[0]}"] * bool(lacking) + [f"has {strange[0]}, which was not recorded"] * bool(strange)
        raise ValueError(f"the layer {' and '.join(words)}: it is another than was recorded")
    for name, value in sorted(state.items()):
        if own[name].shape != value.shape:
            raise ValueError(
                f"the layer's {name} is {list(own[name].shape)}, and {list(value.shape)} was recorded: other sizes"
            )
        holder, _, last = name.rpartition(".")
        module = layer.get_submodule(holder)
        target: Any = module._parameters.get(last)
        if target is None:
            module._buffers[last] = value.to(device)
        else:
            target.data = value.to(device)


def _limits(record: Record) -> Limits:
    """The record's limits, those that it crossed switched on."""
    words: Any = record["limits"]
    try:
        return Limits(**words)
    except (TypeError, ValueError) as error:
        raise ValueError(f"call.json is damaged: {error}") from error


def _device(name: str, notes: list[str]) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"call.json is damaged: no device {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        notes.append(f"recorded on {name}, run on the CPU: rounding and random numbers are others")
        return torch.device("cpu")
    return torch.device("cpu") if device.type not in ("cpu", "cuda") else torch.device(device.type)


@contextmanager
def _modes(record: Record) -> Iterator[None]:
    modes: Any = record["modes"]
    dtype, precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        with ExitStack() as stack:
            torch.set_default_dtype(getattr(torch, modes["default_dtype"].removeprefix("torch.")))
            torch.set_float32_matmul_precision(modes["matmul_precision"])
            torch.use_deterministic_algorithms(modes["deterministic"] is True)
            for kind, cast in modes["autocast"].items():
                if kind != "cuda" or torch.cuda.is_available():
                    stack.enter_context(torch.autocast(kind, getattr(torch, cast.removeprefix("torch."))))
            yield
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"call.json is damaged: its modes ({error})") from error
    finally:
        torch.set_default_dtype(dtype)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic)


@contextmanager
def _randomness(record: Record, tensors: Mapping[str, Tensor], device: torch.device) -> Iterator[None]:
    """The random states of the record, and ours again afterwards."""
    words: Any = record["rng"]
    python, legacy = random.getstate(), np.random.get_state(legacy=False)
    with torch.random.fork_rng(devices=[0] if device.type == "cuda" else []):
        try:
            version, state, gauss = words["python"]
            random.setstate((version, tuple(state), gauss))
            kept = words["numpy"]
            np.random.set_state(kept | {"state": kept["state"] | {"key": np.array(kept["state"]["key"], np.uint32)}})
            torch.set_rng_state(tensors["rng.cpu"])
            for name, state in tensors.items():
                if name.startswith("rng.cuda") and device.type == "cuda":
                    torch.cuda.set_rng_state(state, device)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"the random states are damaged: {error}") from error
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


def one_line(error: BaseException) -> str:
    """An exception's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return type(error).__name__ + (f": {lines[0].strip()}" if lines else "")


def _finite(x: Tensor) -> bool:
    return not x.is_floating_point() or bool(x.isfinite().all())
