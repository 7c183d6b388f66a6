"""Blocks on a terminal: coloured tables, and lines that no markup or control character of a name can change."""

from collections.abc import Sequence

from rich import table
from rich.console import Console
from rich.text import Text

from iga._text import visible
from iga.report.document import Block, Heading, Items, Paragraph, Picture, Table

__all__ = ["show"]

WIDE = 130  # columns: a narrower terminal would fold a column of sentences into a ribbon
_STYLES = {
    **{
        "holds": "green",
        "broken": "bold red",
        "vacuous": "yellow",
        "not supported": "yellow",
        "broken, as expected": "green",
    },
    **{"holds, expected broken": "bold red", "vacuous, expected broken": "bold red"},
    **{"FAILED": "bold red", "○": "bold red"},
}


def show(blocks: Sequence[Block], console: Console) -> None:
    """Print the blocks. Tables fit the width; lines are as long as they are, but for those that fold on a terminal."""
    for block in blocks:
        match block:
            case Heading(text=text):
                _line(text, console, "bold")
            case Paragraph(text, folds):
                _line(text, console, _STYLES.get(text.split(" ", 1)[0], ""), folds=folds)
            case Items(texts, folds):
                for text in texts:
                    _line(text, console, folds=folds)
            case Picture(file=file, words=words):
                _line(f"{words}: {file}", console)
            case Table():
                _show_table(block, console)


def _show_table(block: Table, console: Console) -> None:
    aside = None if console.width >= WIDE else block.long
    shown = [column for column in range(len(block.heads)) if column != aside]
    title = Text(visible(block.title), "italic") if block.title else None
    form = {"box": None, "pad_edge": False} if block.plain else {}
    made = table.Table(title=title, title_justify="left", **form)
    for column in shown:
        justify = "left" if column in block.words else "right"
        made.add_column(block.heads[column], justify=justify, no_wrap=column not in (0, block.long), overflow="fold")
    for row in block.rows:
        made.add_row(*(Text(visible(row[column]), _STYLES.get(row[column], "")) for column in shown))
    console.print(made)
    if aside is not None:
        for row in block.rows:
            _line(f"{row[0]}: {row[aside]}", console)


def _line(text: str, console: Console, style: str = "", *, folds: bool = False) -> None:
    whole = Text(visible(text), style)
    indent = len(whole) - len(whole.plain.lstrip(" "))
    if not (folds and console.is_terminal and indent < console.width):
        console.print(whole, soft_wrap=True)
        return
    for part in whole[indent:].wrap(console, console.width - indent):
        part.rstrip()
        console.print(Text(" " * indent) + part, soft_wrap=True)
