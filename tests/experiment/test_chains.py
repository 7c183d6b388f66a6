"""Chains and the split: what is taken, and that nothing is lost or leaks."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.flow import distances, tensors
from helpers.geometry import close, eps
from iga.experiment.task.chains import Chain, chains_of, collate, cropped, split
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.structure import Structure
from iga.structure.synthetic import synthetic_structures

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


def test_a_chain_keeps_its_shape_and_has_its_mean_at_the_origin() -> None:
    whole = structure("a/1abc.pdb", ("A", 40))
    (chain,), skipped = chains_of([whole])
    assert skipped == {} and chain.gaussian.dtype == torch.float32
    wide = replace(whole, gaussian=whole.gaussian.to(dtype=torch.float64))
    assert chains_of([wide])[0][0].gaussian.dtype == torch.float32
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
        structure("e.pdb", ("A", 20), ("B", 20), bad=5),
    ]
    found, skipped = chains_of(files)
    assert [c.name for c in found] == ["a:A", "d:A", "e:B"]
    assert skipped == {"fewer than 16 residues with a frame": 3, "a coordinate that is not finite": 2}
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


def test_a_small_share_of_few_entries_is_one_of_them(chains: list[Chain]) -> None:
    training, held_out = split(chains[:5], held_out=0.1, seed=0)
    assert (len(training), len(held_out)) == (4, 1)


@pytest.mark.parametrize("count", [0, 1])
def test_a_split_of_fewer_than_two_entries_is_refused(chains: list[Chain], count: int) -> None:
    with pytest.raises(ValueError, match=f"at least 2 entries, .* got {count}"):
        split(chains[:count], seed=0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_a_share_that_leaves_a_side_empty_is_refused(chains: list[Chain], share: float) -> None:
    with pytest.raises(ValueError, match="held_out must be a share"):
        split(chains, held_out=share, seed=0)


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


def test_arguments_out_of_range_are_refused_by_name(chains: list[Chain]) -> None:
    with pytest.raises(ValueError, match="shortest must be an integer ≥ 1"):
        chains_of([structure("a.pdb", ("A", 16))], shortest=0)
    with pytest.raises(ValueError, match="chains and draws must be as many"):
        collate(chains[:2], [0])


def test_a_chain_without_a_name_is_named_after_its_entry_alone() -> None:
    blank = replace(structure("a.pdb", ("A", 16)), chains=(" ",) * 16)
    assert chains_of([blank])[0][0].name == "a:"
