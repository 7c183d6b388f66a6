"""Where compiled kernels are kept: a file each, which is checked before it is believed.

Numba's own cache believes what it finds: an index cut short ends every later call in EOFError, machine code that lost a
byte is run, and a function whose callees changed in another file is taken for the same. A file here begins with the
SHA-256 of what follows it and of all that it was made from; where that differs, the file is removed and made anew.

Folders: NUMBA_CACHE_DIR alone where it is set; else that of the package, then the user's cache folder. A kernel is read
from whichever holds it, writable or not (an image warmed by root serves any user), and written to the first that can be
written to. A file appears whole or not at all, so that processes may share a folder.
"""

import functools
import hashlib
import logging
import pickle
import sys
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config, sigutils
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from iga._files import write_bytes

__all__ = ["KeptCode", "find", "folders", "read", "write"]

logger = logging.getLogger("iga")
_HASH = hashlib.sha256
_said: set[str] = set()


class KeptCode(_Cache):
    """The cache of one kernel, as numba's dispatcher asks for it."""

    # In a process that compiles for another one: that one keeps what it is sent.
    elsewhere = False

    def __init__(self, name: str) -> None:
        self._name = name
        self._accepted: dict[tuple[Any, ...], Any] = {}
        self.saved: bytes | None = None

    @property
    def cache_path(self) -> str:
        return str(folders()[0])

    def accept(self, args: tuple[Any, ...], code: bytes, target_context: Any) -> bool:
        """Whether `code` is of use; the next compilation for these types then takes it."""
        target_context.refresh()
        try:
            self._accepted[args] = CompileResult._rebuild(target_context, *pickle.loads(code))
        except Exception as error:  # whole, and yet of no use here: compiled instead
            logger.debug("iga: the code of %s that was kept cannot be used: %r", self._name, error)
            return False
        return True

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        args = tuple(sigutils.normalize_signature(sig)[0])
        if args not in self._accepted and not self.elsewhere:
            code = read(self._name, args)
            if code is not None:
                self.accept(args, code, target_context)
        return self._accepted.pop(args, None)

    def save_overload(self, sig: Any, data: Any) -> None:
        self.saved = dumps(data._reduce())
        if not self.elsewhere:
            write(self._name, tuple(sigutils.normalize_signature(sig)[0]), self.saved)

    def enable(self) -> None: ...

    def disable(self) -> None: ...

    def flush(self) -> None: ...


def folders() -> list[Path]:
    """Where kernels may be kept, in order."""
    here = Path(__file__).resolve().parent
    own = f"iga_{_HASH(str(here).encode()).hexdigest()[:16]}"
    chosen: str = getattr(config, "CACHE_DIR")  # noqa: B009 - made when numba is imported
    if chosen:
        return [Path(chosen).absolute() / own]
    return [here / "__pycache__", Path(AppDirs("iga", appauthor=False).user_cache_dir) / own]


def read(name: str, args: tuple[Any, ...]) -> bytes | None:
    """The code of kernel `name` for arguments of these types; None where no folder holds it whole."""
    found = find(name, args)
    return None if found is None else found[1]


def find(name: str, args: tuple[Any, ...]) -> tuple[Path, bytes] | None:
    """The folder that holds this code, and the code. A damaged file is removed on the way."""
    file = _file_name(name, args)
    for folder in folders():
        try:
            data = (folder / file).read_bytes()
        except OSError:
            continue
        digest, code = data[:32], data[32:]
        if digest == _digest(code):
            return folder, code
        try:
            (folder / file).unlink()
        except OSError as error:  # not ours to remove: it is never believed, and another folder may have it
            logger.debug("iga: %s is damaged and cannot be removed: %s", folder / file, error)
    return None


def write(name: str, args: tuple[Any, ...], code: bytes) -> None:
    """Keep the code in the first folder that takes it; where none does, say so once, for every process will compile."""
    file, reason = _file_name(name, args), None
    for folder in folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / file, _digest(code) + code)
        except OSError as error:
            reason = reason or error
        else:
            return
    if "unkept" not in _said:
        _said.add("unkept")
        logger.warning(
            "iga: compiled CPU kernels cannot be kept (%s), so every process compiles its own for some seconds; let "
            "NUMBA_CACHE_DIR name a folder that can be written to",
            reason,
        )


def _digest(code: bytes) -> bytes:
    return _HASH(_stamp() + code).digest()


@functools.cache
def _stamp() -> bytes:
    """The sources that kernels are made from."""
    sources = sorted((path.name, path.read_bytes()) for path in Path(__file__).parent.glob("_*.py"))
    return _HASH(repr(sources).encode()).digest()


@functools.cache
def _machine() -> tuple[Any, ...]:
    versions = (numba.__version__, llvmlite.__version__, sys.implementation.cache_tag, getattr(sys, "abiflags", ""))
    target: Any = cpu_target.target_context
    return (*versions, *target.codegen().magic_tuple())


def _file_name(name: str, args: tuple[Any, ...]) -> str:
    """One for each kernel, signature, processor, and version of what compiles."""
    key = _HASH(repr((_machine(), str(args))).encode()).hexdigest()
    return f"iga-{name}-{key[:20]}.code"
