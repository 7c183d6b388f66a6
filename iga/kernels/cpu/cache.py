"""The place where compiled kernels are kept: a file each, which is checked before it is believed.

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
from numba.core import config
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from iga._files import write_bytes
from iga.kernels.cpu._compile import KERNELS, signature

__all__ = ["Item", "compiled_code", "find", "folders", "install", "write"]

logger = logging.getLogger("iga")
_HASH = hashlib.sha256
_said: set[str] = set()

Item = tuple[str, str]  # kernel, dtype


def compiled_code(item: Item) -> bytes:
    """The machine code of a kernel, compiled here; the kernel can run then."""
    kernel, args = KERNELS[item[0]][0], signature(*item)
    kernel.compile(args)
    return dumps(kernel.overloads[args]._reduce())


def install(item: Item, code: bytes) -> bool:
    """Whether `code` is of use: the kernel runs it then."""
    kernel: Any = KERNELS[item[0]][0]
    with global_compiler_lock:
        kernel.targetctx.refresh()
        try:
            made = CompileResult._rebuild(kernel.targetctx, *pickle.loads(code))
        except Exception as error:  # whole, and yet of no use here: compiled instead
            logger.debug("iga: the code of %s that was kept cannot be used: %r", item[0], error)
            return False
        kernel.targetctx.insert_user_function(made.entry_point, made.fndesc, [made.library])
        kernel.add_overload(made)
    return True


def folders() -> list[Path]:
    """Where kernels may be kept, in order."""
    here = Path(__file__).resolve().parent
    own = f"iga_{_HASH(str(here).encode()).hexdigest()[:16]}"
    chosen: str = getattr(config, "CACHE_DIR")  # noqa: B009 - made when numba is imported
    if chosen:
        return [Path(chosen).absolute() / own]
    return [here / "__pycache__", Path(AppDirs("iga", appauthor=False).user_cache_dir) / own]


def find(item: Item) -> tuple[Path, bytes] | None:
    """The folder that holds a kernel whole, and its code, or None. A damaged file is removed on the way."""
    file = _file_name(item)
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


def write(item: Item, code: bytes) -> None:
    """Keep the code in the first folder that takes it; where none does, say so once, for every process will compile."""
    file, reason = _file_name(item), None
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


def _file_name(item: Item) -> str:
    """One for each kernel, signature, processor, and version of what compiles."""
    key = _HASH(repr((_machine(), str(signature(*item)))).encode()).hexdigest()
    return f"iga-{item[0]}-{key[:20]}.code"
