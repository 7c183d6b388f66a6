"""The sampler, superposition, and the PDB files: Euler's formulas, an oracle that is reached, and a round trip."""

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from helpers.flow import each_mode
from helpers.geometry import close, eps, is_rotation
from iga.experiment.task.chains import Batch, Chain, chains_of, collate
from iga.experiment.task.flow import draw_noise, noised
from iga.experiment.task.sampling import ca_rmsd, sample
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.structure import read_structure
from iga.structure.synthetic import synthetic_structures
from iga.structure.write import write_pdb

EPS = eps(torch.float64)


@pytest.fixture(scope="module")
def chains() -> list[Chain]:
    return chains_of(synthetic_structures(3, seed=6, lengths=(16, 30)))[0]


@pytest.fixture(scope="module")
def batch(chains: list[Chain]) -> Batch:
    """Float64, rotations orthonormal to float64."""
    made = collate(chains, [3, 4, 50])
    g = made.gaussian.to(dtype=torch.float64)
    u, _, vh = torch.linalg.svd(g.rot)
    return replace(made, gaussian=replace(g, frame=Frame(u @ vh, g.trans)))


class Recorder(nn.Module):
    """A network that answers with `answer`, whatever it sees, and keeps what it saw."""

    def __init__(self, answer: GaussianRigid) -> None:
        super().__init__()
        self.answer, self.seen, self.modes = answer, [], []
        self.inner, self.frozen = nn.Linear(1, 1), nn.Linear(1, 1)

    def forward(self, x: GaussianRigid, t: torch.Tensor, mask: torch.Tensor, index: torch.Tensor) -> GaussianRigid:
        self.seen.append((x, t, mask, index))
        self.modes.append([m.training for m in self.modules()] + [torch.is_grad_enabled()])
        return self.answer


def values(g: GaussianRigid) -> tuple[torch.Tensor, ...]:
    return g.rot, g.trans, g.local_mean, g.log_scale


def angle_between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Radians, from the chord: ‖a − b‖_F = √8 sin(θ/2)."""
    return 2 * torch.arcsin(((a - b).square().sum(dim=(-2, -1)).sqrt() / math.sqrt(8)).clamp(max=1))


def turned(axis: Sequence[float], angle: float) -> torch.Tensor:
    """The rotation by Rodrigues' formula, float64."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return torch.from_numpy(np.eye(3) + math.sin(angle) * k + (1 - math.cos(angle)) * k @ k)


# sampler


@each_mode
def test_an_oracle_is_reached_from_noise_and_by_the_last_step(batch: Batch, gaussians: str) -> None:
    network = Recorder(batch.gaussian)
    final = sample(network, batch, seed=1, gaussians=gaussians)
    assert len(network.seen) == 101
    first, last = network.seen[0][0], network.seen[-1][0]
    valid = batch.mask
    assert float((first.trans - batch.gaussian.trans)[valid].norm(dim=-1).mean()) > 0.5
    # The last step takes all that is left of a line, and each of the 100 leaves 1 − 10 · 0.0099 of an angle ≤ π.
    left = math.pi * (1 - 10 * 0.0099) ** 100
    assert close(last.trans[valid], batch.gaussian.trans[valid].numpy(), 8 * EPS * 5)
    assert close(angle_between(last.rot, batch.gaussian.rot)[valid], 0.0, left + 100 * 32 * EPS)
    assert close(last.local_mean[valid], batch.gaussian.local_mean[valid].numpy(), 8 * EPS)
    assert close(last.log_scale[valid], batch.gaussian.log_scale[valid].numpy(), 8 * EPS * 5)
    assert all(torch.equal(x[valid], y[valid]) for x, y in zip(values(final), values(batch.gaussian), strict=True))
    assert is_rotation(last.rot, 100 * 16 * EPS)


def test_the_answer_is_the_prediction_at_the_last_time_not_the_last_state(batch: Batch) -> None:
    class Counting(Recorder):
        def forward(self, x, t, mask, index):
            super().forward(x, t, mask, index)
            return replace(x, frame=Frame(x.rot, torch.full_like(x.trans, float(len(self.seen)))))

    final = sample(Counting(batch.gaussian), batch, steps=4, seed=1)
    assert bool((final.trans[batch.mask] == 5).all()) and not final.trans[~batch.mask].any()


def test_times_go_from_a_hundredth_to_one_in_equal_steps(batch: Batch) -> None:
    network = Recorder(batch.gaussian)
    sample(network, batch, steps=9, seed=1)
    times = torch.stack([t for _, t, _, _ in network.seen])
    assert close(times, np.linspace(0.01, 1.0, 10)[:, None].repeat(3, axis=1), 4 * EPS)
    assert bool((times[-1] == 1).all())
    for _, _, mask, index in network.seen:
        assert torch.equal(mask, batch.mask) and torch.equal(index, batch.index)


@each_mode
def test_a_step_is_eulers(batch: Batch, gaussians: str) -> None:
    network = Recorder(batch.gaussian)
    sample(network, batch, steps=20, seed=2, gaussians=gaussians, rate=4.0)
    target, valid = batch.gaussian, batch.mask
    for k in (0, 7, 19):
        x, after, t, dt = network.seen[k][0], network.seen[k + 1][0], 0.01 + 0.0495 * k, 0.0495
        expected = x.trans + dt * (target.trans - x.trans) / (1 - t)
        assert close(after.trans[valid], expected[valid].numpy(), 32 * EPS * 5)
        # Along the geodesic: from x by the share rate · dt, to the target by the rest.
        whole, near_pi = angle_between(x.rot, target.rot)[valid], math.sqrt(64 * EPS)  # where arcsin is steep
        assert close(angle_between(x.rot, after.rot)[valid], 4.0 * dt * whole, near_pi)
        assert close(angle_between(after.rot, target.rot)[valid], (1 - 4.0 * dt) * whole, near_pi)
        for name in ("local_mean", "log_scale"):
            a, b, got = (getattr(g, name)[valid] for g in (x, target, after))
            assert close(got, (a + dt * (b - a) / (1 - t)).numpy(), 32 * EPS * 5)


def test_the_rate_is_10_unless_told_and_may_be_under_1(batch: Batch) -> None:
    states = []
    for options in ({}, {"rate": 10.0}, {"rate": 0.5}):
        network = Recorder(batch.gaussian)
        sample(network, batch, steps=20, seed=2, **options)
        states.append(network.seen[1][0].rot)
    assert torch.equal(states[0], states[1])
    start = network.seen[0][0].rot
    assert bool((angle_between(start, states[2]) < angle_between(start, states[0]))[batch.mask].all())


def test_a_rate_that_overshoots_lands_on_the_prediction(batch: Batch) -> None:
    network = Recorder(batch.gaussian)
    sample(network, batch, steps=3, seed=2, rate=50.0)
    assert close(network.seen[1][0].rot[batch.mask], batch.gaussian.rot[batch.mask].numpy(), 64 * EPS)


@pytest.mark.parametrize("stress", [False, True])
def test_fixed_gaussians_are_those_of_the_template_at_every_step(batch: Batch, stress: bool) -> None:
    network = Recorder(batch.gaussian)
    sample(network, batch, steps=3, seed=2, stress=stress)
    expected = noised(batch, seed=2, stress=stress, t=0.5).gaussian
    for x, *_ in network.seen:
        assert torch.equal(x.log_scale[batch.mask], expected.log_scale[batch.mask])
        assert torch.equal(x.local_mean[batch.mask], expected.local_mean[batch.mask])


@each_mode
def test_the_start_is_the_noise_of_the_draw(batch: Batch, gaussians: str) -> None:
    network = Recorder(batch.gaussian)
    sample(network, batch, steps=1, seed=2, gaussians=gaussians)
    start = network.seen[0][0]
    for row, (draw, n) in enumerate(zip(batch.draws.tolist(), batch.mask.sum(dim=1).tolist(), strict=True)):
        noise = draw_noise(2, draw, n)
        assert close(start.trans[row, :n], noise.trans, 0.0)
        if gaussians == "learned":
            assert close(start.log_scale[row, :n], noise.log_scale, 0.0)


@each_mode
def test_nothing_of_the_templates_frames_is_used(batch: Batch, gaussians: str) -> None:
    nowhere = Frame(*(torch.full_like(x, math.nan) for x in (batch.gaussian.rot, batch.gaussian.trans)))
    other = replace(batch, gaussian=replace(batch.gaussian, frame=nowhere))
    seen = []
    for template in (batch, other):
        network = Recorder(batch.gaussian)
        sample(network, template, steps=2, seed=2, gaussians=gaussians)
        seen.append([value for x, *_ in network.seen for value in values(x)])
    assert all(bool(x.isfinite().all()) and torch.equal(x, y) for x, y in zip(*seen, strict=True))


def test_padded_rows_are_neutral_whatever_the_network_says(batch: Batch) -> None:
    padded = ~batch.mask
    assert padded.any()
    answer = replace(
        batch.gaussian, frame=Frame(batch.gaussian.rot, batch.gaussian.trans.masked_fill(padded[..., None], math.nan))
    )
    network = Recorder(answer)
    final = sample(network, batch, steps=2, seed=0)
    for g in (final, *(x for x, *_ in network.seen)):
        assert not g.trans[padded].any() and bool(g.trans.isfinite().all())


def test_a_module_is_in_eval_mode_meanwhile_and_as_it_was_afterwards(batch: Batch) -> None:
    network = Recorder(batch.gaussian)
    network.frozen.eval()
    before = [m.training for m in network.modules()]
    assert before == [True, True, False]
    sample(network, batch, steps=2, seed=0)
    assert network.modes == [[False] * 4] * 3
    assert [m.training for m in network.modules()] == before and torch.is_grad_enabled()

    class Failing(Recorder):
        def forward(self, x, t, mask, index):
            raise RuntimeError("no answer")

    failing = Failing(batch.gaussian)
    with pytest.raises(RuntimeError, match="no answer"):
        sample(failing, batch, steps=2, seed=0)
    assert all(m.training for m in failing.modules()) and torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be an integer ≥ 1, got 0"),
        ({"rate": 0.0}, "rate must be a finite number > 0, got 0.0"),
        ({"rate": math.nan}, "rate must be a finite number > 0, got nan"),
        ({"rate": math.inf}, "rate must be a finite number > 0, got inf"),
        ({"gaussians": "free"}, 'gaussians must be "fixed" or "learned"'),
    ],
)
def test_arguments_of_the_sampler_are_refused_by_name(batch: Batch, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(Recorder(batch.gaussian), batch, **({"seed": 0} | change))


# superposition


def test_rmsd_is_zero_for_a_rigid_motion_and_never_less_than_that(batch: Batch) -> None:
    a = batch.gaussian.trans
    b = (turned((1, -2, 0.5), 2.2) @ a[..., None])[..., 0] + torch.tensor([4.0, -3.0, 9.0])
    # Positions within 10 nm, in Å; each is rounded a few times, and the rotation of the SVD to a few eps of it.
    assert close(ca_rmsd(a, b, batch.mask), 0.0, 10 * 10 * 64 * EPS)
    assert ca_rmsd(a, b, batch.mask).dtype == torch.float64


def test_rmsd_of_a_scaled_copy_is_what_the_scale_adds_to_the_radius_of_gyration(batch: Batch) -> None:
    a = batch.gaussian.trans
    b = (turned((3, 1, 1), 1.0) @ (1.3 * a)[..., None])[..., 0] - 2.0
    for row in range(3):
        x = a[row][batch.mask[row]].numpy()
        gyration = math.sqrt(x.var(axis=0).sum())
        got = ca_rmsd(a[row], b[row], batch.mask[row])
        assert close(got, 0.3 * gyration * 10, 1000 * 64 * EPS)


def test_rmsd_of_a_mirror_image_is_not_zero() -> None:
    """Six points on the axes: reflecting the shortest is the best that a proper rotation can do; 4 z² at two of six."""
    a = torch.tensor([[3, 0, 0], [-3, 0, 0], [0, 2, 0], [0, -2, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float64)
    mask = torch.ones(6, dtype=torch.bool)
    expected = 10 * math.sqrt(4 * 2 / 6)
    for flip in ((1, 1, -1), (-1, 1, 1), (-1, -1, -1)):
        mirrored = (turned((1, 2, 3), 0.7) @ (a * torch.tensor(flip)).T).T + 1.0
        assert close(ca_rmsd(a, mirrored, mask), expected, 1000 * EPS)
        assert close(ca_rmsd(mirrored, a, mask), expected, 1000 * EPS)


def test_each_chain_of_a_batch_has_the_rmsd_that_it_has_alone(batch: Batch) -> None:
    a = batch.gaussian.trans
    b = a * torch.tensor([1.1, 1.3, 1.7])[:, None, None]
    alone = torch.stack([ca_rmsd(x, y, m) for x, y, m in zip(a, b, batch.mask, strict=True)])
    assert len(set(alone.tolist())) == 3
    assert close(ca_rmsd(a, b, batch.mask), alone.numpy(), 1000 * 64 * EPS)
    one = torch.zeros_like(batch.mask)
    one[:, 0] = True
    assert close(ca_rmsd(a, b, one), 0.0, 1000 * 64 * EPS)  # one position can be laid on any other


def test_rmsd_of_known_displacements() -> None:
    """Two points at ±1 nm against ±1.5 nm: each is 5 Å off, along any direction."""
    a, b = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]), torch.tensor([[0, 0, 11.5], [0, 0, 8.5]])
    assert close(ca_rmsd(a, b, torch.ones(2, dtype=torch.bool)), 5.0, 100 * EPS)


def test_rmsd_reads_valid_positions_only_and_refuses_a_chain_without_any(batch: Batch) -> None:
    a, b = batch.gaussian.trans, batch.gaussian.trans * 1.1
    spoilt = [x.masked_fill(~batch.mask[..., None], math.nan) for x in (a, b)]
    assert torch.equal(ca_rmsd(*spoilt, batch.mask), ca_rmsd(a, b, batch.mask))
    with pytest.raises(ValueError, match="mask must leave at least one position"):
        ca_rmsd(a, b, batch.mask & torch.tensor([True, False, True])[:, None])


# PDB


def written(path: Path, source: Chain, **options: object) -> list[str]:
    write_pdb(path, source.gaussian.frame, source.index, source.residue_names, **options)  # type: ignore[arg-type]
    return path.read_text(encoding="ascii").splitlines()


def atoms_of(lines: Sequence[str]) -> dict[tuple[int, str], np.ndarray]:
    """(residue number, atom) → Å, by the format's columns."""
    atoms = [line for line in lines if line.startswith("ATOM")]
    return {
        (int(a[22:26]), a[12:16].strip()): np.array([float(a[30:38]), float(a[38:46]), float(a[46:54])]) for a in atoms
    }


def dihedral(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> float:
    """Degrees, clockwise positive, cis 0."""
    before, axis, after = b - a, c - b, d - c
    m, n = np.cross(before, axis), np.cross(axis, after)
    return math.degrees(math.atan2((before * n).sum() * np.linalg.norm(axis), (m * n).sum()))


def test_what_is_written_reads_back_to_the_same_frames(chains: list[Chain], tmp_path: Path) -> None:
    # A coordinate is off by half of 10⁻³ Å, an atom by √3 of that, a difference of two by twice: the direction of C
    # turns by that over CA–C; that of N over its height, by the turn of C too, over N's share along C.
    off = math.sqrt(3) * 1e-3
    height, along = 1.458 * math.sin(math.radians(111.2)), -1.458 * math.cos(math.radians(111.2))
    limit = off / 1.525 + (off + along * off / 1.525) / height
    for chain in chains:
        written(tmp_path / "out.pdb", chain)
        back = read_structure(tmp_path / "out.pdb", dtype=torch.float64)
        assert bool(back.mask.all()) and back.n_residues == len(chain)
        assert back.residue_names == chain.residue_names and set(back.chains) == {"A"}
        assert back.numbers == tuple(str(i + 1) for i in chain.index.tolist())
        # Half of 10⁻³ Å is 5·10⁻⁵ nm.
        assert close(back.gaussian.trans, chain.gaussian.trans.double().numpy(), 5e-5 * (1 + 1e-9))
        assert close(angle_between(back.gaussian.rot, chain.gaussian.rot.double()), 0.0, limit)


def test_random_frames_that_are_no_chain_read_back_too(tmp_path: Path) -> None:
    frame = Frame.random(40, generator=torch.Generator().manual_seed(3), extent_nm=5.0)
    write_pdb(tmp_path / "noise.pdb", frame, torch.arange(40), ["ALA"] * 40)
    back = read_structure(tmp_path / "noise.pdb", dtype=torch.float64)
    assert bool(back.mask.all()) and close(back.gaussian.trans, frame.trans.double().numpy(), 5e-5 * (1 + 1e-6))


def test_gaps_keep_their_numbers_and_the_chain_its_name(chains: list[Chain], tmp_path: Path) -> None:
    chain = replace(chains[0], index=chains[0].index + (chains[0].index > 5) * 12)
    written(tmp_path / "gap.pdb", chain, chain="q")
    back = read_structure(tmp_path / "gap.pdb")
    assert back.numbers == tuple(str(i + 1) for i in chain.index.tolist()) and set(back.chains) == {"q"}


def test_oxygen_completes_the_peptide_plane(chains: list[Chain], tmp_path: Path) -> None:
    chain = chains[0]
    atoms = atoms_of(written(tmp_path / "o.pdb", chain))
    # Differences of rounded atoms are off by √3 · 10⁻³ Å, bonds are longer than 1.2 Å: angles by three such.
    off = math.sqrt(3) * 1e-3
    turn = math.degrees(3 * 2 * off / 1.2)
    for i in range(1, len(chain)):
        n, ca, c, o = (atoms[i, name] for name in ("N", "CA", "C", "O"))
        following = atoms[i + 1, "N"]
        assert abs(np.linalg.norm(o - c) - 1.231) <= off
        # O and the next N lie on either side of the bond from CA, in one plane.
        apart = (dihedral(n, ca, c, o) - dihedral(n, ca, c, following)) % 360
        assert abs(apart - 180) <= 2 * turn
        # In the synthetic chains CA–C–N has 116.2°, and O halves what is left.
        cosine = (o - c) @ (ca - c) / np.linalg.norm(o - c) / np.linalg.norm(ca - c)
        assert abs(math.degrees(math.acos(cosine)) - (180 - 116.2 / 2)) <= 2 * turn


@pytest.mark.parametrize("case", ["end", "gap", "far"])
def test_oxygen_without_a_bonded_neighbour_stands_as_in_a_helix(chains: list[Chain], tmp_path: Path, case: str) -> None:
    chain = chains[0]
    frame, index, at = chain.gaussian.frame, chain.index, len(chain)
    if case == "gap":
        index, at = index + (index > 4) * 1, 5
    if case == "far":
        frame, at = Frame(frame.rot, frame.trans + (index[:, None] > 4) * 1.0), 5
    write_pdb(tmp_path / "o.pdb", frame, index, chain.residue_names)
    atoms = atoms_of((tmp_path / "o.pdb").read_text().splitlines())
    four = [atoms[at, name] for name in ("N", "CA", "C", "O")]
    turn = math.degrees(3 * 2 * math.sqrt(3) * 1e-3 / 1.2)
    assert abs(dihedral(*four) - (180 - 43)) <= turn
    assert abs(np.linalg.norm(four[3] - four[2]) - 1.231) <= math.sqrt(3) * 1e-3


def test_lines_have_the_formats_columns_and_remarks_are_wrapped(chains: list[Chain], tmp_path: Path) -> None:
    lines = written(tmp_path / "r.pdb", chains[0], remarks=["ångström " * 20, "short\nATOM  injected", ""])
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("REMARK  99 ?ngstr?m") and "REMARK  99 short ATOM  injected" in " ".join(lines)
    records = [line[:6].strip() for line in lines]
    assert records == ["REMARK"] * records.count("REMARK") + ["ATOM"] * (4 * len(chains[0])) + ["TER", "END"]
    serials = [int(line[6:11]) for line in lines if line.startswith("ATOM")]
    assert serials == list(range(1, 4 * len(chains[0]) + 1))
    assert [line[76:78] for line in lines if line.startswith("ATOM")][:4] == [" N", " C", " C", " O"]


def test_a_name_that_the_columns_cannot_hold_is_unknown_and_said_to_be(chains: list[Chain], tmp_path: Path) -> None:
    chain = replace(chains[0], residue_names=("A1ABC", *chains[0].residue_names[1:]))
    lines = written(tmp_path / "long.pdb", chain)
    assert [line for line in lines if line.startswith("REMARK")] == [
        "REMARK  99 written as UNK, having more than three characters: A1ABC"
    ]
    back = read_structure(tmp_path / "long.pdb")
    assert back.residue_names == ("UNK", *chain.residue_names[1:])


def test_a_file_is_written_whole_or_not_at_all(
    chains: list[Chain], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept.pdb"
    path.write_text("old")

    def broken(beside: Path, target: Path) -> None:
        assert target == path and beside.parent == tmp_path and beside.stat().st_size > 1000
        raise OSError("disk gone")

    with monkeypatch.context() as patch:
        patch.setattr("iga._files.os.replace", broken)
        with pytest.raises(OSError, match="disk gone"):
            written(path, chains[0])
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["kept.pdb"]
    written(path, chains[0])
    assert path.read_text().startswith("ATOM") and os.listdir(tmp_path) == ["kept.pdb"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": Frame.identity(2, 3)}, r"frame must be \[n\], .* got \[2, 3\]"),
        ({"frame": Frame.identity(0), "index": torch.arange(0), "residue_names": []}, r"frame must be \[n\]"),
        ({"index": torch.arange(2)}, "index and residue_names must have one entry per frame, 3"),
        ({"residue_names": ["ALA"]}, "index and residue_names must have one entry per frame, 3"),
        ({"index": torch.tensor([0, 2, 2])}, "index must rise"),
        ({"index": torch.tensor([-1, 0, 1])}, "index must rise"),
        ({"index": torch.tensor([0, 1, 9999])}, "index must rise"),
        ({"chain": "AB"}, "chain must be one letter or digit, got 'AB'"),
        ({"chain": ""}, "chain must be one letter or digit, got ''"),
        ({"residue_names": ["ALA", "", "GLY"]}, "residue_names must be of letters and digits, got ''"),
        ({"frame": Frame(torch.eye(3).expand(3, 3, 3), torch.full((3, 3), math.nan))}, "frame must be finite"),
        ({"frame": Frame(torch.eye(3).expand(3, 3, 3), torch.full((3, 3), 100.0))}, "frame must lie within 99 nm"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_by_name_and_writes_nothing(
    tmp_path: Path, change: dict, message: str
) -> None:
    arguments = {"frame": Frame.identity(3), "index": torch.arange(3), "residue_names": ["ALA"] * 3} | change
    with pytest.raises(ValueError, match=message):
        write_pdb(tmp_path / "no.pdb", **arguments)
    assert not os.listdir(tmp_path)
