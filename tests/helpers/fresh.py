"""Modules that a fresh interpreter holds after some code: one process loads torch, and a child of it runs each code."""

import json
import subprocess
import sys
from collections.abc import Sequence

__all__ = ["modules_after"]

_PROGRAM = """
import json, os, sys
codes, before = json.load(sys.stdin)
exec(before)
for code in codes:
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        try:
            exec(code, {})
            answer = {"modules": sorted(sys.modules)}
        except BaseException as error:  # an exit, too, is an answer: modules_after fails with it
            answer = {"error": f"{type(error).__name__}: {error}"}
        with os.fdopen(writer, "w") as stream:
            json.dump(answer, stream)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        print(stream.read())
"""


def modules_after(codes: Sequence[str], *, before: str = "") -> list[set[str]]:
    """For each of `codes`, the modules of a process that ran `before` (once for all of them) and then this code."""
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input=json.dumps([list(codes), before]),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(answers) == len(codes), run.stderr
    for code, answer in zip(codes, answers, strict=True):
        assert "error" not in answer, f"{code}: {answer['error']}"
    return [set(answer["modules"]) for answer in answers]
