"""Blocks, of which every report is made, and their writers: Markdown, and HTML with its style inside.

`iga.report.console` writes the same blocks to a terminal.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Block", "Heading", "Items", "Paragraph", "Picture", "Table", "as_html", "as_markdown"]


@dataclass(frozen=True)
class Heading:
    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Text; `code` between backticks. `folds`: a terminal breaks its lines between words, which no command survives."""

    text: str
    folds: bool = False


@dataclass(frozen=True)
class Items:
    """A list without numbers. `folds`: as that of a paragraph; what follows a fold is indented as the line began."""

    texts: tuple[str, ...]
    folds: bool = False


@dataclass(frozen=True)
class Picture:
    """`file`: what Markdown shows; `light`, `dark`: URIs for an HTML page on light and dark screens."""

    file: str
    light: str
    dark: str
    words: str


@dataclass(frozen=True)
class Table:
    """Text cells under heads; the columns `words` hold words, the rest numbers.

    long    a column of sentences, if any: a narrow terminal shows it below the table
    plain   on a terminal without rules between the columns, a line a row
    """

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = (0,)
    title: str = ""
    long: int | None = None
    plain: bool = False


Block = Heading | Paragraph | Items | Picture | Table

_MARKED = ("supported", "refuted", "undecided", "below", "not below")

_STYLE = """
:root { color-scheme: light dark; --ink: #1d1f21; --paper: #fff; --faint: #666; --line: #d8d8d8; --row: #f5f5f3;
  --good: #1a6b3c; --bad: #a32014; --open: #6b5b00 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e4; --paper: #17191c; --faint: #a0a0a0; --line: #3a3d42;
  --row: #1f2226; --good: #6fd39a; --bad: #ff8f80; --open: #e0c860 } }
body { margin: 0 auto; max-width: 90rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
p, li { max-width: 70ch } h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-top: 1px solid var(--line);
  padding-top: 1rem } code { overflow-wrap: anywhere }
.scroll { overflow-x: auto; margin: 1rem 0 } table { border-collapse: collapse; font-size: 0.85rem;
  font-variant-numeric: tabular-nums } th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid var(--line);
  text-align: right; vertical-align: top; white-space: nowrap } th { vertical-align: bottom; white-space: normal;
  min-width: 4rem; font-weight: 600 } th.word, td.word { text-align: left } td.word.long { white-space: normal;
  min-width: 16rem } th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper) }
tbody tr:nth-child(even) td { background: var(--row) }
b { white-space: nowrap } .supported, .below { color: var(--good) }
.refuted, .not-below { color: var(--bad) } .undecided { color: var(--open) } img { max-width: 100%; height: auto }
@media (max-width: 40rem) { td.word.long { min-width: 9rem }
  th:first-child, td:first-child { position: static } }
"""


def as_markdown(blocks: Sequence[Block]) -> str:
    return "\n\n".join(filter(None, map(_markdown, blocks))) + "\n"


def as_html(title: str, blocks: Sequence[Block]) -> str:
    """One page: nothing is loaded from anywhere."""
    body = "\n".join(map(_html, blocks))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {text}"
        case Paragraph(text):
            return text
        case Items(texts):
            return "\n".join(f"- {text}" for text in texts)
        case Picture(file=file, words=words):
            return f"![{words}]({file})"
        case Table(heads, rows, words, title):
            rule = ["---" if column in words else "---:" for column in range(len(heads))]
            lines = [
                "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (heads, rule, *rows)
            ]
            return "\n".join([*([f"**{title}**", ""] if title else []), *lines])


def _html(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"<h{level}>{_inline(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{_inline(text)}</p>"
        case Items(texts):
            items = "\n".join(f"<li>{_inline(text)}</li>" for text in texts)
            return f"<ul>\n{items}\n</ul>" if texts else ""
        case Picture(light=light, dark=dark, words=words):
            of_dark = f'<source media="(prefers-color-scheme: dark)" srcset="{html.escape(dark)}">'
            return f'<picture>{of_dark}<img src="{html.escape(light)}" alt="{html.escape(words)}"></picture>'
        case Table(heads, rows, words, title):
            head = "".join(f"<th{_kind(n in words)}>{_inline(text)}</th>" for n, text in enumerate(heads))
            made = ("".join(f"<td{_kind(n in words, c)}>{_cell(c)}</td>" for n, c in enumerate(row)) for row in rows)
            body = "\n".join(f"<tr>{cells}</tr>" for cells in made)
            return (
                f'<div class="scroll" tabindex="0"><table>{f"<caption>{_inline(title)}</caption>" if title else ""}\n'
                f"<thead><tr>{head}</tr></thead>\n"
                f"<tbody>\n{body}\n</tbody>\n</table></div>"
            )


def _kind(word: bool, text: str = "") -> str:
    if not word:
        return ""
    return ' class="word long"' if len(text) > 30 else ' class="word"'


def _cell(text: str) -> str:
    if text in _MARKED:
        return f'<b class="{text.replace(" ", "-")}">{text}</b>'
    return _inline(text)


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))
