"""The tools that commands share: misuse in one line, the console, tables, bars, and files that outlive a terminal."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from iga._files import check_target, descriptor
from iga._text import one_line, visible
from iga.report.console import show
from iga.report.document import Block, Table
from iga.report.documents import Document
from iga.report.schema import write

__all__ = [
    "Bars",
    "CommandError",
    "Reports",
    "Structures",
    "Context",
    "UsageError",
    "check_folder",
    "check_names",
    "check_outputs",
    "complain",
    "console",
    "finish",
    "kept",
    "misuse",
    "reported",
    "say",
    "show_rows",
    "typed",
    "whole_numbers",
    "words",
]

# typer carries its own copy of click in some releases and the package in others; both give this base class.
UsageError: type[Exception] = cast("type[Exception]", typer.BadParameter.__base__)
CommandError: type[Exception] = cast("type[Exception]", UsageError.__base__)
if TYPE_CHECKING:
    from typer import Context
else:
    Context = typer.Context.__base__  # what a command is given; its `obj` is the command line as it was typed


Reports = Annotated[
    list[Path] | None,
    typer.Option("--report", help="Write a report too: .html, .md, .xml (JUnit), .sarif or .json; repeats."),
]


Structures = Annotated[
    list[str] | None,
    typer.Option(
        help="A PDB or mmCIF file (.gz or not), a folder, or a quoted glob; repeats. "
        "Without it: synthetic backbones drawn from the seed."
    ),
]


@contextmanager
def misuse() -> Iterator[None]:
    """What the library refuses as an argument is misuse of the command; other errors are bugs and keep their trace."""
    try:
        yield
    except BrokenPipeError:  # who read our output is gone: no misuse
        raise
    except (ValueError, OSError) as error:
        raise UsageError(words(error)) from error


def words(error: BaseException) -> str:
    """An error's message; of the system's, the file before what is wrong with it."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def complain(message: str) -> None:
    say("iga: " + " ".join(message.split()))


def say(line: str) -> None:
    """A line on standard error. Where that is full, nothing: no run ends because its progress can't be shown."""
    try:
        print(visible(line), file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        pass


def typed(context: Context, *left_out: str) -> list[str]:
    """The words of a command line that gave the parameters, but for those left out: argument first, then options."""
    arguments, options = [], []
    for parameter in context.command.params:
        name, value = str(parameter.name), context.params.get(str(parameter.name))
        source = context.get_parameter_source(name)
        if name in left_out or value is None or source is None or source.name != "COMMANDLINE":
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            if parameter.param_type_name == "argument":
                arguments.append(str(one))
            elif isinstance(one, bool):
                options.append((parameter.opts if one else parameter.secondary_opts)[0])
            else:
                options += [parameter.opts[0], str(one)]
    return [*arguments, *options]


def whole_numbers(text: str, option: str = "--points") -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise typer.BadParameter(f"expected whole numbers such as 1,8,64; got {text!r}", param_hint=option)
    return values


def check_names(**given: Sequence[str]) -> None:
    """An empty name, which a Path takes for the current folder, is misuse. Keywords: the options."""
    for name, values in given.items():
        if not all(values):
            raise typer.BadParameter("expected a name, got an empty one", param_hint=f"--{name}")


def check_outputs(report: Sequence[Path] | None = None, **files: Path | None) -> None:
    """What can't be written to, or is named twice, is misuse, before anything is computed. Keywords: the options.

    report  files whose formats their endings say
    """
    seen: dict[str, str] = {}
    for name, path in [*files.items(), *(("report", path) for path in report or ())]:
        if path is None:
            continue
        option = name if name.isupper() else f"--{name}"
        try:
            if not path.name:  # "", which a Path takes for the current folder
                raise ValueError(f"expected the name of a file, got {os.fspath(path)!r}")
            if name == "report":
                from iga.report.formats import check_report

                check_report(path)
            check_target(path)
        except (ValueError, OSError) as error:
            raise typer.BadParameter(words(error), param_hint=option) from error
        place = os.path.realpath(path)
        if place in seen and path.is_file():
            raise typer.BadParameter(f"{path} is the file of {seen[place]} too; name another", param_hint=option)
        seen[place] = option


def check_folder(**folders: Path | None) -> None:
    """A folder that can't be made, or written to, is misuse, before anything is computed. Keywords: the options."""
    for name, path in folders.items():
        if path is None:
            continue
        try:
            if not path.name:
                raise ValueError(f"expected the name of a folder, got {os.fspath(path)!r}")
            path.mkdir(parents=True, exist_ok=True)
            check_target(path / "case.json")
        except (ValueError, OSError) as error:
            raise typer.BadParameter(words(error), param_hint=f"--{name}") from error


@contextmanager
def kept(*writes: Callable[[], object] | None) -> Iterator[None]:
    """The files first, since the terminal may go away; where one can't be written, what is printed here first."""
    failed: list[Exception] = []
    for one in writes:
        try:
            if one is not None:
                one()
        except (ValueError, OSError) as error:
            failed.append(error)
    yield
    if failed and isinstance(failed[0], BrokenPipeError):
        raise failed[0]
    if failed:
        raise UsageError("; ".join(map(words, failed))) from failed[0]


class _Console(Console):
    """Takes nothing for an emoji, and says which stream an error is about."""

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), "standard output") from error

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - called while the BrokenPipeError is handled; rich would exit with 1, "does not hold"


def console(beside: Path | None = None) -> Console:
    """The terminal's width on a terminal; wide enough for one row a line in a log.

    beside  a file that is written too: where that is standard output, what is printed goes to standard error
    """
    stderr = beside is not None and descriptor(beside) == 1
    found = _Console(emoji=False, stderr=stderr)
    return found if found.is_terminal else _Console(emoji=False, stderr=stderr, width=200)


def show_rows(rows: Sequence[Mapping[str, object]]) -> None:
    """A table with a column a key."""
    cells = tuple(tuple(map(str, row.values())) for row in rows)
    show([Table(tuple(rows[0]), cells, words=tuple(range(len(rows[0]))))], console())


def finish(
    document: Document,
    blocks: Sequence[Block],
    json: Path | None,
    report: Sequence[Path] | None = None,
    picture: Callable[[], object] | None = None,
) -> None:
    """The files, then the blocks on the terminal; the command ends with the document's exit code."""
    with kept(json and partial(write, document, json), *reported(document, report), picture):
        show(blocks, console(json))
    raise typer.Exit(document["exit_code"])


def reported(
    document: Document, report: Sequence[Path] | None, tables: Callable[[Any], Sequence[Block]] | None = None
) -> list[Callable[[], object]]:
    """What writes each file of --report. tables: those of a comparison."""
    from iga.report.formats import write_report

    return [partial(write_report, path, [document], tables) for path in report or ()]


class Bars:
    """A bar on a terminal; in a log, one plain line as each step begins, and where `end` is called one as it ends."""

    def __enter__(self) -> "Bars":
        self._bar: Progress | None = None
        self._tasks: dict[str, Any] = {}
        self._said: set[str] = set()
        console = _Console(stderr=True, emoji=False)
        if console.is_terminal:
            name, note = (TextColumn(f"{{task.{part}}}", markup=False) for part in ("description", "fields[note]"))
            self._bar = Progress(
                name, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), note, console=console, transient=True
            )
            self._bar.start()
        return self

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        if self._bar is None:
            if what not in self._said:
                self._said.add(what)
                say(f"… {one_line(what)}")
            return
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(one_line(what), total=total, note="")
        self._bar.update(self._tasks[what], completed=done, note=note)

    def end(self, what: str) -> None:
        """Take the bar away: there will be many."""
        if self._bar is None:
            say(f"… {one_line(what)}: done")
        elif what in self._tasks:
            self._bar.remove_task(self._tasks.pop(what))

    def training(self, run: str, done: int, total: int, loss: float | None) -> None:
        """The progress of a run that trains (`iga.experiment.compare`): its last loss beside the bar, which ends with
        it."""
        if loss is None and done == total:
            self.end(run)
        else:
            self(run, done, total, "" if loss is None else f"trans_loss {loss:.3g}")

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
