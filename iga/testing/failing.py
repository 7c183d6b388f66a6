"""The smallest failing example of a test with Hypothesis, kept as a case: what `pytest --iga-save DIR` does.

Hypothesis calls a failing test with its smallest example last, so its pairs are those of the last call that raised. The
case has the test's id as its check: what a test asserts is the test's own, and a replay says what the checks of iga
find on the same numbers. Numbers are written in hexadecimal, and nothing is pickled.
"""

import shlex
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis.errors import HypothesisException

from iga.testing import strategies
from iga.testing.cases_file import read_case, write_case
from iga.testing.latest import Call
from iga.testing.overlap.subject import ARGUMENTS
from iga.testing.strategies import ExactPair, GaussianPair
from iga.testing.targets import one_line

__all__ = ["saving"]

# A test without an iga-target may be of any function.
UNKNOWN = "FILE.py:FUNCTION"


class _Last:
    """What the strategies of iga drew for the last call that raised."""

    def __init__(self) -> None:
        self.drawn: list[Any] = []
        self.error: BaseException | None = None

    def watching(self, test: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(test)
        def watched(*arguments: Any, **named: Any) -> Any:
            __tracebackhide__ = True
            try:
                return test(*arguments, **named)
            except (Exception, pytest.fail.Exception) as error:
                # an example that is not wanted, or a test that is skipped, has not failed
                if not isinstance(error, HypothesisException | unittest.SkipTest):
                    self.drawn, self.error = list(_drawn([*arguments, *named.values()])), error
                raise

        return watched


def _drawn(value: Any) -> Iterator[Any]:
    """What strategies of iga made, in order, from lists, tuples and dictionaries too."""
    if type(value).__module__ == strategies.__name__:
        yield value
    elif isinstance(value, list | tuple | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _drawn(one)


@contextmanager
def saving(item: Any, base: Path, targets: list[str]) -> Iterator[None]:
    """Within it the test of the item is watched; where it fails, `base`/<its name>/case.json is written, and the report
    says so, or why not.

    item     of a test under `@given`
    targets  of the session: if there is one alone, the case is of that
    """
    handle, last = item.obj.hypothesis, _Last()
    before = handle.inner_test
    handle.inner_test = last.watching(before)
    try:
        yield
    except (Exception, pytest.fail.Exception):
        if last.drawn:
            item.add_report_section("call", "iga", _saved(item, base, targets, last))
        raise
    finally:
        handle.inner_test = before


def _saved(item: Any, base: Path, targets: list[str], last: _Last) -> str:
    """Writes the case; what is said of it."""
    pairs = [one for one in last.drawn if isinstance(one, GaussianPair | ExactPair)]
    if not pairs:
        names = ", ".join(dict.fromkeys(type(one).__name__ for one in last.drawn))
        return f"not saved: a case is of pairs of Gaussians, and this test was given {names}"
    batch = [torch.stack(column) for column in zip(*(pair.tensors for pair in pairs), strict=True)]
    given = batch if len(pairs) > 1 else [x[0] for x in batch]
    inputs: dict[str, torch.Tensor] = dict(zip(ARGUMENTS, given, strict=True))
    target = targets[0] if len(targets) == 1 else ""
    count = "a pair" if len(pairs) == 1 else f"{len(pairs)} pairs"
    unknown = float("nan")
    facts = {"target": target, "check": item.nodeid, "value": unknown, "limit": unknown, "unit": "the test's own"}
    facts |= {"where": f"{count} that Hypothesis drew", "seed": 0}
    facts["note"] = "" if last.error is None else one_line(last.error)
    file = _place(item, base) / "case.json"
    try:
        write_case(file, Call("overlap", inputs), facts)
    except (ValueError, OSError) as error:
        return f"not saved: {error}"
    words = ["iga", "fuzz", target or UNKNOWN, "--kind", "overlap", "--replay", str(base)]
    return f"saved: {file}\nreplay: {shlex.join(words)}"


def _place(item: Any, base: Path) -> Path:
    """The test's own folder: of its name, or of its whole id where another test has that name."""
    short = base / _plain(item.name)
    others = [one for one in item.session.items if one is not item and _plain(one.name) == short.name]
    return base / _plain(item.nodeid) if others or _of_another(short / "case.json", item.nodeid) else short


def _of_another(file: Path, test: str) -> bool:
    try:
        return read_case(file).words["check"] != test
    except (ValueError, OSError):
        return False


def _plain(name: str) -> str:
    """A name that every file system has."""
    return "".join(c if c.isalnum() or c in "._-[]" else "-" for c in name)[:200].strip(".") or "test"
