"""The direction of imports: the lines that docs/architecture.md states, and no cycle."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from helpers.fresh import modules_after

pytestmark = pytest.mark.process
ROOT = Path(__file__).resolve().parents[3]


def stated_lines() -> list[list[str]]:
    """The lines of the block that follows the mark, from the ground upwards, as names of parts of iga."""
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- imports -->\n```\n(.*?)```", page, flags=re.DOTALL)
    assert found is not None
    return [[name for name in re.split(r"[,\s]+", line) if name] for line in found.group(1).splitlines()]


def all_modules() -> dict[str, Path]:
    paths = sorted((ROOT / "iga").rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def part_of(module: str, parts: dict[str, int]) -> str | None:
    """The longest stated part that holds the module; None for `iga` itself."""
    names = module.split(".")[1:]
    for count in range(len(names), 0, -1):
        if (name := ".".join(names[:count])) in parts:
            return name
    return None


def test_each_line_of_the_stated_direction_loads_only_itself_and_the_lines_above_it() -> None:
    lines, modules = stated_lines(), all_modules()
    parts = {name: number for number, line in enumerate(lines) for name in line}
    stated = {module: part_of(module, parts) for module in modules if module != "iga"}
    assert not [module for module, part in stated.items() if part is None]
    # __main__ is where a program begins: to import it is to run it.
    codes = [[m for m, part in stated.items() if part in line and not m.endswith("__main__")] for line in lines]
    loaded = modules_after([f"import iga, {', '.join(code)}" if code else "" for code in codes], before="import torch")
    for number, (line, found) in enumerate(zip(lines, loaded, strict=True)):
        against = [name for name in sorted(found) if (part := stated.get(name)) and parts[part] > number]
        assert not against, f"{', '.join(line)}: loads {', '.join(against)}, from below"
    for module, path in modules.items():
        for other in imported(path, modules) - {"iga", module}:
            own, its = stated.get(module), stated[other]
            assert own == its or own is None or parts[its or ""] < parts[own], f"{module} imports {other}"


def imported(path: Path, modules: dict[str, Path]) -> set[str]:
    """The modules of iga that a file imports when it is loaded."""
    found: set[str] = set()

    def visit(nodes: list[ast.stmt]) -> None:
        for node in nodes:
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    found.add(name if name in modules else node.module)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
                visit(node.body + node.orelse)
            elif isinstance(node, ast.Try | ast.With | ast.ClassDef):
                visit(node.body)

    visit(ast.parse(path.read_text(encoding="utf-8")).body)
    return found & set(modules)


def test_no_module_imports_itself_by_way_of_others() -> None:
    modules = all_modules()
    graph = {name: imported(path, modules) for name, path in modules.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)  # CycleError names a cycle
    with pytest.raises(ValueError, match="cycle"):
        list(TopologicalSorter({**graph, "iga.rotation": {"iga.attention"}}).static_order())
