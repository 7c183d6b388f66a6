"""`iga.watch`: metrics of a model's attention at every k-th step, and the call that crossed a limit, kept whole."""

import atexit
import json
import os
import random
import warnings
import weakref
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from iga._arguments import check_whole
from iga._files import check_target, sweep_folders
from iga._runtime import machine
from iga._typing import Tensor
from iga.diagnostics import Summary, is_watched, pooled
from iga.recording import folder
from iga.recording.arguments import encoded
from iga.recording.folder import Crossing, Record, number
from iga.recording.limits import UNITS, LimitCrossed, Limits
from iga.recording.look import Call, Look
from iga.recording.own import described, state_of
from iga.recording.reading import Reading, Seen, reading

__all__ = ["Recorder", "watch"]

ON_LIMIT = ("record", "warn", "raise")


def watch(
    model: nn.Module,
    every: int = 100,
    *,
    limits: Limits | None = Limits(),  # noqa: B008 - frozen
    out: str | os.PathLike[str] | None = None,
    on_limit: str = "warn",
    config: Mapping[str, Any] | None = None,
    first_step: int = 0,
) -> "Recorder":
    """Watches the attention of `model` while it trains.

        with iga.watch(model, every=100, out="crossed") as recorder:
            for batch in loader:
                loss = model(batch)
                loss.backward()
                optimizer.step()
                log(recorder.step())

    every       steps from one that is looked at to the next; `first_step` (the number of the step that comes next)
                and each that `every` divides
    limits      what a call may show (`iga.recording.Limits`); None: anything
    out         a folder. The first call that crosses a limit of a kind leaves a folder there, once a kind: its inputs
                [as they are], its parameters and buffers, torch's, numpy's and Python's random states, versions,
                `config`, step. `iga replay` runs it alone. None: nothing is written
    on_limit    and then go on ("record"), warn, or raise LimitCrossed from within that call
    config      what of the run is to stand in the folder: numbers, words, lists and mappings

    A step is what happens between two calls of `Recorder.step`. One that is looked at runs eagerly, without
    torch.compile, and computes layers that offer a trace once more, dense and without gradient; in the others nothing
    of this is there. Layers are those that show taps (`iga.taps`), offer a trace, or run softmax or
    scaled_dot_product_attention over N keys of N queries; masks are known where a layer offers a trace, or shows or
    has logits that are −∞. Under DDP each process watches its own part. Units: nm, nat.

    Raises ValueError for arguments out of range, OSError where `out` can't be written to. Source: the metrics are
    those of `iga.diagnostics`, the limits' defaults stand in `iga.recording.limits`.
    """
    return Recorder(model, every, limits=limits, out=out, on_limit=on_limit, config=config, first_step=first_step)


class Recorder:
    """What `watch` gives: `step` after each step, `metrics`, `layers`, `written`; `close` ends it."""

    def __init__(
        self,
        model: nn.Module,
        every: int,
        *,
        limits: Limits | None,
        out: str | os.PathLike[str] | None,
        on_limit: str,
        config: Mapping[str, Any] | None,
        first_step: int,
    ) -> None:
        check_whole("every", every, 1, " (look at every step)")
        check_whole("first_step", first_step, 0)
        if not isinstance(model, nn.Module):
            raise ValueError(f"model must be an nn.Module, got {type(model).__name__}")
        if limits is not None and not isinstance(limits, Limits):
            raise ValueError(f"limits must be an iga.recording.Limits or None, got {type(limits).__name__}")
        if on_limit not in ON_LIMIT:
            raise ValueError(f"on_limit must be one of {', '.join(ON_LIMIT)}; got {on_limit!r}")
        try:
            self._config = json.loads(json.dumps(config, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(f"config must be of numbers, words, lists and mappings: {error}") from error
        self._model, self._every, self._limits, self._on_limit = model, every, limits, on_limit
        self._out = None if out is None else Path(out)
        if self._out is not None:
            self._out.mkdir(parents=True, exist_ok=True)
            check_target(self._out / "call.json")
            sweep_folders(self._out)
        self.written: dict[str, Path | None] = {}
        self._step = self._first = first_step
        self._look: Look | None = None
        self._closed = False
        # torch's stance cannot be put back once the interpreter takes its modules apart
        self._at_exit = partial(_close, weakref.ref(self))
        atexit.register(self._at_exit)
        self._numbers: dict[int, int] = {}  # of layers, by their id
        self._kept: list[nn.Module] = []  # so that an id stays its own
        self._names: dict[int, str] = {}
        self._traced: list[nn.Module] = []
        self._found: dict[int, tuple[dict[str, float], Summary]] = {}
        self._calls: dict[int, int] = {}
        self._last: dict[str, float] = {}
        self._random: dict[str, Any] = {}
        if self._is_due():
            self._begin()

    @property
    def layers(self) -> dict[str, str]:
        """The layers that have been seen, "l0", "l1", …, and their names in the model.

        Those that offer a trace come first, in the order of `model.named_modules()`; the others as they first ran.
        """
        by_number = sorted((number, self._names.get(key, "")) for key, number in self._numbers.items())
        return {f"l{number}": name for number, name in by_number}

    def metrics(self) -> dict[str, float]:
        """The last step that was looked at: `debug/iga/global/…` and `debug/iga/l{n}/…`; empty before any.

        Names are those of `iga.Monitor`, as far as a layer shows what they are of. A layer that ran more than once
        shows its last call.
        """
        return dict(self._last)

    def step(self) -> dict[str, float]:
        """Ends a step and begins the next. Returns `metrics()` of the step that ended, {} if it was not looked at."""
        found: dict[str, float] = {}
        if self._look is not None:
            found = self._end()
        self._step += 1
        if not self._closed and self._is_due():
            self._begin()
        return found

    def close(self) -> None:
        """Leaves nothing in the model; a second time does nothing."""
        if self._look is not None:
            self._end()
        self._closed = True
        atexit.unregister(self._at_exit)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_due(self) -> bool:
        return self._step % self._every == 0 or self._step == self._first

    def _begin(self) -> None:
        named = list(self._model.named_modules())
        self._names = {id(module): name for name, module in named}
        self._traced = [module for _, module in named if is_watched(module)]
        for module in self._traced:
            self._numbered(module)
        self._found, self._calls = {}, {}
        self._random = {"python": random.getstate(), "numpy": np.random.get_state(legacy=False)}
        self._look = Look(self._model, self._traced, self._told)

    def _end(self) -> dict[str, float]:
        assert self._look is not None
        self._look.close()
        self._look = None
        result = pooled([pool for _, pool in self._found.values()], "debug/iga/global/")
        for place in sorted(self._found):
            result |= {f"debug/iga/l{place}/{name}": value for name, value in self._found[place][0].items()}
        self._found = {}
        if result:
            self._last = result
        return result

    def _numbered(self, layer: nn.Module) -> int:
        if id(layer) not in self._numbers:
            self._kept.append(layer)
            self._numbers[id(layer)] = len(self._numbers)
        return self._numbers[id(layer)]

    def _told(self, call: Call, seen: Seen) -> None:
        place, found = self._numbered(call.module), reading(seen)
        self._found[place] = (found.metrics, found.pool)
        self._calls[place] = self._calls.get(place, 0) + 1
        if self._calls[place] == self._every + 1 and self._every > 1:
            warnings.warn(
                f"layer l{place} was called more than {self._every} times in a step that is looked at: "
                "call step() of iga.watch after each step",
                RuntimeWarning,
                stacklevel=2,
            )
        if self._limits is not None:
            crossed = self._limits.crossed(found.values)
            if new := [kind for kind in crossed if kind not in self.written]:
                self._crossed(new, call, found, place)

    def _crossed(self, kinds: list[str], call: Call, found: Reading, place: int) -> None:
        assert self._limits is not None
        path: Path | None = None
        words = f"step {self._step}, layer l{place} ({self._names.get(id(call.module), '')}): "
        words += "; ".join(_said(kind, found, self._limits) for kind in kinds)
        if self._out is not None:
            tensors: dict[str, Tensor] = {}
            record = self._record(kinds, call, found, place, tensors)
            try:
                path = folder.write(self._out / f"step{self._step}{_rank()[1]}-{'-'.join(kinds)}", record, tensors)
                words += f". Kept in {path}; iga replay {path}"
            except OSError as error:  # a full disk ends no training
                words += f". It could not be kept: {error}"
        self.written |= dict.fromkeys(kinds, path)
        if self._on_limit == "raise":
            raise LimitCrossed(words, kinds[0], path)
        if self._on_limit == "warn":
            warnings.warn(words, RuntimeWarning, stacklevel=2)

    def _record(self, kinds: list[str], call: Call, found: Reading, place: int, tensors: dict[str, Tensor]) -> Record:
        assert self._limits is not None
        layer = call.module
        args, kwargs = encoded(call.args, "args", tensors), encoded(call.kwargs, "kwargs", tensors)
        state = state_of(layer)
        encoded(state, "layer", tensors)
        tensors |= {f"rng.{device}": one for device, one in call.rng.items()}
        devices = [str(x.device) for x in state.values()]
        numpy_state: Any = self._random["numpy"]
        return {
            "schema": folder.SCHEMA,
            "step": self._step,
            "rank": _rank()[0],
            "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "versions": machine()["versions"] | {"safetensors": version("safetensors")},
            "device": devices[0] if devices else "cpu",
            "layer": {
                "number": f"l{place}",
                "name": self._names.get(id(layer), ""),
                "kind": f"{type(layer).__module__}.{type(layer).__qualname__}",
                "training": layer.training,
                "build": described(layer),
            },
            "crossed": [_crossing(kind, found, self._limits) for kind in kinds],
            "metrics": {name: number(value) for name, value in found.metrics.items()},
            "args": args,
            "kwargs": kwargs,
            "changed_in_place": call.changed,
            "rng": {"python": self._random["python"], "numpy": json.loads(json.dumps(numpy_state, default=_listed))},
            "modes": _modes(),
            "limits": asdict(self._limits),
            "config": self._config,
        }


def _said(kind: str, found: Reading, limits: Limits) -> str:
    if kind == "non_finite":
        return f"numbers that are not finite in {', '.join(found.not_finite)}"
    side = "under" if kind in ("log_det", "entropy") else "over"
    return f"{kind} {found.values[kind]:.4g} {side} {limits.of(kind):.4g} {UNITS[kind]}"


def _crossing(kind: str, found: Reading, limits: Limits) -> Crossing:
    names = list(found.not_finite) if kind == "non_finite" else []
    limit = limits.of(kind)
    assert limit is not None
    return {"kind": kind, "limit": limit, "value": number(found.values[kind]), "names": names}


def _modes() -> dict[str, object]:
    """The modes of the process that change what a layer computes."""
    cast = {kind: str(torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)}
    return {
        "autocast": cast,
        "default_dtype": str(torch.get_default_dtype()),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def _rank() -> tuple[int, str]:
    """(our rank, what it adds to a name)."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return dist.get_rank(), f"-rank{dist.get_rank()}"
    return 0, ""


def _close(recorder: "weakref.ref[Recorder]") -> None:
    left = recorder()
    if left is not None:
        left.close()


def _listed(value: Any) -> Any:
    return value.tolist()
