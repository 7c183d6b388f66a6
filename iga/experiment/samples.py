"""Structures that a trained network samples, as PDB files beside its run."""

from pathlib import Path

from iga.experiment import checkpoint, processes
from iga.experiment.arms import network_of
from iga.experiment.chains import collate, cropped
from iga.experiment.dataset import Dataset
from iga.experiment.pdb import write_pdb
from iga.experiment.sampling import ca_rmsd, sample
from iga.experiment.settings import Settings

__all__ = ["write_samples"]


def write_samples(settings: Settings, dataset: Dataset, folder: Path, *, count: int, device: str = "cpu") -> list[Path]:
    """samples/STEPS_steps/NAME.pdb for the first `count` held-out chains, from the run's checkpoint.

    A sample has the length, the residue types and, in the fixed mode, the Gaussians of its chain, and noise for the
    rest: it is not meant to be that chain, and its remark says how far from it it is.
    """
    paths = []
    if processes.rank() != 0:
        return paths
    network = None
    for number, chain in enumerate(dataset.held_out[:count]):
        file = chain.name.replace(":", "_").replace("/", "_") + ".pdb"
        path = folder / "samples" / f"{settings.training.steps}_steps" / file
        paths.append(path)
        if path.exists():
            continue
        if network is None:
            network = network_of(settings).to(device)
            network.load_state_dict(checkpoint.load(folder / "checkpoint.pt")["network"])
        one = cropped(chain, 0, min(len(chain), settings.training.crop))
        batch = collate([one], [number]).to(device)
        options = {"gaussians": settings.model.gaussians, "stress": settings.data.stress}
        made = sample(network, batch, seed=settings.training.seed, **options)
        away = float(ca_rmsd(made.trans, batch.gaussian.trans, batch.mask)[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        remarks = (
            f"SAMPLED BY {settings.run_name}, {settings.training.steps} STEPS",
            f"LENGTH, TYPES AND GAUSSIANS OF {chain.name}, CA RMSD TO IT {away:.2f} A",
        )
        frame = made.frame[0].to(device="cpu")
        write_pdb(path, frame, batch.index[0].cpu(), one.residue_names, remarks=remarks)
    return paths
