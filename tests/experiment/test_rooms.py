"""The rooms of the experiment: each imports from itself and the rooms below, and none from the suite of checks."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import iga.experiment

FOLDER = Path(iga.experiment.__file__).parent
# From the ground up. At the top of the folder stand the settings, which all read, with their reader (`typed`) and the
# table of arms taken apart (`cures`), and compare, which reads all but the sweep of its like.
STOREYS = ("typed", "cures", "settings", "task", "model", "run", "results", "compare", "sweep")


def imported(path: Path) -> set[str]:
    """Dotted names of what `path` imports, names out of a module included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_a_room_imports_from_the_rooms_below_it_and_nothing_imports_the_checks() -> None:
    files = [path for path in FOLDER.rglob("*.py") if path.name != "__init__.py"]
    assert {path.relative_to(FOLDER).parts[0].removesuffix(".py") for path in files} == set(STOREYS)
    for path in files:
        here = STOREYS.index(path.relative_to(FOLDER).parts[0].removesuffix(".py"))
        for name in imported(path):
            assert not name.startswith(("iga.testing", "iga.bench")), f"{path} imports {name}"
            if name.startswith("iga.experiment."):
                assert STOREYS.index(name.split(".")[2]) <= here, f"{path} imports {name}"


@pytest.mark.process
def test_the_package_and_its_command_line_load_no_omegaconf() -> None:
    code = "import sys, iga, iga.cli.app; sys.exit('omegaconf' in sys.modules or 'yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
