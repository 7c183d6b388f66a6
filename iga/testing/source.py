"""The file and line of what is judged, found without running any of it: from the file's text, and from sys.path."""

import ast
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from iga import presets
from iga.report.measured import Source

__all__ = ["source_of", "source_of_preset"]


def source_of(place: str) -> Source | None:
    """Of "package.module:attribute" or "path/to/file.py:attribute"; None where no file is found."""
    where, _, attribute = place.rpartition(":")
    try:
        path = Path(where) if where.endswith(".py") else _module(where)
        if path is None or not path.is_file():
            return None
        return {"file": _shown(path), "line": _line(path, attribute)}
    except (OSError, ValueError, ImportError):
        return None


def source_of_preset(name: str) -> Source:
    """The line of the table of presets that has the name."""
    path = Path(presets.__file__)
    named = (node for node in ast.walk(_tree(path)) if isinstance(node, ast.Constant) and node.value == name)
    return {"file": _shown(path), "line": min((node.lineno for node in named), default=None)}


def _module(name: str) -> Path | None:
    """Its file, looked for as an import would, though nothing is imported."""
    places: list[str] | None = ["", *sys.path]
    spec = None
    for count in range(1, len(parts := name.split(".")) + 1):
        spec = PathFinder.find_spec(".".join(parts[:count]), places)
        if spec is None:
            return None
        places = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    return None if spec is None or spec.origin is None else Path(spec.origin)


def _line(path: Path, attribute: str) -> int | None:
    """The line on which the attribute, dotted where it is one of a class, is last given its value."""
    try:
        body: list[ast.stmt] = _tree(path).body
    except (SyntaxError, ValueError, RecursionError):
        return None
    line = None
    for name in attribute.split("."):
        found = [node for node in _inside(body) if name in _names(node)]
        if not found:
            return line
        line, body = found[-1].lineno, getattr(found[-1], "body", [])
    return line


def _inside(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a body, those in its conditions and attempts too."""
    made: list[ast.stmt] = []
    for node in body:
        made.append(node)
        if isinstance(node, ast.If | ast.Try | ast.With):
            handlers = [one for handler in getattr(node, "handlers", []) for one in handler.body]
            made += _inside([*node.body, *getattr(node, "orelse", []), *handlers, *getattr(node, "finalbody", [])])
    return made


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    names = [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]
    if isinstance(node, ast.ImportFrom | ast.Import):
        names += [alias.asname or alias.name for alias in node.names]
    return names


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def _shown(path: Path) -> str:
    """From the current folder where it lies below it, with slashes; else absolute."""
    full = Path(os.path.abspath(path))
    below = full.is_relative_to(Path.cwd())
    return (full.relative_to(Path.cwd()) if below else full).as_posix()
