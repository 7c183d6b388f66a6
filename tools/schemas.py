"""JSON Schemas (draft 2020-12) of the documents, made of their types: `python tools/schemas.py [--check]`.

Without --check the files of iga/report/schemas are written; with it, exit code 1 says that they are not those of today.
"""

import inspect
import json
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, is_typeddict

from iga.report.documents import DOCUMENTS
from iga.report.schema import fields

__all__ = ["main", "schema"]

FOLDER = Path(__file__).resolve().parents[1] / "iga" / "report" / "schemas"
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", types.NoneType: "null"}


def schema(kind: type) -> dict[str, Any]:
    """The schema of one document. Keys beyond those named may stand, as in files of a later version."""
    named: dict[str, Any] = {}
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_object(kind, named)}
    return made | ({"$defs": dict(sorted(named.items()))} if named else {})


def _object(kind: Any, named: dict[str, Any]) -> dict[str, Any]:
    hints = fields(kind)
    return {
        "title": kind.__name__,
        "description": inspect.getdoc(kind),
        "type": "object",
        "properties": {name: _schema(one, named) for name, one in hints.items()},
        "required": [name for name in hints if name in kind.__required_keys__],
    }


def _schema(kind: Any, named: dict[str, Any]) -> dict[str, Any]:
    origin, inner = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        if kind.__name__ not in named:
            named[kind.__name__] = {}  # its place, before what it holds
            named[kind.__name__] = _object(kind, named)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if origin in (Union, types.UnionType):
        if all(one in _PLAIN for one in inner):
            return {"type": [_PLAIN[one] for one in inner]}
        return {"anyOf": [_schema(one, named) for one in inner]}
    if origin is Literal:
        return {"const": inner[0]} if len(inner) == 1 else {"enum": list(inner)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(inner[1], named)}
    if origin is list:
        return {"type": "array", "items": _schema(inner[0], named)}
    if origin is Annotated:
        return _schema(inner[0], named) | {"minItems": inner[1], "maxItems": inner[1]}
    return {"type": _PLAIN[kind]}


def main(arguments: list[str]) -> int:
    """0, or 1 where --check finds a file that is not what the types say."""
    stale = []
    for name, kind in DOCUMENTS.items():
        path, text = FOLDER / f"{name}.json", json.dumps(schema(kind), indent=2) + "\n"
        if "--check" not in arguments:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
    if stale:
        print(f"not those of the types: {', '.join(stale)}; run python tools/schemas.py", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
