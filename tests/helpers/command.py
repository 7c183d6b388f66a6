"""The command line in this process, which has loaded torch already."""

from typing import NamedTuple

import pytest

from iga.cli.app import main

__all__ = ["Ended", "called", "exit_code"]


class Ended(NamedTuple):
    """How a command ended; `lines` are those on standard error that tell of no progress."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.strip() and not line.startswith("…")]


def exit_code(*arguments: str) -> int:
    """The code with which `iga arguments…` ends."""
    with pytest.raises(SystemExit) as leave:
        main(list(arguments))
    assert isinstance(leave.value.code, int)
    return leave.value.code


def called(capfd: pytest.CaptureFixture[str], *arguments: str) -> Ended:
    """The same with what was printed."""
    code = exit_code(*arguments)
    return Ended(code, *capfd.readouterr())
