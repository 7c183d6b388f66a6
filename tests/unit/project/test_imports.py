"""Modules that importing a part of the package loads, and those that it must not load."""

import pytest

from helpers.fresh import modules_after

pytestmark = pytest.mark.process

WITHOUT_A_COMPILER = """
import importlib.util, sys
sys.modules[{package!r}] = None
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {package!r} else find(name, *rest)
from iga import InvariantGaussianAttention, Frame
from iga.rotation import random
layer = InvariantGaussianAttention(8, 0, 4, 2, 2, 2)
layer(torch.randn(1, 5, 8), None, Frame(random(1, 5), torch.randn(1, 5, 3)), torch.ones(1, 5, dtype=torch.bool))
"""


def test_importing_the_package_or_its_command_line_does_not_load_torch() -> None:
    for loaded in modules_after(["import iga", "import iga.cli.app", "import iga, iga.testing"]):
        assert "iga" in loaded
        assert not loaded & {"torch", "numba", "triton", "matplotlib", "ray"}


def test_each_part_loads_only_what_it_needs_and_works_where_a_compiler_is_not_installed() -> None:
    verify, kernels, names, *_ = modules_after(
        [
            "import iga; iga.verify",
            "import iga.kernels, iga.attention",
            "import iga\nfor name in iga.__all__: getattr(iga, name)",
            *(f"import torch{WITHOUT_A_COMPILER.format(package=package)}" for package in ("triton", "numba")),
        ],
        before="import torch",
    )
    assert "iga.testing.verify" in verify and not verify & {"hypothesis", "pytest", "matplotlib", "beartype"}
    assert "iga.kernels" in kernels and not kernels & {"triton", "numba", "hypothesis", "pytest"}
    assert "iga.structure.synthetic" in names


def test_an_unknown_public_name_is_an_attribute_error_that_lists_the_names() -> None:
    import iga

    with pytest.raises(AttributeError, match="InvariantGaussianAttention"):
        _ = iga.no_such_name
