"""The memory of proofs on disk: a small file for each that was passed. What failed is asked again by each process.

A file is named by its key, and holds the key with its digest: one that is cut, damaged, or of something else counts as
none. Folders as those of the compiled CPU kernels: NUMBA_CACHE_DIR alone where it is set, else that of the package,
then the user's cache folder. Where no folder takes it, nothing is said: the proof takes some tenths of a second.
"""

import functools
import hashlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from iga._files import write_bytes

__all__ = ["folders", "passed", "remember", "sources"]

logger = logging.getLogger("iga")


def folders() -> list[Path]:
    """Where verdicts are kept, in order."""
    here = Path(__file__).resolve().parent
    own = f"iga_proofs_{hashlib.sha256(str(here).encode()).hexdigest()[:16]}"
    chosen = os.environ.get("NUMBA_CACHE_DIR", "")
    return [Path(chosen).absolute() / own] if chosen else [here / "__pycache__", _user_cache() / own]


def passed(key: Mapping[str, str]) -> bool:
    """Whether what the key describes is known to have proved itself."""
    name, data = _file(key)
    for folder in folders():
        try:
            if (folder / name).read_bytes() == data:
                return True
        except OSError:
            continue
    return False


def remember(key: Mapping[str, str]) -> None:
    """Keep that it proved itself, in the first folder that takes it."""
    name, data = _file(key)
    for folder in folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / name, data)
        except OSError as error:
            logger.debug("iga: a proof cannot be kept in %s: %s", folder, error)
        else:
            return


@functools.cache
def sources() -> str:
    """A digest of this package's code that kernels, and the reference that judges them, are made of."""
    package = Path(__file__).resolve().parents[1]
    files = sorted([*package.glob("*.py"), *package.glob("kernels/**/*.py")])
    return hashlib.sha256(repr([(path.name, path.read_bytes()) for path in files]).encode()).hexdigest()


def _file(key: Mapping[str, str]) -> tuple[str, bytes]:
    text = json.dumps(dict(key), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"iga-proof-{digest[:20]}.json", f"{text}\n{digest}\n".encode()


def _user_cache() -> Path:
    """The user's cache folder, by the custom of the system."""
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    if sys.platform == "darwin":
        return home / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
