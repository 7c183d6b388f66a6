"""mmCIF text to a gemmi structure, columns of _atom_site that writers leave out included.

gemmi asks for id, type_symbol, label_alt_id and label_asym_id, and reads no atom without one of them. Left out they
have one meaning: an element that the atom's name says, one conformer, the author's chain.
"""

import re

import gemmi

__all__ = ["cif_structure"]

_NULL = ("?", ".", "")
_HEADLESS = re.compile(rb"\A(?:\s+|#[^\n]*\n)*(?:loop_|_)")
_PAIRS = (("auth_asym_id", "label_asym_id"), ("auth_seq_id", "label_seq_id"), ("auth_comp_id", "label_comp_id"),
          ("auth_atom_id", "label_atom_id"))  # fmt: skip


def cif_structure(text: bytes) -> gemmi.Structure:
    """The structure of the one block that has coordinates. Raises what gemmi raises, and ValueError."""
    if _HEADLESS.match(text):
        text = b"data_\n" + text
    document = gemmi.cif.read_string(text)
    blocks = [block for block in document if block.find_values("_atom_site.Cartn_x")]
    if len(blocks) > 1:
        names = " and ".join(block.name for block in blocks[:2])
        raise ValueError(f"2+ blocks are ok if only the first one has coordinates, and {names} have; split the file")
    block = blocks[0] if blocks else document[0]
    # gemmi asks that the table of sequences agrees with the entities and chains of every model; nothing here needs it.
    if sequences := block.find_mmcif_category("_pdbx_sifts_xref_db."):
        sequences.erase()
    structure = _structure(block)
    if _lacking(structure):
        _complete(block)
        structure = _structure(block)
    return structure


def _structure(block: gemmi.cif.Block) -> gemmi.Structure:
    structure = gemmi.make_structure_from_block(block)
    structure.merge_chain_parts()
    return structure


def _lacking(structure: gemmi.Structure) -> bool:
    """Whether gemmi found no atom, or one without an element, a chain or a residue number."""
    if not structure or not structure[0].count_atom_sites() or structure[0].count_atom_sites(gemmi.Selection("[X]")):
        return True
    return any(not chain.name or any(residue.seqid.num is None for residue in chain) for chain in structure[0])


def _complete(block: gemmi.cif.Block) -> None:
    """Give _atom_site what gemmi asks for, and fill values that are not known from those that mean the same."""
    loop = block.find_values("_atom_site.Cartn_x").get_loop()
    if loop is None:
        return
    for author, label in _PAIRS:
        theirs, ours = _column(block, author), _column(block, label)
        if theirs and ours:
            _fill(block, author, ours)
    chains = _column(block, "auth_asym_id")
    for name, value in (("id", "1"), ("label_alt_id", "."), ("label_asym_id", "?"), ("type_symbol", "?")):
        if not _column(block, name):
            loop.add_columns([f"_atom_site.{name}"], value)
    _fill(block, "label_asym_id", chains or ["A"] * loop.length())
    names = _column(block, "label_atom_id") or _column(block, "auth_atom_id")
    _fill(block, "type_symbol", [_element(gemmi.cif.as_string(name)) for name in names])


def _column(block: gemmi.cif.Block, name: str) -> list[str]:
    return list(block.find_values(f"_atom_site.{name}"))


def _fill(block: gemmi.cif.Block, name: str, values: list[str]) -> None:
    """Put `values` where the column has none."""
    column = block.find_values(f"_atom_site.{name}")
    for row, value in enumerate(values):
        if column[row] in _NULL:
            column[row] = value


def _element(name: str) -> str:
    """The element that a name in a polymer begins with; digits may stand before it ("1HB")."""
    name = name.lstrip("0123456789'\"*")
    return "Se" if name.upper() == "SE" else name[:1] or "X"
