"""Compilation of the CPU kernels: by whom, how many, what is said; and "auto" where numba cannot serve."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from numba import config
from typer.testing import CliRunner

from iga import Frame, InvariantGaussianAttention, preset
from iga.cli.app import app, main
from iga.kernels import choice, choose
from iga.kernels.cpu import cache, ready
from iga.kernels.cpu._compile import KERNELS, signature
from iga.kernels.cpu.helper import compile_beside
from iga.rotation import random

CPU, CLOSED = torch.device("cpu"), preset("bounded")


class Slow:
    """A kernel that takes its time to compile, and counts how often it had to."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.seconds, self.error, self.compiled = seconds, error, 0
        self.overloads: dict[object, Slow] = {}

    def compile(self, args: object) -> None:
        if self.error is not None:
            raise self.error
        time.sleep(self.seconds)
        self.compiled += 1
        self.overloads[args] = self

    def _reduce(self) -> tuple[()]:
        return ()


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """As in a process that has not run a kernel yet, with an empty cache, whatever another test made of the logger."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    for module, names in ((ready, ("_ready", "_beside")), (cache, ("_said",)), (choice, ("_found", "_said"))):
        for name in names:
            monkeypatch.setattr(module, name, type(getattr(module, name))())
    monkeypatch.setattr(ready, "_said", False)
    # Kernels that stand in for others prove nothing; test_trust.py has what they have to prove.
    monkeypatch.setattr(choice, "distrust", lambda *_: None)
    before = logging.getLogger("iga").level
    caplog.set_level(logging.WARNING, logger="iga")
    yield
    logging.getLogger("iga").setLevel(before)


def planted(monkeypatch: pytest.MonkeyPatch, **kernels: Slow) -> None:
    for name, kernel in kernels.items():
        monkeypatch.setitem(KERNELS, name, (kernel, "T1"))


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "iga"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_kernel_is_called_with_the_types_that_it_declares(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another specialisation would be compiled in the middle of a call, unseen, and not kept by `iga warm`."""
    monkeypatch.setattr(config, "CACHE_DIR", "")  # these are real, and dear
    layer = InvariantGaussianAttention(8, 4, 4, 2, 3, 2, implementation="cpu").to(dtype)
    with torch.no_grad():
        layer.linear_out.weight.normal_()
    for lead in ((), (2,), (2, 3)):
        frame = Frame(random(*lead, 5, dtype=dtype), torch.randn(*lead, 5, 3, dtype=dtype))
        s, z = torch.randn(*lead, 5, 8, dtype=dtype), torch.randn(*lead, 5, 4, 5, dtype=dtype).mT
        out, _ = layer.with_statistics(s, z, frame, torch.ones(*lead, 5, dtype=torch.bool))
        out.square().sum().backward()
    for name, (kernel, _) in KERNELS.items():
        declared = {signature(name, each) for each in ready.DTYPES}
        assert kernel.overloads and set(kernel.overloads) <= declared, name


def test_a_call_without_gradients_compiles_no_kernel_of_the_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = {name: Slow() for name in KERNELS}
    planted(monkeypatch, **kernels)
    monkeypatch.setattr(ready, "may_help", lambda: False)
    assert choice.obstacle("cpu", CPU, torch.float32, CLOSED) is None
    assert {name for name, kernel in kernels.items() if kernel.compiled} == set(ready.FORWARD)
    ready.ready("float32", ready.BACKWARD)
    assert all(kernel.compiled == 1 for kernel in kernels.values())


@pytest.mark.parametrize(("seconds", "level", "said"), [(0.2, "WARNING", 1), (0.0, "WARNING", 0), (0.2, "ERROR", 0)])
def test_compiling_is_said_once_where_it_takes_long_unless_one_line_switches_that_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seconds: float, level: str, said: int
) -> None:
    """The line is that of docs/kernels.md."""
    logging.getLogger("iga").setLevel(level)
    monkeypatch.setattr(ready, "PATIENCE", 0.02 if seconds else ready.PATIENCE)
    planted(monkeypatch, one=Slow(seconds), two=Slow(seconds))
    ready.ready("float32", ("one",))
    ready.ready("float32", ("two",))
    found = messages(caplog)
    assert len(found) == said and all("compiling" in line and "iga warm" in line for line in found)


@pytest.mark.parametrize("executable", ["/bin/false", "/no/such/interpreter", "/bin/cat"])
def test_a_second_process_that_cannot_serve_costs_nothing_but_time(
    monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    kernels = {"one": Slow(0.1), "two": Slow(), "three": Slow()}
    planted(monkeypatch, **kernels)
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(ready, "may_help", lambda: True)
    ready.ready("float32", tuple(kernels))
    assert all(kernel.compiled == 1 for kernel in kernels.values())


@pytest.mark.process
def test_a_second_process_hands_back_code_that_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    item = ("carry_points", "float64")
    code = compile_beside([item])[item].result()
    found = cache.find(item)
    assert code is not None and found is not None and found[1] == code
    kernel: Any = KERNELS[item[0]][0]
    monkeypatch.setattr(kernel, "compile", lambda *_: pytest.fail("there is nothing to compile"))
    kernel.overloads.pop(signature(*item), None)
    assert cache.install(item, code)
    made = kernel.overloads[signature(*item)].entry_point
    points, out = torch.randn(1, 1, 2, 3, dtype=torch.float64), torch.empty(1, 1, 2, 3, dtype=torch.float64)
    rot, trans = torch.eye(3, dtype=torch.float64).repeat(1, 2, 1, 1), torch.ones(1, 2, 3, dtype=torch.float64)
    made(points.numpy(), rot.reshape(1, 2, 9).numpy(), trans.numpy(), False, 0, 0, 2, out.numpy())
    assert torch.equal(out, points + 1)


def unservable(monkeypatch: pytest.MonkeyPatch, how: str) -> str:
    """Breaks numba in one of the ways in which it breaks; a word of the reason."""
    if how == "switched off":
        monkeypatch.setattr(config, "DISABLE_JIT", 1)
        return "NUMBA_DISABLE_JIT"
    if how == "does not compile":
        error = RuntimeError("LLVM ERROR: unknown\n  processor 'z80'")
        planted(monkeypatch, **{name: Slow(error=error) for name in ready.FORWARD})
        monkeypatch.setattr(ready, "may_help", lambda: False)
        return "z80"
    if how == "not installed":
        monkeypatch.setitem(sys.modules, "numba", None)
        return "pip install numba"
    errors = {
        "no llvmlite": ModuleNotFoundError("No module named 'llvmlite'", name="llvmlite"),
        "no shared object": OSError("Could not find/load shared object file libllvmlite.so"),
        "another numpy": ImportError("Numba needs NumPy 2.3 or less. Got NumPy 2.9."),
        "another binary": SystemError("initialization of _internal failed without raising an exception"),
        "another layout": ValueError("numpy.dtype size changed, may indicate binary incompatibility"),
    }

    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "iga.kernels.cpu.ready":
                raise errors[how]

    monkeypatch.delitem(sys.modules, "iga.kernels.cpu.ready")
    monkeypatch.delattr("iga.kernels.cpu.ready")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    return "pip install"


HOW = ["switched off", "does not compile", "not installed", "no llvmlite", "no shared object", "another numpy"]
HOW += ["another binary", "another layout"]


@pytest.mark.parametrize("how", HOW)
def test_numba_that_cannot_serve_leaves_auto_the_reference_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    word = unservable(monkeypatch, how)
    # asked for by name, or all there is for a form, the reference needs no numba, and nothing is said
    assert choose("reference", CPU, torch.float32, CLOSED) == "reference"
    assert choose("auto", CPU, torch.float32, preset("pre_fix")) == "reference"
    assert messages(caplog) == []
    layer = InvariantGaussianAttention(8, 0, 4, 2, 2, 2)
    frame = Frame(random(1, 5), torch.randn(1, 5, 3))
    for _ in range(2):
        out = layer(torch.randn(1, 5, 8), None, frame, torch.ones(1, 5, dtype=torch.bool))
        assert out.isfinite().all()
    assert choose("auto", CPU, torch.float32, CLOSED) == "reference"
    (said,) = messages(caplog)
    assert word in said and "reference" in said and "\n" not in said
    with pytest.raises(ValueError, match="implementation='cpu' cannot run here") as caught:
        choose("cpu", CPU, torch.float32, CLOSED)
    assert word in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [MemoryError("no room"), OSError("too many open files")])
def test_what_hinders_compiling_for_a_moment_is_not_remembered(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    kernels = {name: Slow(error=error) for name in ready.FORWARD}
    planted(monkeypatch, **kernels)
    monkeypatch.setattr(ready, "may_help", lambda: False)
    with torch.no_grad():
        assert choose("auto", CPU, torch.float32, CLOSED) == "reference"
        for kernel in kernels.values():
            kernel.error = None
        assert choose("auto", CPU, torch.float32, CLOSED) == "cpu"


@pytest.mark.process
def test_a_fresh_process_with_its_compiler_switched_off_says_so_on_standard_error() -> None:
    program = """
import torch
from iga.kernels import choose
from iga import preset
print(choose("auto", torch.device("cpu"), torch.float32, preset("bounded")))
"""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3]), "NUMBA_DISABLE_JIT": "1"}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env)
    assert ran.stdout.strip() == "reference" and ran.returncode == 0
    (line,) = ran.stderr.splitlines()
    assert line.startswith("iga: ") and "NUMBA_DISABLE_JIT" in line


def test_warm_says_what_is_ready_and_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "FORWARD", ("carry_points",))
    monkeypatch.setattr(ready, "BACKWARD", ())
    KERNELS["carry_points"][0].overloads.pop(signature("carry_points", "float32"), None)
    result = CliRunner().invoke(app, ["warm", "--dtype", "float32", "--forward-only"])
    assert result.exit_code == 0, result.output
    assert "float32: 1 kernels ready in" in result.output and str(cache.folders()[0]) in result.output


@pytest.mark.parametrize(
    ("arguments", "off", "folder", "word"),
    [
        (["--dtype", "float16"], 0, "", "float16"),
        ([], 1, "", "NUMBA_DISABLE_JIT"),
        (["--dtype", "float32", "--forward-only"], 0, "file", "NUMBA_CACHE_DIR"),
    ],
)
def test_warm_that_cannot_compile_or_keep_ends_2_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    off: int,
    folder: str,
    word: str,
) -> None:
    monkeypatch.setattr(config, "DISABLE_JIT", off)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / folder))
    monkeypatch.setattr(ready, "FORWARD", ("one",))
    planted(monkeypatch, one=Slow())
    with pytest.raises(SystemExit) as left:
        main(["warm", *arguments])
    out, err = capsys.readouterr()
    assert left.value.code == 2 and out == ""
    (line,) = err.splitlines()
    assert line.startswith("iga: ") and word in line
