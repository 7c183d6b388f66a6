"""Files that are whole or not there; and what stands where a file could: a link, a pipe, standard output, a device.

A file is written beside its place, flushed to the disk, then renamed: whoever is interrupted leaves what was there. A
link keeps pointing where it points. What is no file is written to as it is; /dev/stdout and /dev/fd/N are the
descriptors themselves, after what was printed there before.
"""

import errno
import os
import re
import select
import shutil
import socket
import stat
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path

__all__ = ["check_target", "descriptor", "sweep_folders", "write_bytes", "write_folder", "write_text"]

_PROBE = bytes(4096)  # a page: what an almost full disk may refuse
_HIDDEN = ".being-written."
# A rename that a mount point, or a folder that is not ours to change, does not allow; the file itself may be.
_NO_RENAME = (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM)


def write_bytes(path: Path, data: bytes) -> None:
    """`data` as the file `path`, or to whatever else is there. OSError, with the path as it was given, if it can't be
    done."""
    try:
        number = descriptor(path)
        if number is not None:
            _to_descriptor(number, data)
        elif _is_file(path):
            _to_file(Path(os.path.realpath(path)), data)
        else:
            _in_place(path, data, os.O_NOCTTY)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def write_text(path: Path, text: str) -> None:
    """The same of text, in UTF-8; half a surrogate pair, from a file name that is no UTF-8, is escaped as in JSON."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    """A new folder of these files, whole or not there at all, in a folder that exists. Returns its path: `path`, or
    where that is taken, the first free one of path-2, path-3, …

    It is filled under a hidden name beside its place; what a kill leaves there, `sweep_folders` takes away.
    """
    beside = path.with_name(f"{_HIDDEN}{socket.gethostname()}.{os.getpid()}.{path.name}")
    beside.mkdir()
    try:
        for name, data in files.items():
            with open(beside / name, "wb") as file:
                file.write(data)
                _flush(file.fileno())
        _flush_folder(beside)
        for number in count(1):
            place = path if number == 1 else path.with_name(f"{path.name}-{number}")
            if os.path.lexists(place):  # an empty folder would be replaced
                continue
            try:
                os.rename(beside, place)
            except OSError as error:  # somebody else was faster
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
                continue
            _flush_folder(place.parent)
            return place
        raise AssertionError  # count has no end
    except BaseException:  # an interrupt too: what was begun goes, and the error goes on
        shutil.rmtree(beside, ignore_errors=True)
        raise


def sweep_folders(parent: Path) -> None:
    """Takes away what processes of this machine that are gone have left of `write_folder` in `parent`."""
    for left in parent.glob(f"{_HIDDEN}{socket.gethostname()}.*"):
        number = left.name.removeprefix(f"{_HIDDEN}{socket.gethostname()}.").split(".")[0]
        if number.isdecimal() and not _alive(int(number)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def check_target(path: Path) -> None:
    """Raises OSError where `write_bytes` to `path` would, before a long run. Leaves nothing, and opens no pipe."""
    try:
        number = descriptor(path)
        if number is not None:
            os.write(number, b"")
        elif _is_file(path):
            _probe(Path(os.path.realpath(path)))
        elif not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        elif not stat.S_ISFIFO(os.stat(path).st_mode):  # opening a pipe waits for its reader, and closing it ends him
            _in_place(path, b"", os.O_NOCTTY)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def descriptor(path: Path) -> int | None:
    """N where `path` is /dev/fd/N of this process, directly or by links (/dev/stdout); None where it is not."""
    place = os.fspath(path)
    for _ in range(40):  # as many links as Linux follows
        folder = os.path.realpath(os.path.dirname(place) or ".")
        own = re.fullmatch(rf"/dev/fd|/proc/{os.getpid()}(/task/\d+)?/fd", folder)
        name = os.path.basename(place)
        if own and name.isdecimal():
            return int(name)
        if not os.path.islink(place):
            return None
        place = os.path.join(folder, os.readlink(place))
    return None


def _is_file(path: Path) -> bool:
    """A file, or a name that is free; False for pipes and character devices. OSError for what can't be written."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return True
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file in it")
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        raise OSError(errno.EINVAL, "is neither a file nor a pipe nor a terminal")
    return stat.S_ISREG(mode)


def _beside(path: Path) -> Path:
    if not path.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"no folder {path.parent} to write {path.name} to")
    return path.with_name(f".{path.name[:40]}.{os.getpid()}")


def _to_file(path: Path, data: bytes) -> None:
    beside = _beside(path)
    try:
        with open(beside, "wb") as file:
            file.write(data)
            _flush(file.fileno())
        if path.exists():
            shutil.copymode(path, beside)
        os.replace(beside, path)
    except OSError as error:
        if error.errno not in _NO_RENAME or not (path.is_file() and os.access(path, os.W_OK)):
            raise
        _in_place(path, data, os.O_TRUNC)
    finally:
        beside.unlink(missing_ok=True)


def _probe(path: Path) -> None:
    beside = _beside(path)
    path.exists()  # raises for a name that is too long
    if path.is_file() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    try:
        with open(beside, "wb") as file:
            file.write(_PROBE)
            _flush(file.fileno())
    except OSError as error:
        if error.errno not in _NO_RENAME or not path.is_file():
            raise
    finally:
        beside.unlink(missing_ok=True)


def _in_place(path: Path, data: bytes, flags: int) -> None:
    opened = os.open(path, os.O_WRONLY | flags)
    try:
        _write_all(opened, data)
    finally:
        os.close(opened)


def _to_descriptor(number: int, data: bytes) -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # what was printed before comes before
    _write_all(number, data)


def _write_all(number: int, data: bytes) -> None:
    left = memoryview(data)
    if not left:
        os.write(number, b"")  # /dev/full says no to that too
    while left:
        try:
            left = left[os.write(number, left) :]
        except BlockingIOError:
            select.select([], [number], [])


def _flush_folder(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        _flush(opened)
    finally:
        os.close(opened)


def _flush(number: int) -> None:
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # some file systems know no fsync
            raise
