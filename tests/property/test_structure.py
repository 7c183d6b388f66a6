"""Laws of the reader, on PDB and mmCIF text that the tests write; the judge is NumPy on the numbers that were written.

Where a law says which atoms count, the judge is a file that holds those atoms alone: the results are the same bits.
"""

import gzip
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given

from geometry_support import chain as ideal_chain
from geometry_support import close, each_dtype, eps, is_rotation
from iga.structure import (
    Structure,
    StructureError,
    find_structures,
    read_structure,
    read_structures,
)
from iga.testing.strategies import AxisAngle, axis_angles, seeds, translations

Point = tuple[float, float, float]

NAN: Point = (math.nan, math.nan, math.nan)
MISSING = "N, CA or C missing or not finite"
FLAT = "N, CA and C fix no frame"
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


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Structure]:
    """read(atoms, form="pdb", **options): the atoms through a file; float64 unless told."""

    def through_a_file(atoms: Sequence[Atom], form: str = "pdb", **options: object) -> Structure:
        path = tmp_path / f"written.{form}"
        path.write_text(WRITERS[form](atoms))
        return read_structure(path, **({"dtype": torch.float64} | options))  # type: ignore[arg-type]

    return through_a_file


def rounded(xyz: np.ndarray) -> Point:
    """What three decimals keep, as the number that the text stands for."""
    x, y, z = (float(f"{value:.3f}") for value in xyz)
    return x, y, z


def peptide(*names: str, seed: int = 0, shift: Point = (0.0, 0.0, 0.0), **fields: object) -> list[Atom]:
    """An ideal helix of these residues, numbered from 1, with side chains and O at random within 3 Å of CA and C."""
    generator = np.random.default_rng(seed)
    atoms = []
    backbones = torch.stack(ideal_chain(len(names)), dim=1).numpy() * 10.0 + np.array(shift)
    for number, (name, backbone) in enumerate(zip(names, backbones, strict=True), 1):
        points: dict[str, np.ndarray] = dict(zip(BACKBONE, backbone, strict=True))
        points["O"] = points["C"] + direction(generator) * 1.23
        points |= {atom: points["CA"] + direction(generator) * generator.uniform(1, 3) for atom in SIDE_CHAINS[name]}
        for atom, xyz in points.items():
            atoms.append(replace(Atom(atom, rounded(xyz), name, number), **fields))  # type: ignore[arg-type]
    return atoms


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


# What is computed


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


@each_format
@pytest.mark.parametrize("gaussians", ["sidechain", "backbone"])
@pytest.mark.parametrize("convention", ["alphafold", "openfold"])
@pytest.mark.parametrize("thickness", [0.4, 0.05, 3.0])
def test_frames_and_gaussians_follow_their_definitions(
    read: Callable[..., Structure], form: str, gaussians: str, convention: str, thickness: float
) -> None:
    names = ("LYS", "GLY", "ALA", "SER", "LEU", "PRO")
    # A terminal oxygen belongs neither to the side chain nor to the backbone's four.
    atoms = [*peptide(*names, shift=(30.0, -50.0, 7.0)), Atom("OXT", (40.0, -40.0, 0.0), "PRO", 6)]
    structure = read(atoms, form, gaussians=gaussians, convention=convention, base_thickness=thickness)
    assert structure.residue_names == names and structure.numbers == tuple("123456")
    assert structure.mask.all() and structure.masked == {}
    assert structure.n_residues == structure.n_valid == 6
    rows = zip(*(expected_row(of(atoms, k), gaussians, thickness, convention) for k in range(1, 7)), strict=True)
    rot, trans, local_mean, log_scale = (torch.from_numpy(np.stack(column)) for column in rows)
    # A coordinate of size m is known to 4 eps m (read, divided, in both readers); see test_backbone for the turn. The
    # standard deviation moves by no more than the points, and a logarithm by that over sigma.
    m, reach = float(trans.abs().max()) + 0.5, 0.5
    point = 2 * math.sqrt(3) * 4 * eps(torch.float64) * m
    turn = 8 * eps(torch.float64) + 2 * point / HEIGHT
    local = point + reach * (turn + 8 * eps(torch.float64))
    gaussian = structure.gaussian
    assert gaussian.dtype == torch.float64
    assert close(gaussian.rot, rot, turn)
    assert close(gaussian.trans, trans, 4 * eps(torch.float64) * m)
    assert close(gaussian.local_mean, local_mean, local)
    assert close(gaussian.log_scale, log_scale, local / (thickness / 10) + 8 * eps(torch.float64))


@pytest.mark.parametrize("thickness", [0.4, 1.5])
def test_glycine_is_an_isotropic_gaussian_at_ca(read: Callable[..., Structure], thickness: float) -> None:
    structure = read(peptide("ALA", "GLY", "ALA"), base_thickness=thickness)
    assert structure.mask.all()
    assert (structure.gaussian.local_mean[1] == 0).all()
    expected = math.log(thickness / 10)
    assert close(structure.gaussian.log_scale[1], expected, 2 * eps(torch.float64) * abs(expected))


def test_base_thickness_adds_to_sigma_along_each_axis(read: Callable[..., Structure]) -> None:
    atoms = peptide("LYS", "LEU", "GLY", "SER")
    thin, thick = (read(atoms, base_thickness=thickness).gaussian.sigma for thickness in (0.1, 1.0))
    # exp(log x) is x to 2 eps and the rounding of log x, |log x| < 5; sigma < 0.5 nm.
    assert close(thick - thin, 0.09, 2 * (2 + 5) * eps(torch.float64) * 0.5)


def test_the_default_is_float32_side_chains_and_four_tenths_of_an_angstrom(tmp_path: Path) -> None:
    path = tmp_path / "a.pdb"
    path.write_text(pdb_text(peptide("LYS", "GLY", "ALA")))
    short = read_structure(path)
    exact = read_structure(path, gaussians="sidechain", base_thickness=0.4, convention="alphafold", dtype=torch.float64)
    for a, b in zip(values(short), values(exact), strict=True):
        assert a.dtype == torch.float32 and b.dtype == torch.float64
        assert torch.equal(a, b.float())
    assert short.path == str(path)


@given(turn=axis_angles(), origin=translations(high=1), seed=seeds())
def test_frames_follow_a_moved_file_and_gaussians_stay_in_their_frames(
    tmp_path_factory: pytest.TempPathFactory, turn: AxisAngle, origin: Point, seed: int
) -> None:
    matrix, shift = turn.matrix.numpy(), np.array(origin)
    still = peptide("LYS", "GLY", "SER", "LEU", "ALA", seed=seed)
    moving = [replace(a, xyz=rounded(matrix @ np.array(a.xyz) + 10 * shift)) for a in still]
    folder = tmp_path_factory.mktemp("moved")
    structures = []
    for name, atoms in (("still", still), ("moving", moving)):
        path = folder / f"{name}.pdb"
        path.write_text(pdb_text(atoms))
        structures.append(read_structure(path, dtype=torch.float64))
    a, b = (structure.gaussian for structure in structures)
    # Three decimals of an ångström move an atom by at most d, an edge by 2 d. That turns e1 by 2 d / 0.152, and the
    # plane by 1.4 times 2 d over the height; together less than 4 d / HEIGHT. Float64 rounding is 10^8 times smaller.
    d = math.sqrt(3) * 5e-5 * (1 + 1e-6)
    angle = 4 * d / HEIGHT
    assert close(b.rot, np.einsum("ij,njk->nik", matrix, a.rot.numpy()), angle)
    assert close(b.trans, a.trans.numpy() @ matrix.T + shift, 5e-5 * (1 + 1e-6))
    # A side-chain atom moves by 2 d against CA, and with the axes by its distance, under 0.31 nm.
    point = 2 * d + angle * 0.31
    lone = torch.tensor([len(SIDE_CHAINS[name]) == 0 for name in structures[0].residue_names])
    assert close(b.local_mean, a.local_mean, point)
    assert close(b.log_scale, a.log_scale, -torch.log1p(-point / a.sigma))
    assert (b.local_mean[lone] == 0).all() and torch.equal(b.log_scale[lone], a.log_scale[lone])


# Which atoms count


@each_format
@pytest.mark.parametrize("gaussians", ["sidechain", "backbone"])
@pytest.mark.parametrize(
    ("occupancies", "chosen"),
    [((0.7, 0.3), 0), ((0.3, 0.7), 1), ((0.5, 0.5), 0), ((0.3, 0.4, 0.3), 1), ((0.3, 0.3, 0.4), 2), ((0.0, 0.0), 0)],
)
@pytest.mark.parametrize("interleaved", [True, False])
def test_the_conformer_of_highest_occupancy_is_taken_whole_and_the_first_on_a_tie(
    read: Callable[..., Structure],
    form: str,
    gaussians: str,
    occupancies: tuple[float, ...],
    chosen: int,
    interleaved: bool,
) -> None:
    plain = peptide("ALA", "LYS", "SER")
    conformers = [moved(of(plain, 2), 0.3 * k, altloc="ABC"[k], occupancy=o) for k, o in enumerate(occupancies)]
    mixed = [a for atoms in zip(*conformers, strict=True) for a in atoms] if interleaved else sum(conformers, [])
    structure = read([*of(plain, 1), *mixed, *of(plain, 3)], form, gaussians=gaussians)
    alone = [replace(atom, altloc="", occupancy=1.0) for atom in conformers[chosen]]
    assert same(structure, read([*of(plain, 1), *alone, *of(plain, 3)], form, gaussians=gaussians))


@each_format
def test_conformers_are_not_mixed_where_occupancies_differ_from_atom_to_atom(
    read: Callable[..., Structure], form: str
) -> None:
    plain = peptide("ALA", "LYS", "SER")
    first = moved(of(plain, 2), 0.0, altloc="A", occupancy=0.5)
    second = moved(of(plain, 2), 0.3, altloc="B", occupancy=0.2)
    # N, CA and CB are surer in B; the mean of the residue is not.
    second = [replace(atom, occupancy=0.9) if atom.name in ("N", "CA", "CB") else atom for atom in second]
    assert np.mean([atom.occupancy for atom in second]) < 0.5
    structure = read([*of(plain, 1), *second, *first, *of(plain, 3)], form)
    assert same(structure, read([*of(plain, 1), *moved(of(plain, 2), 0.0), *of(plain, 3)], form))


@each_format
def test_each_residue_takes_its_own_conformer(read: Callable[..., Structure], form: str) -> None:
    plain = peptide("ALA", "LYS", "SER", "LEU")
    shares = {1: (0.7, 0.3), 2: (0.2, 0.8), 3: (0.5, 0.5), 4: (0.49, 0.51)}
    atoms, alone = [], []
    for number, pair in shares.items():
        both = [moved(of(plain, number), 0.3 * k, altloc="AB"[k], occupancy=o) for k, o in enumerate(pair)]
        atoms += sum(both, [])
        alone += moved(of(plain, number), 0.3 if pair[1] > pair[0] else 0.0)
    assert same(read(atoms, form), read(alone, form))


@each_format
def test_atoms_without_a_letter_belong_to_every_conformer(read: Callable[..., Structure], form: str) -> None:
    plain = peptide("ALA", "LYS", "SER")
    common = of(plain, 2, *BACKBONE, "O", "CB")
    a = moved(of(plain, 2, "CG", "CD", "CE", "NZ"), 0.0, altloc="A", occupancy=0.3)
    b = moved(of(plain, 2, "CG", "CD", "CE"), 0.5, altloc="B", occupancy=0.7)  # NZ is not seen in B
    structure = read([*of(plain, 1), *common, *a, *b, *of(plain, 3)], form)
    alone = [*common, *moved(of(plain, 2, "CG", "CD", "CE"), 0.5)]
    assert same(structure, read([*of(plain, 1), *alone, *of(plain, 3)], form))


@each_format
@pytest.mark.parametrize(("shares", "chosen"), [((0.6, 0.4), "blank"), ((0.4, 0.6), "B")])
@pytest.mark.parametrize("letter_first", [True, False])
def test_a_conformer_without_a_letter_is_one_too_where_a_letter_repeats_its_atoms(
    read: Callable[..., Structure], form: str, shares: tuple[float, float], chosen: str, letter_first: bool
) -> None:
    plain = peptide("ALA", "SER", "ALA")
    blank = moved(of(plain, 2), 0.0, occupancy=shares[0])
    b = moved(of(plain, 2), 0.3, altloc="B", occupancy=shares[1])
    both = [*b, *blank] if letter_first else [*blank, *b]
    alone = moved(of(plain, 2), 0.0 if chosen == "blank" else 0.3)
    structure = read([*of(plain, 1), *both, *of(plain, 3)], form)
    assert same(structure, read([*of(plain, 1), *alone, *of(plain, 3)], form))


@each_format
@pytest.mark.parametrize("missing", BACKBONE)
def test_a_conformer_without_a_backbone_gives_way_to_one_that_has_it(
    read: Callable[..., Structure], form: str, missing: str
) -> None:
    plain = peptide("ALA", "LYS", "SER")
    a = moved(of(plain, 2), 0.0, altloc="A", occupancy=0.2)
    b = without(moved(of(plain, 2), 0.3, altloc="B", occupancy=0.8), 2, missing)
    structure = read([*of(plain, 1), *a, *b, *of(plain, 3)], form)
    assert same(structure, read([*of(plain, 1), *moved(of(plain, 2), 0.0), *of(plain, 3)], form))


@each_format
def test_a_backbone_is_not_put_together_from_two_conformers(read: Callable[..., Structure], form: str) -> None:
    plain = peptide("ALA", "LYS", "SER")
    a = without(moved(of(plain, 2), 0.0, altloc="A", occupancy=0.5), 2, "N")
    b = without(moved(of(plain, 2), 0.3, altloc="B", occupancy=0.5), 2, "C")
    structure = read([*of(plain, 1), *a, *b, *of(plain, 3)], form)
    assert structure.mask.tolist() == [True, False, True]
    assert structure.masked == {MISSING: 1}


@each_format
@pytest.mark.parametrize(
    ("shares", "missing", "name"),
    [((0.6, 0.4), None, "SER"), ((0.4, 0.6), None, "PRO"), ((0.5, 0.5), None, "SER"), ((0.4, 0.6), "CA", "SER")],
)
@pytest.mark.parametrize("letters", ["AB", "BA"])
def test_of_several_residues_at_one_position_one_is_taken_whole(
    read: Callable[..., Structure],
    form: str,
    shares: tuple[float, float],
    missing: str | None,
    name: str,
    letters: str,
) -> None:
    plain, other = peptide("ALA", "SER", "LYS"), peptide("ALA", "PRO", "LYS", seed=1)
    serine = moved(of(plain, 2), 0.0, altloc=letters[0], occupancy=shares[0])
    proline = moved(of(other, 2), 0.3, altloc=letters[1], occupancy=shares[1])
    proline = without(proline, 2, missing) if missing else proline
    structure = read([*of(plain, 1), *serine, *proline, *of(plain, 3)], form)
    alone = moved(of(plain, 2), 0.0) if name == "SER" else moved(of(other, 2), 0.3)
    assert structure.residue_names == ("ALA", name, "LYS")
    assert same(structure, read([*of(plain, 1), *alone, *of(plain, 3)], form))


@each_format
@pytest.mark.parametrize(("shares", "name"), [((0.6, 0.4), "SER"), ((0.4, 0.6), "PRO")])
def test_residues_at_one_position_share_the_backbone_atoms_without_a_letter(
    read: Callable[..., Structure], form: str, shares: tuple[float, float], name: str
) -> None:
    """As the archive writes it: N, C and O once, under the first name. CB has no letter either, but is that name's."""
    plain, other = peptide("ALA", "SER", "LYS"), peptide("ALA", "PRO", "LYS", seed=1)
    serine = [
        replace(atom, altloc="A", occupancy=shares[0]) if atom.name in ("CA", "OG") else atom for atom in of(plain, 2)
    ]
    proline = moved(of(other, 2, "CA", "CG", "CD"), 0.3, altloc="B", occupancy=shares[1])
    common = [replace(atom, residue=name) for atom in of(plain, 2, "N", "C", "O")]
    alone = of(plain, 2) if name == "SER" else [*common, *moved(of(other, 2, "CA", "CG", "CD"), 0.3)]
    structure = read([*of(plain, 1), *serine, *proline, *of(plain, 3)], form)
    assert same(structure, read([*of(plain, 1), *alone, *of(plain, 3)], form))


@each_format
def test_insertion_codes_are_kept_in_the_order_of_the_file(read: Callable[..., Structure], form: str) -> None:
    plain = peptide("ALA", "LYS", "SER", "LEU", "GLY", "ALA", "SER")
    labels = [(-1, ""), (0, ""), (60, "B"), (60, "A"), (60, ""), (61, ""), (61, "Z")]
    atoms = [replace(a, number=n, insertion=i) for k, (n, i) in enumerate(labels, 1) for a in of(plain, k)]
    structure = read(atoms, form)
    assert structure.numbers == ("-1", "0", "60B", "60A", "60", "61", "61Z")
    assert structure.residue_names == ("ALA", "LYS", "SER", "LEU", "GLY", "ALA", "SER")
    assert structure.mask.all()
    for a, b in zip(values(structure), values(read(plain, form)), strict=True):
        assert torch.equal(a, b)


@each_format
@pytest.mark.parametrize("position", [1, 3, 5])
def test_modified_residues_written_as_hetatm_stay_in_the_chain(
    read: Callable[..., Structure], form: str, position: int
) -> None:
    names = ["ALA", "LYS", "SER", "LEU", "ALA"]
    names[position - 1] = "MSE"
    atoms = [replace(atom, het=atom.residue == "MSE") for atom in peptide(*names)]
    assert ("HETATM" in WRITERS[form](atoms)) and any(atom.name == "SE" for atom in atoms)
    structure = read(atoms, form)
    assert structure.residue_names == tuple(names)
    assert structure.mask.all()
    expected = expected_row(of(atoms, position), "sidechain", 0.4, "alphafold")
    assert close(structure.gaussian.local_mean[position - 1], expected[2], 1e-12)
    for a, b in zip(values(structure), values(read([replace(a, het=False) for a in atoms], form)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("form", "stated"), [("pdb", True), ("pdb", False), ("cif", True)], ids=["pdb", "pdb without elements", "cif"]
)
@pytest.mark.parametrize("gaussians", ["sidechain", "backbone"])
@pytest.mark.parametrize("element", ["H", "D"])
def test_hydrogen_and_deuterium_are_ignored(
    read: Callable[..., Structure], form: str, gaussians: str, element: str, stated: bool
) -> None:
    heavy = peptide("LYS", "GLY", "SER")
    names = (f"{element}", f"{element}A", f"{element}B2", f"{element}G11")
    atoms = []
    for number in (1, 2, 3):
        place_of = of(heavy, number)[0]
        light = [replace(place_of, name=name, xyz=(9.0, number, k), element=element) for k, name in enumerate(names)]
        # Those of a conformer that holds nothing else, and surer than all, don't count either.
        light.append(replace(light[0], altloc="A", occupancy=1.0, xyz=(5.0, 5.0, 5.0)))
        atoms += [*light[:2], *of(heavy, number), *light[2:]]
    if not stated:
        atoms = [replace(atom, element="") for atom in atoms]
    assert same(read(atoms, form, gaussians=gaussians), read(heavy, form, gaussians=gaussians))


@each_format
def test_ligands_water_and_nucleic_acid_are_no_residues(read: Callable[..., Structure], form: str) -> None:
    protein = peptide("ALA", "LYS", "SER")
    nucleotide = ("P", "C1'", "C2'", "C3'", "C4'", "C5'", "O3'", "O5'", "N1", "C2", "N3", "C4")
    # TCY, a modified deoxycytidine, is in no table of common residues: its chain is what tells.
    dna = [
        Atom(name, (20.0 + k, 5.0 * number, 0.5 * k), residue, number, chain="D", het=residue == "TCY")
        for number, residue in enumerate(("DA", "DC", "TCY", "DG", "DT"), 1)
        for k, name in enumerate(nucleotide)
    ]
    # A free amino acid has a backbone of its own and is still a ligand.
    free = [replace(atom, number=301, kind="ligand", het=True) for atom in moved(of(protein, 2), 15.0)]
    others = [
        *free,
        Atom("NA", (1.0, 20.0, 3.0), "NA", 302, kind="ligand"),
        Atom("C1", (4.0, 20.0, 3.0), "GOL", 303, kind="ligand"),
        *(Atom("O", (float(k), 30.0, 3.0), "HOH", 400 + k, kind="water") for k in range(3)),
    ]
    structure = read([*protein, *dna, *others], form)
    assert structure.numbers == ("1", "2", "3")
    assert same(structure, read(protein, form))
    with pytest.raises(StructureError, match="no protein residue"):
        read([*dna, *others], form)


@each_format
@pytest.mark.parametrize("place_of_protein", [1, 2])
def test_the_first_model_is_taken(read: Callable[..., Structure], form: str, place_of_protein: int) -> None:
    first, second = peptide("ALA", "LYS", "SER"), peptide("ALA", "LYS", "SER", "LEU", seed=1, shift=(5.0, 0.0, 0.0))
    # The second model is also the surer one, and has more residues.
    first = [replace(atom, occupancy=0.5) for atom in first]
    models = (first, second) if place_of_protein == 1 else (second, first)
    structure = read([replace(atom, model=k) for k, atoms in enumerate(models, 1) for atom in atoms], form)
    assert same(structure, read(models[0], form))


@each_format
def test_all_protein_chains_are_read_in_the_order_of_the_file(read: Callable[..., Structure], form: str) -> None:
    b, a = peptide("ALA", "LYS", chain="B"), peptide("SER", "GLY", "LEU", chain="A", shift=(40.0, 0.0, 0.0))
    structure = read([*b, *a], form)
    assert structure.chains == ("B", "B", "A", "A", "A")
    assert structure.numbers == ("1", "2", "1", "2", "3")
    assert structure.residue_names == ("ALA", "LYS", "SER", "GLY", "LEU")
    alone = [values(read(atoms, form)) for atoms in (b, a)]
    for whole, parts in zip(values(structure), zip(*alone, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(parts))


def test_residues_that_share_number_and_name_in_two_chains_stay_apart(read: Callable[..., Structure]) -> None:
    one = [replace(atom, chain=chain, number=7) for chain in "ABC" for atom in peptide("SER")]
    structure = read(one)
    assert structure.chains == ("A", "B", "C") and structure.numbers == ("7", "7", "7")
    assert structure.n_valid == 3


# What has no frame


@each_format
@pytest.mark.parametrize("names", [("N",), ("CA",), ("C",), ("N", "C"), BACKBONE])
def test_residues_with_missing_atoms_are_masked_and_counted(
    read: Callable[..., Structure], form: str, names: tuple[str, ...]
) -> None:
    plain = peptide("ALA", "LYS", "SER", "LEU", "ALA")
    structure = read(without(without(plain, 2, *names), 5, *names), form)
    assert structure.mask.tolist() == [True, False, True, True, False]
    assert structure.masked == {MISSING: 2}
    assert (structure.n_residues, structure.n_valid) == (5, 3)
    assert structure.residue_names == ("ALA", "LYS", "SER", "LEU", "ALA")
    assert is_neutral(structure, 1) and is_neutral(structure, 4)
    for a, b in zip(values(structure), values(read(plain, form)), strict=True):
        assert torch.equal(a[structure.mask], b[structure.mask])


@each_format
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", BACKBONE)
def test_coordinates_that_are_no_numbers_mask_the_residue(
    read: Callable[..., Structure], form: str, name: str, axis: int
) -> None:
    plain = peptide("ALA", "LYS", "SER")
    broken = [
        replace(atom, xyz=tuple(math.nan if k == axis else x for k, x in enumerate(atom.xyz)))
        if (atom.number, atom.name) == (2, name)
        else atom
        for atom in plain
    ]
    structure = read(broken, form)
    assert structure.mask.tolist() == [True, False, True]
    assert structure.masked == {MISSING: 1}
    assert is_neutral(structure, 1)
    for a, b in zip(values(structure), values(read(plain, form)), strict=True):
        assert torch.equal(a[structure.mask], b[structure.mask])


@each_format
def test_side_chain_atoms_without_coordinates_are_left_out(read: Callable[..., Structure], form: str) -> None:
    plain = peptide("ALA", "LYS", "SER")
    lost = [replace(a, xyz=NAN) if (a.number, a.name) in ((2, "NZ"), (1, "CB")) else a for a in plain]
    assert same(read(lost, form), read(without(without(plain, 2, "NZ"), 1, "CB"), form))


@each_format
@pytest.mark.parametrize(
    "line",
    [
        ((-1.46, 0.0, 0.0), (0.0, 0.0, 0.0), (1.53, 0.0, 0.0)),  # stretched
        ((1.46, 0.0, 0.0), (0.0, 0.0, 0.0), (1.53, 0.0, 0.0)),  # folded back
        ((-1.0, -0.5, 0.25), (0.0, 0.0, 0.0), (1.0, 0.5, -0.25)),  # along no axis
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.53, 0.0, 0.0)),  # N on CA
        ((-1.46, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),  # C on CA
        ((1.46, 0.0, 0.0), (0.0, 0.0, 0.0), (1.46, 0.0, 0.0)),  # N on C
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),  # all in one place
    ],
)
@pytest.mark.parametrize("convention", ["alphafold", "openfold"])
def test_collinear_and_coincident_atoms_are_masked_with_the_reason(
    read: Callable[..., Structure], form: str, line: tuple[Point, ...], convention: str
) -> None:
    plain = peptide("ALA", "LYS", "SER", "LEU")
    at = np.array([7.125, -3.5, 11.25])
    points = dict(zip(BACKBONE, (rounded(at + np.array(point)) for point in line), strict=True))
    flat = [replace(a, xyz=points[a.name]) if a.number == 3 and a.name in points else a for a in plain]
    structure = read(flat, form, convention=convention)
    assert structure.mask.tolist() == [True, True, False, True]
    assert structure.masked == {FLAT: 1}
    assert is_neutral(structure, 2)
    assert is_rotation(structure.gaussian.rot, 8 * eps(torch.float64))
    for a, b in zip(values(structure), values(read(plain, form, convention=convention)), strict=True):
        assert torch.equal(a[structure.mask], b[structure.mask])


@each_dtype
@given(turn=axis_angles(), angle=axis_angles(bases=(0.0, math.pi)))
def test_nearly_collinear_atoms_give_a_rotation_or_are_masked(
    tmp_path_factory: pytest.TempPathFactory, dtype: torch.dtype, turn: AxisAngle, angle: AxisAngle
) -> None:
    """At three decimals of an ångström, where a nearly straight residue is straight or bent by 10⁻³."""
    n, c = angle.matrix.numpy() @ np.array([1.46, 0.0, 0.0]), np.array([1.53, 0.0, 0.0])
    points = dict(zip(BACKBONE, (turn.matrix.numpy() @ x + 20.0 for x in (n, np.zeros(3), c)), strict=True))
    atoms = [replace(a, xyz=rounded(points[a.name])) if a.number == 2 and a.name in points else a for a in WALL]
    path = tmp_path_factory.mktemp("near") / "near.pdb"
    path.write_text(pdb_text(atoms))
    structure = read_structure(path, dtype=dtype)
    assert is_rotation(structure.gaussian.rot, 8 * eps(dtype))
    assert all(x.isfinite().all() for x in values(structure))
    assert structure.mask[0] and structure.mask[2]
    assert structure.masked == ({} if structure.mask[1] else {FLAT: 1})
    # What the written digits say, exactly, in units of 0.001 Å.
    n, ca, c = (np.round(1000 * np.array(of(atoms, 2, name)[0].xyz)).astype(np.int64) for name in BACKBONE)
    assert bool(structure.mask[1]) == bool(np.cross(n - ca, c - ca).any())


WALL = peptide("ALA", "LYS", "SER")


@each_format
def test_every_reason_is_counted_by_itself_and_stands_in_the_record(tmp_path: Path, form: str) -> None:
    atoms = without(peptide("ALA", "LYS", "SER", "LEU", "ALA"), 1, "N")
    atoms = [replace(a, xyz=NAN) if a.number == 5 and a.name == "CA" else a for a in atoms]
    atoms = [replace(a, xyz=(1.0, 1.0, 1.0)) if a.number == 3 else a for a in atoms]
    path = tmp_path / f"a.{form}"
    path.write_text(WRITERS[form](atoms))
    (structure,), (entry,) = read_structures([path])
    assert structure.mask.tolist() == [False, True, False, True, False]
    assert structure.masked == {MISSING: 2, FLAT: 1}
    assert all(x.isfinite().all() for x in values(structure))
    assert entry == {
        "path": str(path),
        "residues": 5,
        "masked": 3,
        "status": "read",
        "reason": f"2 masked: {MISSING}; 1 masked: {FLAT}",
    }


# What can't be read


def in_nm(atoms: Iterable[Atom]) -> list[Atom]:
    return [replace(atom, xyz=rounded(np.array(atom.xyz) / 10)) for atom in atoms]


GOOD = peptide("ALA", "LYS", "SER", "LEU", "ALA", "GLY", "SER", "LYS", "LEU", "ALA")
DNA = [Atom(name, (float(k), 5.0 * i, 0.0), "DA", i) for i in (1, 2, 3) for k, name in enumerate(("P", "C1'", "N9"))]
LINE = [replace(atom, xyz=(float(k), 0.0, 0.0)) for k, atom in enumerate(GOOD)]
PACKED = gzip.compress(pdb_text(GOOD).encode(), mtime=0)

UNREADABLE: dict[str, tuple[str, str | bytes | None, str]] = {
    "empty PDB": ("a.pdb", "", "no atoms"),
    "empty mmCIF": ("a.cif", "", "no atoms"),
    "blank lines": ("a.cif", "\n \n", "no atoms"),
    "empty gzip": ("a.cif.gz", gzip.compress(b""), "no atoms"),
    "header alone": ("a.pdb", "HEADER    TEST\nEND\n", "no atoms"),
    "mmCIF without atoms": ("a.cif", "data_x\n_cell.length_a 1\n", "no atoms"),
    "mmCIF comment alone": ("a.cif", "# nothing\n", "not readable as PDB or mmCIF"),
    "prose": ("a.pdb", "Not a structure.\n", "no atoms"),
    "noise": ("a.cif", np.random.default_rng(0).bytes(1000), "no atoms"),
    "broken loop": ("a.cif", cif_text(GOOD).rstrip().rsplit(" ", 1)[0], "Wrong number of values in loop"),
    "two entries in one file": ("a.cif", cif_text(GOOD) + cif_text(GOOD).replace("TEST", "TWO"), "2+ blocks are ok"),
    "truncated gzip": ("a.pdb.gz", PACKED[: len(PACKED) // 2], "ended before the end-of-stream marker"),
    "damaged gzip": ("a.pdb.gz", PACKED[:-8] + bytes(8), "CRC check failed"),
    "scrambled gzip": ("a.pdb.gz", PACKED[:10] + b"\xff" * 40, "not readable"),
    "no such file": ("a.pdb", None, "No such file"),
    "nucleic acid": ("a.pdb", pdb_text(DNA), "no protein residue in the first model"),
    "water": ("a.cif", cif_text([Atom("O", (1.0, 2.0, 3.0), "HOH", kind="water")]), "no protein residue"),
    "CA alone": ("a.cif", cif_text([a for a in GOOD if a.name == "CA"]), "none of 10 residues has N, CA and C"),
    "no numbers": ("a.pdb", pdb_text([replace(a, xyz=NAN) for a in GOOD]), "none of 10 residues has N, CA and C"),
    "on a line": ("a.pdb", pdb_text(LINE), "on one line, or in one place, in every residue"),
    "nm in PDB": ("a.pdb", pdb_text(in_nm(GOOD)), 'must be in the named unit, "angstrom", but look like "nm"'),
    "nm in mmCIF": ("a.cif", cif_text(in_nm(GOOD)), "PDB and mmCIF are in ångström, multiply by 10"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_one_line_with_the_file_and_the_reason(tmp_path: Path, case: str) -> None:
    name, content, reason = UNREADABLE[case]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(StructureError) as caught:
        read_structure(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert reason in message.removeprefix(f"{path}: ")


def test_a_folder_is_one_line_too(tmp_path: Path) -> None:
    with pytest.raises(StructureError, match="^[^\n]*: not readable: Is a directory$"):
        read_structure(tmp_path)


@pytest.mark.parametrize("residues", [3, 10])
def test_a_few_residues_in_nm_are_noticed_and_the_same_in_angstrom_pass(
    read: Callable[..., Structure], residues: int
) -> None:
    atoms = [atom for atom in GOOD if atom.number <= residues]
    assert read(atoms).n_valid == residues
    with pytest.raises(StructureError, match='look like "nm"') as caught:
        read(in_nm(atoms))
    # from_backbone's remedy is an argument that the reader doesn't have.
    assert "pass unit" not in str(caught.value)


# One content, many files


@pytest.mark.parametrize("gaussians", ["sidechain", "backbone"])
def test_pdb_and_mmcif_of_the_same_atoms_agree(read: Callable[..., Structure], gaussians: str) -> None:
    atoms = without(peptide("LYS", "GLY", "MSE", "SER", "LEU"), 4, "C")
    atoms = [replace(a, het=a.residue == "MSE", number=a.number + 58, insertion="") for a in atoms]
    atoms = [replace(a, number=60, insertion="A") if a.number == 61 else a for a in atoms]
    atoms += [replace(a, chain="B", number=a.number + 10) for a in peptide("ALA", "SER", shift=(30.0, 0.0, 0.0))]
    atoms += [Atom("O", (1.0, 30.0, 3.0), "HOH", 400, kind="water")]
    pdb, cif = read(atoms, "pdb", gaussians=gaussians), read(atoms, "cif", gaussians=gaussians)
    assert pdb.numbers == cif.numbers == ("59", "60", "60A", "62", "63", "11", "12")
    assert pdb.chains == cif.chains == ("A",) * 5 + ("B",) * 2
    assert pdb.residue_names == cif.residue_names
    assert torch.equal(pdb.mask, cif.mask) and pdb.masked == cif.masked == {MISSING: 1}
    # The two readers of numbers may differ by 4 eps m at a coordinate; see the definitions above.
    m = float(pdb.gaussian.trans.abs().max()) + 0.5
    point = 2 * math.sqrt(3) * 4 * eps(torch.float64) * m
    turn = 8 * eps(torch.float64) + 2 * point / HEIGHT
    local = point + 0.5 * (turn + 8 * eps(torch.float64))
    for a, b, limit in zip(values(pdb), values(cif), (turn, point, local, local / 0.04), strict=True):
        assert close(a, b, limit)


@each_format
def test_gzip_line_ends_and_names_change_nothing(tmp_path: Path, form: str) -> None:
    text = WRITERS[form](GOOD)
    plain = tmp_path / f"a.{form}"
    plain.write_text(text)
    expected = read_structure(plain)
    assert expected.n_valid == 10
    variants = {
        f"b.{form}.gz": gzip.compress(text.encode()),
        f"c.{form.upper()}.GZ": gzip.compress(text.encode()),
        f"members.{form}.gz": gzip.compress(text[:999].encode()) + gzip.compress(text[999:].encode()),
        f"crlf.{form}": text.replace("\n", "\r\n").encode(),
        f"crlf.{form}.gz": gzip.compress(text.replace("\n", "\r\n").encode()),
        f"not_packed.{form}.gz": text.encode(),
        f"packed.{form}": gzip.compress(text.encode()),
        "other.ent": text.encode(),
        "other.mmcif": text.encode(),
        "no_ending": text.encode(),
    }
    for name, content in variants.items():
        (tmp_path / name).write_bytes(content)
        assert same(read_structure(tmp_path / name), expected), name


# Files, folders, globs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """b.pdb (10 residues), a.cif.gz (3), c.pdb (unreadable), C.ENT (2), notes.txt, sub/d.pdb (1)."""
    (tmp_path / "b.pdb").write_text(pdb_text(GOOD))
    (tmp_path / "a.cif.gz").write_bytes(gzip.compress(cif_text(peptide("ALA", "LYS", "SER")).encode()))
    (tmp_path / "c.pdb").write_text("")
    (tmp_path / "C.ENT").write_text(pdb_text(peptide("ALA", "GLY")))
    (tmp_path / "notes.txt").write_text("data_notes\nloop_\n_one\n_two\n1\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.pdb").write_text(pdb_text(peptide("SER")))
    (tmp_path / "folder.pdb").mkdir()
    return tmp_path


def test_a_file_a_folder_and_a_glob_name_structures(folder: Path) -> None:
    def found(*names: str) -> list[str]:
        return [str(path.relative_to(folder)) for path in find_structures([folder / name for name in names])]

    assert found("b.pdb") == ["b.pdb"]
    assert found("notes.txt") == ["notes.txt"]  # named by itself: the reader says what is wrong with it
    assert found("") == ["C.ENT", "a.cif.gz", "b.pdb", "c.pdb"]
    assert found("*.pdb") == ["b.pdb", "c.pdb"]
    assert found("**/*.pdb") == ["b.pdb", "c.pdb", "sub/d.pdb"]
    assert found("[bc].pdb") == ["b.pdb", "c.pdb"]
    assert found("sub", "c.pdb", "*.cif.gz") == ["sub/d.pdb", "c.pdb", "a.cif.gz"]
    assert find_structures([str(folder / "b.pdb")]) == [folder / "b.pdb"]


def test_a_file_named_twice_is_read_once(folder: Path) -> None:
    names: list[str | Path] = [folder / "b.pdb", folder, str(folder / "*.pdb"), f"{folder}/./b.pdb"]
    assert [path.name for path in find_structures(names)] == ["b.pdb", "C.ENT", "a.cif.gz", "c.pdb"]
    assert len(read_structures(names)[1]) == 4


def test_a_bracket_in_the_name_of_a_file_is_no_glob(folder: Path) -> None:
    (folder / "x[1].pdb").write_text(pdb_text(GOOD))
    assert find_structures([folder / "x[1].pdb"]) == [folder / "x[1].pdb"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.pdb", "no such file, folder or match"),
        ("*.xyz", "no such file, folder or match"),
        ("folder.pdb", "no file in this folder ends in .pdb, .ent, .cif, .mmcif or these with .gz"),
    ],
)
def test_what_names_nothing_is_an_error_that_repeats_it(folder: Path, name: str, message: str) -> None:
    for call in (find_structures, read_structures):
        with pytest.raises(StructureError) as caught:
            call([folder / "b.pdb", folder / name])
        assert str(caught.value).startswith(f"{folder / name}: {message}")
        assert "\n" not in str(caught.value)


def test_no_paths_and_a_bare_string_are_misuse() -> None:
    for call in (find_structures, read_structures):
        with pytest.raises(StructureError, match="no structure was named; pass files, folders or globs"):
            call([])
        # Letter by letter "./a.pdb" would name the working folder and then the root.
        with pytest.raises(ValueError, match=r"paths must be a list of names, got the string './a.pdb'"):
            call("./a.pdb")


def test_structures_and_records_come_in_order_and_go_on_past_what_cannot_be_read(folder: Path) -> None:
    structures, records = read_structures([folder / "c.pdb", folder / "sub", folder, folder / "notes.txt"])
    assert [Path(structure.path).name for structure in structures] == ["d.pdb", "C.ENT", "a.cif.gz", "b.pdb"]
    assert [structure.n_residues for structure in structures] == [1, 2, 3, 10]
    assert [Path(str(entry["path"])).name for entry in records] == [
        *("c.pdb", "d.pdb", "C.ENT", "a.cif.gz", "b.pdb", "notes.txt")
    ]
    for entry in records:
        assert list(entry) == ["path", "residues", "masked", "status", "reason"]
        assert [type(value) for value in entry.values()] == [str, int, int, str, str]
    assert [entry["status"] for entry in records] == ["unreadable", *["read"] * 4, "unreadable"]
    assert [entry["residues"] for entry in records] == [0, 1, 2, 3, 10, 0]
    assert records[1]["reason"] == "" and records[1]["path"] == str(folder / "sub" / "d.pdb")
    assert records[0]["reason"] == "no atoms; the file is empty or holds no coordinates"
    assert str(records[5]["reason"]).startswith("not readable as PDB or mmCIF: ")


def test_options_reach_every_file(folder: Path) -> None:
    options = {"gaussians": "backbone", "base_thickness": 1.0, "convention": "openfold", "dtype": torch.float64}
    for structure in read_structures([folder], **options)[0]:
        assert same(structure, read_structure(structure.path, **options))  # type: ignore[arg-type]
        assert structure.gaussian.dtype == torch.float64


def test_nothing_readable_is_an_error_with_files_and_reasons(folder: Path) -> None:
    with pytest.raises(StructureError) as caught:
        read_structures([folder / "c.pdb", folder / "notes.txt"])
    message = str(caught.value)
    assert message.startswith("none of 2 files is readable: ") and "\n" not in message
    assert f"{folder / 'c.pdb'}: no atoms" in message and f"{folder / 'notes.txt'}: not readable" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_thickness": 0.0}, "base_thickness must be a positive number of ångström, got 0.0"),
        ({"base_thickness": -0.4}, "base_thickness must be a positive number"),
        ({"base_thickness": math.nan}, "base_thickness must be a positive number"),
        ({"base_thickness": math.inf}, "base_thickness must be a positive number"),
        ({"convention": "openfolded"}, "convention must be 'alphafold' or 'openfold', got 'openfolded'"),
        ({"dtype": torch.float16}, "dtype must be torch.float32 or torch.float64, got torch.float16"),
        ({"dtype": torch.int64}, "dtype must be torch.float32 or torch.float64, got torch.int64"),
    ],
)
def test_a_bad_option_is_the_caller_s_error_and_not_the_file_s(
    folder: Path, options: dict[str, object], message: str
) -> None:
    for call in (
        lambda: read_structure(folder / "b.pdb", **options),  # type: ignore[arg-type]
        lambda: read_structures([folder], **options),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert not isinstance(caught.value, StructureError)
