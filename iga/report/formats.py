"""The files that a document can be shown as, by the ending of their names: HTML, Markdown, JUnit, SARIF, JSON."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from iga._files import write_bytes
from iga.report.document import Block
from iga.report.junit import as_junit, check_junitparser
from iga.report.sarif import as_sarif
from iga.report.summary import as_summary

__all__ = ["ENDINGS", "Tables", "check_report", "ending", "write_report"]

ENDINGS = (".html", ".md", ".xml", ".sarif", ".json")
# tables(document) → the blocks that its own command shows, of a document that this part of iga has none for
Tables = Callable[[Any], Sequence[Block]]


def ending(path: Path) -> str:
    """The ending that says the format. Raises ValueError, one line, for any other."""
    found = path.suffix.lower()
    if found not in ENDINGS:
        raise ValueError(f"{path} has no ending that says its format; endings: {', '.join(ENDINGS)}")
    return found


def check_report(path: Path) -> None:
    """Raises ValueError for an unknown ending, and where the package that writes it is missing."""
    if ending(path) == ".xml":
        check_junitparser()


def write_report(path: Path, documents: Sequence[Any], tables: Tables | None = None) -> None:
    """All documents as one file, whole or not there; JSON: the document itself, or a list of several.

    Raises ValueError as `check_report` does, OSError where the file cannot be written.
    """
    check_report(path)
    write_bytes(path, rendered(ending(path), documents, tables))


def rendered(kind: str, documents: Sequence[Any], tables: Tables | None = None) -> bytes:
    """The bytes of a file with the ending `kind`."""
    match kind:
        case ".html":
            from iga.report.page.page import as_page  # jinja2 loads where a page is made

            return as_page(documents, tables).encode("utf-8", "backslashreplace")
        case ".md":
            return as_summary(documents).encode("utf-8", "backslashreplace")
        case ".xml":
            return as_junit(documents)
        case ".sarif":
            return as_sarif(documents)
        case _:
            found = documents[0] if len(documents) == 1 else list(documents)
            text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            return text.encode("utf-8", "backslashreplace")
