"""Backbone frames to an mmCIF file, which holds what the columns of PDB can't: far atoms, long names, high numbers."""

from collections.abc import Sequence
from pathlib import Path

import gemmi

from iga._files import write_text
from iga._text import one_line
from iga._typing import Tensor
from iga.frame import Frame
from iga.structure.write import backbone_atoms

__all__ = ["write_mmcif"]


def write_mmcif(
    path: Path,
    frame: Frame,
    index: Tensor,
    residue_names: Sequence[str],
    chain: str = "A",
    remarks: Sequence[str] = (),
) -> None:
    """Write frames [n] as one chain, with N, CA, C and O in ideal geometry; arguments as of `iga.structure.write`.

    Raises ValueError for frames that are not finite; the file is there whole or not at all.
    """
    if not bool(frame.rot.isfinite().all() and frame.trans.isfinite().all()):
        raise ValueError("frame must be finite, got NaN or infinity; the network that made it has diverged")
    whole = gemmi.Chain(chain)
    atoms, numbers = backbone_atoms(frame, index).tolist(), (index + 1).tolist()
    for xyzs, number, name in zip(atoms, numbers, residue_names, strict=True):
        residue = gemmi.Residue()
        residue.name, residue.seqid, residue.het_flag = name, gemmi.SeqId(number, " "), "A"
        residue.entity_type = gemmi.EntityType.Polymer
        for label, xyz in zip(("N", "CA", "C", "O"), xyzs, strict=True):
            atom = gemmi.Atom()
            atom.name, atom.element, atom.occ = label, gemmi.Element(label[0]), 1.0
            atom.pos = gemmi.Position(*xyz)
            residue.add_atom(atom)
        whole.add_residue(residue)
    structure, model = gemmi.Structure(), gemmi.Model(1)
    model.add_chain(whole)
    structure.add_model(model)
    structure.name = "sample"
    structure.setup_entities()
    notes = "".join(f"# {one_line(remark)}\n" for remark in remarks)
    write_text(path, notes + structure.make_mmcif_document().as_string())
