"""Documents read from files and written to them: schema 1, complete, or refused in one line that says what is wrong."""

import gzip
import json
import math
import types
import typing
import zlib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypeVar, Union, cast

from iga._files import write_text
from iga.report.documents import DOCUMENTS, Document

__all__ = ["SCHEMA", "fields", "flaw", "read", "read_as", "write"]

SCHEMA: Literal[1] = 1
# A file of schema 1 that is older than the key "document": the key that tells it, and what it lacks.
_TELLS = {"faults": "faults", "target": "verify", "rows": "bench", "runs": "compare"}
_LACKS: dict[str | None, dict[str, Any]] = {
    "bench": {"command": "iga bench", "exit_code": 0, "implementations": {}, "baseline": None},
    "compare": {"exit_code": 0},
}
T = TypeVar("T")


def write(document: Any, path: Path) -> None:
    """All of the file or nothing; OSError if it can't be written, ValueError for a number that is not finite."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read(path: Path) -> Document:
    """The document in a .json or .json.gz file. Raises ValueError, in one line, where it holds none that is whole."""
    try:
        data = path.read_bytes()
        found: Any = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (ValueError, RecursionError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict) or "schema" not in found:
        raise ValueError(f'{path} is no document of iga: it has no key "schema"')
    if found["schema"] != SCHEMA:
        raise ValueError(f"{path} has schema {found['schema']!r}; this version of iga reads schema {SCHEMA}")
    older = "document" not in found
    if older:
        kind = next((kind for key, kind in _TELLS.items() if key in found), None)
        found = {"document": kind, **_LACKS.get(kind, {}), **found}
    kind = found["document"]
    if not isinstance(kind, str) or kind not in DOCUMENTS:
        raise ValueError(f'{path} is no document of iga: "document" must be one of {", ".join(DOCUMENTS)}')
    wrong = flaw(found, DOCUMENTS[kind])
    if wrong is not None:
        raise ValueError(f"{path} is no whole {kind} document: {wrong}")
    if older and kind == "bench":
        found["exit_code"] = int(any(row["median_ms"] is None for row in found["rows"]))
    if older and kind == "compare":
        found["exit_code"] = int(any(run["status"] == "running" for run in found["runs"]))
    return cast(Document, found)


def read_as(path: Path, kind: type[T]) -> T:
    """The document of that kind in the file; ValueError for any other."""
    found: Any = read(path)
    wanted = next(name for name, one in DOCUMENTS.items() if one is kind)
    if found["document"] != wanted:
        raise ValueError(f"{path} is a {found['document']} document; expected a {wanted} document")
    return found


def flaw(value: Any, kind: Any) -> str | None:
    """What of `value` is not of the type `kind`, in one line; None where all is. Keys that are not known may stand."""
    found = _flaw(value, kind)
    return None if found is None else f"{found[0].removeprefix('.') or 'the document'} {found[1]}"


def _flaw(value: Any, kind: Any) -> tuple[str, str] | None:
    """(where in `value`, what is wrong there)."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    parts: list[tuple[str | int, Any, Any]] = []
    if typing.is_typeddict(kind):
        if not isinstance(value, dict):
            return _expected("an object", value)
        for name, one in fields(kind).items():
            if name in value:
                parts.append((name, value[name], one))
            elif name in kind.__required_keys__:
                return f".{name}", "is missing"
    elif origin in (Union, types.UnionType):
        found = [_flaw(value, one) for one in inner]
        return None if None in found else found[0]
    elif origin is Literal:
        return None if value in inner else _expected(" or ".join(map(repr, inner)), value)
    elif origin is dict:
        if not isinstance(value, dict):
            return _expected("an object", value)
        parts = [(name, one, inner[1]) for name, one in value.items()]
    elif origin is Annotated:
        if not isinstance(value, list) or len(value) != inner[1]:
            return _expected(f"a list of {inner[1]}", value)
        return _flaw(value, inner[0])
    elif origin is list:
        if not isinstance(value, list):
            return _expected("a list", value)
        parts = [(n, one, inner[0]) for n, one in enumerate(value)]
    elif not _is_plain(value, kind):
        return _expected(_PLAIN[kind], value)
    for where, one, wanted in parts:
        found = _flaw(one, wanted)
        if found is not None:
            return (f"[{where}]" if isinstance(where, int) else f".{where}") + found[0], found[1]
    return None


_PLAIN = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false", types.NoneType: "null"}


def _is_plain(value: Any, kind: Any) -> bool:
    if isinstance(value, bool):
        return kind in (bool, object)
    if kind is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, kind)


def _expected(what: str, value: Any) -> tuple[str, str]:
    return "", f"must be {what}, got {json.dumps(value, default=str)[:60]}"


@cache
def fields(kind: Any) -> dict[str, Any]:
    """The keys of a typed dictionary and their types."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {
        name: typing.get_args(one)[0] if typing.get_origin(one) is NotRequired else one for name, one in hints.items()
    }
