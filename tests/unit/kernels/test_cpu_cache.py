"""Compiled kernels on disk: a damaged file is never believed, and a folder that fails costs time alone."""

import errno
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import config, njit, types

from iga.kernels.cpu import cache
from iga.kernels.cpu.cache import KeptCode

ARGS = (types.Array(types.float32, 1, "C"),)


def kernel() -> Any:
    """A fresh dispatcher, as another process would have it."""

    def doubled(x):
        for i in range(x.shape[0]):
            x[i] = x[i] + x[i]

    made: Any = njit(doubled)
    made._cache = KeptCode("doubled")
    return made


def works(made: Any) -> bool:
    x = np.arange(3, dtype=np.float32)
    made(x)
    return x.tolist() == [0.0, 2.0, 4.0]


def compilations(made: Any) -> int:
    return sum(made.stats.cache_misses.values())


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever another test made of the logger's level."""
    caplog.set_level(logging.WARNING, logger="iga")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.setattr(cache, "_said", set())
    return cache.folders()[0]


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_code_that_was_kept_is_read_again(folder: Path) -> None:
    first, second = kernel(), kernel()
    assert works(first) and compilations(first) == 1
    assert works(second) and compilations(second) == 0


def flipped(data: bytes) -> bytes:
    at = len(data) * 2 // 3
    return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut in the digest": lambda data: data[:20],
    "cut": lambda data: data[:100],
    "cut at its end": lambda data: data[:-1],
    "noise": lambda data: random.Random(0).randbytes(len(data)),
    "one bit": flipped,
    "longer": lambda data: data + b"\0",
    "text": lambda data: b"<html>503 Service Unavailable</html>" * 40,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_code_is_made_anew(folder: Path, how: str) -> None:
    assert works(kernel())
    whole = only_file(folder).read_bytes()
    only_file(folder).write_bytes(DAMAGE[how](whole))
    assert works(again := kernel()) and compilations(again) == 1
    assert works(third := kernel()) and compilations(third) == 0


def test_code_of_other_sources_is_made_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert works(kernel())
    monkeypatch.setattr(cache, "_stamp", lambda: b"another version")
    assert works(again := kernel()) and compilations(again) == 1


@pytest.mark.parametrize("code", [b"", b"not a pickle", b"\x80\x04]\x94."])
def test_whole_code_that_means_nothing_is_made_anew(folder: Path, code: bytes) -> None:
    cache.write("doubled", ARGS, code)
    assert works(again := kernel()) and compilations(again) == 1


def test_a_folder_that_disappeared_is_made_anew(folder: Path) -> None:
    assert works(kernel())
    only_file(folder).unlink()
    folder.rmdir()
    folder.parent.rmdir()
    assert works(again := kernel()) and compilations(again) == 1
    assert only_file(folder).exists()


def test_a_damaged_file_that_cannot_be_removed_is_not_believed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert works(kernel())
    only_file(folder).write_bytes(b"damaged")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(cache, "write_bytes", refuse)
    assert works(again := kernel()) and compilations(again) == 1


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_folder_that_takes_nothing_is_said_once_and_the_kernel_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reason: int
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise OSError(reason, "refused")

    monkeypatch.setattr(cache, "write_bytes", refuse)
    assert works(kernel()) and works(kernel())
    (record,) = caplog.records
    assert "refused" in record.getMessage() and "NUMBA_CACHE_DIR" in record.getMessage()


def test_a_file_where_the_folder_should_be_costs_time_alone(
    folder: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("")
    assert works(kernel())
    assert len(caplog.records) == 1


def test_the_folder_of_the_package_serves_who_cannot_write_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An image is warmed by root, and used by somebody else whose home is read-only."""
    image, home = tmp_path / "image", tmp_path / "home"
    monkeypatch.setattr(cache, "folders", lambda: [image, home])
    assert works(kernel())
    monkeypatch.setattr(cache, "write_bytes", lambda *_: pytest.fail("nothing is to be written"))
    assert works(again := kernel()) and compilations(again) == 0


def test_the_second_folder_takes_what_the_first_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "refuses").write_text("")
    folders = [tmp_path / "refuses", tmp_path / "takes"]
    monkeypatch.setattr(cache, "folders", lambda: folders)
    assert works(kernel())
    assert works(again := kernel()) and compilations(again) == 0
    assert only_file(folders[1]).exists()


def test_nothing_half_written_is_left_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import iga._files

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(iga._files.os, "fsync", full)
    assert works(kernel())
    assert list(folder.iterdir()) == []
