"""Shape checks on, scratch memory poisoned, Hypothesis profiles stated in full, and the folder of real structures."""

import ast
import gc
import os
import signal
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

import jaxtyping
import pytest
from jaxtyping import _import_hook


class _Outermost(_import_hook.JaxtypingTransformer):
    """Functions within functions come as they are: a call makes them anew, and a check of one takes long to make."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        inside = any(isinstance(parent, ast.FunctionDef) for parent in self._parents)
        return node if inside else super().visit_FunctionDef(node)


# Shapes in signatures are checked here and nowhere else. The hook must come before the first import of iga.
_import_hook.JaxtypingTransformer = _Outermost  # pyright: ignore[reportPrivateImportUsage]
jaxtyping.install_import_hook("iga", "beartype.beartype")


class _Compiled:
    """Modules whose functions a compiler reads (numba, Triton) come as they are: it would read the checks too."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        compiled = name.startswith(("iga.kernels.cpu._", "iga.kernels.triton._"))
        return PathFinder.find_spec(name, path) if compiled else None  # pyright: ignore[reportArgumentType]


sys.meta_path.insert(0, _Compiled)  # pyright: ignore[reportArgumentType]

# Shared assertions show their values as those in test files do.
pytest.register_assert_rewrite("helpers")

# Triton kernels run on CPU tensors under its interpreter; the variable is read when they are defined.
os.environ.setdefault("TRITON_INTERPRET", "1")

import hypothesis  # noqa: E402
import torch  # noqa: E402
from hypothesis.database import DirectoryBasedExampleDatabase  # noqa: E402

from iga.kernels import blocks  # noqa: E402

# What a shell starts in the background ignores Ctrl-C, and so would every command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The tensors are small, and two OpenMP threads on a busy machine spend their time waiting for each other.
torch.set_num_threads(1)

# A profile inherits derandomize and database from the CI default when CI is set: every field is stated.
_COMMON = {"deadline": None, "print_blob": True, "suppress_health_check": (), "report_multiple_bugs": True}
_FOUND = DirectoryBasedExampleDatabase(".hypothesis/examples")
hypothesis.settings.register_profile("dev", max_examples=40, derandomize=False, database=_FOUND, **_COMMON)
hypothesis.settings.register_profile("ci", max_examples=40, derandomize=True, database=None, **_COMMON)
hypothesis.settings.register_profile("nightly", max_examples=2000, derandomize=False, database=_FOUND, **_COMMON)
hypothesis.settings.load_profile(os.environ.get("IGA_HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def pytest_collection_finish() -> None:
    """What the modules hold stays to the end: the garbage collector need not walk through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def poisoned_scratch() -> Iterator[None]:
    """Memory to which nothing has been written holds NaN (whole numbers: the largest), so that reading it shows.

    Torch fills what its own functions leave empty. The blocks that kernels keep between calls are filled each time that
    one is asked for. Arrays within compiled CPU kernels are out of reach here: tests/unit/kernels/test_scratch.py.
    """
    kept = blocks._scratch

    def poisoned(*args: object) -> torch.Tensor | None:
        block = kept(*args)  # pyright: ignore[reportArgumentType]
        return None if block is None else block.fill_(float("nan"))

    blocks._scratch = poisoned
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    blocks._scratch = kept


STRUCTURES = Path(__file__).resolve().parents[2] / "shared" / "structures"


@pytest.fixture(scope="session")
def structures_dir() -> Path:
    """The folder of real structures beside the checkout; tests that need it skip where it is absent."""
    if not STRUCTURES.is_dir():
        pytest.skip("no folder shared/structures beside the checkout")
    return STRUCTURES


# Whole runs of the suite, the bench and the commands call layers thousands of times; regressions show what a user met,
# whose signatures nobody checks. Shapes are checked where layers, kernels and geometry are tested.
_PARTS = ("regression", "unit/testing", "unit/project", "unit/bench", "unit/cli", "unit/report")
_UNCHECKED = tuple(str(Path(__file__).parent / part) for part in _PARTS)


@pytest.fixture(scope="module", autouse=True)
def shape_checks(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if str(request.path).startswith(_UNCHECKED):
            patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        yield


@pytest.fixture
def without_shape_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures are not checked: what is examined is what users get."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
