"""Ångström passed as nanometres, and the other way round.

Origin: structures come in ångström and models here work in nm; a factor of ten in either direction trains without an
error, with Gaussians ten times too far apart or ten times too close.
"""

import math
from functools import partial
from pathlib import Path

import gemmi
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.geometry import chain, each_dtype
from iga.frame import Frame, check_trans_unit, check_unit
from iga.testing.strategies import filler, seeds

OTHER = {"nm": "angstrom", "angstrom": "nm"}
PER_NM = {"nm": 1.0, "angstrom": 10.0}
each_unit = pytest.mark.parametrize("unit", ["nm", "angstrom"])
each_fold = pytest.mark.parametrize("torsions", [(-57.0, -47.0), (-120.0, 130.0)], ids=["helix", "strand"])

Atoms = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def in_unit(atoms: Atoms, unit: str, dtype: torch.dtype = torch.float64) -> Atoms:
    n, ca, c = ((PER_NM[unit] * atom).to(dtype) for atom in atoms)
    return n, ca, c


@each_dtype
@each_unit
@each_fold
@pytest.mark.parametrize("residues", [2, 3, 8, 9, 40])
def test_the_wrong_unit_is_an_error_that_says_so(
    dtype: torch.dtype, unit: str, torsions: tuple[float, float], residues: int
) -> None:
    atoms = chain(residues, phi=torsions[0], psi=torsions[1])
    right = in_unit(atoms, unit, dtype)
    wrong = in_unit(atoms, OTHER[unit], dtype)
    assert Frame.from_backbone(*right, unit=unit).shape == (residues,)
    message = f'in the named unit, "{unit}", but look like "{OTHER[unit]}".*pass unit="{OTHER[unit]}", or convert'
    for convention in ("alphafold", "openfold"):
        with pytest.raises(ValueError, match=message):
            Frame.from_backbone(*wrong, unit=unit, convention=convention)
    with pytest.raises(ValueError, match=message):
        Frame.from_backbone(*wrong, unit=unit, return_valid=True)
    with pytest.raises(ValueError, match=message):
        check_unit(*wrong, unit)


@each_unit
def test_positions_alone_tell_from_eight_distances_on(unit: str) -> None:
    _, ca, _ = in_unit(chain(40), OTHER[unit])
    for positions in (ca, ca[:9]):
        with pytest.raises(ValueError, match=f'look like "{OTHER[unit]}"'):
            check_trans_unit(positions, unit)
    check_trans_unit(ca[:8], unit)
    check_trans_unit(ca, OTHER[unit])


def test_one_chain_of_a_batch_in_the_wrong_unit_is_enough() -> None:
    good = chain(12)
    mixed = tuple(torch.stack([a, 10 * a, a]) for a in good)
    with pytest.raises(ValueError, match='look like "angstrom": neighbouring CA atoms are 3.81 apart'):
        Frame.from_backbone(*mixed)


def test_missing_atoms_padding_and_breaks_do_not_hide_the_unit() -> None:
    n, ca, c = in_unit(chain(30), "angstrom")
    n[3], ca[10], c[17] = math.nan, math.nan, math.nan
    n[20:], ca[20:], c[20:] = 0.0, 0.0, 0.0
    ca[:5] += 40.0
    with pytest.raises(ValueError, match='look like "angstrom"'):
        check_unit(n, ca, c, "nm")
    check_unit(n, ca, c, "angstrom")
    with pytest.raises(ValueError, match='look like "angstrom"'):
        check_trans_unit(ca, "nm")


@each_unit
def test_what_cannot_be_judged_passes(unit: str) -> None:
    atoms = in_unit(chain(1), OTHER[unit])
    check_unit(*atoms, unit)
    check_unit(*(atom[0] for atom in atoms), unit)
    for alike in (torch.full((20, 3), math.nan), torch.zeros(20, 3), torch.zeros(0, 3)):
        check_unit(alike, alike, alike, unit)
    check_trans_unit(atoms[1], unit)


def test_bonds_alone_are_no_proof() -> None:
    """Residues apart from each other, each of the size that ångström would have: no chain, so no verdict."""
    n, ca, c = in_unit(chain(12), "angstrom")
    check_unit(n + ca, 2 * ca, c + ca, "nm")


@each_dtype
@each_unit
@given(seed=seeds(), steps=st.integers(-12, 12), batch=st.sampled_from([(), (1,), (2,), (5,), (9,), (40,), (3, 12)]))
def test_random_points_are_in_no_wrong_unit(
    dtype: torch.dtype, unit: str, seed: int, steps: int, batch: tuple[int, ...]
) -> None:
    """Scales in steps of a third of a decade, those where neighbours are 3.8 or 0.38 apart among them."""
    n, ca, c = (10.0 ** (steps / 6) * filler(seed, 3, *batch, 3)).to(dtype).unbind(0)
    check_unit(n, ca, c, unit)
    check_trans_unit(ca, unit)


@pytest.mark.parametrize("residues", [2, 3, 5, 9, 10, 13, 20])
def test_random_points_at_the_worst_scale_pass_too(residues: int) -> None:
    """Neighbours as often 3.8 apart as can be, in 2000 chains: at under 10⁻⁵ each, 0.02 false alarms are expected."""
    scale = 3.8 / math.sqrt(6)  # x² f(x) of the distance of two normal points peaks at √3 · √2
    n, ca, c = (scale * filler(residues, 3, 2000, residues, 3)).unbind(0)
    check_trans_unit(ca, "nm")
    check_unit(n, ca, c, "nm")


def first_model_backbone(path: Path) -> Atoms:
    """N, CA, C in ångström of the complete residues of a file's first model."""
    residues = [residue for chain in gemmi.read_structure(str(path))[0] for residue in chain]
    complete = [r for r in residues if r.het_flag == "A" and all(name in r for name in ("N", "CA", "C"))]
    n, ca, c = (torch.tensor([r[name][0].pos.tolist() for r in complete]) for name in ("N", "CA", "C"))
    return n, ca, c


def test_real_structures_pass_in_their_unit_and_fail_in_the_other(structures_dir: Path) -> None:
    paths = sorted(structures_dir.glob("*.pdb"))
    assert paths
    for path in paths:
        angstrom = first_model_backbone(path)
        nm = tuple(0.1 * atom for atom in angstrom)
        check_unit(*angstrom, "angstrom")
        check_unit(*nm, "nm")
        check_trans_unit(angstrom[1], "angstrom")
        check_trans_unit(nm[1], "nm")
        for (n, ca, c), unit in ((angstrom, "nm"), (nm, "angstrom")):
            for refused in (partial(check_unit, n, ca, c, unit), partial(check_trans_unit, ca, unit)):
                with pytest.raises(ValueError, match="in the named unit"):
                    refused()
                    pytest.fail(f"{path.name}: {unit} not noticed")
