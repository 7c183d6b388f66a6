"""A connection to a Ray cluster, or a cluster started here for as long as it is used; Ray itself is optional.

    "local"              started here, with the workers that are wanted
    "auto"               the one that runs on this machine, or that RAY_ADDRESS names
    HOST:PORT            that of its head node
    ray://HOST:PORT      by way of its Ray Client server

Ray waits minutes for an address at which nothing answers, and may end the process there. So a child tries it first.
"""

import importlib.util
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from iga._text import one_line

__all__ = ["check_address", "cluster", "cores_of", "reason"]

PATIENCE = 15.0  # seconds for an address to answer
IMPORTING = 120.0  # seconds for the child to load Ray, on a machine that is busy
STORE = 100 << 20  # bytes of shared memory of a cluster started here: records are small; Ray wants 75 MiB at least
# Nothing of Ray's own is said, and nothing is told to its makers.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
}
TRY = """
import logging, sys, ray
print("loaded", flush=True)
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
print("answered", flush=True)
ray.shutdown()
"""


@contextmanager
def cluster(address: str, workers: int | None) -> Iterator[tuple[Any, str | None]]:
    """Ray, connected to an address that was checked, and the folder that ends with it where it is started here.

    workers  of a cluster that is started here; None: a core each

    Raises ValueError, one line, where it cannot be used after all.
    """
    import ray  # pyright: ignore[reportMissingImports] - an extra

    _quiet(ray)
    local = address == "local"
    with tempfile.TemporaryDirectory(prefix="iga-ray-", ignore_cleanup_errors=True) as place:
        try:
            options = {"log_to_driver": False, "logging_level": "CRITICAL"}
            if local:
                options |= {"num_cpus": workers or os.cpu_count() or 1, "num_gpus": 0, "include_dashboard": False}
                options |= {"object_store_memory": STORE, "_temp_dir": place}
            ray.init(address=address, **options)
        except Exception as error:  # Ray's own, of many kinds
            raise ValueError(f"--ray {address}: {_words(str(error))}") from error
        try:
            yield ray, place if local else None
        finally:
            ray.shutdown()


def cores_of(ray: Any) -> int:
    """The cores of a cluster, one at least."""
    return max(int(ray.cluster_resources().get("CPU", 0)), 1)


def reason(error: BaseException) -> str:
    """The kind of an error of Ray's, and the line of it that says what happened: of a task that raised, its last."""
    kind, lines = type(error).__name__, [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{kind}: {one_line(lines[-1] if kind.startswith('RayTaskError') else lines[0])[:200]}" if lines else kind


def _quiet(ray: Any) -> None:
    """What a node says of workers that died would be printed among the report, on standard output; no option of Ray's
    turns it off. A campaign says it itself."""
    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = lambda *batch, **options: None


def check_address(address: str) -> None:
    """Raises ValueError, one line, where Ray is not installed, or no cluster answers at the address in time."""
    if importlib.util.find_spec("ray") is None:
        extra = "pip install 'invariant-gaussian-attention[ray]'"
        raise ValueError(f"--ray needs Ray: install iga with its extra, {extra}")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if address == "local":
        return
    place = re.fullmatch(r"(?:ray://)?\[?([^/\s]+?)\]?:(\d+)", address)
    if place is not None:
        try:
            socket.create_connection((place[1], int(place[2])), timeout=PATIENCE / 3).close()
        except (OSError, OverflowError, UnicodeError) as error:
            raise ValueError(f"--ray {address}: nothing answers there: {_words(str(error))}") from error
    elif address != "auto":
        raise ValueError(f"--ray {address}: expected local, auto, HOST:PORT or ray://HOST:PORT")
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            [sys.executable, "-c", TRY, address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,
        )
        try:
            loaded = _heard(child, b"loaded", IMPORTING)
            if loaded and _heard(child, b"answered", PATIENCE):
                return
            ended = child.poll() is not None or not loaded
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            assert child.stdout is not None
            child.stdout.close()
        said.seek(0)
        words = _words(said.read().decode(errors="replace"), last=True)
    late = f"within {PATIENCE:g} s; one that asks for a token has to be given it by RAY_AUTH_MODE and its like"
    raise ValueError(f"--ray {address}: no Ray cluster answers there{f': {words}' if ended else f' {late}'}")


def _heard(child: subprocess.Popen[bytes], word: bytes, seconds: float) -> bool:
    """Whether the child prints this line in time."""
    assert child.stdout is not None
    last, line = time.monotonic() + seconds, b""
    while (left := last - time.monotonic()) > 0:
        if not select.select([child.stdout], [], [], left)[0]:
            continue
        data = os.read(child.stdout.fileno(), 1)
        if not data:
            child.wait()
            return False
        line = b"" if data == b"\n" else line + data
        if data != b"\n" and line == word:
            return True
    return False


def _words(text: str, *, last: bool = False) -> str:
    """The line of an error that says what it is, without colours."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]
    return one_line(lines[-1 if last else 0])[:300] if lines else "no reason given"
