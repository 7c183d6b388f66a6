"""The source of a judge as text that stands alone: what a function needs of this package, and no line more.

A counterexample is judged where this package is not installed, by the very check that broke. From the names that are
asked for, each top-level statement that they use is followed through the package's modules, and kept as it is written,
in modules of the same names under `judge`. Imports are kept name by name. Those inside functions are not followed: they
are of what is used now and then, such as ball arithmetic.
"""

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

__all__ = ["PACKAGE", "bundle"]

PACKAGE = "judge"  # of the bundled modules, so that a target that imports this package meets its own
_HOME = Path(__file__).resolve().parents[1]
_OWN = "iga"
# Shapes in annotations are for this package's tests: beside it, an annotation is a tensor.
_SHIMS = {
    "iga._typing": '''"""Types that stand in for shapes."""

from torch import Tensor


class _Shaped:
    def __class_getitem__(cls, of):
        return Tensor


Bool = Float = _Shaped
NM_PER_ANGSTROM = 0.1
'''
}


@dataclass(frozen=True)
class _Import:
    """One name that a module imports: `name` of `module`, or the module itself (name empty)."""

    module: str
    name: str
    line: str

    @property
    def own(self) -> bool:
        return self.module.split(".")[0] == _OWN


@dataclass
class _Module:
    """A module's text, what each of its names is bound by, and the statements and imports that are wanted so far."""

    name: str
    lines: list[str]
    body: list[ast.stmt]
    bound: dict[str, list[int]] = field(default_factory=dict)
    imports: dict[str, _Import] = field(default_factory=dict)
    effects: list[int] = field(default_factory=list)  # statements that bind nothing, and do something
    wanted: set[int] = field(default_factory=set)
    wanted_imports: set[str] = field(default_factory=set)


def bundle(roots: Iterable[tuple[str, str]]) -> dict[str, str]:
    """{module under `judge`: source} with each (module, name) of `roots` and all that they use.

    Raises ValueError for a name that is nowhere.
    """
    known: dict[str, _Module] = {}
    left = list(roots)
    done: set[tuple[str, str]] = set()
    while left:
        module, name = left.pop()
        if (module, name) not in done:
            done.add((module, name))
            left += _wanted(module, name, known)
    texts = {name: _text(module) for name, module in known.items() if name not in _SHIMS}
    texts |= {name: text for name, text in _SHIMS.items() if name in known}
    return {_renamed(name): _with_renamed_imports(text) for name, text in sorted(texts.items())}


def _wanted(module: str, name: str, known: dict[str, _Module]) -> list[tuple[str, str]]:
    """What a name of a module uses itself; the statements that bind it are marked."""
    if module not in known:
        known[module] = _read(module)
    here = known[module]
    if module in _SHIMS:
        return []
    found: list[tuple[str, str]] = []
    if name in here.imports:
        one = here.imports[name]
        here.wanted_imports.add(name)
        return [(one.module, one.name)] if one.own and one.name else []
    places = here.bound.get(name, [])
    if name and not places and _file(f"{module}.{name}") is None:
        raise ValueError(f"{module} has no {name}")
    if name and not places:
        known.setdefault(f"{module}.{name}", _read(f"{module}.{name}"))
    for place in {*places, *here.effects} - here.wanted:
        here.wanted.add(place)
        found += _used(here, here.body[place])
    return found


def _used(here: _Module, statement: ast.stmt) -> list[tuple[str, str]]:
    found = []
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in here.imports:
            one = here.imports[node.value.id]
            whole = one.module if not one.name else f"{one.module}.{one.name}"
            if one.own and _file(whole) is not None:  # a module: of it what is named here
                here.wanted_imports.add(node.value.id)
                found.append((whole, node.attr))
        elif isinstance(node, ast.Name) and (node.id in here.bound or _is_name(here.imports.get(node.id))):
            found.append((here.name, node.id))
    return found


def _is_name(one: _Import | None) -> bool:
    """Whether it is imported, and no module of this package, of which only what is named is followed."""
    return one is not None and not (one.own and _file(f"{one.module}.{one.name}") is not None)


@cache
def _file(module: str) -> Path | None:
    parts = module.split(".")
    if parts[0] != _OWN:
        return None
    base = _HOME.joinpath(*parts[1:])
    return next((file for file in (base / "__init__.py", base.with_suffix(".py")) if file.is_file()), None)


def _read(module: str) -> _Module:
    file = _file(module)
    if file is None:
        raise ValueError(f"no module {module}")
    source = file.read_text(encoding="utf-8")
    made = _Module(module, source.splitlines(), ast.parse(source).body)
    for place, statement in enumerate(made.body):
        match statement:
            case ast.Import(names=names):
                for one in names:
                    made.imports[one.asname or one.name.split(".")[0]] = _Import(one.name, "", f"import {_as(one)}")
            case ast.ImportFrom(module=str(source), names=names):
                for one in names:
                    line = f"from {source} import {_as(one)}"
                    made.imports[one.asname or one.name] = _Import(source, one.name, line)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                made.bound.setdefault(name, []).append(place)
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                for name in _targets(statement):
                    made.bound.setdefault(name, []).append(place)
            case ast.Expr(value=ast.Constant()) | ast.If():  # words; what is for types, or for a command
                pass
            case _:
                made.effects.append(place)
    made.bound.pop("__all__", None)
    return made


def _as(one: ast.alias) -> str:
    return one.name if one.asname is None else f"{one.name} as {one.asname}"


def _targets(statement: ast.stmt) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]  # pyright: ignore[reportAttributeAccessIssue]
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def _text(module: _Module) -> str:
    """The docstring, the imports that are used, and the wanted statements with the comments above them."""
    first = module.body[0] if module.body else None
    words = [] if first is None or not _is_docstring(first) else module.lines[: first.end_lineno]
    imports = sorted({module.imports[name].line for name in module.wanted_imports})
    parts = ["\n".join(words), "\n".join(imports)]
    for place in sorted(module.wanted):
        statement = module.body[place]
        start = min([statement.lineno, *(one.lineno for one in getattr(statement, "decorator_list", []))]) - 1
        while start > 0 and module.lines[start - 1].startswith("#"):
            start -= 1
        parts.append("\n".join(module.lines[start : statement.end_lineno]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _renamed(module: str) -> str:
    return PACKAGE + module.removeprefix(_OWN)


def _with_renamed_imports(text: str) -> str:
    return re.sub(rf"^(\s*(?:from|import)) {_OWN}\b", rf"\1 {PACKAGE}", text, flags=re.MULTILINE)
