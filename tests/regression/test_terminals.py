"""Verdicts on a terminal that can't print them, is full or gone, and the places where a report goes.

Found where σ on an ascii terminal ended in a traceback and 1, which means "broken", and where `--json` to a link put a
file in its place.
"""

import contextlib
import errno
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import iga
import iga.report.schema
from helpers.command import called, exit_code
from helpers.structures import pdb_text, peptide
from iga._files import check_target, write_bytes
from iga.cli.app import main
from iga.testing.run import Run

RUN = ("verify", "--points", "1", "--only", "determinism")
HOLDS = (*RUN, "--structures", "six.pdb")
BROKEN = ("verify", "--preset", "pre_fix", "--points", "1", "--only", "log_det_floor", "--structures", "six.pdb")
MEASURE, REPORTS = Run.run, {}
Capture = pytest.CaptureFixture[str]
EXPECTED = {HOLDS: 0, BROKEN: 1, ("bounds",): 0}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    (folder / "six.pdb").write_text(pdb_text(peptide(*["ALA", "LYS"] * 3)), encoding="utf-8")
    return folder


def once(plan: Run, on_progress: object = None) -> object:
    key = (plan.subject.name, *(one.name for one in plan.checks), *(one.path for one in plan.structures))
    if key not in REPORTS:
        REPORTS[key] = MEASURE(plan)
    return REPORTS[key]


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with a structure of six residues, and what is asked again is not measured again."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(Run, "run", once)


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


# --- the terminal ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "encoding"),
    [*((("bounds",), name) for name in ("ascii", "cp850", "latin-1", "utf-8")), (HOLDS, "ascii"), (BROKEN, "cp1252")],
)
def test_a_terminal_without_the_characters_changes_neither_the_verdict_nor_its_words(
    arguments: tuple[str, ...], encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert exit_code(*arguments) == EXPECTED[arguments]
    for stream in (out, err):
        stream.flush()
    text = out.buffer.getvalue().decode(encoding)  # pyright: ignore[reportAttributeAccessIssue]
    assert "log_det" in text or "determinism" in text
    assert ("σ" in text) == (encoding == "utf-8")


@pytest.mark.process
def test_a_reader_who_leaves_early_is_no_failure() -> None:
    """`iga … | head -1`: nothing on standard error, and the code of a command that SIGPIPE ended."""
    run = f"{sys.executable} -m iga bounds"
    words = ["bash", "-c", f"{run} | head -1; echo ${{PIPESTATUS[0]}}"]
    ran = subprocess.run(words, capture_output=True, text=True)
    assert ran.stderr == "" and ran.stdout.splitlines()[-1] in ("0", str(128 + 13))


def test_a_pipe_without_a_reader_ends_quietly_after_the_report_is_written(capfd: Capture, tmp_path: Path) -> None:
    for arguments, code in EXPECTED.items():
        reading, writing = os.pipe()
        os.close(reading)
        report = ("--json", str(tmp_path / "a.json")) if arguments[0] == "verify" else ()
        with open(writing, "w", encoding="utf-8") as stream, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            ended = called(capfd, *arguments, *report)
        assert (ended.code, ended.lines) == (128 + 13, []), arguments
        assert not report or read(tmp_path / "a.json")["exit_code"] == code


def test_a_full_standard_output_is_one_line_and_2_and_a_full_standard_error_stops_nothing(capfd: Capture) -> None:
    for arguments in (*EXPECTED, ("--help",), ("--version",)):
        with open("/dev/full", "w", encoding="utf-8") as stream, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            ended = called(capfd, *arguments)
        assert (ended.code, ended.lines) == (2, ["iga: standard output: No space left on device"]), arguments
    with open("/dev/full", "w", encoding="utf-8") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        assert exit_code(*BROKEN) == 1


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError("of a test"), 2, "out of memory of a test"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 10 bytes"), 2, "out of memory: Default"),
        (OSError(errno.EIO, "Input/output error", "disk"), 2, "disk: Input/output error"),
    ],
)
def test_what_stops_a_run_from_outside_is_one_line(
    error: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    def stopped(*given: object) -> None:
        raise error

    monkeypatch.setattr(Run, "run", stopped)
    ended = called(capfd, *HOLDS)
    assert ended.code == code and len(ended.lines) == 1 and ended.lines[0].startswith(f"iga: {words}")


def test_an_interrupt_that_a_package_swallows_comes_again(monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    """From a trial of `iga faults`: one in twenty interrupts while torch was imported did nothing."""

    def swallowing(*given: object) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        time.sleep(10)

    monkeypatch.setattr(Run, "run", swallowing)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a script in the background is deaf to it
    try:
        ended = called(capfd, *HOLDS)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ended.code, ended.lines) == (130, ["iga: interrupted"])


def test_an_error_of_ours_keeps_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*given: object) -> None:
        raise RuntimeError("of ours")

    monkeypatch.setattr(Run, "run", wrong)
    with pytest.raises(RuntimeError, match="of ours"):
        main([*HOLDS])


NAME = "\x1b[2J\x07[bold]:x:\u202eevil\udcff.pdb"


def test_a_file_name_is_shown_and_does_nothing_else(tmp_path: Path, capfd: Capture) -> None:
    """Escapes, a bell, markup, an emoji's name, a turn of the writing, a byte that is no UTF-8; in table and misuse."""
    (tmp_path / NAME).write_text("", encoding="utf-8")
    (tmp_path / ("\n" + NAME)).write_text("", encoding="utf-8")
    sound = tmp_path / f"{NAME}_1.pdb"
    sound.write_bytes(Path("six.pdb").read_bytes())
    for files, code in ((tmp_path, 0), (tmp_path / NAME, 2)):
        ended = called(capfd, *RUN, "--structures", str(files))
        shown = ended.out + ended.err
        assert ended.code == code
        for part in ("\\x1b[2J\\x07[bold]:x:\\u202eevil\\udcff", ".pdb"):
            assert part in shown.replace("│\n│", ""), shown
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", shown)


# --- the report --------------------------------------------------------------------------------------------------


def test_a_report_goes_through_links_and_into_files_that_keep_their_mode(tmp_path: Path) -> None:
    target, link = tmp_path / "folder" / "target.json", tmp_path / "link.json"
    target.parent.mkdir()
    link.symlink_to("folder/target.json")
    for already in (False, True):  # the link dangles first
        assert already == target.exists()
        assert exit_code(*HOLDS, "--json", str(link)) == 0
        assert link.is_symlink() and read(target)["exit_code"] == 0
        target.chmod(0o640)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert [path.name for path in target.parent.iterdir()] == ["target.json"]


def test_a_report_goes_into_a_pipe(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(read(pipe)), daemon=True)
    reader.start()
    assert exit_code(*HOLDS, "--json", str(pipe)) == 0
    reader.join(10)
    assert got and got[0]["exit_code"] == 0 and stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_report_on_standard_output_stands_there_alone(tmp_path: Path, capfd: Capture) -> None:
    """So that `iga verify --json /dev/stdout | jq` reads it; the table goes to standard error."""
    (tmp_path / "link").symlink_to("/dev/stdout")
    for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"):
        ended = called(capfd, *BROKEN, "--json", str(tmp_path / name))
        assert ended.code == json.loads(ended.out)["exit_code"] == 1 and "log_det_floor" in ended.err, name


def test_a_descriptor_is_written_where_it_stands(tmp_path: Path) -> None:
    """As of a process substitution, or of `3>> log`: what stands there already stays."""
    with open(tmp_path / "log", "w+b", buffering=0) as log:
        log.write(b"before\n")
        write_bytes(Path(f"/dev/fd/{log.fileno()}"), b"report\n")
        log.write(b"after\n")
    assert (tmp_path / "log").read_bytes() == b"before\nreport\nafter\n"


def test_a_folder_that_allows_no_other_file_still_holds_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file mounted into a container: it can be written, and not be replaced."""

    def busy(*paths: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "replace", busy)
    (tmp_path / "a").write_bytes(b"longer than what comes")
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(OSError, match="busy"):
        write_bytes(tmp_path / "b", b"new")
    assert len(list(tmp_path.iterdir())) == 1


def test_looking_at_a_target_leaves_nothing_and_opens_no_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opened, it would wait for ever
    (tmp_path / "file").write_bytes(b"mine")
    for name in ("pipe", "file", "new"):
        check_target(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe"]
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_disk_that_fills_at_the_end_costs_the_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(iga.report.schema, "write_text", full)
    ended = called(capfd, *BROKEN, "--json", str(tmp_path / "a.json"))
    assert ended.code == 2 and "log_det_floor" in ended.out and "do not hold" in ended.out
    assert ended.lines == [f"iga: {tmp_path / 'a.json'}: No space left on device"]


def test_every_file_of_the_package_is_written_by_one_writer() -> None:
    """Path.write_text and savefig to a path know neither links nor pipes, and leave half a file on a full disk."""
    other = re.compile(r"\.write_(?:text|bytes)\(|savefig\((?!buffer|drawn)")
    package = Path(iga.__file__).parent
    # The writer; a switch in /proc; a script that runs without this package, and unpacks its own source for a child.
    exempt = [package / name for name in ("_files.py", "_runtime.py", "fuzz/standalone.py")]
    for path in package.rglob("*.py"):
        if path not in exempt:
            assert not other.findall(path.read_text(encoding="utf-8")), path
