"""Files of the structures that a trained network samples: PDB, or mmCIF where the columns of PDB are too narrow."""

import re
from pathlib import Path

from iga._files import write_text
from iga.experiment.model.arms import network_of
from iga.experiment.run import checkpoint, processes
from iga.experiment.run.dataset import Dataset
from iga.experiment.settings import Settings
from iga.experiment.task.chains import collate, cropped
from iga.experiment.task.sampling import ca_rmsd, sample
from iga.structure.mmcif import write_mmcif
from iga.structure.write import PdbLimit, write_pdb

__all__ = ["Behind", "not_written", "write_samples"]

_NOT_WRITTEN = "not_written.txt"


class Behind(ValueError):
    """The last weights are lost: the run has to go on from an earlier checkpoint before it can be sampled."""


def write_samples(settings: Settings, dataset: Dataset, folder: Path, *, count: int, device: str = "cpu") -> list[Path]:
    """samples/STEPS_steps/NAME.pdb or .cif for the first `count` held-out chains, from the run's checkpoint.

    A sample has the length, the residue types and, in the fixed mode, the Gaussians of its chain; the rest starts as
    noise. It is not meant to be that chain, and a remark in the file says how far from it it is. A sample that is not
    finite is not written, and is named in not_written.txt. Raises Behind where the last checkpoint is lost.
    """
    paths: list[Path] = []
    lost: dict[str, str] = {}
    if processes.rank() != 0:
        return paths
    network = None
    place = folder / "samples" / f"{settings.training.steps}_steps"
    before = _lost(place)
    for number, chain in enumerate(dataset.held_out[:count]):
        name = re.sub(r"[^\w.+-]", "_", chain.name, flags=re.ASCII)[:100]
        if any(path.name[:-4] == name for path in paths) or name in lost:
            name = f"{name}_{number}"
        there = [path for ending in (".pdb", ".cif") if (path := place / f"{name}{ending}").exists()]
        paths += there
        if there:
            continue
        if name in before:
            lost[name] = before[name]
            continue
        if network is None:
            network = network_of(settings).to(device)
            state = checkpoint.newest(folder)
            if state is None or state["step"] != settings.training.steps:
                raise Behind(f"{folder}: the checkpoint of step {settings.training.steps} is lost; sample no other")
            network.load_state_dict(state["network"])
        one = cropped(chain, 0, min(len(chain), settings.training.crop))
        batch = collate([one], [number]).to(device)
        options = {"gaussians": settings.model.gaussians, "stress": settings.data.stressed}
        made = sample(network, batch, seed=settings.training.seed, **options)
        place.mkdir(parents=True, exist_ok=True)
        if not bool(made.rot.isfinite().all() and made.trans.isfinite().all()):
            lost[name] = "not finite: the network has diverged"
            continue
        away = float(ca_rmsd(made.trans, batch.gaussian.trans, batch.mask)[0])
        remarks = (
            f"SAMPLED BY {settings.run_name}, {settings.training.steps} STEPS",
            f"LENGTH, TYPES AND GAUSSIANS OF {chain.name}, CA RMSD TO IT {away:.2f} A",
        )
        frame, index = made.frame[0].to(device="cpu"), batch.index[0].cpu()
        path = place / f"{name}.pdb"
        try:
            write_pdb(path, frame, index, one.residue_names, remarks=remarks)
        except PdbLimit:
            path = place / f"{name}.cif"
            write_mmcif(path, frame, index, one.residue_names, remarks=remarks)
        paths.append(path)
    if lost:
        write_text(place / _NOT_WRITTEN, "".join(f"{name}: {why}\n" for name, why in lost.items()))
    return paths


def not_written(folder: Path) -> int:
    """How many samples of the run in `folder` could not be written."""
    return sum(len(_lost(place)) for place in (folder / "samples").glob("*_steps"))


def _lost(place: Path) -> dict[str, str]:
    file = place / _NOT_WRITTEN
    if not file.exists():
        return {}
    lines = file.read_text(encoding="utf-8").splitlines()
    return {name: why for name, _, why in (line.partition(": ") for line in lines)}
