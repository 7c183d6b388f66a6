"""A counterexample's script and a function that states its claims, where torch alone is installed."""

import subprocess
import sys
from pathlib import Path

BLOCKED = """
import sys


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Blocked())
sys.path.insert(0, {folder!r})
from standalone import load

function = load("claimed.py:wrong", __import__("pathlib").Path({folder!r}))
print(function(1), [name for name in sys.modules if name.startswith("iga")])
"""
CLAIMED = """
import torch
from iga.testing import target{more}


@target(kind="overlap", dtypes=(torch.float32,), unsupported=("vmap",))
def wrong(x):
    return 2 * x
"""


def _loaded(folder: Path, names: tuple[str, ...] = ("iga",), more: str = "") -> subprocess.CompletedProcess[str]:
    from iga.fuzz import standalone

    (folder / "standalone.py").write_bytes(Path(standalone.__file__).read_bytes())
    (folder / "claimed.py").write_text(CLAIMED.format(more=more), encoding="utf-8")
    words = [sys.executable, "-W", "ignore", "-c", BLOCKED.format(names=names, folder=str(folder))]
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, timeout=120, check=False)


def test_the_decorator_of_claims_changes_nothing_without_iga(tmp_path: Path) -> None:
    done = _loaded(tmp_path)
    assert done.stdout.split() == ["2", "['iga',", "'iga.testing']"], done.stderr


def test_what_else_is_taken_of_iga_is_missing_as_before(tmp_path: Path) -> None:
    done = _loaded(tmp_path, more=", no_such_name")
    assert done.returncode and "no_such_name" in done.stderr


def test_another_module_that_is_missing_is_said(tmp_path: Path) -> None:
    done = _loaded(tmp_path, ("iga", "mpmath"), more="\nimport mpmath")
    assert done.returncode and "No module named 'mpmath'" in done.stderr
