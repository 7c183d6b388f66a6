"""One run in a process of its own: python -m iga.experiment.run.worker COMPARISON RUN [--wandb MODE].

So its peak memory is its own, and runs that go on at the same time share nothing. Every row of metrics.csv goes to
standard output as a line "STEP TRANS_LOSS", for the command that started the run. The names of runs: `run.plan`.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from iga._runtime import flushed_denormals
from iga.experiment.run import plan, processes, tracking
from iga.experiment.run.dataset import Dataset, load_dataset
from iga.experiment.run.samples import Behind, write_samples
from iga.experiment.run.train import Probe, train
from iga.experiment.settings import Settings

__all__ = ["Probes", "main", "run"]

# The probe of a run, of its settings, chains, folder and device (`run.train`).
Probes = Callable[[Settings, Dataset, Path, str], Probe]


def run(
    folder: Path,
    name: str,
    *,
    wandb: str = "off",
    log: plan.OnRow | None = None,
    kind: type[plan.ComparisonPlan] = plan.ComparisonPlan,
    probes: Probes | None = None,
) -> str:
    """Trains the run `name` of the plan in `folder` to its last step; then its samples, where it has any."""
    made = plan.read(folder, kind)
    settings = made.settings_of(name)
    dataset = load_dataset(folder / plan.DATA)
    where = folder / plan.RUNS / name
    probe = None if probes is None else probes(settings, dataset, where, made.device)
    # Where softmax saturates, weights and gradients become denormal numbers, which cost a CPU a hundred cycles each.
    # They become zero here: no arm needs them.
    with flushed_denormals(), tracking.logger(wandb, settings, where) as track:

        def both(row: dict[str, float], held_out: bool) -> None:
            track(row, held_out)
            if log is not None and not held_out:
                log(row)

        status = train(settings, dataset, where, device=made.device, log=both, probe=probe)
        if status == "finished" and settings.training.seed == made.seed:
            try:
                write_samples(settings, dataset, where, count=made.samples, device=made.device)
            except Behind:
                if processes.world() > 1:  # the others are through
                    raise
                (where / "status.json").unlink()  # it is not finished: what is lost is trained again
                status = train(settings, dataset, where, device=made.device, log=both, probe=probe)
                write_samples(settings, dataset, where, count=made.samples, device=made.device)
    return status


def main(
    arguments: list[str] | None = None,
    *,
    kind: type[plan.ComparisonPlan] = plan.ComparisonPlan,
    probes: Probes | None = None,
) -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {kind.WORKER}", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--wandb", default="off")
    given = parser.parse_args(arguments)
    try:
        torch.set_num_threads(plan.read(given.folder, kind).threads)
        run(given.folder, given.name, wandb=given.wandb, log=_print, kind=kind, probes=probes)
    except (ValueError, OSError) as error:  # what a folder holds, or a disk does not: no fault of the code
        sys.exit(f"{type(error).__name__}: {error}")


def _print(row: dict[str, float]) -> None:
    try:
        print(f"{int(row['step'])} {row['trans_loss']:.6g}", flush=True)
    except BrokenPipeError:  # whoever wanted the rows is gone; the last checkpoint has what was done
        os._exit(1)


if __name__ == "__main__":
    main()
