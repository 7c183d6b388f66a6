"""What the commands share: misuse in one line, the console, tables, bars."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["Bars", "CommandError", "UsageError", "complain", "console", "misuse", "print_rows", "whole_numbers"]

# typer carries its own copy of click in some releases and the package in others; both give this base class.
UsageError: type[Exception] = cast("type[Exception]", typer.BadParameter.__base__)
CommandError: type[Exception] = cast("type[Exception]", UsageError.__base__)


@contextmanager
def misuse() -> Iterator[None]:
    """What the library refuses as an argument is misuse of the command; other errors are bugs and keep their trace."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


def complain(message: str) -> None:
    line = " ".join(message.split())
    print(f"iga: {line}", file=sys.stderr)


def whole_numbers(text: str, option: str = "--points") -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise typer.BadParameter(f"expected whole numbers such as 1,8,64; got {text!r}", param_hint=option)
    return values


def console() -> Console:
    """The terminal's width on a terminal; wide enough for one row a line in a log."""
    found = Console()
    return found if found.is_terminal else Console(width=200)


def print_rows(rows: list[Any]) -> None:
    from rich.table import Table

    table = Table()
    for name in rows[0]:
        table.add_column(str(name), overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console().print(table)


class Bars:
    """A bar on a terminal; in a log, one plain line as each step begins, and where `end` is called one as it ends."""

    def __enter__(self) -> "Bars":
        self._bar: Progress | None = None
        self._tasks: dict[str, Any] = {}
        self._said: set[str] = set()
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=console, transient=True)
            self._bar.start()
        return self

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        if self._bar is None:
            if what not in self._said:
                self._said.add(what)
                print(f"… {what}", file=sys.stderr, flush=True)
            return
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total, note="")
        self._bar.update(self._tasks[what], completed=done, note=note)

    def end(self, what: str) -> None:
        """Take the bar away: there will be many."""
        if self._bar is None:
            print(f"… {what}: done", file=sys.stderr, flush=True)
        elif what in self._tasks:
            self._bar.remove_task(self._tasks.pop(what))

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
