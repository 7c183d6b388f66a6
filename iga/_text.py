"""Names that others chose, as text that a terminal only shows."""

__all__ = ["one_line", "visible"]


def visible(text: str) -> str:
    r"""`text` with escapes in place of what is not printable (\x1b, a turn of the writing, half a surrogate pair), but
    for line ends and tabs: a file name can neither colour nor clear the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(text: object) -> str:
    r"""The same on one line: line ends and tabs are escaped too."""
    return visible(str(text).replace("\n", "\\n").replace("\t", "\\t"))
