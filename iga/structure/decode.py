"""The text of a file: unpacked, in UTF-8 with LF line ends, and known for a structure by what it holds.

The name of the file says nothing here. What is no structure (a web page, an archive, a pointer) is refused by its own
name, and so is one of more than `UNPACKED` bytes, where a packed one stops unpacking.
"""

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iga._text import one_line

__all__ = ["UNPACKED", "StructureError", "foreign_text", "read_text"]

# Bytes. The largest entries of the archive have some three million atoms, about 0.4 GiB of mmCIF.
UNPACKED = 2**30
_NESTED = 3  # a file packed more often than this is refused
_CHUNK = 2**20
_TOO_LARGE = "{} more than {:.3g} GiB, the limit for structure files; keep one structure of it"

_GZIP, _BZIP2, _XZ, _LZMA, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x5d\x00\x00", b"\x28\xb5\x2f\xfd"
_BOMS = (  # the longer first: UTF-32 begins like UTF-16
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)

_UNPACK_FIRST = "unpack it and name the file inside"
_TRAJECTORY = "write one frame of it as PDB or mmCIF"
_BINARY = (
    (rb"\x00+\Z", "nothing but zero bytes", "download it again"),
    (rb"PK\x03\x04|PK\x05\x06", "a zip archive", _UNPACK_FIRST),
    (rb".{257}ustar", "a tar archive", _UNPACK_FIRST),
    (rb"Rar!\x1a|7z\xbc\xaf\x27\x1c", "an archive (rar or 7z)", _UNPACK_FIRST),
    (rb"\x1f\x9d", "packed with compress (.Z)", "unpack it with `gzip -d`"),
    (rb"\x04\x22\x4d\x18", "packed with lz4", "unpack it with `lz4 -d`"),
    (
        rb"[\x80-\x8f\xde].{0,4096}?dataBlocks",
        "BinaryCIF",
        "download the entry as mmCIF (.cif), or convert it (Mol*, biotite)",
    ),
    (rb"[\x80-\x8f\xde].*?mmtfVersion", "MMTF, a format that is no longer kept", "download the entry as mmCIF (.cif)"),
    (rb"FCMP", "Foldcomp", "unpack it with `foldcomp decompress`"),
    (rb"\x89HDF\r\n|CDF[\x01\x02\x05]", "HDF5 or NetCDF", _TRAJECTORY),
    (rb"\x00\x00\x07[\xcb\xc9]|.{4}CORD", "a trajectory (XTC, TRR or DCD)", _TRAJECTORY),
    (rb"%PDF|\x89PNG|\xff\xd8\xff|GIF8", "a picture or a PDF document", "download the entry as PDB or mmCIF"),
    (rb"\x93NUMPY|\x80[\x02-\x05].*\.\Z|SQLite format 3", "data of a program", "write the structure as PDB or mmCIF"),
)
_TEXT = (
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull`"),
    (rb"[^\n]{0,300}/annex/objects/", "a git-annex pointer, not the file itself", "run `git annex get`"),
    (
        rb"(?is)(?:<\?xml[^>]*>\s*|<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body|title)\b",
        "a web page (HTML), perhaps an error page that was saved",
        "download the file itself",
    ),
    (rb"(?is).{0,2000}<[\w:]*datablock\b", "PDBML (PDBx in XML)", "download the entry as mmCIF (.cif)"),
    (rb"<\?xml|<\w", "XML", "download the entry as mmCIF (.cif)"),
    (rb"[{\[]", "JSON", "name the PDB or mmCIF file that belongs to it"),
    (rb">", "FASTA, sequences without coordinates", "name PDB or mmCIF files"),
    (rb"(?:#[^\n]*\n|\s)*@<TRIPOS>", "MOL2", "convert it to PDB or mmCIF"),
    (rb"[^\n]*\n[^\n]*\n[^\n]*\n[^\n]{33}V[23]000", "an SDF or MOL file", "convert it to PDB or mmCIF"),
    (rb"[^\n]*\n *\d+ *\n *\d+[A-Z]{3}", "GRO, which is in nanometres", "convert it to PDB with `gmx editconf`"),
    (rb" *\d+ *\n[^\n]*\n *[A-Z][a-z]? +-?\d+\.\d", "XYZ, atoms without names", "name PDB or mmCIF files"),
)  # fmt: skip


class StructureError(ValueError):
    """A structure that can't be read, raised by `read_structure` and `read_structures`; the message is one line: file,
    reason, remedy. A ValueError, without tensors or units."""


def read_text(path: str | Path) -> bytes:
    """The text of a file as UTF-8 with LF line ends, without a byte order mark. Raises StructureError."""
    try:
        if Path(path).stat().st_size > UNPACKED:
            raise _Refusal(_TOO_LARGE.format("holds", UNPACKED / 2**30))
        data = Path(path).read_bytes()
        size = len(data)
        for _ in range(_NESTED):
            if not (packed := _packing(data)):
                break
            data = _unpacked(data, packed)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise StructureError(f"{one_line(path)}: not readable: {getattr(error, 'strerror', None) or error}") from error
    except _Refusal as refusal:
        raise StructureError(f"{one_line(path)}: {refusal}") from None
    if not data:
        what = "the file is empty or holds no coordinates: zero bytes" + (", unpacked" if size else "")
        raise StructureError(f"{one_line(path)}: no atoms; {what}; download it again")
    if kind := _kind(data, _BINARY):
        raise StructureError(f"{one_line(path)}: {kind}")
    return _utf8(data)


def foreign_text(text: bytes) -> str | None:
    """What a text is that is no structure, with the remedy; None where it may be one."""
    return _kind(text.lstrip(), _TEXT)


class _Refusal(Exception):
    """The reason alone, without the file."""


def _packing(data: bytes) -> bytes | None:
    return next((magic for magic in (_GZIP, _BZIP2, _XZ, _LZMA, _ZSTD) if data.startswith(magic)), None)


def _unpacked(data: bytes, packing: bytes) -> bytes:
    stream: Any
    if packing == _ZSTD:
        chunks = _zstd(data)
    else:
        opened = {_GZIP: gzip.GzipFile, _BZIP2: bz2.BZ2File, _XZ: lzma.LZMAFile, _LZMA: lzma.LZMAFile}[packing]
        # Not gemmi's own: it takes what a cut-off gzip file begins with for the whole.
        stream = opened(fileobj=io.BytesIO(data)) if packing == _GZIP else opened(io.BytesIO(data))  # type: ignore[arg-type]
        chunks = iter(lambda: stream.read(_CHUNK), b"")
    parts, total = [], 0
    for chunk in chunks:
        total += len(chunk)
        if total > UNPACKED:
            raise _Refusal(_TOO_LARGE.format("unpacks to", UNPACKED / 2**30))
        parts.append(chunk)
    return b"".join(parts)


def _zstd(data: bytes) -> Iterator[bytes]:
    try:
        import zstandard  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise _Refusal("packed with zstd; unpack it with `zstd -d`, or `pip install zstandard`") from None
    step = 256  # bytes, which make up to 8 MiB
    while data:
        one, at = zstandard.ZstdDecompressor().decompressobj(), 0
        try:
            while at < len(data) and not one.eof:
                yield one.decompress(data[at : at + step])
                at += step
        except zstandard.ZstdError as error:
            raise OSError(str(error)) from error
        if not one.eof:
            raise EOFError("Compressed file ended before the end-of-stream marker was reached")
        data = one.unused_data + data[at:]


def _utf8(data: bytes) -> bytes:
    encoding = next((name for mark, name in _BOMS if data.startswith(mark)), None) or _wide(data)
    if encoding:
        data = data.decode(encoding, errors="replace").encode("utf-8")
    elif not data.isascii():
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            data = data.decode("latin-1").encode("utf-8")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data.rstrip(b"\x00\x1a") if data.endswith((b"\x00", b"\x1a")) else data


def _wide(data: bytes) -> str | None:
    """UTF-16 without its mark: every other byte of what it begins with is zero."""
    head = data[:64]
    if len(head) < 8 or len(data) % 2:
        return None
    if not any(head[1::2]) and all(head[::2]):
        return "utf-16-le"
    return "utf-16-be" if not any(head[::2]) and all(head[1::2]) else None


def _kind(data: bytes, kinds: tuple[tuple[bytes, str, str], ...]) -> str | None:
    head = data[: 2**16]
    found = (kind for kind in kinds if re.match(kind[0], head, re.DOTALL))
    return next((f"{name}; {remedy}" for _, name, remedy in found), None)
