"""Facets of the process: what may be read, how it is put back, and how a change is said. Each is read in a microsecond
or a few, since all of them are read before and after every call.

A facet is *lazy* if importing a package may change it: a change counts only in calls that import nothing. It is
*drawn* if building a layer, or a layer in training, may rightly use it up.
"""

import _signal  # pyright: ignore[reportMissingImports]
import gc
import locale
import logging
import os
import random
import signal
import struct
import sys
import threading
import warnings
from collections.abc import Callable
from ctypes import memmove, string_at
from dataclasses import dataclass
from typing import Any

import torch

from iga.testing.state.left_running import children, threads_left, words_of_children, words_of_threads

try:
    import numpy as np
except ImportError:  # a counterexample is judged with torch alone
    np = None

__all__ = ["FACETS", "Facet"]


@dataclass(frozen=True)
class Facet:
    """One part of the state.

    read    its value, to be compared with ==
    put     puts a value back; None where that cannot be done
    words   words(before, after): what a call did; empty if that is nothing
    mode    whether it is the same for a whole check, and on import, as for a call
    slow    whether it is read for whole checks only
    """

    read: Callable[[], Any]
    put: Callable[[Any], object] | None
    words: Callable[[Any, Any], str]
    mode: bool = False
    slow: bool = False
    lazy: bool = False
    drawn: bool = False


def _set(what: str, read: Callable[[], Any], put: Callable[[Any], object] | None, **kind: bool) -> Facet:
    return Facet(read, put, lambda before, after: f"it set {what} from {before} to {after}", **kind)


def _did(what: str, read: Callable[[], Any], put: Callable[[Any], object] | None, **kind: bool) -> Facet:
    return Facet(read, put, lambda before, after: f"it {what}", **kind)


# --- torch ------------------------------------------------------------------------------------------------------


def _device() -> torch.device | None:
    """The default device that was set, without the modes that `torch.get_default_device` looks through."""
    found = getattr(getattr(torch, "_GLOBAL_DEVICE_CONTEXT", None), "device_context", None)
    return None if found is None else found.device


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _put_deterministic(value: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])


def _autocast() -> tuple[bool, torch.dtype, bool]:
    return torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled()


def _put_autocast(value: tuple[bool, torch.dtype, bool]) -> None:
    torch.set_autocast_enabled("cpu", value[0])
    torch.set_autocast_dtype("cpu", value[1])
    torch.set_autocast_cache_enabled(value[2])


def _modes() -> tuple[int, int]:
    return torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()


def _generator() -> tuple[int, bytes]:
    state = torch.get_rng_state()
    return torch.initial_seed(), string_at(state.data_ptr(), state.numel())


def _put_generator(value: tuple[int, bytes]) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray(value[1]), dtype=torch.uint8))


def _drawn(name: str) -> Callable[[Any, Any], str]:
    return lambda before, after: f"it drew from {name}'s global generator, or seeded it"


# --- functions that others call ---------------------------------------------------------------------------------

_FUNCTIONS: list[tuple[Any, str]] = [
    *(
        (torch, name)
        for name in ("softmax", "exp", "log", "matmul", "einsum", "where", "equal", "allclose", "isfinite")
    ),
    *((torch.nn.functional, name) for name in ("softmax", "log_softmax", "linear", "scaled_dot_product_attention")),
    *((torch.Tensor, name) for name in ("softmax", "__eq__", "isfinite", "backward", "detach")),
    (torch.autograd, "grad"),
    (torch.testing, "assert_close"),
    *(((np, "allclose"),) if np is not None else ()),
    (sys, "exit"),
    (os, "_exit"),
]


def _functions() -> list[Any]:
    return [getattr(holder, name, None) for holder, name in _FUNCTIONS]


def _put_functions(value: list[Any]) -> None:
    for (holder, name), own in zip(_FUNCTIONS, value, strict=True):
        if getattr(holder, name, None) is not own:
            setattr(holder, name, own)


def _replaced(before: list[Any], after: list[Any]) -> str:
    pairs = zip(_FUNCTIONS, before, after, strict=True)
    names = [f"{getattr(holder, '__name__', holder)}.{name}" for (holder, name), a, b in pairs if a is not b]
    return f"it replaced {', '.join(names)}"


# --- Python, NumPy and the system -------------------------------------------------------------------------------

_FORKS = [0]
os.register_at_fork(before=lambda: _FORKS.__setitem__(0, _FORKS[0] + 1))


class _Words:
    """The words of a Mersenne twister in memory: Python's and NumPy's own functions take a hundred times as long."""

    def __init__(self, place: int, count: int) -> None:
        self._place, self._count = place, count

    def read(self) -> bytes:
        return string_at(self._place, self._count)

    def put(self, value: bytes) -> None:
        memmove(self._place, value, self._count)


def _of_numpy() -> _Words | None:
    if np is None:
        return None
    generator = np.random.mtrand._rand._bit_generator  # pyright: ignore[reportAttributeAccessIssue]
    return _Words(generator.ctypes.state_address, 4 * 625)  # the key, and the place in it


def _of_python() -> _Words | None:
    """None where CPython's object is not what it is known to be: the place, and the key."""
    words = _Words(id(random.getstate.__self__) + object.__basicsize__, 4 * 625)  # pyright: ignore[reportFunctionMemberAccess]
    *key, place = random.getstate()[1]
    known = sys.implementation.name == "cpython" and words.read() == struct.pack("=625I", place, *key)
    return words if known else None


def _put_errors(value: dict[str, Any]) -> None:
    assert np is not None
    np.seterr(**value)


_NUMPY, _PYTHON = _of_numpy(), _of_python()

# Packages set these for themselves when they are first used, and never again.
_OF_PACKAGES = ("TORCH", "PYTORCH", "TRITON", "KMP_", "NUMBA_", "CUDA_", "LD_", "PYTHON", "KINETO", "MPL")


def _environment() -> dict[Any, Any]:
    own = getattr(os.environ, "_data", None)
    return dict(os.environ) if own is None else own.copy()


def _changed(before: dict[Any, Any], after: dict[Any, Any]) -> list[str]:
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    words = sorted(name.decode(errors="replace") if isinstance(name, bytes) else name for name in names)
    return [name for name in words if not name.startswith(_OF_PACKAGES)]


def _other_environment(before: dict[Any, Any], after: dict[Any, Any]) -> str:
    names = _changed(before, after)
    return f"it changed the environment: {', '.join(names)}" if names else ""


def _put_environment(before: dict[Any, Any]) -> None:
    plain = {os.fsdecode(name): os.fsdecode(value) for name, value in before.items()}
    for name in _changed(before, _environment()):
        if name in plain:
            os.environ[name] = plain[name]
        else:
            del os.environ[name]


def _put_filters(value: tuple[Any, ...]) -> None:
    warnings.filters[:] = list(value)  # pyright: ignore[reportIndexIssue]
    getattr(warnings, "_filters_mutated", lambda: None)()


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "nowhere"


_STREAMS = ("stdin", "stdout", "stderr", "excepthook")


def _streams() -> tuple[Any, ...]:
    return tuple(getattr(sys, name, None) for name in _STREAMS)


def _put_streams(value: tuple[Any, ...]) -> None:
    for name, stream in zip(_STREAMS, value, strict=True):
        setattr(sys, name, stream)


def _other_streams(before: tuple[Any, ...], after: tuple[Any, ...]) -> str:
    names = [f"sys.{name}" for name, a, b in zip(_STREAMS, before, after, strict=True) if a is not b]
    return f"it replaced {', '.join(names)}"


_COPIES: dict[tuple[int, int], int] = {}  # (device, inode) of what a standard descriptor was → a copy of the descriptor


def _descriptors() -> list[tuple[int, int] | None]:
    found: list[tuple[int, int] | None] = []
    for number in (0, 1, 2):
        try:
            status = os.fstat(number)
        except OSError:
            found.append(None)
            continue
        place = (status.st_dev, status.st_ino)
        if place not in _COPIES:
            _COPIES[place] = os.dup(number)
        found.append(place)
    return found


def _put_descriptors(value: list[tuple[int, int] | None]) -> None:
    for number, (place, now) in enumerate(zip(value, _descriptors(), strict=True)):
        if place is not None and place != now:
            os.dup2(_COPIES[place], number)


def _put_path(value: tuple[str, ...]) -> None:
    sys.path[:] = value


def _put_traces(value: tuple[Any, Any]) -> None:
    sys.settrace(value[0])
    sys.setprofile(value[1])


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


def _handlers() -> tuple[Any, ...]:
    return tuple(map(_signal.getsignal, _SIGNALS))  # signal.getsignal makes an enum of each, which takes long


def _put_handlers(value: tuple[Any, ...]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in zip(_SIGNALS, value, strict=True):
            if handler is not None:
                signal.signal(number, handler)


FACETS: tuple[Facet, ...] = (
    _set("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype, mode=True),
    _set("torch's default device", _device, torch.set_default_device, mode=True),
    _set("gradient mode", torch.is_grad_enabled, torch._C._set_grad_enabled, mode=True),
    _did("entered or left inference mode", torch.is_inference_mode_enabled, None, mode=True),
    _set(
        "deterministic algorithms (and their warnings)",
        _deterministic,
        lambda v: torch.use_deterministic_algorithms(v[0], warn_only=v[1]),
    ),
    _set("anomaly detection", torch.is_anomaly_enabled, torch._C.set_anomaly_enabled, mode=True),
    _set("autocast", _autocast, _put_autocast, mode=True),
    _set("float32 matmul precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    _set("the number of torch's threads", torch.get_num_threads, torch.set_num_threads),
    _set("denormals to be flushed", lambda: sys.float_info.min / 2 == 0, torch.set_flush_denormal, mode=True),
    _did("left a mode of torch's functions behind", _modes, None, mode=True),
    Facet(_functions, _put_functions, _replaced, mode=True),
    Facet(_generator, _put_generator, _drawn("torch"), drawn=True),
    Facet(
        random.getstate if _PYTHON is None else _PYTHON.read,
        random.setstate if _PYTHON is None else _PYTHON.put,
        _drawn("Python"),
        drawn=True,
        lazy=True,
    ),
    *(() if _NUMPY is None else (Facet(_NUMPY.read, _NUMPY.put, _drawn("NumPy"), drawn=True, lazy=True),)),
    *(() if np is None else (_set("NumPy's errors", np.geterr, _put_errors, lazy=True),)),
    _set("the working folder", _folder, os.chdir, mode=True),
    Facet(_environment, _put_environment, _other_environment, lazy=True),
    _did("changed the filters of warnings", lambda: tuple(warnings.filters), _put_filters, lazy=True),
    Facet(_streams, _put_streams, _other_streams, mode=True),
    _did("closed or replaced a standard stream's descriptor", _descriptors, _put_descriptors, mode=True, slow=True),
    _did("set a handler of SIGINT, SIGTERM or SIGALRM", _handlers, _put_handlers),
    _set("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit, lazy=True),
    _did("changed sys.path", lambda: tuple(sys.path), _put_path, lazy=True),
    _did("set a function that traces or profiles", lambda: (sys.gettrace(), sys.getprofile()), _put_traces, lazy=True),
    _set("the interval of Python's thread switches", sys.getswitchinterval, sys.setswitchinterval, lazy=True),
    _set(
        "the locale", lambda: locale.setlocale(locale.LC_ALL), lambda v: locale.setlocale(locale.LC_ALL, v), lazy=True
    ),
    _set("logging.disable", lambda: logging.root.manager.disable, logging.disable, mode=True),
    _did("switched the garbage collector on or off", gc.isenabled, lambda v: gc.enable() if v else gc.disable()),
    _did("forked the process", lambda: _FORKS[0], None, mode=True),
    Facet(children, None, words_of_children, mode=True, slow=True),
    Facet(threads_left, None, words_of_threads, mode=True, slow=True),
)
