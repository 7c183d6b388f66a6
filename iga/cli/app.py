"""The command line. Exit codes: 0 all holds, 1 something does not, 2 misuse (one clear line, no traceback).

Nothing heavy is imported before a command runs: `iga --help` never waits for torch.
"""

import atexit
import os
import shlex
import sys
from functools import partial
from typing import Annotated, Any, cast

import typer

from iga.cli.bench import bench
from iga.cli.bounds import bounds, picture
from iga.cli.compare import compare
from iga.cli.faults import faults
from iga.cli.fuzz import fuzz
from iga.cli.fuzz_merge import SearchOrMerge
from iga.cli.guard import guarded
from iga.cli.inspect import inspect
from iga.cli.replay import replay
from iga.cli.report import report
from iga.cli.sweep import sweep
from iga.cli.terminal import CommandError, complain, say
from iga.cli.verify import verify
from iga.cli.warm import warm

__all__ = ["app", "main"]

INTERRUPTED = 130  # as a shell says of a command that SIGINT ended

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Invariant Gaussian Attention: verify a layer's numerical invariants, print its bounds, draw the picture."""
    if version:
        from iga import __version__

        print(f"iga {__version__}")
        raise typer.Exit(0)


app.command()(verify)
app.command()(faults)
app.command(cls=SearchOrMerge)(fuzz)
app.command()(inspect)
app.command()(replay)
app.command()(bounds)
app.command()(picture)
app.command()(bench)
app.command()(compare)
app.command()(sweep)
app.command()(warm)
app.command()(report)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    code = guarded(partial(_run, sys.argv[1:] if arguments is None else arguments))
    if code == INTERRUPTED and arguments is None:
        # at once: what the interpreter tidies beside that takes seconds
        atexit._run_exitfuncs()  # pyright: ignore[reportAttributeAccessIssue]
        os._exit(code)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    try:
        # A command finds what was typed, for whatever it writes, as its context's obj.
        typed = shlex.join(["iga", *arguments])
        code = app(args=arguments, prog_name="iga", standalone_mode=False, obj=typed)
    except CommandError as error:
        if not arguments:
            say(cast(Any, error).format_message())  # the help
            return 2
        complain(cast(Any, error).format_message())
        return INTERRUPTED if getattr(error, "exit_code", 2) == INTERRUPTED else 2
    except typer.Abort:
        code = INTERRUPTED
    if code == INTERRUPTED and arguments[:1] not in (
        ["compare"],
        ["sweep"],
    ):  # Ctrl-C, of which typer makes a code; these say more
        complain("interrupted")
    return code if isinstance(code, int) else 0
