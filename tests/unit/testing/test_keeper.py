"""Nothing that an accused starts outlives the gate, in whatever session it runs and however the gate ends."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.process import run_script
from iga.testing.gate import keeper, parent
from iga.testing.gate.parent import judge
from iga.testing.verify import verify

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="there is no keeper here")]

STARTS = """
import os, signal, subprocess, time
import iga
from iga.testing import target

def say(number):
    with open(__file__ + ".pids", "a") as file:
        file.write(f"{number}\\n")

def bad(act):
    @target(kind="overlap")
    def overlap(*pair):
        act()
        return iga.gaussian_overlap(*pair)
    return overlap

def daemon():  # as a service does it: twice forked, in a session of its own, deaf, no stream left
    said, says = os.pipe()
    if os.fork():
        os.close(says)
        os.read(said, 1)  # until it has said its number
        os.close(said)
    else:
        os.setsid()
        if os.fork():
            os._exit(0)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        say(os.getpid())
        os.closerange(0, 1024)
        time.sleep(600)

def crowd():
    for _ in range(40):
        if not os.fork():
            say(os.getpid())
            time.sleep(600)
    time.sleep(600)

def signals():
    daemon()
    os.kill(os.getppid(), signal.SIGUSR1)
    time.sleep(600)

forks = bad(daemon)
runs = bad(lambda: say(subprocess.Popen(["sleep", "600"], start_new_session=True).pid))
exits = bad(lambda: (daemon(), os._exit(0)))
waits = bad(lambda: (daemon(), time.sleep(600)))
crowds, tells = bad(crowd), bad(signals)
stops = bad(lambda: os.kill(os.getppid(), signal.SIGSTOP))
right = bad(lambda: None)
"""
ONLY = ["coincident_means", "score_laws"]


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("starts") / "starts.py"
    path.write_text(STARTS, encoding="utf-8")
    verify(f"{path}:right", only=ONLY)  # what is loaded at first use is loaded here, and children need not do it again
    return path


@pytest.fixture
def left(starts: Path) -> Path:
    """The file with the numbers of the processes that the accused has left."""
    file = starts.with_name(starts.name + ".pids")
    file.write_text("", encoding="utf-8")
    return file


def _running(left: Path) -> list[int]:
    return [number for number in map(int, left.read_text().split()) if _runs(number)]


def _runs(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("fork", [True, False])
@pytest.mark.parametrize("name", ["forks", "runs"])
def test_what_a_call_started_is_ended_with_the_child(
    name: str, fork: bool, starts: Path, left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forkable = parent.forkable
    monkeypatch.setattr(parent, "forkable", lambda: fork and forkable())
    judge(f"{starts}:{name}", only=ONLY)
    assert left.read_text().split() and not _running(left)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("exits", "it ended the process, with exit code 0"),
        ("tells", "the process was killed by SIGUSR1"),
        ("waits", "it did not come back within 6 s (--timeout)"),
    ],
)
def test_however_the_child_ends_the_finding_says_how_and_nothing_is_left(
    name: str, words: str, starts: Path, left: Path
) -> None:
    report = judge(f"{starts}:{name}", timeout=6.0 if name == "waits" else None, only=ONLY)
    assert report.exit_code == 1 and any(words in one.note for one in report.findings)
    assert left.read_text().split() and not _running(left)


def test_a_crowd_of_processes_is_a_finding_and_is_ended(starts: Path, left: Path, tmp_path: Path) -> None:
    script, report = tmp_path / "run.py", tmp_path / "report.json"  # a script can fork: this process may have threads
    script.write_text(
        "import sys\nfrom iga.testing.gate import keeper, start\nkeeper.CROWD = start.CROWD = 30\n"
        "from iga.cli.app import main\nmain(sys.argv[1:])\n",
        encoding="utf-8",
    )
    ended = run_script(script, "verify", f"{starts}:crowds", "--only", ONLY[0], "--json", str(report))
    (row,) = json.loads(report.read_text(encoding="utf-8"))["invariants"]
    assert ended.returncode == 1 and "it had more than 30 processes running" in row["note"]
    assert left.read_text().split() and not _running(left)


def test_a_child_that_stops_its_keeper_is_judged_and_ended_all_the_same(starts: Path) -> None:
    report = judge(f"{starts}:stops", only=ONLY)
    assert {one.verdict for one in report.findings} == {"holds"}


def test_nothing_is_left_when_the_gate_is_killed(starts: Path, left: Path) -> None:
    words = [sys.executable, "-m", "iga", "verify", f"{starts}:waits", "--only", ONLY[0]]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as gate:
        _until(lambda: bool(left.read_text().split()), 60.0)
        gate.send_signal(signal.SIGKILL)
    _until(lambda: not _running(left), 10.0)


def test_what_a_process_started_whose_first_thread_has_ended_is_ended(tmp_path: Path) -> None:
    """It looks like a zombie, and so does a large process that is just being ended: its children still have it."""
    said = tmp_path / "pid"

    def work() -> None:
        said.write_text(str(subprocess.Popen(["sleep", "600"], start_new_session=True).pid), encoding="utf-8")
        threading.Thread(target=time.sleep, args=[600]).start()
        ctypes.CDLL(None).pthread_exit(None)

    child = os.fork()
    if not child:
        keeper.keep(work)
    _until(lambda: said.exists() and bool(said.read_text()), 10.0)
    time.sleep(0.2)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert not _runs(int(said.read_text()))


def test_a_keeper_keeps_no_file_open() -> None:
    """A lock that the child inherits is free as soon as the child has ended; so is a pipe."""
    inward, outward = os.pipe()
    child = os.fork()
    if not child:
        keeper.keep(lambda: os._exit(7))
    os.close(outward)
    assert os.read(inward, 1) == b""  # at its end: nobody holds the other one
    os.close(inward)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def _until(holds: Callable[[], bool], seconds: float) -> None:
    last = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < last
        time.sleep(0.05)
