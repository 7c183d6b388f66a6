"""Protein structures read: PDB and mmCIF files, packed or not, become frames and Gaussians in nanometres.

Which atoms of a file are taken stands in `iga.structure.atoms`. A residue without N, CA and C, whose three atoms fix no
frame, with an atom at two places, or of a geometry that chemistry excludes (the limits: `iga.structure.chemistry`),
stays in its row, masked and counted.
"""

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iga._text import one_line
from iga._typing import Bool, Tensor
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.structure.atoms import Atoms, ResidueAtoms, read_residues
from iga.structure.chemistry import AT_ORIGIN, breaks, excluded
from iga.structure.decode import StructureError

__all__ = [
    "BASE_THICKNESS",
    "Structure",
    "StructureError",
    "find_structures",
    "read_structure",
    "read_structures",
    "record",
]

BASE_THICKNESS = 0.4  # Å, about the positional spread of one heavy atom at medium resolution
ENDINGS = (".pdb", ".ent", ".cif", ".mmcif")
PACKED = (".gz", ".bz2", ".xz", ".zst")
TWICE, FLAT = "an atom at two places", "N, CA and C fix no frame"


@dataclass(frozen=True, eq=False)
class Structure:
    """Residues of one file in the order of its chains. Lengths in nm.

    path           the file, as it was named
    gaussian       GaussianRigid [n]; masked rows are neutral: identity frame at the origin, isotropic scale
    mask           [n], True = has a frame
    chains         chain name of each residue        numbers  residue number with insertion code, "60A"
    residue_names  three-letter codes                masked   reason → how many residues are masked for it

    Made by `read_structure`, which raises for what it can't read; docs/swap.md says what becomes of it.
    """

    path: str
    gaussian: GaussianRigid
    mask: Bool[Tensor, " n"]
    chains: tuple[str, ...]
    numbers: tuple[str, ...]
    residue_names: tuple[str, ...]
    masked: dict[str, int]

    @property
    def n_residues(self) -> int:
        return len(self.mask)

    @property
    def n_valid(self) -> int:
        return int(self.mask.sum())

    @cached_property
    def chain_breaks(self) -> Bool[Tensor, " n"]:
        """Where a chain is interrupted: the CA is farther from that of the residue before it, in the same chain, than
        a peptide bond reaches, 0.431 nm on a straight line. Masked rows are passed over, and reach as far once more
        each; they and first residues are no breaks."""
        return breaks(self.gaussian.trans, self.mask, self.chains)


def read_structure(
    path: str | Path,
    *,
    gaussians: Atoms = "sidechain",
    base_thickness: float = BASE_THICKNESS,
    convention: str = "alphafold",
    dtype: torch.dtype = torch.float32,
) -> Structure:
    """Read one file.

    gaussians       "sidechain": of the side chain's heavy atoms (no side chain: at CA, base thickness alone), or
                    "backbone": of N, CA, C, O
    base_thickness  Å, added to the standard deviation along each axis of the residue's frame
    convention      of the frames, see Frame.from_backbone
    dtype           float32 or float64; everything before the last rounding is float64

    Returns a `Structure` of n residues, in nm. Raises StructureError if the file can't be read or holds no residue with
    a frame, or is not in ångström; ValueError for another option. Source of frames: AlphaFold's N, CA, C
    (`Frame.from_backbone`).
    """
    if gaussians not in ("sidechain", "backbone"):
        raise ValueError(f"gaussians must be 'sidechain' or 'backbone', got {gaussians!r}")
    if not 0 < base_thickness < float("inf"):
        raise ValueError(f"base_thickness must be a positive number of ångström, got {base_thickness!r}")
    if convention not in ("alphafold", "openfold"):
        raise ValueError(f"convention must be 'alphafold' or 'openfold', got {convention!r}")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}; convert what is not geometry")
    residues = read_residues(path, gaussians)
    if not residues:
        raise StructureError(
            f"{one_line(path)}: no protein residue in the first model (nucleic acids, ligands or water only?)"
        )
    backbone = torch.tensor([residue.backbone[:3] for residue in residues], dtype=torch.float64)
    complete = backbone.isfinite().all(dim=-1).all(dim=-1)
    if not complete.any():
        raise StructureError(
            f"{one_line(path)}: none of {len(residues)} residues has N, CA and C (a CA-only model?); "
            "frames need all three"
        )
    try:
        frame, fixed = Frame.from_backbone(
            *backbone.unbind(dim=-2), convention=convention, unit="angstrom", return_valid=True
        )
    except ValueError as error:  # the unit; its remedies after the semicolon are those of from_backbone
        reason = str(error).partition(";")[0]
        raise StructureError(f"{one_line(path)}: {reason}; PDB and mmCIF are in ångström, multiply by 10") from error
    impossible = excluded(residues)
    against = {
        "N, CA or C missing or not finite": ~complete,
        TWICE: torch.tensor([residue.ambiguous for residue in residues]),
        AT_ORIGIN: impossible.pop(AT_ORIGIN),
        FLAT: ~fixed,
        **impossible,
    }
    valid, masked = torch.ones(len(residues), dtype=torch.bool), {}
    for reason, rows in against.items():  # each residue counts for the first of its reasons
        masked[reason] = int((rows & valid).sum())
        valid = valid & ~rows
    masked = {reason: count for reason, count in masked.items() if count}
    if not valid.any():
        raise StructureError(f"{one_line(path)}: {_none_valid(masked)}")
    local_mean, sigma = _gaussians(residues, frame, valid, base_thickness / 10.0)
    trans = torch.where(valid[:, None], frame.trans, torch.zeros_like(frame.trans))
    rot = torch.where(valid[:, None, None], frame.rot, torch.eye(3, dtype=frame.dtype))
    return Structure(
        path=str(path),
        gaussian=GaussianRigid(Frame(rot, trans), local_mean, sigma.log()).to(dtype=dtype),
        mask=valid,
        chains=tuple(residue.chain for residue in residues),
        numbers=tuple(residue.number for residue in residues),
        residue_names=tuple(residue.name for residue in residues),
        masked=masked,
    )


def find_structures(paths: Iterable[str | Path]) -> list[Path]:
    """The files that `paths` name: each a file, a folder (its structure files, sorted, not those of subfolders), or a
    glob. Raises StructureError for one that names nothing."""
    if isinstance(paths, str):
        raise ValueError(f"paths must be a list of names, got the string {paths!r}; pass [{paths!r}]")
    found: dict[Path, None] = {}
    for name in paths:
        path, missing = Path(name), "no such file, folder or match; quote a glob so that the shell leaves it"
        if path.is_file():
            matches = [path]
        elif path.is_dir():
            matches = _structure_files(path.iterdir())
            missing = f"no file in this folder ends in {', '.join(ENDINGS)}, or these with {', '.join(PACKED)}"
        else:
            matches = _structure_files(map(Path, glob.glob(str(name), recursive=True)))
        if not matches:
            raise StructureError(f"{one_line(name)}: {missing}")
        found |= dict.fromkeys(matches)
    if not found:
        raise StructureError("no structure was named; pass files, folders or globs")
    return list(found)


def read_structures(paths: Sequence[str | Path], **options: Any) -> tuple[list[Structure], list[dict[str, object]]]:
    """Everything readable under `paths`, and one record a file: {"path", "residues", "masked", "chain_breaks",
    "status", "reason"}.

    A file that can't be read has status "unreadable" and the reason, and the others go on. `options` are those of
    `read_structure`, shapes and units too. Raises StructureError if nothing is found or nothing is readable.
    Source: docs/architecture.md, what is masked and why.
    """
    structures, records = [], []
    for path in find_structures(paths):
        try:
            structure = read_structure(path, **options)
        except StructureError as error:
            counts = dict.fromkeys(("residues", "masked", "chain_breaks"), 0)
            reason = str(error).removeprefix(f"{one_line(path)}: ")
            records.append({"path": str(path), **counts, "status": "unreadable", "reason": reason})
            continue
        structures.append(structure)
        records.append(record(structure))
    if not structures:
        reasons = "; ".join(f"{one_line(str(entry['path']))}: {entry['reason']}" for entry in records[:3])
        raise StructureError(f"none of {len(records)} files is readable: {reasons}")
    return structures, records


def record(structure: Structure) -> dict[str, object]:
    """The record of a structure that was read."""
    return {
        "path": structure.path,
        "residues": structure.n_residues,
        "masked": structure.n_residues - structure.n_valid,
        "chain_breaks": int(structure.chain_breaks.sum()),
        "status": "read",
        "reason": _in_words(structure.masked),
    }


def _structure_files(entries: Iterable[Path]) -> list[Path]:
    """Those with an ending of structures, sorted; hidden ones (._1abc.pdb on foreign disks) are not meant."""
    return sorted(e for e in entries if _ending(e) in ENDINGS and not e.name.startswith(".") and e.is_file())


def _ending(path: Path) -> str:
    """The ending without that of packing, in small letters."""
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in PACKED else name.suffix


def _none_valid(masked: dict[str, int]) -> str:
    if TWICE in masked:
        return "residues have atoms at two places; end chains that share a name with TER"
    if list(masked) == [FLAT]:
        return "N, CA and C lie on one line, or in one place, in every residue"
    return f"no residue is possible ({_in_words(masked)}); are the coordinates in ångström, and in their columns?"


def _in_words(masked: dict[str, int]) -> str:
    return "; ".join(f"{count} masked: {reason}" for reason, count in masked.items())


def _gaussians(residues: list[ResidueAtoms], frame: Frame, valid: Tensor, thickness: float) -> tuple[Tensor, Tensor]:
    """Local mean and σ of each residue, nm, float64: centroid, and standard deviation along the frame's axes plus
    `thickness`."""
    owner = torch.tensor(np.repeat(np.arange(len(residues)), [len(r.atoms) for r in residues]), dtype=torch.long)
    points = torch.tensor([xyz for r in residues for xyz in r.atoms], dtype=torch.float64).reshape(-1, 3) / 10.0
    usable = points.isfinite().all(dim=-1) & valid[owner]
    owner, points = owner[usable], points[usable]
    local = frame[owner].invert_apply(points)
    zeros = torch.zeros(len(residues), 3, dtype=torch.float64)
    count = torch.zeros(len(residues), 1, dtype=torch.float64).index_add_(0, owner, torch.ones(len(owner), 1).double())
    count = count.clamp(min=1)
    mean = zeros.index_add(0, owner, local) / count
    variance = zeros.index_add(0, owner, (local - mean[owner]).square()) / count
    return mean, variance.sqrt() + thickness
