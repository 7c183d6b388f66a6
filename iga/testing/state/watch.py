"""The watch over a run: the state of the process before and after each call of the accused. What has changed is kept by
name, and put back, so that the next call and the suite find the process as it was."""

import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

import torch

from iga.testing.state.facets import FACETS

__all__ = ["Watch", "current", "left_alone", "silent", "unchanged", "watching"]


@dataclass
class Watch:
    """What was watched: the number of calls, and what they did → (how often, where first)."""

    calls: int = 0
    changes: dict[str, tuple[int, str]] = field(default_factory=dict)
    _thread: int | None = None  # of the call that is being watched
    _disturbed: bool = False  # another thread has called meanwhile

    def note(self, where: str, words: str) -> None:
        self.add(0, {words: (1, where)})

    def add(self, calls: int, changes: Mapping[str, tuple[int, str]]) -> None:
        """What another watch saw."""
        self.calls += calls
        for words, (count, where) in changes.items():
            known, first = self.changes.get(words, (0, where))
            self.changes[words] = (known + count, first)

    def judge(self, tally: Any) -> None:
        """Hand to a Tally what was seen since it was last asked: an example a call, and one for each kind of change."""
        tally.add(torch.zeros(self.calls), 0.0, "calls")
        for words, (count, where) in self.changes.items():
            tally.add(float(count), 0.0, f"{where}: {words}")
        self.calls, self.changes = 0, {}


_current: Watch | None = None


def current() -> Watch | None:
    """The watch of the run that is going on."""
    return _current


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Calls of the accused are watched by `watch` meanwhile."""
    global _current
    before, _current = _current, watch
    try:
        yield
    finally:
        _current = before


@contextmanager
def left_alone(where: str, *, draws: bool = False, whole: bool = False) -> Iterator[None]:
    """A call of the accused: what it changes is noted with `where`, and put back.

    draws  it may use up random generators, as building a layer does, and training
    whole  a check with calls of the suite's own in it: only modes, which these leave as they are, are compared

    A call within a call is the outer one's. Of calls in two threads at once neither is judged: the one would be blamed
    for what the other sets for a while. A process that the accused forked off, and that comes back here in its place,
    ends.
    """
    watch, thread, process = _current, get_ident(), os.getpid()
    if watch is None or torch.compiler.is_compiling():
        yield
        return
    if watch._thread is not None and not whole:
        watch._disturbed |= watch._thread != thread
        try:
            yield
        finally:
            _end_if_forked(process)
        return
    if not whole:
        watch._thread, watch._disturbed = thread, False
        watch.calls += 1
    modules, before = len(sys.modules), _read(whole)
    try:
        yield
    finally:
        _end_if_forked(process)
        disturbed = watch._disturbed
        if not whole:
            watch._thread = None
        if whole or not disturbed:
            for words in _compared(before, imported=len(sys.modules) != modules, draws=draws, modes=whole):
                watch.note(where, words)


@contextmanager
def silent(where: str) -> Iterator[None]:
    """A call that is not the first: what Python prints to standard output meanwhile is noted with `where`, and printed.

    Standard output is for what a program answers; a layer that prints at every call mixes into that of whoever uses it.
    Warnings and logs go to standard error, and are not noted.
    """
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        text = printed.getvalue()
        if text:
            print(text, end="")
            if _current is not None:
                _current.note(where, "it printed to standard output, and not at its first call alone")


@contextmanager
def unchanged(found: list[str]) -> Iterator[None]:
    """An import, whose changes of modes are put back and added to `found`."""
    before = _read(True)
    try:
        yield
    finally:
        found += _compared(before, imported=True, draws=True, modes=True)


def _read(whole: bool) -> list[Any]:
    return [None if facet.slow and not whole else facet.read() for facet in FACETS]


def _compared(before: list[Any], *, imported: bool, draws: bool, modes: bool) -> Iterator[str]:
    for facet, old in zip(FACETS, before, strict=True):
        if (facet.slow if not modes else not facet.mode) or (draws and facet.drawn):
            continue
        new = facet.read()
        if new == old:
            continue
        words = facet.words(old, new)
        if not words:
            continue
        if facet.put is not None:
            with suppress(Exception):  # what cannot be put back is named all the same
                facet.put(old)
        if not (facet.lazy and imported):
            yield words


def _end_if_forked(process: int) -> None:
    if os.getpid() != process:
        os._exit(0)
