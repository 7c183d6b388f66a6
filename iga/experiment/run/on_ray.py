"""The runs of a comparison as tasks of a Ray cluster, which come back as the files that a run here would have left.

A task gets the plan, the chains and what there is of its run; it trains in a folder and a process of its own, with as
many threads as here, and answers with the files of the run. Ray places the tasks, and begins one again, from the same
files, where its worker or machine is lost: a run is a function of these files, so it ends with the same bits.
"""

import importlib
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import iga
from iga._files import write_bytes
from iga._ray_cluster import cores_of, reason
from iga._runtime import threads
from iga.experiment.run import plan as plans
from iga.experiment.run.at_once import at_once
from iga.experiment.run.train import status_of

__all__ = ["OnRay", "made"]

RETRIES = 2  # of a run whose worker is lost: three in all
STATUS, ERRORS = "status.json", "errors.txt"

Files = dict[str, bytes]


@dataclass(frozen=True)
class OnRay:
    """The runs of a plan on a cluster.

    ray, scratch  the connection, and the folder that ends with it (`iga._ray_cluster.cluster`)
    workers       runs at once; None: as many as the cluster has cores

    Called with (plan, folder, progress), it returns run → "finished" or "non-finite"; the folder has plan and chains,
    and receives the runs. Raises RuntimeError for a run that could not be made.
    """

    ray: Any
    scratch: str | None = None
    workers: int | None = None

    def __call__(self, plan: plans.ComparisonPlan, folder: Path, progress: plans.Progress) -> dict[str, str]:
        ray = self.ray
        task = ray.remote(num_cpus=plan.threads, max_retries=RETRIES, max_calls=1)(made)  # a process a run
        shared = ray.put({name: (folder / name).read_bytes() for name in (plan.FILE, plans.DATA)})
        refs: set[Any] = set()
        lock, stopped = threading.Lock(), threading.Event()

        def one(name: str) -> str:
            where = folder / plans.RUNS / name
            before = {key: data for key, data in _files_of(where).items() if key != ERRORS}
            with lock:
                if stopped.is_set():
                    return "running"
                ref = task.remote(shared, before, name, plan.WORKER, plan.threads, _versions(), self.scratch)
                refs.add(ref)
            progress(name, 0, plan.steps, None)
            try:
                files = ray.get(ref)
            except ray.exceptions.RayError as error:
                if stopped.is_set():
                    return "running"
                stopped.set()  # before this thread is free to begin another
                raise RuntimeError(f"run {name} ended: {reason(error)}") from error
            finally:
                with lock:
                    refs.discard(ref)
            _keep(where, files)
            progress(name, plan.steps, plan.steps, None)
            return status_of(where)["status"]

        def stop() -> None:
            stopped.set()
            with lock:
                for ref in refs:
                    ray.cancel(ref, force=True)

        runs = plan.runs()
        return at_once(runs, min(self.workers or cores_of(ray), len(runs)), one, stop)


def made(
    shared: Files, before: Files, name: str, worker: str, count: int, versions: Mapping[str, str], scratch: str | None
) -> Files:
    """The task: the run `name` to its last step, from the files that there are `before`; the files of the run then.

    shared    plan and chains, by name          worker    module whose `run` makes it; count: its threads
    versions  those of the command: another iga or torch rounds in other places, and is refused with ValueError
    scratch   where its folder is made; None: where this machine has such
    """
    own = _versions()
    if own != versions:
        there, here = (" and ".join(f"{what} {number}" for what, number in one.items()) for one in (own, versions))
        raise ValueError(f"a machine of the cluster has {there}, the command {here}: install the same")
    with tempfile.TemporaryDirectory(prefix="iga-run-", dir=scratch) as place:
        folder = Path(place)
        where = folder / plans.RUNS / name
        for at, files in ((folder, shared), (where, before)):
            _write(at, files)
        with threads(count):
            importlib.import_module(worker).run(folder, name)
        return _files_of(where)


def _versions() -> dict[str, str]:
    return {"iga": iga.__version__, "torch": torch.__version__}


def _files_of(folder: Path) -> Files:
    """Path within the folder → content."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / name, data)


def _keep(folder: Path, files: Mapping[str, bytes]) -> None:
    """The files of a run here: its status last, so that a run that is said to be over has all of them."""
    _write(folder, {name: data for name, data in files.items() if name != STATUS})
    for name in _files_of(folder).keys() - files.keys():
        (folder / name).unlink()
    _write(folder, {STATUS: files[STATUS]})
