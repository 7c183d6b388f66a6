"""Scratch memory of the kernels holds NaN until something is written there, and no result has a trace of it.

The fixture `poisoned_scratch` fills memory for every test; here it is seen to be at work, and reads of unwritten memory
are planted. Arrays within compiled code are filled by running the same functions in plain Python.
"""

import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from helpers.operators import by
from iga.kernels.cpu import _backward, _compile, _finish, _forward, _pack, _points, _rows, engine
from iga.kernels.cpu.ready import BACKWARD, FORWARD, ready
from iga.testing.judges.attention import judge
from iga.testing.judges.attention_problem import Problem, random_problem


def test_memory_that_is_not_written_to_is_no_number() -> None:
    x = torch.ones(2)
    for made in (torch.empty(3), torch.empty_like(x), x.new_empty(2), torch.empty(2, dtype=torch.float64)):
        assert bool(made.isnan().all())
    assert bool((torch.empty(2, dtype=torch.int64) == torch.iinfo(torch.int64).max).all())


def problem(dtype: torch.dtype = torch.float32) -> Problem:
    return random_problem("bounded", seed=41, batch=1, residues=3, heads=1, points=3, masked=False, dtype=dtype)


def worst(given: Problem) -> float:
    return max(one.ratio for one in judge(given, by("cpu")))


def first_row_left_out(method: str) -> Any:
    """An engine's method that does all but write the first row of a block."""
    right = getattr(engine.CpuEngine, method)

    def sums(self: Any, start: int, stop: int, lowest: bool = False, out: Any = None) -> Any:
        found, low = right(self, start + 1, stop, lowest, out[:, :, 1:].contiguous())
        out[:, :, 1:] = found
        return out, torch.cat([low[..., :1], low], dim=-1) if lowest else low

    def carried(self: Any, points: torch.Tensor, *args: Any) -> torch.Tensor:
        out = torch.empty_like(points)
        out[:, :, 1:] = right(self, points, *args)[:, :, 1:]
        return out

    return sums if method == "sums" else carried


@pytest.mark.parametrize("method", ["sums", "out", "back"])
def test_a_row_that_is_read_and_not_written_is_seen(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kept block, which holds the right numbers of the call before, and in a fresh one."""
    assert worst(problem()) <= 1
    monkeypatch.setattr(engine.CpuEngine, method, first_row_left_out(method))
    assert worst(problem()) == math.inf


# --- arrays within compiled code ------------------------------------------------------------------------------------


class Poisoned:
    """NumPy whose empty arrays hold NaN."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def empty(shape: Any, dtype: Any) -> np.ndarray:
        return np.full(shape, np.nan, dtype)


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU kernels as the Python that they are written in, in float64, on poisoned arrays."""

    def plain(module: ModuleType) -> None:
        for name, value in vars(module).items():
            if hasattr(value, "py_func"):
                monkeypatch.setattr(module, name, value.py_func)

    ready("float64", FORWARD + BACKWARD)  # what is compiled only now would be made of functions that are Python's
    for module in (_compile, _finish, _forward, _backward, _pack, _points, _rows, engine):
        plain(module)
        monkeypatch.setattr(module, "np", Poisoned(), raising=False)
        monkeypatch.setattr(module, "full_width", lambda: None, raising=False)
    monkeypatch.setattr(_forward, "_ln", math.log)
    monkeypatch.setattr(_rows, "_exp", math.exp)
    monkeypatch.setattr(_rows, "_tanh", lambda y, e, inverse: math.tanh(y))


def test_compiled_code_reads_nothing_that_it_has_not_written(in_python: None) -> None:
    assert engine.add_rows is _forward._add_rows
    assert worst(problem(torch.float64)) <= 1


def test_an_array_of_compiled_code_that_is_read_and_not_written_is_seen(
    in_python: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    relative = _forward._relative
    monkeypatch.setattr(_forward, "_relative", lambda r, rot_j, q, n: relative(r, rot_j, q, n - 15))
    assert worst(problem(torch.float64)) == math.inf
