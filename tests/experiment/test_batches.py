"""The batches of a run: that nothing is lost, the bounds hold, and a step is a pure function of its number."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from helpers.flow import distances, tensors
from helpers.geometry import close, eps
from iga.experiment.task.batches import Batches
from iga.experiment.task.chains import Batch, Chain, chains_of
from iga.structure.synthetic import synthetic_structures


@pytest.fixture(scope="module")
def chains() -> list[Chain]:
    return chains_of(synthetic_structures(23, seed=4, lengths=(20, 50)))[0]


def same(a: Batch, b: Batch) -> bool:
    pairs = zip(tensors(a), tensors(b), strict=True)
    return all(x.shape == y.shape and torch.equal(x, y) for x, y in pairs) and a.names == b.names


def epoch_of(batches: Batches, epoch: int = 0) -> list[Batch]:
    first = sum(batches.steps_in(e) for e in range(epoch))
    return [batches.whole(step) for step in range(first, first + batches.steps_in(epoch))]


@pytest.mark.parametrize("residues_squared", [1, 5000, 10**6])
@pytest.mark.parametrize("max_samples", [1, 2, 7, 64])
def test_an_epoch_holds_every_chain_once_within_the_bounds(
    chains: list[Chain], residues_squared: int, max_samples: int
) -> None:
    batches = Batches(chains, residues_squared=residues_squared, max_samples=max_samples, crop=40, seed=1)
    for epoch in (0, 3):
        drawn = epoch_of(batches, epoch)
        assert Counter(name for b in drawn for name in b.names) == Counter(c.name for c in chains)
        draws = sorted(int(d) for b in drawn for d in b.draws)
        assert draws == list(range(epoch * len(chains), (epoch + 1) * len(chains)))
        for b in drawn:
            count, longest = b.mask.shape
            assert count <= max_samples and longest <= 40
            assert count * longest**2 <= residues_squared or count == 1
            assert int(b.mask.sum(dim=1).max()) == longest


def test_batches_are_not_cut_shorter_than_the_bounds_ask(chains: list[Chain]) -> None:
    sizes = [len(b.names) for b in epoch_of(Batches(chains, residues_squared=10**9, max_samples=5, crop=99, seed=1))]
    assert sorted(sizes) == [3, 5, 5, 5, 5]


def test_samples_of_one_batch_are_of_like_length(chains: list[Chain]) -> None:
    drawn = epoch_of(Batches(chains, residues_squared=10**9, max_samples=4, crop=99, seed=2))
    spans = sorted((int(b.mask.sum(1).min()), int(b.mask.sum(1).max())) for b in drawn)
    # One sorted stretch: no batch reaches over the next.
    assert all(this[1] <= following[0] for this, following in zip(spans, spans[1:], strict=False))


def test_a_step_is_a_pure_function_of_the_seed_and_the_step(chains: list[Chain]) -> None:
    options = {"residues_squared": 6000, "max_samples": 4, "crop": 24}
    state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)
    first, second = (Batches(chains, seed=9, **options) for _ in range(2))
    asked = [0, 1, 2, 17, 40]
    forth = {step: first.whole(step) for step in asked}
    back = {step: second.whole(step) for step in asked[::-1]}
    assert all(same(forth[step], back[step]) and same(forth[step], first(step)) for step in asked)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy_state)


def test_every_epoch_and_seed_has_its_own_permutation_and_order_of_batches(chains: list[Chain]) -> None:
    permutations, orders = set(), set()
    for seed in (0, 1):
        batches = Batches(chains, residues_squared=10**9, max_samples=4, crop=40, seed=seed)
        for epoch in (0, 1, 2):
            drawn = epoch_of(batches, epoch)
            numbered = sorted((int(d), name) for b in drawn for d, name in zip(b.draws, b.names, strict=True))
            permutations.add(tuple(name for _, name in numbered))
            orders.add(tuple(int(b.mask.sum()) for b in drawn))
    assert len(permutations) == 6 and len(orders) > 3


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_parts_are_equal_shares_of_the_whole(chains: list[Chain], parts: int) -> None:
    batches = Batches(chains, residues_squared=9000, max_samples=7, crop=32, seed=6, parts=parts)
    for step in range(batches.steps_in(0) + 3):
        whole, shares = batches.whole(step), [batches(step, part) for part in range(parts)]
        assert {len(share.names) * parts for share in shares} == {len(whole.names)}
        rows = {int(draw): row for row, draw in enumerate(whole.draws)}
        assert sorted(int(d) for share in shares for d in share.draws) == sorted(rows)
        for share in shares:
            for i, draw in enumerate(share.draws.tolist()):
                n, row = int(share.mask[i].sum()), rows[draw]
                assert share.names[i] == whole.names[row] and n == int(whole.mask[row].sum())
                for x, y in zip(tensors(share)[:5], tensors(whole)[:5], strict=True):
                    assert torch.equal(x[i, :n], y[row, :n])


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_where_parts_do_not_divide_the_chains_as_few_as_needed_come_twice(chains: list[Chain], parts: int) -> None:
    batches = Batches(chains, residues_squared=9000, max_samples=7, crop=32, seed=6, parts=parts)
    for epoch in (0, 1):
        counts = Counter(name for b in epoch_of(batches, epoch) for name in b.names)
        assert set(counts) == {c.name for c in chains} and max(counts.values()) <= 2
        assert sum(counts.values()) == parts * math.ceil(len(chains) / parts)


def test_one_chain_is_enough_for_many_parts(chains: list[Chain]) -> None:
    batches = Batches(chains[:1], residues_squared=1, max_samples=3, crop=32, seed=6, parts=3)
    assert batches.whole(4).names == (chains[0].name,) * 3
    assert batches.whole(4).draws.tolist() == [12, 13, 14]


def test_a_crop_is_contiguous_centred_and_keeps_its_shape(chains: list[Chain]) -> None:
    batches = Batches(chains, residues_squared=9000, max_samples=4, crop=18, seed=2)
    by_name = {c.name: c for c in chains}
    for batch in epoch_of(batches):
        assert bool(batch.mask.all()) and batch.mask.shape[1] == 18
        for i, name in enumerate(batch.names):
            chain, index = by_name[name], batch.index[i]
            start = int(index[0])  # no gaps in synthetic chains
            assert index.tolist() == list(range(start, start + 18))
            trans = batch.gaussian.trans[i]
            size = float(chain.gaussian.trans.abs().max())
            assert close(trans.double().mean(dim=0), 0.0, eps(torch.float32) * size)
            error = distances(trans) - distances(chain.gaussian.trans[start : start + 18])
            assert (np.abs(error) <= 2 * math.sqrt(3) * eps(torch.float32) * size).all()
            assert torch.equal(batch.gaussian.log_scale[i], chain.gaussian.log_scale[start : start + 18])
            assert batch.residue_names[i] == chain.residue_names[start : start + 18]


def test_crops_start_everywhere_from_the_first_residue_to_the_last_possible(chains: list[Chain]) -> None:
    chain = max(chains, key=len)
    batches = Batches([chain], residues_squared=1, max_samples=1, crop=len(chain) - 3, seed=0)
    starts = Counter(int(batches(step).index[0, 0]) for step in range(200))
    # Four starts, 50 each on average, deviation √(200 · ¼ · ¾) = 6; five deviations.
    assert set(starts) == {0, 1, 2, 3} and min(starts.values()) > 50 - 5 * 6.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"residues_squared": 0}, "residues_squared must be an integer ≥ 1, got 0"),
        ({"crop": 0}, "crop must be an integer ≥ 1, got 0"),
        ({"parts": 0}, "parts must be an integer ≥ 1, got 0"),
        ({"max_samples": 1, "parts": 2}, "max_samples must be at least parts = 2, .* got 1"),
        ({"chains": []}, "chains must hold at least one chain"),
        ({"seed": -1}, "seed must be an integer ≥ 0, got -1"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(chains: list[Chain], change: dict, message: str) -> None:
    options = {"chains": chains, "residues_squared": 9000, "max_samples": 4, "crop": 32, "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        Batches(options.pop("chains"), **options)


def test_steps_and_parts_out_of_range_are_refused_by_name(chains: list[Chain]) -> None:
    batches = Batches(chains, residues_squared=9000, max_samples=4, crop=32, seed=0, parts=2)
    with pytest.raises(ValueError, match="step must be an integer ≥ 0, got -1"):
        batches(-1)
    for part in (-1, 2):
        with pytest.raises(ValueError, match=f"part must be one of 0 … 1, got {part}"):
            batches(0, part)
