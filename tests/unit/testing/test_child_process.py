"""The gate fails closed: whatever a target does to its process, the table is whole and names the broken checks."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from helpers.command import called
from helpers.process import run_script
from iga.testing.gate import parent, start, watched
from iga.testing.gate.channel import Channel, Garbled, Lines
from iga.testing.gate.parent import judge
from iga.testing.verify import verify

pytestmark = pytest.mark.process

BAD = """
import atexit, os, signal, sys, threading, time
import torch
import iga
from iga.testing import target

def bad(act):
    @target(kind="overlap", expected_broken={"score_laws": "not by a death"})
    def overlap(*pair):
        if pair[0].shape[0] == 15_000:  # a batch of score_laws
            act()
        return iga.gaussian_overlap(*pair)
    return overlap

forked = []

def fork():  # once; both go on, the child in the parent's place
    if not forked:
        forked.append(os.fork())

exits = bad(lambda: sys.exit(0))
ends = bad(lambda: os._exit(0))
dies = bad(lambda: os.kill(os.getpid(), signal.SIGSEGV))
interrupts = bad(lambda: os.kill(os.getpid(), signal.SIGINT))
fills = bad(lambda: torch.empty(2**34))
prints = bad(lambda: os.write(1, b"x" * 300 + b"\\n" * 2**21))
closes = bad(lambda: os.closerange(0, 4096))
writes = bad(lambda: [os.write(fd, b"{}\\n") for fd in range(200, 204)])
times = bad(lambda: (threading.Timer(0.05, os._exit, [0]).start(), time.sleep(1e6)))

def gate():  # the parent of this process's keeper
    with open(f"/proc/{os.getppid()}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])

def tells(number):
    return bad(lambda: (os.kill(gate(), number), time.sleep(1e6)))

terminates, hangs_up, interrupts_all = tells(signal.SIGTERM), tells(signal.SIGHUP), tells(signal.SIGINT)

@target(kind="overlap")
def forks(*pair):
    fork()
    return iga.gaussian_overlap(*pair)

@target(kind="overlap")
def shuts(*pair):
    os.closerange(0, 3)
    return iga.gaussian_overlap(*pair)

@target(kind="overlap")
def leaves(*pair):
    return iga.gaussian_overlap(*pair)

def leave():
    atexit.register(os._exit, 1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=time.sleep, args=[1e6]).start()
    sys.stdout = None
"""
ONLY = ["coincident_means", "score_laws"]
HOLDS = {"coincident_means": "holds", "score_laws": "holds"}


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad") / "bad.py"
    path.write_text(BAD, encoding="utf-8")
    verify(f"{path}:leaves", only=ONLY)  # what is loaded at first use is loaded here, and children need not do it again
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("exits", "SystemExit: 0"),
        ("ends", "it ended the process, with exit code 0"),
        ("dies", "the process was killed by SIGSEGV"),
        ("interrupts", "KeyboardInterrupt"),
        ("fills", "allocate"),
        ("prints", "it printed more than 1 MB; it printed: xxx"),
        ("closes", "it closed the pipe to the gate"),
        ("writes", "it wrote into the pipe to the gate"),
        ("times", "it ended the process, with exit code 0"),
    ],
)
def test_what_ends_the_process_breaks_the_check_by_name_and_the_others_are_judged(
    name: str, words: str, bad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "MEMORY", (1 << 35, 1 << 35))
    report = judge(f"{bad}:{name}", only=ONLY)
    assert {one.name: one.verdict for one in report.findings} == HOLDS | {"score_laws": "broken"}
    assert words in report["score_laws"].note
    if name not in ("exits", "fills"):  # what is raised is a finding like others, which the target may expect
        assert report.exit_code == 1


@pytest.mark.parametrize(
    ("name", "number"),
    [("terminates", signal.SIGTERM), ("hangs_up", signal.SIGHUP), ("interrupts_all", signal.SIGINT)],
)
def test_a_signal_to_the_gate_leaves_a_table_and_a_report(
    name: str, number: signal.Signals, bad: Path, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    script = tmp_path / "run.py"  # a script in the background is deaf to SIGINT, and one under nohup to SIGHUP
    script.write_text(
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "from iga.cli.app import main\nmain(sys.argv[1:])\n",
        encoding="utf-8",
    )
    only = [word for one in ONLY for word in ("--only", one)]
    ended = run_script(script, "verify", f"{bad}:{name}", *only, "--json", str(file))
    assert ended.returncode == 128 + number and "score_laws" in ended.stdout
    rows = {row["name"]: row for row in json.loads(file.read_text(encoding="utf-8"))["invariants"]}
    assert rows.keys() == HOLDS.keys() and rows["score_laws"]["verdict"] == "broken"
    assert f"the run was ended by {number.name}" in rows["score_laws"]["note"]


def test_what_a_target_leaves_behind_does_not_decide(bad: Path) -> None:
    """A child of its own that goes on in its place, an atexit function, a thread, a stream that is gone."""
    bad.with_name("left.py").write_text(BAD + "\nleave()\n", encoding="utf-8")
    for place in (f"{bad}:forks", f"{bad.with_name('left.py')}:leaves"):
        report = judge(place, only=ONLY)
        assert {one.name: one.verdict for one in report.findings} == HOLDS and report.exit_code == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sys.exit(0)", "SystemExit: 0"),
        ("os._exit(0)", "with exit code 0"),
        ("time.sleep(1e6)", "did not come back within 2 s"),
        ("raise MemoryError", "MemoryError"),
    ],
)
def test_a_target_that_is_not_there_after_loading_has_a_table_of_one_row_and_a_report(
    line: str, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, report = tmp_path / "bad.py", tmp_path / "report.json"
    file.write_text(BAD + f"\nprint('so far'); {line}\n", encoding="utf-8")
    limit = "2" if "sleep" in line else "60"
    ended = called(capfd, "verify", f"{file}:leaves", "--timeout", limit, "--json", str(report))
    assert ended.code == 1 and "loads" in ended.out and "Traceback" not in ended.out + ended.err
    if line in ("sys.exit(0)", "raise MemoryError"):
        last = len(file.read_text(encoding="utf-8").splitlines())
        words += f" (bad.py:{last}, in <module>)"
    document = json.loads(report.read_text(encoding="utf-8"))
    (row,) = document["invariants"]
    assert (row["name"], row["verdict"], document["exit_code"]) == ("loads", "broken", 1) and words in row["note"]


def test_a_fresh_interpreter_does_where_a_fork_is_not_safe(bad: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iga.testing.gate.parent.forkable", lambda: False)
    report = judge(f"{bad}:ends", only=["score_laws"])
    assert "with exit code 0" in report["score_laws"].note


def test_a_check_that_hangs_is_broken_and_after_some_of_them_the_others_are_not_begun(
    bad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parent, "HANGS", 2)
    file = bad.with_name("slow.py")
    calls = "n = [0]\ndef slow(*pair):\n    n[0] += 1\n    if n[0] > 2: time.sleep(1e6)\n    return exits(*pair)\n"
    file.write_text(BAD + calls, encoding="utf-8")
    report = judge(f"{file}:slow", kind="overlap", timeout=8.0)
    notes = [one.note for one in report.findings]
    late, left = "it did not come back within 8 s (--timeout)", "not judged, since 2 checks had run out of time"
    assert report.exit_code == 1 and notes[:2] == [late] * 2 and set(notes[2:]) <= {late, left}
    assert notes.count(late) <= 4 and notes[-1] == left  # of each share two


def test_shares_side_by_side_or_one_after_another_report_what_one_process_does(
    bad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only, fork = ["coincident_means", "determinism", "process_state"], parent.forkable()
    whole = verify(f"{bad}:leaves", only=only)
    monkeypatch.setattr(parent, "forkable", lambda: fork)
    for cores in (1, 2):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert judge(f"{bad}:leaves", only=only).findings == whole.findings


def test_only_messages_of_the_child_itself_are_believed(tmp_path: Path) -> None:
    lines = Lines(7)
    assert not list(lines.messages(b'{"pid": 7, "a"')) and list(lines.messages(b": 1}\n")) == [{"pid": 7, "a": 1}]
    for data in (b"verdict: holds\n", b'{"pid": 8}\n', b'["pid"]\n', b"{}\n"):
        with pytest.raises(Garbled):
            list(Lines(7).messages(data))
    mixed = Lines(7).messages(b'{"pid": 7}\nholds\n')
    assert next(mixed) == {"pid": 7}  # what came before is believed
    with pytest.raises(Garbled):
        next(mixed)
    descriptor = os.open(tmp_path / "pipe", os.O_WRONLY | os.O_CREAT)
    Channel(descriptor, 7).send(finding=float("nan"))
    assert (tmp_path / "pipe").read_bytes() == b'{"pid": 7, "finding": NaN}\n'


def test_a_call_that_forks_or_shuts_the_standard_streams_is_broken(bad: Path) -> None:
    for name, words in (("forks", "it forked the process"), ("shuts", "a standard stream's descriptor")):
        report = judge(f"{bad}:{name}", only=["coincident_means", "process_state"])
        assert report["coincident_means"].verdict == "holds" and report.exit_code == 1
        assert words in report["process_state"].worst_example


def test_an_interrupt_ends_the_child(bad: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[start.Child] = []

    class Kept(start.Child):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            children.append(self)

    def interrupted(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watched, "Child", Kept)
    with pytest.raises(KeyboardInterrupt):
        judge(f"{bad}:leaves", only=ONLY, on_progress=interrupted)
    assert [child.ended() for child in children] == [True]
