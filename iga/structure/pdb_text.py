"""PDB text as its writers meant it: columns that moved, numbers that do not fit, fields that later formats reread.

The format has fixed columns (wwPDB, "Atomic Coordinate Entry Format", version 3.3), and three numbers of eight for a
position. A program that prints a wider number pushes everything behind it to the right: what was pushed is put back,
and the position kept as printed. A position that holds no numbers becomes NaN (gemmi would read 0), and only the first
model with atoms is kept.
"""

import re

__all__ = ["Position", "repaired"]

Position = tuple[float, float, float]

# A number of eight columns with three decimals, and any number.
_PRINTED = rb"(?:(?:   \d|  [-\d]\d| [-\d]\d\d|[-\d]\d\d\d)\.\d{3})"
_NUMBER = re.compile(rb" *[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)? *")
_RECORD = rb"(?:ATOM  |HETATM|ATOM \d|atom  |hetatm)"
_FIRST_ATOM = re.compile(rb"^(?:ATOM|HETATM)", re.MULTILINE | re.IGNORECASE)
# An atom whose columns 31–54 are not three numbers with three decimals each, where the format has them.
_ODD = re.compile(rb"^(?!.{30}" + _PRINTED + rb"{3})" + _RECORD + rb".*", re.MULTILINE)
_POSITIONS = re.compile(rb"( *-?\d+\.\d{3})( *-?\d+\.\d{3})( *-?\d+\.\d{3})(?= |-|\d|$)")
_AS_PRINTED = re.compile(rb".{30}" + _PRINTED + rb"{3}")
_WIDE_SERIAL = re.compile(rb"(?:ATOM  |HETATM)\d{6,}")
_TABBED = re.compile(rb"^(?:ATOM|HETATM).*\t", re.MULTILINE)
_CUT_OFF = re.compile(rb"(?:ATOM|HETATM).{0,50}")
# Columns 77–80 that are no element and charge: before 1996, 73–80 held the entry and the number of the line.
_OLD_TAIL = re.compile(
    rb"^" + _RECORD + rb".{70}(?:.?\d|..(?:\d[^+\-\s]|[^+\-\s]\d))", re.MULTILINE
)  # fmt: skip
_TAIL = re.compile(rb"^(" + _RECORD + rb".{66}).+", re.MULTILINE)
# What pages and word processors put for a blank and a minus.
_LOOKALIKES = {**dict.fromkeys((0xA0, 0x2002, 0x2003, 0x2007, 0x2009, 0x202F), " "), 0x2212: "-", 0x2013: "-"}


def repaired(text: bytes) -> tuple[bytes, list[Position]]:
    """(text for a reader of fixed columns, positions that the columns can't hold).

    An atom of the second list has its index there as x, and NaN as y and z. Raises ValueError for tabs in columns.
    """
    if not text.isascii():  # one byte a column
        text = text.decode("utf-8", errors="replace").translate(_LOOKALIKES).encode("ascii", errors="replace")
    last = text.rfind(b"\n") + 1
    text = _first_model(text[:last] if _CUT_OFF.fullmatch(text, last) else text)
    if b"\t" in text and _TABBED.search(text):
        text = text.expandtabs(8)
        if _ODD.search(text):
            raise ValueError("tab characters stand in its columns; write blanks, PDB has fixed columns")
    wide: list[Position] = []
    text = _ODD.sub(lambda match: _restored(match[0], wide), text)
    if _OLD_TAIL.search(text):
        text = _TAIL.sub(rb"\1", text)
    return text, wide


def _first_model(text: bytes) -> bytes:
    first = _FIRST_ATOM.search(text)
    if not first:
        return text
    ends = [at for at in (text.find(mark, first.end()) for mark in (b"\nENDMDL", b"\nMODEL ")) if at >= 0]
    return text[: min(ends)] + b"\nENDMDL\nEND\n" if ends else text


def _restored(line: bytes, wide: list[Position]) -> bytes:
    """One line of an atom whose position is not in its columns as the format prints it."""
    if len(line) < 30:
        return line  # no residue number: gemmi says that it is too short
    moved = _narrowed(line)
    if _AS_PRINTED.match(moved):
        return moved
    found = _POSITIONS.match(moved, 30)
    # Each number fills its eight columns, with blanks before it or without: else they are not what %8.3f prints.
    if found and all(len(x) == 8 or (len(x) > 8 and not x.startswith(b" ")) for x in found.groups()):
        x, y, z = (float(number) for number in found.groups())
        wide.append((x, y, z))
        return moved[:30] + b"%8d     nan     nan" % (len(wide) - 1) + moved[found.end() :]
    if all(_NUMBER.fullmatch(line, k, k + 8) for k in (30, 38, 46)):
        return line
    return line[:30] + 3 * b"     nan" + line[54:]


def _narrowed(line: bytes) -> bytes:
    """Without the digits by which a serial number of six or a residue number of five pushed the rest."""
    if _WIDE_SERIAL.match(line):
        line = line[:6] + line[6 + len(_WIDE_SERIAL.match(line)[0]) - 11 :]  # pyright: ignore[reportOptionalSubscript]
    if line[22:27].isdigit() and not _AS_PRINTED.match(line) and _AS_PRINTED.match(line[:22] + line[23:]):
        line = line[:22] + _hybrid36(int(line[22:27])) + line[27:]
    return line


def _hybrid36(number: int) -> bytes:
    """10000 and more in the four columns of a residue number, A000 for the first; gemmi reads it back."""
    value, digits = number - 10000 + 10 * 36**3, b""
    for _ in range(4):
        value, digit = divmod(value, 36)
        digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[digit : digit + 1] + digits
    return digits
