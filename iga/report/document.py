"""Blocks, of which every report is made, and Markdown of them.

`iga.report.console` writes the same blocks to a terminal, `iga.report.page` into a page.
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Block", "Heading", "Items", "Paragraph", "Picture", "Table", "as_markdown"]


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


def as_markdown(blocks: Sequence[Block]) -> str:
    return "\n\n".join(filter(None, map(_markdown, blocks))) + "\n"


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
