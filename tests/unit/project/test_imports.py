"""What may be loaded when: fresh processes, since a module once imported hides the question."""

import subprocess
import sys

import pytest

LOADED = "import sys; print('\\n'.join(sorted(sys.modules)))"


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh process holds after running `code`."""
    run = subprocess.run([sys.executable, "-c", f"{code}\n{LOADED}"], capture_output=True, text=True, check=True)
    return {line.split(".")[0] for line in run.stdout.splitlines()}


@pytest.mark.parametrize("code", ["import iga", "import iga.cli.app", "import iga, iga.testing"])
def test_importing_the_package_or_its_command_line_does_not_load_torch(code: str) -> None:
    loaded = modules_after(code)
    assert "iga" in loaded
    assert "torch" not in loaded


def test_verify_loads_neither_hypothesis_nor_pytest_nor_matplotlib() -> None:
    loaded = modules_after("import iga; iga.verify")
    assert "torch" in loaded
    assert not loaded & {"hypothesis", "pytest", "matplotlib", "beartype"}


def test_kernels_load_neither_triton_nor_numba_before_they_run() -> None:
    loaded = modules_after("import iga.kernels, iga.attention")
    assert "torch" in loaded
    assert not loaded & {"triton", "numba", "hypothesis", "pytest"}


@pytest.mark.parametrize("package", ["triton", "numba"])
def test_kernels_and_layers_work_where_a_compiler_is_not_installed(package: str) -> None:
    code = f"""
import importlib.util, sys
sys.modules[{package!r}] = None
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {package!r} else find(name, *rest)
import torch
from iga import InvariantGaussianAttention, Frame
from iga.rotation import random
layer = InvariantGaussianAttention(8, 0, 4, 2, 2, 2)
layer(torch.randn(1, 5, 8), None, Frame(random(1, 5), torch.randn(1, 5, 3)), torch.ones(1, 5, dtype=torch.bool))
"""
    modules_after(code)


def test_every_public_name_loads() -> None:
    code = "import iga\nfor name in iga.__all__: getattr(iga, name)"
    assert "torch" in modules_after(code)


def test_an_unknown_public_name_is_an_attribute_error_that_lists_the_names() -> None:
    import iga

    with pytest.raises(AttributeError, match="InvariantGaussianAttention"):
        _ = iga.no_such_name
