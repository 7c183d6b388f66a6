"""PDB and mmCIF text from atoms, a peptide to write, and how what was read is judged: by NumPy or bit for bit."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.geometry import chain as ideal_chain
from helpers.geometry import close, eps
from iga.structure import Structure, read_structure

Point = tuple[float, float, float]

NAN: Point = (math.nan, math.nan, math.nan)
MISSING = "N, CA or C missing or not finite"
HEIGHT = 0.135  # nm: the shortest height of the triangle N, CA, C, less three-decimal rounding

SIDE_CHAINS = {
    "GLY": (),
    "ALA": ("CB",),
    "SER": ("CB", "OG"),
    "PRO": ("CB", "CG", "CD"),
    "MSE": ("CB", "CG", "SE", "CE"),
    "LEU": ("CB", "CG", "CD1", "CD2"),
    "LYS": ("CB", "CG", "CD", "CE", "NZ"),
}
ELEMENTS = {"SE": "SE", "NA": "NA"}
BACKBONE = ("N", "CA", "C")


@dataclass(frozen=True)
class Atom:
    name: str
    xyz: Point  # ångström, three decimals
    residue: str = "ALA"
    number: int = 1
    insertion: str = ""
    chain: str = "A"
    altloc: str = ""
    occupancy: float = 1.0
    element: str | None = None
    kind: str = "polymer"  # or "ligand", "water"
    het: bool = False
    model: int = 1

    @property
    def symbol(self) -> str:
        return self.element if self.element is not None else ELEMENTS.get(self.name, self.name[0])

    @property
    def record(self) -> str:
        return "HETATM" if self.het or self.kind != "polymer" else "ATOM"


def pdb_text(atoms: Sequence[Atom]) -> str:
    """Fixed columns; TER behind each polymer chain, MODEL and ENDMDL where there are several models."""
    lines: list[str] = ["HEADER    TEST"]
    models = list(dict.fromkeys(atom.model for atom in atoms))
    for model in models:
        if len(models) > 1:
            lines.append(f"MODEL     {model:4d}")
        chosen = [atom for atom in atoms if atom.model == model]
        for serial, (atom, after) in enumerate(zip(chosen, [*chosen[1:], None], strict=True), 1):
            # Names start in column 14, those of four characters and of two-letter elements in 13.
            name = f"{atom.name:<4}" if len(atom.name) == 4 or len(atom.symbol) == 2 else f" {atom.name:<3}"
            x, y, z = (f"{value:8.3f}" for value in atom.xyz)
            lines.append(
                f"{atom.record:<6}{serial:5d} {name}{atom.altloc or ' '}{atom.residue:>3} {atom.chain}{atom.number:4d}"
                f"{atom.insertion or ' '}   {x}{y}{z}{atom.occupancy:6.2f}{20:6.2f}          {atom.symbol:>2}"
            )
            if atom.kind == "polymer" and (after is None or (after.chain, after.kind) != (atom.chain, atom.kind)):
                lines.append("TER")
        if len(models) > 1:
            lines.append("ENDMDL")
    return "\n".join([*lines, "END", ""])


def cif_text(atoms: Sequence[Atom]) -> str:
    """One entity and one label_asym_id a chain and kind; label numbers start at 1, author numbers are the atoms'."""
    asyms = list(dict.fromkeys((atom.chain, atom.kind) for atom in atoms))
    entity_types = {"polymer": "polymer", "ligand": "non-polymer", "water": "water"}
    lines = ["data_TEST", "loop_", "_entity.id", "_entity.type"]
    lines += [f"{index} {entity_types[kind]}" for index, (_, kind) in enumerate(asyms, 1)]
    columns = (
        "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_entity_id label_seq_id "
        "pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy auth_seq_id auth_asym_id pdbx_PDB_model_num"
    )
    lines += ["loop_", *(f"_atom_site.{column}" for column in columns.split())]
    positions = {asym: list(dict.fromkeys(place(a) for a in atoms if (a.chain, a.kind) == asym)) for asym in asyms}
    for serial, atom in enumerate(atoms, 1):
        asym = (atom.chain, atom.kind)
        row = [atom.record, serial, atom.symbol or "?", atom.name, atom.altloc or ".", atom.residue]
        row += [f"{atom.kind[0].upper()}{atom.chain}", asyms.index(asym) + 1]
        row += [positions[asym].index(place(atom)) + 1 if atom.kind == "polymer" else ".", atom.insertion or "?"]
        row += ["?" if math.isnan(value) else f"{value:.3f}" for value in atom.xyz]
        row += [f"{atom.occupancy:.2f}", atom.number, atom.chain, atom.model]
        lines.append(" ".join(map(str, row)))
    return "\n".join([*lines, ""])


def place(atom: Atom) -> tuple[str, int, str]:
    return atom.chain, atom.number, atom.insertion


WRITERS: dict[str, Callable[[Sequence[Atom]], str]] = {"pdb": pdb_text, "cif": cif_text}
each_format = pytest.mark.parametrize("form", ["pdb", "cif"])


def reader(folder: Path) -> Callable[..., Structure]:
    """read(atoms, form="pdb", **options): the atoms through a file; float64 unless told."""

    def through_a_file(atoms: Sequence[Atom], form: str = "pdb", **options: object) -> Structure:
        path = folder / f"written.{form}"
        path.write_text(WRITERS[form](atoms))
        return read_structure(path, **({"dtype": torch.float64} | options))  # type: ignore[arg-type]

    return through_a_file


def rounded(xyz: np.ndarray) -> Point:
    """What three decimals keep, as the number that the text stands for."""
    x, y, z = (float(f"{value:.3f}") for value in xyz)
    return x, y, z


def peptide(*names: str, seed: int = 0, shift: Point = (0.0, 0.0, 0.0), **fields: object) -> list[Atom]:
    """An ideal helix of these residues, numbered from 1, O at random a bond from C, CB and
    the rest of the side chain at random within 2 and 3 Å of CA."""
    generator = np.random.default_rng(seed)
    atoms = []
    backbones = torch.stack(ideal_chain(len(names)), dim=1).numpy() * 10.0 + np.array(shift)
    for number, (name, backbone) in enumerate(zip(names, backbones, strict=True), 1):
        points: dict[str, np.ndarray] = dict(zip(BACKBONE, backbone, strict=True))
        points["O"] = points["C"] + direction(generator) * 1.23
        points |= {
            atom: points["CA"] + direction(generator) * generator.uniform(*reach(atom)) for atom in SIDE_CHAINS[name]
        }
        for atom, xyz in points.items():
            atoms.append(replace(Atom(atom, rounded(xyz), name, number), **fields))  # type: ignore[arg-type]
    return atoms


def reach(atom: str) -> tuple[float, float]:
    """Å from CA: a bond away, or farther."""
    return (1.0, 2.0) if atom == "CB" else (1.0, 3.0)


def direction(generator: np.random.Generator) -> np.ndarray:
    vector = generator.standard_normal(3)
    return vector / np.linalg.norm(vector)


def of(atoms: Iterable[Atom], number: int, *names: str) -> list[Atom]:
    """The atoms of a residue, all or those of these names."""
    return [atom for atom in atoms if atom.number == number and (not names or atom.name in names)]


def without(atoms: Iterable[Atom], number: int, *names: str) -> list[Atom]:
    return [atom for atom in atoms if not (atom.number == number and atom.name in names)]


def moved(atoms: Iterable[Atom], shift: float, **fields: object) -> list[Atom]:
    """Elsewhere by `shift` along x and half of it along y, and turned a little, so that no two conformers agree."""
    out = []
    for atom in atoms:
        x, y, z = atom.xyz
        xyz = rounded(np.array([x + shift - 0.1 * z, y + shift / 2, z + 0.1 * x]))
        out.append(replace(atom, xyz=xyz, **fields))  # type: ignore[arg-type]
    return out


def same(a: Structure, b: Structure) -> bool:
    """Bit for bit, all but the path."""
    tensors = zip(values(a), values(b), strict=True)
    return (
        all(x.shape == y.shape and bool(x.isfinite().all()) and torch.equal(x, y) for x, y in tensors)
        and torch.equal(a.mask, b.mask)
        and (a.chains, a.numbers, a.residue_names) == (b.chains, b.numbers, b.residue_names)
        and a.masked == b.masked
    )


def values(structure: Structure) -> tuple[torch.Tensor, ...]:
    gaussian = structure.gaussian
    return gaussian.rot, gaussian.trans, gaussian.local_mean, gaussian.log_scale


def is_neutral(structure: Structure, row: int, thickness_nm: float = 0.04) -> bool:
    rot, trans, local_mean, log_scale = (x[row] for x in values(structure))
    limit = 2 * eps(log_scale.dtype) * abs(math.log(thickness_nm))
    zero = bool((trans == 0).all() and (local_mean == 0).all())
    return zero and torch.equal(rot, torch.eye(3, dtype=rot.dtype)) and close(log_scale, math.log(thickness_nm), limit)


def expected_row(atoms: Sequence[Atom], gaussians: str, thickness: float, convention: str) -> list[np.ndarray]:
    """Frame and Gaussian of one residue by their definitions, nm: algorithm 21 or from_3_points, mean and spread."""
    xyz = {atom.name: np.array(atom.xyz) / 10 for atom in atoms}
    n, ca, c = (xyz[name] for name in BACKBONE)
    x, towards = (c - ca, n - ca) if convention == "alphafold" else (ca - n, c - ca)
    e1 = x / np.linalg.norm(x)
    e2 = towards - e1 * (e1 @ towards)
    e2 /= np.linalg.norm(e2)
    rot = np.stack([e1, e2, np.cross(e1, e2)], axis=1)
    names = SIDE_CHAINS[atoms[0].residue] if gaussians == "sidechain" else (*BACKBONE, "O")
    local = np.array([rot.T @ (xyz[name] - ca) for name in names])
    mean, spread = (local.mean(axis=0), local.std(axis=0)) if names else (np.zeros(3), np.zeros(3))
    return [rot, ca, mean, np.log(spread + thickness / 10)]
