"""Genomes of pairs: what is decoded, encoded again, tied exactly, and made simple."""

import math

import pytest
import torch

from iga.search.climb import climb
from iga.search.pair_space import CELLS, PairSpace, cells_of
from iga.search.pairs import GENES, Domain, decode, degenerate_pairs, encode
from iga.search.shrink import cost_of, shrink, smallest_batch
from iga.search.ties import TIES, draw_ties, right_angles, tied

SPACE = PairSpace(Domain())


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_decoded_pair_encoded_decodes_to_itself() -> None:
    domain = Domain(dtype=torch.float64)
    pairs = decode(degenerate_pairs(2000, _generator()), domain)
    for given, again in zip(pairs, decode(encode(pairs), domain), strict=True):
        # components of δ under 10⁻⁹ nm are no genes
        assert torch.allclose(given, again, rtol=1e-12, atol=5e-9)


@pytest.mark.parametrize("degrees", [0.0, 1e-6, 90.0, 179.999999, 180.0])
def test_a_turn_of_any_angle_is_encoded(degrees: float) -> None:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    eye, zero, one = torch.eye(3, dtype=torch.float64), torch.zeros(3).double(), torch.ones(3).double()
    pair = tuple(x[None] for x in (turn, zero, one, eye, zero, one))
    again = decode(encode(pair), Domain(dtype=torch.float64))  # pyright: ignore[reportArgumentType]
    assert torch.allclose(again[0] @ again[3].mT, turn[None], atol=2e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_are_exact_and_stay_in_the_range_of_scales(dtype: torch.dtype) -> None:
    genome = SPACE.draw(4000, _generator(), ties=1.0)
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = SPACE.decode(genome, dtype)
    low, high = (torch.tensor(x).to(dtype) for x in (0.03, 150.0))
    assert all(bool(((x >= low) & (x <= high)).all()) for x in (q_sigma, k_sigma))
    assert bool((q_sigma == k_sigma).all(-1).any()) and bool((q_mean == k_mean).any())
    assert bool((q_rot == k_rot).all(-1).all(-1).any()) and bool((q_rot == 0).any())
    for rot in (q_rot.double(), k_rot.double()):
        assert bool(((rot.mT @ rot - torch.eye(3)).abs() < 1e-6).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frames_that_turn_halfway_stay_rotations_under_every_tie(dtype: torch.dtype) -> None:
    """The turn about one axis that is like a half turn about another is none: what is left of its entries is rounding.

    No rotation is wrong by order 1, and rounding by some units of 10⁻⁷.
    """
    genome = SPACE.draw(24_000, _generator(), ties=1.0)
    axes = torch.nn.functional.normalize(torch.randn(24_000, 3, generator=_generator(1), dtype=torch.float64), dim=-1)
    flat = torch.arange(24_000) % 4  # about any axis, and about such as lie across a coordinate axis
    across = axes * (torch.arange(3) != (flat[:, None] - 1))
    axes = torch.nn.functional.normalize(across, dim=-1)
    genome[:, :3] = math.pi * axes
    genome[:, 3:6], genome[:, 6] = axes.roll(1, 0), math.log10(math.pi)
    for rot in (x.double() for x in (SPACE.decode(genome, dtype)[k] for k in (0, 3))):
        assert bool(((rot.mT @ rot - torch.eye(3)).abs() < 1e-5).all())
        assert bool((torch.linalg.det(rot) > 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_bring_no_means_nearer_than_any_genome_does_but_make_them_one(dtype: torch.dtype) -> None:
    """A key whose query is at 0 has δ of its mean's own size, which is no gene: 10⁻⁹ nm less rounding, or none."""
    genome = SPACE.draw(20_000, _generator(), ties=1.0)
    genome[:, 19:22] = 10.0 ** (-14.0 * torch.rand(20_000, 1, generator=_generator(1), dtype=torch.float64))
    pairs = SPACE.decode(genome, dtype)
    apart = (pairs[1].double() - pairs[4].double()).norm(dim=-1)
    assert bool(((apart == 0) | (apart > 4e-10)).all()) and bool((apart == 0).any())


def test_a_constant_that_was_seen_becomes_a_scale() -> None:
    space = PairSpace(Domain(), torch.tensor([0.5, 1e9], dtype=torch.float64))
    pairs = space.decode(space.draw(4000, _generator(), ties=1.0), torch.float32)
    assert bool((pairs[2] == 0.5).any())


def test_without_ties_nothing_changes() -> None:
    pairs = decode(degenerate_pairs(10, _generator()))
    assert tied(pairs, torch.zeros(10, TIES)) is pairs
    assert bool((draw_ties(500, _generator(), 0.0) == 0).all())


def test_the_right_angles_are_the_24_of_a_cube() -> None:
    group = right_angles()
    assert torch.equal(group[0], torch.eye(3, dtype=torch.float64))
    assert len({tuple(x.flatten().tolist()) for x in group}) == 24 and torch.allclose(
        torch.linalg.det(group), torch.ones(24).double()
    )


def test_changed_genomes_stay_in_their_space_and_every_cell_has_a_number() -> None:
    generator = _generator()
    genome = SPACE.draw(500, generator)
    for _ in range(5):
        genome = SPACE.confined(SPACE.mutate(genome, generator))
    assert genome.shape == (500, GENES + TIES) and bool(genome.isfinite().all())
    cells = cells_of(genome)
    assert int(cells.min()) >= 0 and int(cells.max()) < CELLS


def test_decoding_is_differentiable_through_rounding_and_ties() -> None:
    genome = SPACE.draw(64, _generator(), ties=1.0).requires_grad_()
    torch.stack([x.double().sum() for x in SPACE.decode(genome, torch.float32)]).sum().backward()
    assert genome.grad is not None and bool((genome.grad[:, :GENES] != 0).any())


def test_numbers_are_simple_in_the_order_that_a_person_reads() -> None:
    ladder = [0.0, 1.0, 100.0, 3.0, 0.25, 1.23, 1.234567891]
    assert [cost_of(x) for x in ladder] == sorted(cost_of(x) for x in ladder)


def test_a_pair_becomes_as_simple_as_its_condition_allows() -> None:
    pairs = SPACE.decode(SPACE.draw(20000, _generator(3), 0.0), torch.float32)
    condition = lambda p: (p[2].amax(-1) > 40 * p[2].amin(-1)) & ((p[1] - p[4]).norm(dim=-1) > 2.5)  # noqa: E731
    start = tuple(x[int(condition(pairs).nonzero()[0])] for x in pairs)
    simple = shrink(start, condition, seconds=20.0)  # pyright: ignore[reportArgumentType]
    assert bool(condition(tuple(x[None] for x in simple)).all())
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = simple
    assert torch.equal(q_rot, torch.eye(3)) and torch.equal(k_rot, torch.eye(3))
    assert len({*q_sigma.tolist(), *k_sigma.tolist()}) <= 2
    costs = [cost_of(x) for x in (*q_mean.tolist(), *k_mean.tolist(), *set(q_sigma.tolist()))]
    assert sum(costs) < 12 and sum(x == 0 for x in (*q_mean.tolist(), *k_mean.tolist())) >= 5


@pytest.mark.parametrize(
    ("broken", "smallest"),
    [(lambda n: n > 700, 701), (lambda n: n % 1024 == 1 and n > 1, 1025), (lambda n: n == 999, 999)],
)
def test_the_smallest_batch_that_fails_is_found(broken, smallest: int) -> None:  # noqa: ANN001
    assert smallest_batch(5121 if smallest == 1025 else 999, broken, most=400) == smallest


def test_a_climb_keeps_the_higher_and_takes_what_is_level() -> None:
    """Up a staircase: on a step every mutation is level, and only a walk along it finds the next."""
    generator = torch.Generator().manual_seed(0)
    start = torch.zeros(4, 2, dtype=torch.float64)
    seen = []

    def height(genome: torch.Tensor) -> torch.Tensor:
        seen.append((10 * genome[:, 0]).floor().clamp(max=5.0))
        return seen[-1]

    def mutate(genome: torch.Tensor) -> torch.Tensor:
        return genome + 0.03 * torch.randn(genome.shape, generator=generator, dtype=torch.float64)

    best, top = climb(height, mutate, start, 400)
    assert torch.equal(top, height(best)) and bool((top == 5.0).all()) and not bool(start.any())
