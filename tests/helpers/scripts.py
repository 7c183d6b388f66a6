"""A script of tools/ or benches/ as a module."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["load_script"]

ROOT = Path(__file__).resolve().parents[2]


def load_script(name: str) -> Any:
    """The module that the file `name`, seen from the checkout, defines."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
    assert spec is not None and spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module
