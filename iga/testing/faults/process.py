"""Faults that change the process alone: a default, a generator, or the filters of warnings; that leave something
running; or that print."""

import os
import random
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from iga._typing import Tensor
from iga.attention import InvariantGaussianAttention
from iga.testing.faults.fault import Fault
from iga.testing.faults.overlap import Values, fault

__all__ = ["LAYER", "OVERLAP"]

KIND = "process"


def _widen() -> None:
    torch.set_default_dtype(torch.float64)


def _reseed() -> None:
    random.seed(0)


def _silence() -> None:
    warnings.simplefilter("ignore")


def _draw() -> None:
    torch.rand(())


def _print() -> None:
    if not torch.compiler.is_compiling():
        print("a call")


SLEEP = [sys.executable, "-c", "import time; time.sleep(20)"]
SILENT: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)


def _starting(start: Callable[[], object]) -> Callable[[], None]:
    """At one call in a process, as what is kept for the calls to come would be."""
    started: dict[int, object] = {}

    def act() -> None:
        if os.getpid() not in started:
            started[os.getpid()] = start()

    return act


def _acts() -> dict[str, Callable[[], None]]:
    return {
        "the default dtype becomes float64": _widen,
        "Python's generator is seeded": _reseed,
        "warnings are silenced for good": _silence,
        "a draw from the global generator, unused": _draw,
        "a line is printed at every call": _print,
        "a program is left running": _starting(lambda: subprocess.Popen(SLEEP, **SILENT)),
        "a thread is left running": _starting(threading.Thread(target=time.sleep, args=(20.0,), daemon=True).start),
    }


def _after_a_call(act: Callable[[], None]) -> Callable[..., Values]:
    def wrong(right: Any, size: float, *pair: Tensor) -> Values:
        answers = right(*pair)
        act()
        return answers

    return wrong


def _in_a_layer(act: Callable[[], None]) -> Callable[[Any, float], Any]:
    class Leaving(InvariantGaussianAttention):
        def forward(self, *args: Any, **options: Any) -> Tensor:
            output = super().forward(*args, **options)
            act()
            return output

    def factory(*sizes: Any, **options: Any) -> Leaving:
        return Leaving(*sizes, implementation="reference", **options)

    return lambda clean, size: replace(clean, layer=factory)


OVERLAP = tuple(fault(name, _after_a_call(act), "process_state", kind=KIND) for name, act in _acts().items())
LAYER = tuple(Fault(name, KIND, _in_a_layer(act), ("process_state",)) for name, act in _acts().items())
