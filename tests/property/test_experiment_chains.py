"""Chains, the split and the batches: what is taken, that nothing is lost or leaks, and that a step is pure."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from geometry_support import close, eps
from iga.experiment.chains import Batch, Batches, Chain, chains_of, collate, cropped, split
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.structure import Structure
from iga.synthetic import synthetic_structures

LENGTHS = (20, 50)


@pytest.fixture(scope="module")
def chains() -> list[Chain]:
    return chains_of(synthetic_structures(23, seed=4, lengths=LENGTHS))[0]


def structure(path: str, *parts: tuple[str, int], masked: tuple[int, ...] = (), bad: int | None = None) -> Structure:
    """Synthetic chains of these names and lengths in one file, numbered from 1 each, far from the origin."""
    drawn = [synthetic_structures(1, seed=7 + i, lengths=(n, n))[0] for i, (_, n) in enumerate(parts)]
    rows = [(d.gaussian.rot, d.gaussian.trans + 30.0, d.gaussian.local_mean, d.gaussian.log_scale) for d in drawn]
    rot, trans, local_mean, log_scale = (torch.cat(x) for x in zip(*rows, strict=True))
    if bad is not None:
        trans[bad] = math.nan
    mask = torch.ones(len(trans), dtype=torch.bool)
    mask[list(masked)] = False
    return Structure(
        path=path,
        gaussian=GaussianRigid(Frame(rot, trans), local_mean, log_scale),
        mask=mask,
        chains=tuple(name for name, n in parts for _ in range(n)),
        numbers=tuple(str(i + 1) for _, n in parts for i in range(n)),
        residue_names=tuple(name for d in drawn for name in d.residue_names),
        masked={},
    )


def tensors(batch: Batch) -> tuple[torch.Tensor, ...]:
    g = batch.gaussian
    return g.rot, g.trans, g.local_mean, g.log_scale, batch.index, batch.mask, batch.draws


def same(a: Batch, b: Batch) -> bool:
    pairs = zip(tensors(a), tensors(b), strict=True)
    return all(x.shape == y.shape and torch.equal(x, y) for x, y in pairs) and a.names == b.names


def epoch_of(batches: Batches, epoch: int = 0) -> list[Batch]:
    first = sum(batches.steps_in(e) for e in range(epoch))
    return [batches.whole(step) for step in range(first, first + batches.steps_in(epoch))]


def distances(trans: torch.Tensor) -> np.ndarray:
    x = trans.double().numpy()
    return np.linalg.norm(x[:, None] - x, axis=-1)


def test_a_chain_keeps_its_shape_and_has_its_mean_at_the_origin() -> None:
    whole = structure("a/1abc.pdb", ("A", 40))
    (chain,), skipped = chains_of([whole])
    assert skipped == {} and chain.gaussian.dtype == torch.float32
    # Origins near 30 nm, rounded to float32 in the file already; centring rounds once more, near 0.
    size = float(chain.gaussian.trans.abs().max())
    assert close(chain.gaussian.trans.double().mean(dim=0), 0.0, eps(torch.float32) * size)
    limit = 2 * math.sqrt(3) * eps(torch.float32) * size
    assert (np.abs(distances(chain.gaussian.trans) - distances(whole.gaussian.trans)) <= limit).all()
    for name in ("rot", "local_mean", "log_scale"):
        assert torch.equal(getattr(chain.gaussian, name), getattr(whole.gaussian, name))
    assert chain.residue_names == whole.residue_names


def test_residues_without_a_frame_leave_gaps_in_the_index() -> None:
    whole = structure("1abc.cif.gz", ("A", 30), ("B", 25), masked=(0, 11, 12, 33))
    first, second = chains_of([whole])[0]
    assert first.index.tolist() == [i for i in range(30) if i not in (0, 11, 12)]
    assert second.index.tolist() == [i for i in range(25) if i != 3]
    assert len(first) == len(first.index) == first.gaussian.shape[0] == 27
    assert first.residue_names == tuple(whole.residue_names[i] for i in first.index.tolist())
    assert torch.equal(second.gaussian.log_scale, whole.gaussian.log_scale[30:][second.index])


def test_chains_end_where_the_name_changes_or_a_number_comes_again_and_names_are_unique() -> None:
    same_name = structure("x/1ABC.pdb", ("A", 20), ("A", 22), ("B", 16))
    again = structure("y/1abc.cif", ("A", 18))
    found = chains_of([same_name, again])[0]
    assert [len(c) for c in found] == [20, 22, 16, 18]
    assert [c.name for c in found] == ["1abc:A", "1abc:A/2", "1abc:B", "1abc:A/3"]
    assert {c.entry for c in found} == {"1abc"}


@pytest.mark.parametrize(
    ("path", "entry"),
    [
        ("/data/1UBI.pdb", "1ubi"),
        ("1ubi.cif.gz", "1ubi"),
        ("pdb1ubi.ent.gz", "1ubi"),
        ("my.model.v2.pdb", "my.model.v2"),
        ("pdbs.ent", "pdbs"),
        ("synthetic/0", "synthetic/0"),
    ],
)
def test_an_entry_is_the_name_of_the_file_without_its_endings(path: str, entry: str) -> None:
    assert chains_of([structure(path, ("A", 16))])[0][0].entry == entry


def test_what_is_too_short_or_not_finite_is_skipped_with_a_count() -> None:
    files = [
        structure("a.pdb", ("A", 16), ("B", 15), ("C", 1)),
        structure("b.pdb", ("A", 18), masked=(0, 1, 2)),
        structure("c.pdb", ("A", 20), bad=5),
        structure("d.pdb", ("A", 20), bad=5, masked=(5,)),
    ]
    found, skipped = chains_of(files)
    assert [c.name for c in found] == ["a:A", "d:A"]
    assert skipped == {"fewer than 16 residues with a frame": 3, "a coordinate that is not finite": 1}
    assert all(bool(c.gaussian.trans.isfinite().all()) for c in found)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([], "among 0 structures (nothing to read)"),
        ([structure("a.pdb", ("A", 1))], "1 skipped: fewer than 16 residues with a frame"),
        ([structure("a.pdb", ("A", 20), bad=3)], "1 skipped: a coordinate that is not finite"),
    ],
    ids=["no structure", "one residue", "NaN"],
)
def test_no_chain_left_is_an_error_that_says_why(files: list[Structure], reason: str) -> None:
    with pytest.raises(ValueError, match="no chain of at least 16 residues among") as caught:
        chains_of(files)
    assert reason in str(caught.value)


def test_the_split_is_by_entry_and_loses_nothing() -> None:
    files = [structure(f"e{i}.pdb", ("A", 16), ("B", 17)) for i in range(20)]
    found = chains_of(files)[0]
    training, held_out = split(found, held_out=0.2, seed=3)
    assert not {c.entry for c in training} & {c.entry for c in held_out}
    assert len({c.entry for c in held_out}) == 4
    assert Counter(c.name for c in training + held_out) == Counter(c.name for c in found)


def test_the_split_is_fixed_by_the_seed_whatever_the_order_of_the_chains(chains: list[Chain]) -> None:
    names = [{c.name for c in split(given, seed=5)[1]} for given in (chains, chains[::-1])]
    assert names[0] == names[1]
    assert len({frozenset(c.name for c in split(chains, seed=seed)[1]) for seed in range(12)}) > 4


def test_either_side_of_the_split_has_an_entry(chains: list[Chain]) -> None:
    for share in (1e-6, 1 - 1e-6):
        training, held_out = split(chains[:2], held_out=share, seed=0)
        assert len(training) == len(held_out) == 1


@pytest.mark.parametrize("count", [0, 1])
def test_a_split_of_fewer_than_two_entries_is_refused(chains: list[Chain], count: int) -> None:
    with pytest.raises(ValueError, match=f"at least 2 entries, .* got {count}"):
        split(chains[:count], seed=0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_a_share_that_leaves_a_side_empty_is_refused(chains: list[Chain], share: float) -> None:
    with pytest.raises(ValueError, match="held_out must be a share"):
        split(chains, held_out=share, seed=0)


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


def test_a_crop_keeps_the_gaps_of_its_chain() -> None:
    (chain,), _ = chains_of([structure("a.pdb", ("A", 30), masked=(4, 9))])
    part = cropped(chain, 3, 8)
    assert part.index.tolist() == [3, 5, 6, 7, 8, 10, 11, 12]
    assert part.name == chain.name and len(part) == 8


def test_padded_rows_are_neutral(chains: list[Chain]) -> None:
    batch = collate(sorted(chains, key=len)[::11], [0, 5, 9])
    padded = ~batch.mask
    assert int(padded.sum()) > 5
    g = batch.gaussian
    assert torch.equal(g.rot[padded], torch.eye(3).expand_as(g.rot[padded]))
    assert not g.trans[padded].any() and not g.local_mean[padded].any() and not batch.index[padded].any()
    assert close(g.log_scale[padded], math.log(0.1), 2 * eps(torch.float32) * abs(math.log(0.1)))
    assert batch.draws.dtype == batch.index.dtype == torch.int64 and batch.draws.tolist() == [0, 5, 9]


def test_a_batch_moves_as_a_whole(chains: list[Chain]) -> None:
    moved = collate(chains[:2], [0, 1]).to("meta")
    assert {x.device.type for x in tensors(moved)} == {"meta"}


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
    with pytest.raises(ValueError, match="shortest must be an integer ≥ 1"):
        chains_of([structure("a.pdb", ("A", 16))], shortest=0)
    with pytest.raises(ValueError, match="chains and draws must be as many"):
        collate(chains[:2], [0])


def test_a_chain_without_a_name_is_named_after_its_entry_alone() -> None:
    blank = replace(structure("a.pdb", ("A", 16)), chains=(" ",) * 16)
    assert chains_of([blank])[0][0].name == "a:"
