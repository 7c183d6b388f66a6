"""Chains of residues with frames, from structures: their split, contiguous crops, and padding to one length.

Every random number comes from `stream`, NumPy's generator keyed by (seed, purpose, number); the global generators are
neither read nor moved. Lengths in nm. Which chains make the batch of a step: `iga.experiment.task.batches`.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from iga._typing import Bool, Tensor
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.structure import Structure
from iga.structure.read import ENDINGS, PACKED

__all__ = [
    "LOG_NEUTRAL_SIGMA",
    "Batch",
    "Chain",
    "at_least",
    "chains_of",
    "collate",
    "cropped",
    "neutral",
    "split",
    "stream",
]

LOG_NEUTRAL_SIGMA = math.log(0.1)  # log nm: the Gaussian of a padded row, and the middle of the noise

# The place of a purpose in the key; new ones go to the end, so that old runs stay what they were.
_PURPOSES = ("epoch", "order", "crop", "split", "noise", "shuffle")


@dataclass(frozen=True, eq=False)
class Chain:
    """The residues of one chain that have a frame.

    name           unique among the chains, "1ubi:A"       entry  what the split goes by, "1ubi"
    gaussian       GaussianRigid [n], float32; the mean of its origins is at 0
    index          long [n], rising: row of the residue in its chain, so that residues without a frame leave gaps (and
                   chain breaks where that was asked for)
    residue_names  three-letter codes [n]                  breaks  chain breaks of the whole chain
    """

    name: str
    entry: str
    gaussian: GaussianRigid
    index: Tensor
    residue_names: tuple[str, ...]
    breaks: int = 0

    def __len__(self) -> int:
        return len(self.residue_names)


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples padded to one length; padded rows are neutral (`neutral`), with index 0.

    draws          long [b]: the number of each sample in the whole run; its noise is a function of (seed, draw) alone
    residue_names  three-letter codes of each sample's valid residues
    """

    names: tuple[str, ...]
    gaussian: GaussianRigid
    index: Tensor
    mask: Bool[Tensor, "b n"]
    draws: Tensor
    residue_names: tuple[tuple[str, ...], ...] = ()

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device."""
        moved = {name: getattr(self, name).to(device=device) for name in ("gaussian", "index", "mask", "draws")}
        return replace(self, **moved)


def stream(seed: int, purpose: str, number: int = 0) -> np.random.Generator:
    """The generator of (seed, purpose, number); ValueError for a negative seed."""
    if seed < 0:
        raise ValueError(f"seed must be an integer ≥ 0, got {seed}; pass another one")
    return np.random.default_rng((seed, _PURPOSES.index(purpose) + 1, number))


def chains_of(
    structures: Iterable[Structure], *, shortest: int = 16, break_gap: int = 0
) -> tuple[list[Chain], dict[str, int]]:
    """(chains, reason → how many chains were skipped for it).

    A chain is a run of residues with one chain name; a residue number seen before starts another, since files of
    simulations give several chains one name. Skipped are chains with fewer than `shortest` residues that have a frame,
    and those with a number that is not finite. At a chain break the index goes on `break_gap` positions farther. Raises
    ValueError if none is left.
    """
    at_least(1, shortest=shortest)
    at_least(0, break_gap=break_gap)
    structures, chains = list(structures), []
    skipped, seen = Counter(), Counter()
    for structure in structures:
        entry = _entry(structure.path)
        for rows in _runs(structure):
            valid = structure.mask[rows]
            if int(valid.sum()) < shortest:
                skipped[f"fewer than {shortest} residues with a frame"] += 1
                continue
            gaussian = structure.gaussian[rows][valid]
            parts = (gaussian.rot, gaussian.trans, gaussian.local_mean, gaussian.log_scale)
            if not all(bool(x.isfinite().all()) for x in parts):
                skipped["a coordinate that is not finite"] += 1
                continue
            name = f"{entry}:{structure.chains[rows.start].strip()}"
            seen[name] += 1
            places = valid.nonzero()[:, 0]
            broken = structure.chain_breaks[rows].cumsum(dim=0)[places]
            chains.append(
                Chain(
                    name=name if seen[name] == 1 else f"{name}/{seen[name]}",
                    entry=entry,
                    gaussian=_centred(gaussian).to(dtype=torch.float32),
                    index=places + break_gap * (broken - broken[0]),
                    residue_names=tuple(structure.residue_names[rows.start + i] for i in places.tolist()),
                    breaks=int(broken[-1] - broken[0]),
                )
            )
    if not chains:
        reasons = "; ".join(f"{number} skipped: {reason}" for reason, number in skipped.items())
        raise ValueError(
            f"structures must hold a chain to train on, got no chain of at least {shortest} residues among "
            f"{len(structures)} structures ({reasons or 'nothing to read'}); name other files, or lower shortest"
        )
    return chains, dict(skipped)


def split(chains: Sequence[Chain], *, held_out: float = 0.1, seed: int) -> tuple[list[Chain], list[Chain]]:
    """(training, held out): the share `held_out` of the entries, drawn by `seed`, at least one on either side.

    All chains of an entry fall on one side. Homologous entries may fall on both: sequences are not compared.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must be a share between 0 and 1, got {held_out}; pass 0.1, say")
    entries = sorted({chain.entry for chain in chains})
    if len(entries) < 2:
        raise ValueError(
            f"chains must come from at least 2 entries, to train on one and hold out another, got {len(entries)} "
            f"({', '.join(entries) or 'no chain'}); name more structures"
        )
    count = min(max(round(held_out * len(entries)), 1), len(entries) - 1)
    apart = {entries[i] for i in stream(seed, "split").permutation(len(entries))[:count]}
    return [c for c in chains if c.entry not in apart], [c for c in chains if c.entry in apart]


def cropped(chain: Chain, start: int, length: int) -> Chain:
    """Residues start … start + length − 1, centred anew; their index stays that of the whole chain."""
    rows = slice(start, start + length)
    return replace(
        chain,
        gaussian=_centred(chain.gaussian[rows]),
        index=chain.index[rows],
        residue_names=chain.residue_names[rows],
    )


def neutral(gaussian: GaussianRigid, mask: Bool[Tensor, "*b n"]) -> GaussianRigid:
    """`gaussian` with the rows that `mask` leaves out at the identity, m = 0, σ = 0.1 nm, whatever they held."""
    valid, zero = mask[..., None], gaussian.trans.new_zeros(())
    eye = torch.eye(3, dtype=gaussian.dtype, device=gaussian.device)
    frame = Frame(torch.where(valid[..., None], gaussian.rot, eye), torch.where(valid, gaussian.trans, zero))
    log_scale = torch.where(valid, gaussian.log_scale, zero + LOG_NEUTRAL_SIGMA)
    return GaussianRigid(frame, torch.where(valid, gaussian.local_mean, zero), log_scale)


def collate(chains: Sequence[Chain], draws: Sequence[int]) -> Batch:
    """One batch of these chains, whole, padded to the longest; `draws` numbers the samples."""
    if not chains or len(chains) != len(draws):
        raise ValueError(f"chains and draws must be as many, at least one, got {len(chains)} and {len(draws)}")
    lengths = torch.tensor([len(chain) for chain in chains])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]

    def padded(parts: Iterable[Tensor]) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)

    frame = Frame(padded(c.gaussian.rot for c in chains), padded(c.gaussian.trans for c in chains))
    local_mean = padded(c.gaussian.local_mean for c in chains)
    log_scale = padded(c.gaussian.log_scale for c in chains)
    return Batch(
        names=tuple(chain.name for chain in chains),
        gaussian=neutral(GaussianRigid(frame, local_mean, log_scale), mask),
        index=padded(chain.index for chain in chains),
        mask=mask,
        draws=torch.tensor(list(draws)),
        residue_names=tuple(chain.residue_names for chain in chains),
    )


def _centred(gaussian: GaussianRigid) -> GaussianRigid:
    """About the mean of its origins, which is formed in float64."""
    trans = gaussian.trans.double()
    trans = (trans - trans.mean(dim=-2, keepdim=True)).to(gaussian.dtype)
    return replace(gaussian, frame=Frame(gaussian.rot, trans))


def _entry(path: str) -> str:
    """Name of the file without its endings, in small letters ("pdb1ubi.ent.gz" is 1ubi); no structure file: the path
    as it is."""
    name = Path(path).name.lower()
    name = next((name.removesuffix(end) for end in PACKED if name.endswith(end)), name)
    if not name.endswith(ENDINGS):
        return path
    return re.sub(r"^pdb(?=\w{4}\.ent$)", "", name).rpartition(".")[0]


def _runs(structure: Structure) -> Iterator[slice]:
    start, seen = 0, set()
    for row, (chain, number) in enumerate(zip(structure.chains, structure.numbers, strict=True)):
        if row > start and (chain != structure.chains[row - 1] or number in seen):
            yield slice(start, row)
            start, seen = row, set()
        seen.add(number)
    if structure.n_residues:
        yield slice(start, structure.n_residues)


def at_least(least: int, **values: int) -> None:
    """Raises ValueError that names the first of `values` under `least`."""
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} must be an integer ≥ {least}, got {value}")
