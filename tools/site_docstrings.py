"""Docstrings of this package as Markdown, for the reference of the site: an extension of griffe, named in mkdocs.yml.

A docstring is plain text whose arguments stand in columns, two spaces or more after a name. Such lines become a list;
indented lines stay code; all else is prose, in which nothing but backticks means anything.
"""

import re
from typing import Any

from griffe import Docstring, Extension, Object

__all__ = ["PlainText", "as_markdown"]

# A name or several, then two spaces: "mask        [*b, n] bool", "implementation, statistics   see …".
_COLUMN = re.compile(r"(?P<name>[A-Za-z_*`(|][^ ]*(?:,? [^ ]+){0,3}?) {2,}(?P<text>\S.*)")


class PlainText(Extension):
    """Replaces each docstring by its Markdown."""

    def on_object(self, *, obj: Object, **others: Any) -> None:
        if obj.docstring is not None:
            text = as_markdown(obj.docstring.value)
            obj.docstring = Docstring(text, lineno=obj.docstring.lineno, parent=obj)


def as_markdown(text: str) -> str:
    """A docstring, its indentation gone, as Markdown."""
    return "\n\n".join(_block(block) for block in re.split(r"\n\s*\n", text.strip("\n")))


def _block(block: str) -> str:
    lines = block.splitlines()
    if all(line.startswith("    ") for line in lines):
        if any(_COLUMN.fullmatch(line.strip()) for line in lines):  # columns that are set off from a sentence
            return _block("\n".join(line.removeprefix("    ") for line in lines))
        return "\n".join(lines)
    if not _COLUMN.fullmatch(lines[0]):
        head = [line for line in lines if not line.startswith("    ")]
        if len(head) < len(lines) and lines[-1].startswith("    "):  # a sentence, and what it introduces
            cut = len(lines) - next(k for k, line in enumerate(reversed(lines)) if not line.startswith("    "))
            return f"{_prose(' '.join(lines[:cut]))}\n\n{_block(chr(10).join(lines[cut:]))}"
        return _prose(" ".join(line.strip() for line in lines))
    items: list[list[str]] = []
    for line in lines:
        column = _COLUMN.fullmatch(line)
        if column:
            items.append([f"`{column['name'].strip('`')}`:", column["text"]])
        else:
            items[-1].append(line.strip())
    return "\n".join("- " + items_[0] + " " + _prose(" ".join(items_[1:])) for items_ in items)


def _prose(text: str) -> str:
    """The text with all that Markdown would read as marks escaped, but for code in backticks."""
    parts = re.split(r"(`[^`]+`)", text)
    escaped = "".join(part if part.startswith("`") else re.sub(r"([*_<\[\]|\\])", r"\\\1", part) for part in parts)
    return re.sub(r"(?<![\w/`])docs/([\w/]+)\.md", r"[docs/\1.md](../\1.md)", escaped)  # from a page of reference/
