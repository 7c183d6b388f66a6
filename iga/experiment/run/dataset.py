"""The chains of a comparison, trained on and held out: read once, kept in its folder, the same for every run.

The chains themselves are kept: they load faster than files of structures, and a comparison that is resumed must not
depend on files that have changed since.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from iga.experiment.run.checkpoint import load, save
from iga.experiment.settings import Settings
from iga.experiment.task.chains import Chain, chains_of, split
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.structure import read_structures
from iga.structure.synthetic import synthetic_structures

__all__ = ["Dataset", "distinct", "load_dataset", "prepare", "save_dataset"]

# The lengths of the synthetic backbones that stand in where no structures are given.
SYNTHETIC_LENGTHS = (40, 80)


@dataclass(frozen=True, eq=False)
class Dataset:
    """described: in words; skipped: reason → how many chains; unreadable: (path, reason) of files that gave nothing."""

    training: tuple[Chain, ...]
    held_out: tuple[Chain, ...]
    described: str
    skipped: dict[str, int]
    unreadable: tuple[tuple[str, str], ...] = ()

    @property
    def breaks(self) -> tuple[int, int]:
        """(chains with breaks, breaks), of both sides."""
        found = [chain.breaks for chain in (*self.training, *self.held_out) if chain.breaks]
        return len(found), sum(found)

    @property
    def fingerprint(self) -> str:
        """Changes with any number, name or side of any chain."""
        digest = hashlib.sha256()
        for side in (self.training, self.held_out):
            digest.update(f"side {len(side)}".encode())
            for chain in side:
                digest.update(f"{chain.name} {chain.residue_names}".encode())
                for tensor in _tensors(chain).values():
                    digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def prepare(settings: Settings) -> Dataset:
    """Reads or generates what settings.data names, and divides it by settings.training.seed.

    Raises ValueError (StructureError) where nothing is readable, no chain is long enough, or all are of one entry.
    """
    training, data = settings.training, settings.data
    if data.structures:
        structures, records = read_structures(list(data.structures))
        bad = tuple((str(r["path"]), str(r["reason"])) for r in records if r["status"] == "unreadable")
        what = f"{len(structures)} structures"
    else:
        structures = synthetic_structures(data.synthetic, seed=training.seed, lengths=SYNTHETIC_LENGTHS)
        what, bad = f"{len(structures)} synthetic backbones", ()
    chains, skipped = chains_of(structures, shortest=training.shortest, break_gap=data.break_gap)
    chains, repeated = distinct(chains)
    if repeated:
        skipped["same sequence as another chain of the entry"] = repeated
    trained, held_out = split(chains, held_out=training.held_out, seed=training.seed)
    return Dataset(tuple(trained), tuple(held_out), f"{what}, {len(chains)} chains", skipped, bad)


def distinct(chains: Sequence[Chain]) -> tuple[list[Chain], int]:
    """The first chain of every sequence of every entry, and how many were left out: an assembly of fourteen copies
    would count fourteen times."""
    seen: Counter[tuple[str, tuple[str, ...]]] = Counter()
    kept = []
    for chain in chains:
        key = (chain.entry, chain.residue_names)
        seen[key] += 1
        if seen[key] == 1:
            kept.append(chain)
    return kept, len(chains) - len(kept)


def save_dataset(path: Path, dataset: Dataset) -> None:
    """The dataset as a file that `load_dataset` reads."""
    sides = {name: [_state(chain) for chain in getattr(dataset, name)] for name in ("training", "held_out")}
    rest = {"described": dataset.described, "skipped": dataset.skipped}
    save(path, {**sides, **rest, "unreadable": [list(pair) for pair in dataset.unreadable]})


def load_dataset(path: Path) -> Dataset:
    """Raises ValueError where the file is none of `save_dataset`."""
    state = load(path)
    try:
        training, held_out = (tuple(_chain(one) for one in state[name]) for name in ("training", "held_out"))
        unreadable = tuple((a, b) for a, b in state["unreadable"])
        return Dataset(training, held_out, state["described"], state["skipped"], unreadable)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no chains of a comparison; remove it, and they are read again") from error


def _tensors(chain: Chain) -> dict[str, torch.Tensor]:
    parts = ("rot", "trans", "local_mean", "log_scale")
    return {name: getattr(chain.gaussian, name) for name in parts} | {"index": chain.index}


def _state(chain: Chain) -> dict[str, Any]:
    names = list(chain.residue_names)
    return {"name": chain.name, "entry": chain.entry, "residue_names": names, "breaks": chain.breaks, **_tensors(chain)}


def _chain(state: dict[str, Any]) -> Chain:
    gaussian = GaussianRigid(Frame(state["rot"], state["trans"]), state["local_mean"], state["log_scale"])
    names, breaks = tuple(state["residue_names"]), state.get("breaks", 0)
    return Chain(state["name"], state["entry"], gaussian, state["index"], names, breaks)
