"""A command or a script in a process of its own, forked from one interpreter that has loaded torch and iga once.

A fresh interpreter takes seconds to load torch; a child of the warm one starts in a fraction of one. Claims about what
is loaded, or what the environment changes before the first import, need a fresh one: `sys.executable`.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["run_iga", "run_script"]

_WARM = multiprocessing.get_context("forkserver")
_WARM.set_forkserver_preload(["torch", "iga.cli.app", "iga.testing.verify", "iga.bench.run"])


def run_iga(*arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    """`iga arguments…` with its exit code, output and errors; options as for `run_script`."""
    return run_script(None, *arguments, **options)  # pyright: ignore[reportArgumentType]


def run_script(
    script: Path | None,
    *arguments: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120.0,
) -> "subprocess.CompletedProcess[str]":
    """The file `script` as a program, in the folder `cwd` with `env` added; TimeoutExpired after `timeout` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, "out"), Path(folder, "err")]
        # A child that says nothing leaves both there, empty.
        for stream in streams:
            stream.touch()
        child = _WARM.Process(target=_child, args=(script, arguments, cwd, dict(env or {}), streams))
        child.start()
        child.join(timeout)
        if child.exitcode is None:
            child.kill()
            child.join()
            raise subprocess.TimeoutExpired(("iga" if script is None else str(script), *arguments), timeout)
        out, err = (stream.read_text(encoding="utf-8", errors="replace") for stream in streams)
        return subprocess.CompletedProcess(arguments, child.exitcode, out, err)


def _child(
    script: Path | None, arguments: tuple[str, ...], cwd: Path | None, env: dict[str, str], streams: list[Path]
) -> None:
    for number, stream in enumerate(streams, start=1):
        descriptor = os.open(stream, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    multiprocessing.set_start_method(None, force=True)  # what the script starts, it starts as any program does
    os.environ.pop("TRITON_INTERPRET", None)  # set by conftest for tests in its own process
    os.environ.update(env)
    os.chdir(cwd or os.getcwd())
    sys.argv = ["iga" if script is None else str(script), *arguments]
    if script is not None:
        sys.path.insert(0, str(script.parent))
        runpy.run_path(str(script), run_name="__main__")
        return
    from iga.cli.app import main

    main(list(arguments))
