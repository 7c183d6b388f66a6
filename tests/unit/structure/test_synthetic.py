"""Synthetic structures: ideal geometry, φ and ψ where the module says, side chains like those of real residues."""

import cmath
import math
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

from helpers.geometry import each_dtype, eps, is_rotation
from iga._backbone import check_unit
from iga.structure import Structure, read_structures
from iga.structure.synthetic import synthetic_backbone, synthetic_structures

N_CA, CA_C, C_N = 0.1458, 0.1525, 0.1329
AT_CA, AT_C, AT_N = (math.radians(x) for x in (111.2, 116.2, 121.7))
SEEDS = range(12)
LENGTH = 150

# φ, ψ and three standard deviations, degrees.
HELIX = (-63.0, -43.0, 21.0)
STRAND = (-120.0, 130.0, 45.0)
COIL = ((-75.0, 145.0, 36.0), (-110.0, 125.0, 60.0), (-70.0, -30.0, 36.0), (57.0, 42.0, 30.0))


@pytest.fixture(scope="module")
def chains() -> list[np.ndarray]:
    """Backbones [3 · LENGTH, 3], N, CA, C in turn."""
    return [torch.stack(synthetic_backbone(LENGTH, seed=seed), dim=1).reshape(-1, 3).numpy() for seed in SEEDS]


@pytest.fixture(scope="module")
def structures() -> list[Structure]:
    return synthetic_structures(40, seed=5, dtype=torch.float64)


def rounding(atoms: np.ndarray) -> float:
    """How far two neighbours' difference may be off.

    Each position is a sum of three roundings of half an eps of its size, doubled by the centring, along three axes; the
    frame that a bond takes its direction from is a product of as many rotations as there are atoms, each rounded in
    sums of three products (4 eps).
    """
    size = 2 * np.abs(atoms - atoms[0]).max()
    return np.finfo(float).eps * (2 * 3 * 0.5 * math.sqrt(3) * size + 4 * len(atoms) * CA_C)


def angles(atoms: np.ndarray) -> np.ndarray:
    """At every atom but the ends, radians; accurate everywhere."""
    back, forth = atoms[:-2] - atoms[1:-1], atoms[2:] - atoms[1:-1]
    return np.arctan2(np.linalg.norm(np.cross(back, forth), axis=-1), (back * forth).sum(axis=-1))


def dihedrals(atoms: np.ndarray) -> np.ndarray:
    """About every bond but the first and last, degrees, clockwise positive, cis 0."""
    b = np.diff(atoms, axis=0)
    before, after = np.cross(b[:-2], b[1:-1]), np.cross(b[1:-1], b[2:])
    y = (b[:-2] * after).sum(axis=-1) * np.linalg.norm(b[1:-1], axis=-1)
    return np.degrees(np.arctan2(y, (before * after).sum(axis=-1)))


def torsions(atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """φ and ψ of the residues but the ends [n − 2], ω of all peptide bonds [n − 1]."""
    all_three = dihedrals(atoms)  # ψ0, ω, φ1, ψ1, ω, φ2, …
    psi, omega, phi = all_three[0::3], all_three[1::3], all_three[2::3]
    return phi[:-1], psi[1:], omega


def inside(phi: np.ndarray, psi: np.ndarray, region: tuple[float, float, float]) -> np.ndarray:
    def off(x: np.ndarray, centre: float) -> np.ndarray:
        return np.abs((x - centre + 180.0) % 360.0 - 180.0)

    return (off(phi, region[0]) <= region[2] + 1e-9) & (off(psi, region[1]) <= region[2] + 1e-9)


def runs(flags: np.ndarray, least: int) -> list[slice]:
    """Unbroken runs of at least `least`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return [slice(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= least]


def pooled(structures: list[Structure]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names [m], local means [m, 3] and σ [m, 3] of all residues with a frame."""
    names = np.concatenate([np.array(s.residue_names)[s.mask.numpy()] for s in structures])
    local_mean = torch.cat([s.gaussian.local_mean[s.mask] for s in structures]).double().numpy()
    return names, local_mean, torch.cat([s.gaussian.sigma[s.mask] for s in structures]).double().numpy()


def test_bond_lengths_are_ideal(chains: list[np.ndarray]) -> None:
    for atoms in chains:
        bonds = np.linalg.norm(np.diff(atoms, axis=0), axis=-1)
        ideal = np.tile([N_CA, CA_C, C_N], LENGTH)[:-1]
        assert (np.abs(bonds - ideal) <= rounding(atoms)).all()


def test_bond_angles_are_ideal(chains: list[np.ndarray]) -> None:
    for atoms in chains:
        ideal = np.tile([AT_CA, AT_C, AT_N], LENGTH)[:-2]
        # Each of the two edges turns by its error over its length.
        assert (np.abs(angles(atoms) - ideal) <= 2 * rounding(atoms) / C_N).all()


def test_peptide_bonds_are_trans(chains: list[np.ndarray]) -> None:
    for atoms in chains:
        *_, omega = torsions(atoms)
        # The outer edges turn about the middle one by their error over their height, the middle one tips both planes.
        limit = 4 * rounding(atoms) / (C_N * math.sin(AT_N))
        assert (180.0 - np.abs(omega) <= math.degrees(limit)).all()


def test_neighbouring_ca_are_as_far_apart_as_in_proteins(chains: list[np.ndarray]) -> None:
    # A trans peptide is flat: turn by π − angle to one side at C, to the other at N.
    planar = abs(CA_C + C_N * cmath.exp(1j * (math.pi - AT_C)) + N_CA * cmath.exp(1j * (AT_N - AT_C)))
    assert abs(planar - 0.380) < 0.0005
    for atoms in chains:
        steps = np.linalg.norm(np.diff(atoms[1::3], axis=0), axis=-1)
        assert (np.abs(steps - planar) <= 3 * rounding(atoms)).all()


def test_every_residue_lies_in_a_stated_region_of_the_torsions(chains: list[np.ndarray]) -> None:
    for atoms in chains:
        phi, psi, _ = torsions(atoms)
        stated = np.any([inside(phi, psi, region) for region in (HELIX, STRAND, *COIL)], axis=0)
        assert stated.all(), (phi[~stated], psi[~stated])


def test_helices_strands_and_every_kind_of_coil_occur(chains: list[np.ndarray]) -> None:
    helix, strand, left, extended = 0, 0, 0, 0
    for atoms in chains:
        phi, psi, _ = torsions(atoms)
        helix += sum(run.stop - run.start for run in runs(inside(phi, psi, HELIX), 6))
        strand += sum(run.stop - run.start for run in runs(inside(phi, psi, STRAND), 4))
        left += int((phi > 0).sum())
        extended += int((inside(phi, psi, COIL[0]) & (phi > -75.0) & (psi > 145.0)).sum())
    total = LENGTH * len(chains)
    # Half of the segments are helices of 12 residues on average, half strands of 6.5, with coil of 4.5 after each.
    assert 0.25 < helix / total < 0.65
    assert 0.10 < strand / total < 0.50
    assert 0.005 < left / total < 0.10
    assert extended / total > 0.01


def test_helices_are_right_handed(chains: list[np.ndarray]) -> None:
    seen = 0
    for atoms in chains:
        phi, psi, _ = torsions(atoms)
        for run in runs(inside(phi, psi, HELIX), 8):
            steps = np.diff(atoms[1::3][1:-1][run], axis=0)  # the torsions leave the ends out
            turning = (np.cross(steps[:-2], steps[1:-1]) * steps[2:]).sum(axis=-1)
            assert (turning > 0).all()
            seen += 1
    assert seen >= 12


def test_chains_are_compact_and_rarely_run_into_themselves(chains: list[np.ndarray]) -> None:
    ratios, close_pairs = [], 0
    for atoms in chains:
        ca = atoms[1::3]
        ratios.append(math.sqrt(ca.var(axis=0).sum()) / (0.22 * LENGTH**0.38))
        distance = np.linalg.norm(ca[:, None] - ca, axis=-1)
        close_pairs += int((np.triu(distance < 0.40, 3) & np.triu(np.ones_like(distance, dtype=bool), 3)).sum())
        assert np.abs(ca.mean(axis=0)).max() <= rounding(atoms)
    assert 1.0 < sum(ratios) / len(ratios) < 1.5
    assert close_pairs / (len(chains) * LENGTH) < 0.02


def test_backbones_pass_the_unit_check_as_nanometres_only() -> None:
    for length in (3, 40):
        backbone = synthetic_backbone(length, seed=1)
        check_unit(*backbone, "nm")
        with pytest.raises(ValueError, match='look like "nm"'):
            check_unit(*backbone, "angstrom")


def test_frames_are_rotations(structures: list[Structure]) -> None:
    for structure in structures:
        # Gram–Schmidt with a second pass: a few roundings a column, in sums of three.
        assert is_rotation(structure.gaussian.rot, 16 * eps(torch.float64))


def test_frames_rebuild_the_backbone_in_the_alphafold_convention(structures: list[Structure]) -> None:
    for structure in structures:
        rot, ca = structure.gaussian.rot.numpy(), structure.gaussian.trans.numpy()
        n = ca + N_CA * (math.cos(AT_CA) * rot[:, :, 0] + math.sin(AT_CA) * rot[:, :, 1])
        c = ca + CA_C * rot[:, :, 0]
        peptide = np.linalg.norm(n[1:] - c[:-1], axis=-1)
        limit = 4 * rounding(np.stack([n, ca, c], axis=1).reshape(-1, 3)) + 64 * eps(torch.float64) * np.abs(ca).max()
        assert (np.abs(peptide - C_N) <= limit).all()


def test_structures_are_complete(structures: list[Structure]) -> None:
    for index, structure in enumerate(structures):
        n = structure.n_residues
        assert structure.path == f"synthetic/{index}"
        assert 40 <= n <= 160
        assert structure.gaussian.shape == (n,) and structure.mask.shape == (n,) and structure.mask.all()
        assert len(structure.chains) == len(structure.residue_names) == n
        assert structure.numbers == tuple(str(number) for number in range(1, n + 1))
        assert structure.masked == {}
    assert len({structure.n_residues for structure in structures}) > 20


def test_lengths_include_both_ends() -> None:
    assert {s.n_residues for s in synthetic_structures(30, lengths=(1, 3))} == {1, 2, 3}
    assert {s.n_residues for s in synthetic_structures(3, lengths=(17, 17))} == {17}


@each_dtype
def test_dtype_is_kept_and_rounding_comes_last(dtype: torch.dtype) -> None:
    exact = synthetic_structures(2, seed=3, dtype=torch.float64)
    for structure, reference in zip(synthetic_structures(2, seed=3, dtype=dtype), exact, strict=True):
        for name in ("rot", "trans", "local_mean", "log_scale"):
            value = getattr(structure.gaussian, name)
            assert value.dtype == dtype
            assert torch.equal(value, getattr(reference.gaussian, name).to(dtype))
        assert is_rotation(structure.gaussian.rot, 16 * eps(dtype))


def test_single_precision_is_the_default() -> None:
    assert synthetic_structures(1)[0].gaussian.dtype == torch.float32
    assert all(atom.dtype == torch.float64 for atom in synthetic_backbone(5, seed=0))


def same(a: Structure, b: Structure) -> bool:
    fields = ("rot", "trans", "local_mean", "log_scale")
    return a.residue_names == b.residue_names and all(
        torch.equal(getattr(a.gaussian, name), getattr(b.gaussian, name)) for name in fields
    )


def test_a_seed_repeats_whatever_the_global_generators_hold_and_leaves_them_alone() -> None:
    torch.manual_seed(1)
    first = synthetic_structures(3, seed=7)
    torch.manual_seed(2)
    np.random.seed(2)
    expected = np.random.random()
    np.random.seed(2)
    state = torch.get_rng_state()
    second = synthetic_structures(3, seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.random() == expected
    assert all(same(a, b) for a, b in zip(first, second, strict=True))


def test_a_structure_does_not_depend_on_how_many_are_asked_for() -> None:
    more, fewer = (synthetic_structures(count, seed=2) for count in (4, 2))
    assert all(same(a, b) for a, b in zip(more[:2], fewer, strict=True))


def test_seeds_and_indices_give_different_structures() -> None:
    drawn = synthetic_structures(3, seed=0, lengths=(50, 50)) + synthetic_structures(3, seed=1, lengths=(50, 50))
    for i, a in enumerate(drawn):
        for b in drawn[:i]:
            assert a.residue_names != b.residue_names
            assert not torch.equal(a.gaussian.trans, b.gaussian.trans)
            assert not torch.equal(a.gaussian.log_scale, b.gaussian.log_scale)


def test_gaussians_are_anisotropic_but_for_glycine_and_alanine(structures: list[Structure]) -> None:
    names, local_mean, sigma = pooled(structures)
    ratio = sigma.max(axis=-1) / sigma.min(axis=-1)
    assert np.isfinite(ratio).all()
    small = np.isin(names, ["GLY", "ALA"])
    assert (ratio[~small] > 1.0).all()
    assert 0.4 < (ratio > 1.5).mean() < 0.8
    # One atom or none: σ is the base thickness, through a logarithm and an exponential.
    assert (np.abs(sigma[small] - 0.04) <= 4 * 0.04 * math.log(25) * eps(torch.float64)).all()
    assert (local_mean[names == "GLY"] == 0).all()
    assert (np.abs(local_mean[names == "ALA"]).max(axis=-1) > 0.05).all()


def test_sigma_lies_between_the_base_thickness_and_the_largest_of_real_residues(structures: list[Structure]) -> None:
    *_, sigma = pooled(structures)
    assert (sigma >= 0.04 * (1 - 8 * eps(torch.float64))).all() and (sigma < 0.35).all()


def test_residues_are_left_handed_amino_acids(structures: list[Structure]) -> None:
    for structure in structures:
        alanine = np.array(structure.residue_names) == "ALA"
        rot, ca = structure.gaussian.rot.numpy()[alanine], structure.gaussian.trans.numpy()[alanine]
        n = math.cos(AT_CA) * rot[:, :, 0] + math.sin(AT_CA) * rot[:, :, 1]
        beta = structure.gaussian.mean.numpy()[alanine] - ca
        # Seen from the hydrogen, C, side chain and N follow one another clockwise.
        assert ((np.cross(n, rot[:, :, 0]) * beta).sum(axis=-1) > 0).all()


def test_side_chains_have_the_statistics_of_real_ones(structures_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # checks of each residue's arguments take long
    files = sorted(structures_dir.iterdir(), key=lambda file: (file.stat().st_size, file.name))[30:90:5]
    real = [pooled([structure]) for structure in read_structures(files, dtype=torch.float64)[0]]
    drawn = pooled(synthetic_structures(120, seed=11, dtype=torch.float64))
    names = sorted(set(drawn[0]))
    assert len(names) == 20
    for name in names:
        for quantity in (1, 2):
            # Residues of one file are alike (copies of one chain), so the files are the sample.
            means = np.array([x[quantity][x[0] == name].mean(axis=0) for x in real if (x[0] == name).sum() > 2])
            values = drawn[quantity][drawn[0] == name]
            error = np.sqrt(means.var(axis=0, ddof=1) / len(means) + values.var(axis=0) / len(values))
            limit = 5 * error + 0.0005  # the table's rounding
            assert len(means) > 2
            assert (np.abs(means.mean(axis=0) - values.mean(axis=0)) <= limit).all(), (name, quantity)
    leucine, tryptophan = ((drawn[0] == name).mean() for name in ("LEU", "TRP"))
    assert leucine > 3 * tryptophan


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count must be at least 1, got 0; "),
        ({"count": -3}, "count must be at least 1, got -3; "),
        ({"count": 1, "lengths": (0, 5)}, r"lengths must be .* got \(0, 5\); "),
        ({"count": 1, "lengths": (6, 5)}, r"lengths must be .* got \(6, 5\); "),
        ({"count": 1, "seed": -1}, "seed must be an integer ≥ 0, got -1; "),
        ({"count": 1, "dtype": torch.bfloat16}, "dtype must be torch.float32 or torch.float64, got torch.bfloat16; "),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthetic_structures(**arguments)


@pytest.mark.parametrize(("length", "seed", "name"), [(0, 0, "length"), (-1, 0, "length"), (5, -1, "seed")])
def test_backbone_arguments_out_of_range_are_refused_by_name(length: int, seed: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be .*; "):
        synthetic_backbone(length, seed=seed)
