"""A watched child: nothing that it wrote is lost, however it ends, and it is ended by what it does."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from iga.testing.gate import child as _loaded_once  # noqa: F401 - which a forked child then has
from iga.testing.gate import watched as module
from iga.testing.gate.start import forkable
from iga.testing.gate.watched import Ending, Watched, ready_among

SERVES = """
import os, sys, time

def last_words(channel, count, blob):
    for k in range(count):
        channel.send(number=k, blob="x" * blob)
    os._exit(0)

def raises(channel):
    channel.send(number=0)
    raise ZeroDivisionError("at the end")

def garbled(channel):
    channel.send(number=0)
    os.write(channel._descriptor, b"{}\\n")
    time.sleep(60)

def prints(channel):
    while True:
        sys.stdout.write("y" * 4096)

def measures(channel, text):
    channel.send(length=len(text))

def sleeps(channel):
    channel.send(number=0)
    time.sleep(60)

def leaves_a_printer(channel):
    if not os.fork():
        while True:
            os.write(1, b"z" * 4096)
    channel.send(number=0)
    os._exit(3)
"""


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "served_here.py").write_text(SERVES, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    return "served_here"


def _begun(serve: str, allowed: float = 120.0, **request: Any) -> Watched:
    return Watched({"serve": serve, **request}, fork=forkable(), allowed=allowed)


def _followed(child: Watched) -> tuple[list[dict[str, Any]], Ending]:
    messages: list[dict[str, Any]] = []
    try:
        while True:
            ended = child.look(ready_among([child]), lambda message: messages.append(message) or True)
            if ended is not None:
                return messages, ended
    finally:
        child.close()


@pytest.mark.process
@pytest.mark.parametrize(("count", "blob"), [(1, 0), (1000, 50), (3, 60_000)])
def test_every_message_of_a_child_that_ended_is_read(serving: str, count: int, blob: int) -> None:
    messages, ended = _followed(_begun(f"{serving}:last_words", count=count, blob=blob))
    assert [one["number"] for one in messages] == list(range(count))
    assert "exit code 0" in ended.words and not ended.hung


@pytest.mark.process
def test_what_was_written_after_the_pipes_were_asked_is_read_before_the_child_is_called_ended(serving: str) -> None:
    """The race itself: the pipes say that nothing is ready, and by the time the child is looked at it has ended."""
    child = _begun(f"{serving}:last_words", count=2, blob=10)
    try:
        assert child.child.ended(20.0)
        messages: list[dict[str, Any]] = []
        ended = child.look(set(), lambda message: messages.append(message) or True)
        assert [one["number"] for one in messages] == [0, 1] and ended is not None and "exit code 0" in ended.words
    finally:
        child.close()


@pytest.mark.process
def test_what_came_before_garbage_is_read(serving: str) -> None:
    messages, ended = _followed(_begun(f"{serving}:garbled"))
    assert [one["number"] for one in messages] == [0] and "wrote into the pipe to the gate" in ended.words


@pytest.mark.process
def test_a_child_that_raises_says_so(serving: str) -> None:
    messages, _ = _followed(_begun(f"{serving}:raises"))
    assert "at the end" in messages[-1]["ended"]


@pytest.mark.process
def test_a_child_that_prints_without_end_is_ended(serving: str) -> None:
    _, ended = _followed(_begun(f"{serving}:prints"))
    assert "printed more than 1 MB" in ended.words and "yyy" in ended.words and not ended.hung


@pytest.mark.process
def test_what_a_child_left_behind_and_prints_without_end_does_not_hold_it_up(serving: str) -> None:
    messages, ended = _followed(_begun(f"{serving}:leaves_a_printer"))
    assert [one["number"] for one in messages] == [0]
    assert "exit code 3" in ended.words or "printed more than" in ended.words


@pytest.mark.process
def test_a_step_has_its_own_time(serving: str) -> None:
    child, messages = _begun(f"{serving}:sleeps"), list[dict[str, Any]]()

    def take(message: dict[str, Any]) -> bool:
        messages.append(message)
        child.allowed = 1.0  # from here on
        return True

    try:
        while (ended := child.look(ready_among([child]), take)) is None:
            pass
    finally:
        child.close()
    assert ended.hung and "did not come back within 1 s" in ended.words and len(messages) == 1


@pytest.mark.process
@pytest.mark.parametrize(("waited", "factor"), [(2.5, 2.0), (1e6, 1.0 + module.PATIENCE)])
def test_the_time_in_which_it_waits_for_a_core_does_not_count_for_a_while(
    waited: float, factor: float, serving: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that others use is no reason to call a child hung; one that crowds it itself is ended all the same."""
    said = iter([1.5])
    monkeypatch.setattr(module, "queued", lambda root: next(said, waited))
    child = _begun(f"{serving}:sleeps", allowed=1.0)
    try:
        while (ended := child.look(ready_among([child]), lambda message: False)) is None:
            pass
        assert ended.hung and factor <= child._spent.seconds() < factor + 1.0
    finally:
        child.close()


@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="only Linux tells how long a thread has waited")
def test_threads_that_crowd_the_cores_are_seen_to_wait() -> None:
    spinning = "import os, time\nlast = time.time() + 2\nwhile time.time() < last: pass"
    crowd = [subprocess.Popen([sys.executable, "-c", spinning]) for _ in range(3 * (os.cpu_count() or 1))]
    time.sleep(1.0)
    waited = [module.queued(one.pid) for one in crowd]
    for one in crowd:
        one.wait()
    assert max(waited) > 0.1 and module.queued(2**22 + 1) == 0.0


def test_a_clock_does_not_count_while_the_process_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    clock = module.Clock()
    for _ in range(4):
        now[0] += 0.5
        clock.seconds()
    now[0] += 3600.0  # the machine slept
    assert clock.seconds() == pytest.approx(2.0 + 20 * module.TICK)


@pytest.mark.process
@pytest.mark.parametrize("fork", [True, False])
def test_a_request_may_be_longer_than_an_argument_of_a_process(fork: bool, serving: str, tmp_path: Path) -> None:
    """A batch of some thousand pairs, to a child that is forked and to a fresh interpreter."""
    child = Watched({"serve": f"{serving}:measures", "text": "x" * 3_000_000}, fork=fork, allowed=60.0)
    messages, _ = _followed(child)
    assert messages[0]["length"] == 3_000_000
