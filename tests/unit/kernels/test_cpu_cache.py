"""Compiled kernels on disk: a damaged file is never believed, and a folder that fails costs time alone."""

import errno
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numba import config, njit

from iga.kernels.cpu import cache, ready
from iga.kernels.cpu._compile import KERNELS

ITEM = ("doubled", "float32")
Run = Callable[[], bool]


def doubled(x):
    for i in range(x.shape[0]):
        x[i] = x[i] + x[i]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Run:
    """Runs a kernel as a fresh process would: whether it had to be compiled."""
    caplog.set_level(logging.WARNING, logger="iga")  # whatever another test made of it
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.setattr(cache, "_said", set())

    def in_a_fresh_process() -> bool:
        made = njit(doubled)
        monkeypatch.setitem(KERNELS, "doubled", (made, "T1"))
        monkeypatch.setattr(ready, "_ready", set())
        compiled = ready.ready("float32", ("doubled",))
        x = np.arange(3, dtype=np.float32)
        made(x)
        assert x.tolist() == [0.0, 2.0, 4.0]
        return bool(compiled)

    return in_a_fresh_process


def only_file() -> Path:
    (file,) = cache.folders()[0].iterdir()
    return file


def flipped(data: bytes) -> bytes:
    at = len(data) * 2 // 3
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "empty": lambda data: b"",
    "cut in the digest": lambda data: data[:20],
    "cut": lambda data: data[:100],
    "cut at its end": lambda data: data[:-1],
    "noise": lambda data: random.Random(0).randbytes(len(data)),
    "one bit": flipped,
    "longer": lambda data: data + b"\0",
    "text": lambda data: b"<html>503 Service Unavailable</html>" * 40,
}


def test_code_that_was_kept_is_read_again_unless_it_is_damaged(run: Run) -> None:
    assert run()
    whole = only_file().read_bytes()
    for how, damaged in DAMAGE.items():
        only_file().write_bytes(damaged(whole))
        assert run() is (how != "none"), how
        assert only_file().read_bytes()[:32] == cache._digest(only_file().read_bytes()[32:]), how
    assert not run()


def test_whole_code_that_is_of_other_sources_or_means_nothing_is_made_anew(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run()
    for code in (b"", b"not a pickle", b"\x80\x04]\x94."):
        cache.write(ITEM, code)
        assert run(), code
    monkeypatch.setattr(cache, "_stamp", lambda: b"another version")
    assert run() and not run()


def test_a_folder_that_disappeared_is_made_anew(run: Run) -> None:
    assert run()
    only_file().unlink()
    cache.folders()[0].rmdir()
    cache.folders()[0].parent.rmdir()
    assert run() and only_file().exists()


def refuse(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, "refused")


def test_a_damaged_file_that_cannot_be_removed_is_not_believed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run()
    only_file().write_bytes(b"damaged")
    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(cache, "write_bytes", refuse)
    assert run()


@pytest.mark.parametrize("how", ["refused", "a file where the folder should be"])
def test_a_folder_that_takes_nothing_is_said_once_and_the_kernel_runs(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str, tmp_path: Path
) -> None:
    if how == "refused":  # a disk that is full, or read-only, or another's: any OSError
        monkeypatch.setattr(cache, "write_bytes", refuse)
    else:
        (tmp_path / "kept").write_text("")
    assert run() and run()
    (record,) = caplog.records
    assert "NUMBA_CACHE_DIR" in record.getMessage()


def test_the_folder_of_the_package_serves_who_cannot_write_to_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image is warmed by root, and used by somebody else whose home is read-only."""
    monkeypatch.setattr(cache, "folders", lambda: [tmp_path / "image", tmp_path / "home"])
    assert run()
    monkeypatch.setattr(cache, "write_bytes", lambda *_: pytest.fail("nothing is to be written"))
    assert not run()


def test_the_second_folder_takes_what_the_first_refuses(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "refuses").write_text("")
    monkeypatch.setattr(cache, "folders", lambda: [tmp_path / "refuses", tmp_path / "takes"])
    assert run() and not run()
    assert len(list((tmp_path / "takes").iterdir())) == 1


def test_nothing_half_written_is_left_behind(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refuse)
    assert run()
    assert list(cache.folders()[0].iterdir()) == []
