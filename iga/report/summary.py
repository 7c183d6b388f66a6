"""Documents as Markdown for the summary of a CI job: verdicts first, red rows with what they mean, the rest folded.

No name can turn into markup: every character that Markdown or HTML may read is written as its number.
"""

import re
from collections.abc import Sequence
from typing import Any

from iga._text import one_line, visible
from iga.report.outcomes import Outcome, outcomes, title

__all__ = ["as_summary"]

_SIGNS = {"passes": "🟢", "fails": "🔴", "skipped": "⚪"}
# Signs that Markdown, HTML or a service reads; not those between words, which names and numbers are full of.
_MARKUP = re.compile(r"(?<![^\W_])_|_(?![^\W_])|:(?! )|[&<>\"'`*~\[\]\\|{}#!@$^]")
_LONG = 400  # characters of a cell: a service shows at most a megabyte of all


def as_summary(documents: Sequence[Any]) -> str:
    """The page; one document or many."""
    found = [(document, outcomes(document)) for document in documents]
    red = sum(any(one.state == "fails" for one in rows) for _, rows in found)
    one_run = f"{len(found)} run" + ("s" if len(found) != 1 else "")
    head = (
        f"## iga: {red} of {one_run} {'does' if red == 1 else 'do'} not hold"
        if red
        else f"## iga: {one_run}, all green"
    )
    rows = [
        (_SIGNS["fails" if _failing(rows) else "passes"], title(document), *_counted(rows), document["command"])
        for document, rows in found
    ]
    made = [head, _table(("", "run", "hold", "do not", "not judged", "command"), rows)]
    made += [_section(document, rows) for document, rows in found]
    return "\n\n".join(made) + "\n"


def _failing(rows: Sequence[Outcome]) -> list[Outcome]:
    return [one for one in rows if one.state == "fails"]


def _counted(rows: Sequence[Outcome]) -> tuple[str, ...]:
    return tuple(str(sum(one.state == state for one in rows)) for state in ("passes", "fails", "skipped"))


def _section(document: Any, rows: Sequence[Outcome]) -> str:
    red = _failing(rows)
    parts = [f"### {_escaped(title(document))}"]
    for one in red:
        parts.append(f"🔴 **{_escaped(one.name)}**: {_escaped(one.verdict)}. {_escaped(one.meaning)}")
        lines = [_escaped(one.says), one.where and f"where: {_escaped(one.where)}", f"more: `{one.anchor}`"]
        parts.append("\n".join(f"- {line}" for line in lines if line))
        if one.command:
            parts.append(_fenced(one.command))
    others = [one for one in rows if one.state != "fails"]
    if others:
        cells = [(_SIGNS[one.state], one.name, one.verdict, one.says, one.where) for one in others]
        table = _table(("", "what", "verdict", "numbers", "where"), cells)
        parts.append(f"<details><summary>{len(others)} that hold or were not judged</summary>\n\n{table}\n\n</details>")
    return "\n\n".join(parts)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([_escaped(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escaped(text: str) -> str:
    """Text on one line that shows as it is, wherever it stands."""
    text = one_line(text)
    text = text if len(text) <= _LONG else text[:_LONG] + " …"
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", text)


def _fenced(text: str) -> str:
    """A command to copy, behind a fence that is longer than any in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}sh\n{visible(text)}\n{fence}"
