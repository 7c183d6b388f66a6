"""Runs of scripts that need torch, each forked from one interpreter that has loaded it: a fresh one takes seconds each
time. What a script starts with `subprocess.run([sys.executable, …])` is forked as well."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Runs", "forked_runs"]

Runs = Callable[..., "subprocess.CompletedProcess[str]"]

_PROGRAM = """
import json, os, runpy, subprocess, sys, traceback
import torch, torch._dynamo, torch.export

def ran(words, check=False):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        sys.argv, sys.path[0], code = words, os.path.dirname(words[0]), 0
        try:
            runpy.run_path(words[0], run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        except BaseException:  # whatever it is, no frame above may go on in the child
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        os._exit(code)
    return subprocess.CompletedProcess(words, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

subprocess.run = lambda words, check: ran(words[1:])
kept = [os.dup(1), os.dup(2)]
for line in sys.stdin:
    words, streams = json.loads(line)
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    code = ran(words).returncode
    os.write(kept[0], b"%d\\n" % code)
"""


@contextmanager
def forked_runs(cwd: Path, env: Mapping[str, str], said: Path) -> Iterator[Runs]:
    """run(script, *arguments) in the folder `cwd` with `env` added; what is printed goes through files in `said`."""
    words = [sys.executable, "-W", "ignore", "-c", _PROGRAM]
    server = subprocess.Popen(
        words, cwd=cwd, env={**os.environ, **env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    streams = [said / name for name in ("out", "err")]
    with server, server.stdin, server.stdout:  # pyright: ignore[reportOptionalContextManager] - both are pipes

        def run(script: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
            request = json.dumps([[str(script), *arguments], [str(stream) for stream in streams]])
            print(request, file=server.stdin, flush=True)
            code = int(next(server.stdout))  # pyright: ignore[reportArgumentType]
            out, err = (stream.read_text(encoding="utf-8") for stream in streams)
            return subprocess.CompletedProcess([str(script), *arguments], code, out, err)

        yield run
