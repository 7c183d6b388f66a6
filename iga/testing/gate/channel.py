"""The channel from the process of the accused to the gate: one JSON object a line, in a pipe of its own.

Each message carries the number that the gate knows the process by; a child which the accused forks off, and which goes
on where its parent was, does not send any. Nothing that comes is unpickled or run.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from typing import Any

__all__ = ["CLOSED", "LONGEST", "Channel", "Garbled", "Lines"]

CLOSED = 97  # exit code of a child whose pipe is gone
HIGH = 200  # descriptors from here on are out of the way of loops that close the low ones
LONGEST = 1 << 27  # bytes of a message: the records of 10⁵ structures, or 262 145 pairs in float64 in base64


class Garbled(Exception):
    """What came is no message of the child's."""


class Channel:
    """The end in the child. What a forked process sends ends that process; where the pipe is gone, the child ends."""

    def __init__(self, descriptor: int, number: int) -> None:
        self._number = number
        self._descriptor = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH)
        os.close(descriptor)
        self._pid, self._pipe = os.getpid(), os.fstat(self._descriptor).st_ino

    def send(self, **message: Any) -> None:
        if os.getpid() != self._pid:
            os._exit(0)
        line = memoryview(json.dumps({"pid": self._number, **message}).encode() + b"\n")
        try:
            if os.fstat(self._descriptor).st_ino != self._pipe:  # closed, and another file has its number
                os._exit(CLOSED)
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError:
            os._exit(CLOSED)


class Lines:
    """The end at the gate: bytes as they come, in; the messages of process `pid`, out."""

    def __init__(self, pid: int) -> None:
        self._pid, self._rest = pid, bytearray()

    def messages(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The messages that `data` completes. Raises Garbled at what is none, or too long for one."""
        self._rest += data  # in place: a long message comes in thousands of pieces
        lines = []
        if b"\n" in data:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError as error:
                raise Garbled from error
            if not isinstance(message, dict) or message.get("pid") != self._pid:
                raise Garbled
            yield message
        if len(self._rest) > LONGEST:
            raise Garbled
