"""A Subject whose layer takes one wrong step: functions that the layer calls are replaced while it runs."""

import importlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn

from iga._typing import Tensor
from iga.attention import InvariantGaussianAttention
from iga.functional import Trace
from iga.testing.layer.cases import Case
from iga.testing.layer.subject import Subject

__all__ = ["Patched", "patched"]

Step = Callable[..., Any]
_one_at_a_time = threading.RLock()  # two calls at once would each put back what the other had put in


@dataclass(frozen=True)
class Patched(Subject):
    """`steps`: "module.function" of iga → what takes its place, called with the right function first; `after` changes
    the trace, and with it the output. Only calls through the subject are wrong: the layer itself stays right.

    The functions are those of the dense reference, so that is what the layer runs: a kernel would not call them.
    """

    steps: Mapping[str, Step] = field(default_factory=dict)
    after: Callable[[Trace], Trace] | None = None

    def fresh(self, points: int, seed: int) -> nn.Module:
        built = super().fresh(points, seed)
        if isinstance(built, InvariantGaussianAttention):
            built.implementation = "reference"
        return built

    def trace(self, layer: nn.Module, case: Case) -> Trace:
        with _replaced(self.steps):
            trace = super().trace(layer, case)
        return trace if self.after is None else self.after(trace)

    def output(self, layer: nn.Module, case: Case) -> Tensor:
        if self.after is not None:
            output = self.trace(layer, case).output
            assert output is not None
            return output
        with _replaced(self.steps):
            return super().output(layer, case)


def patched(subject: Subject, steps: Mapping[str, Step], after: Callable[[Trace], Trace] | None = None) -> Patched:
    """The subject with the steps replaced."""
    same = {f.name: getattr(subject, f.name) for f in fields(Subject)}
    return Patched(**same, steps=steps, after=after)


@contextmanager
def _replaced(steps: Mapping[str, Step]) -> Iterator[None]:
    with _one_at_a_time:
        before = []
        for place, wrong in steps.items():
            module_name, name = place.rsplit(".", 1)
            module = importlib.import_module(f"iga.{module_name}")
            right = getattr(module, name)
            before.append((module, name, right))
            setattr(module, name, lambda *args, _wrong=wrong, _right=right, **options: _wrong(_right, *args, **options))
        try:
            yield
        finally:
            for module, name, right in before:
                setattr(module, name, right)
