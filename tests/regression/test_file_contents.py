"""A file is taken for what it holds, whatever its name, encoding and packing; what is no structure is named.

Origin: a byte order mark cost the first atom of a PDB file, or a whole mmCIF file, without a word; web pages, pointers
and archives were called "no atoms".
"""

import bz2
import gzip
import io
import json
import lzma
import pickle
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import gemmi
import pytest

from helpers.structures import cif_text, each_format, pdb_text, peptide, same
from iga.structure import StructureError, decode, find_structures, read_structure, read_structures

GOOD = peptide("ALA", "LYS", "SER", "LEU", "GLY", "ALA")
# The first line is an atom: what is lost at the beginning is lost of it.
TEXTS = {"pdb": pdb_text(GOOD).partition("\n")[2], "cif": cif_text(GOOD)}


def zstd(data: bytes) -> bytes:
    return pytest.importorskip("zstandard").compress(data)


ENCODED: dict[str, Callable[[str], bytes]] = {
    "UTF-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, big end first": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-16 without a mark, big end first": lambda text: text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "CR LF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR CR LF": lambda text: text.replace("\n", "\r\r\n").encode(),
    "Ctrl-Z at the end": lambda text: text.encode() + b"\x1a",
    "zero bytes at the end": lambda text: text.encode() + bytes(100),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "zstd": zstd,
    "gzip twice": lambda data: gzip.compress(gzip.compress(data)),
    "gzip in two members": lambda data: gzip.compress(data[:500]) + gzip.compress(data[500:]),
    "bzip2 in two streams": lambda data: bz2.compress(data[:500]) + bz2.compress(data[500:]),
    "zstd in two frames": lambda data: zstd(data[:500]) + zstd(data[500:]),
}


@pytest.mark.parametrize("how", ENCODED)
@each_format
def test_an_encoding_changes_nothing(tmp_path: Path, form: str, how: str) -> None:
    (tmp_path / "plain").write_text(TEXTS[form])
    (tmp_path / "encoded").write_bytes(ENCODED[how](TEXTS[form]))
    assert same(read_structure(tmp_path / "encoded"), read_structure(tmp_path / "plain"))


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@each_format
def test_letters_beyond_ascii_change_nothing(tmp_path: Path, form: str, encoding: str) -> None:
    """In a comment, and in PDB within the line of an atom, behind the coordinates and before them."""
    text = TEXTS[form]
    (tmp_path / "plain").write_text(text)
    lines = (("REMARK" if form == "pdb" else "#") + " Ångström\n" + text).splitlines()
    if form == "pdb":
        lines[1] = lines[1][:68] + "é" + lines[1][69:]
        lines[2] = lines[2].replace("    1      ", "    1\u00a0     ")
    (tmp_path / "encoded").write_bytes("\n".join([*lines, ""]).encode(encoding))
    assert same(read_structure(tmp_path / "encoded"), read_structure(tmp_path / "plain"))


@pytest.mark.parametrize("how", PACKED)
@each_format
def test_packing_changes_nothing_and_a_cut_or_damaged_file_is_refused(tmp_path: Path, form: str, how: str) -> None:
    (tmp_path / "plain").write_text(TEXTS[form])
    packed = PACKED[how](TEXTS[form].encode())
    path = tmp_path / "packed"
    path.write_bytes(packed)
    assert same(read_structure(path), read_structure(tmp_path / "plain"))
    for damaged in (packed[:-30], packed[:40] + b"\xff" * 60):
        path.write_bytes(damaged)
        with pytest.raises(StructureError, match="^[^\n]*packed: not readable: [^\n]+$"):
            read_structure(path)


def test_packed_files_are_found_in_a_folder(tmp_path: Path) -> None:
    names = ["a.pdb.bz2", "b.cif.xz", "c.ent.zst", "d.CIF.GZ", "e.pdb"]
    for name in [*names, "f.txt.bz2", "g.bz2"]:
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find_structures([tmp_path])] == names


def test_zstd_without_its_package_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pdb.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(StructureError, match=r"packed with zstd; unpack it with `zstd -d`, or `pip install zstandard`"):
        read_structure(path)


@pytest.mark.parametrize("how", ["gzip", "bzip2", "xz", "lzma", "zstd", "gzip twice"])
def test_what_unpacks_beyond_the_limit_stops_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    path, limit, whole = tmp_path / "a.pdb.gz", 2**21, 2**24
    path.write_bytes(PACKED[how](bytes(whole)))
    monkeypatch.setattr(decode, "UNPACKED", limit)
    tracemalloc.start()
    try:
        with pytest.raises(StructureError, match=r"unpacks to more than 0.00195 GiB, the limit for structure files"):
            read_structure(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The limit, a chunk of the decompressors of at most 8 MiB, and no more.
    assert peak < limit + 2**23 + 2**22 < whole


def test_a_plain_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.pdb"
    with path.open("wb") as file:
        file.truncate(2**30 + 1)  # a hole: it takes no room on the disk
    tracemalloc.start()
    try:
        with pytest.raises(StructureError, match="holds more than 1 GiB, the limit for structure files; keep"):
            read_structure(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def archive(kind: str) -> bytes:
    target = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(target, "w") as made:
            made.writestr("a.pdb", TEXTS["pdb"])
    else:
        with tarfile.open(fileobj=target, mode=kind) as made:
            entry = tarfile.TarInfo("a.pdb")
            entry.size = len(TEXTS["pdb"])
            made.addfile(entry, io.BytesIO(TEXTS["pdb"].encode()))
    return target.getvalue()


NO_STRUCTURE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "zero bytes; download it again"),
    "empty, packed": (gzip.compress(b""), "zero bytes, unpacked"),
    "zeros": (bytes(5000), "nothing but zero bytes"),
    "web page": (b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>", "a web page (HTML)"),
    "web page, capitals, after a comment": (b"\n <!-- saved -->\n<HTML>\n", "a web page (HTML)"),
    "web page, with a mark": (b"\xef\xbb\xbf<html>", "a web page (HTML)"),
    "web page, packed": (gzip.compress(b"<html>"), "a web page (HTML)"),
    "web page, UTF-16": ("<!doctype HTML>".encode("utf-16"), "a web page (HTML)"),
    "PDBML": (b'<?xml version="1.0"?>\n<PDBx:datablock datablockName="1UBI"\n', "PDBML"),
    "message of a store": (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', "XML"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "run `git lfs pull`"),
    "git-annex": (b"/annex/objects/SHA256E-s123--0.pdb\n", "run `git annex get`"),
    "JSON": (json.dumps({"error": "not found"}).encode(), "JSON"),
    "JSON, a list": (b"\n[0.5, 0.7]", "JSON"),
    "zip": (archive("zip"), "a zip archive"),
    "tar": (archive("w"), "a tar archive"),
    "tar.gz": (archive("w:gz"), "a tar archive"),
    "BinaryCIF": (
        b"\x83\xa7encoder\xa5Mol* \xa7version\xa50.3.0\xaadataBlocks\x91\x83",
        "BinaryCIF; download the entry",
    ),
    "BinaryCIF, packed": (gzip.compress(b"\x83\xa7version\xa50.3.0\xaadataBlocks\x91"), "BinaryCIF"),
    "MMTF": (b"\xde\x00\x21\xabmmtfVersion\xa31.0", "MMTF"),
    "pickle": (pickle.dumps({"coordinates": [1.0]}), "data of a program"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5 or NetCDF"),
    "trajectory": (b"\x00\x00\x07\xcb" + bytes(50), "a trajectory"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(50), "a picture"),
    "FASTA": (b">1ubi\nMQIFVKTLTG\n", "FASTA"),
    "GRO": (b"Protein\n    2\n    1ALA      N    1   0.1   0.2   0.3\n", "GRO, which is in nanometres"),
    "MOL2": (b"# made\n@<TRIPOS>MOLECULE\n", "MOL2"),
    "words": (b"Entry not found\n", 'a text that begins "Entry not found"'),
    "words with an escape": (b"\x1b[2J404: Not Found", r'a text that begins "\x1b[2J404: Not Found"'),
    "noise": (bytes(range(256)) * 4, "binary data of a kind that is not known"),
}


@pytest.mark.parametrize("name", ["a.pdb", "a.cif.gz"])
@pytest.mark.parametrize("kind", NO_STRUCTURE)
def test_what_is_no_structure_is_refused_by_its_own_name(tmp_path: Path, kind: str, name: str) -> None:
    data, reason = NO_STRUCTURE[kind]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(StructureError) as caught:
        read_structure(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and message.isprintable()
    assert reason in message


def test_mmjson_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.cif").write_text(TEXTS["cif"])
    (tmp_path / "a.json").write_text(gemmi.cif.read_string(TEXTS["cif"]).as_json(mmjson=True))
    assert same(read_structure(tmp_path / "a.json"), read_structure(tmp_path / "a.cif"))


def test_mmcif_without_the_line_data_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.cif").write_text(TEXTS["cif"])
    (tmp_path / "b.cif").write_text(TEXTS["cif"].removeprefix("data_TEST\n"))
    assert same(read_structure(tmp_path / "b.cif"), read_structure(tmp_path / "a.cif"))


@pytest.mark.parametrize("name", ["a\x1b[31m.pdb", "a\nb.pdb", "a\r.pdb", "a\u202e.pdb", "a\udcff.pdb"])
def test_names_that_do_not_print_are_written_as_escapes_and_kept_in_the_record(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    (tmp_path / "good.pdb").write_text(TEXTS["pdb"])
    calls: list[Callable[[], object]] = [
        lambda: read_structure(path),
        lambda: read_structures([path]),
        lambda: find_structures([tmp_path / f"absent{name}"]),
    ]
    for call in calls:
        with pytest.raises(StructureError) as caught:
            call()
        assert str(caught.value).isprintable() and "\\" in str(caught.value)
    records = read_structures([path, tmp_path / "good.pdb"])[1]
    assert records[0]["path"] == str(path)
    assert str(records[0]["reason"]).startswith("no atoms; ")
