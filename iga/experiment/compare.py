"""The work of `iga compare`: it trains every arm with every seed and writes the report; it can resume.

On a CPU several runs go on at once, each in a process of its own. With torchrun one run goes on at a time, and all
processes share it.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from iga._files import write_text
from iga._runtime import check_room, threads
from iga._text import visible
from iga.experiment.model.arms import network_of
from iga.experiment.results.collect import collect
from iga.experiment.results.page import write_report
from iga.experiment.run import plan as plans
from iga.experiment.run import processes, tracking
from iga.experiment.run.at_once import at_once
from iga.experiment.run.dataset import Dataset, load_dataset, prepare, save_dataset
from iga.experiment.run.hold import Hold
from iga.experiment.run.plan import ComparisonPlan, Progress
from iga.experiment.run.train import status_of
from iga.report.plots import check_matplotlib

__all__ = ["Elsewhere", "OnResult", "Progress", "Reporter", "check_device", "compare", "cores", "report"]

_PROCESS = 250_000_000  # bytes of a process that has loaded torch

OnResult = Callable[[dict[str, Any]], None]
# report(folder, dataset, command, on_result) → the files written
Reporter = Callable[[Path, Dataset, str, OnResult | None], list[Path]]
# elsewhere(plan, folder, on_progress) → run → "finished" or "non-finite"
Elsewhere = Callable[[ComparisonPlan, Path, Progress], dict[str, str]]


def compare(
    plan: ComparisonPlan,
    folder: Path,
    *,
    resume: bool = False,
    jobs: int | None = None,
    wandb: str = "off",
    command: str = "iga compare",
    on_data: Callable[[Dataset], None] | None = None,
    on_progress: Progress | None = None,
    on_result: OnResult | None = None,
    reporter: Reporter | None = None,
    elsewhere: Elsewhere | None = None,
) -> dict[str, str]:
    """Makes, or goes on with, the comparison `plan` in `folder`, and writes its result and report there.

    jobs       runs at once on a CPU; None: as many as cores / plan.threads
    on_result  called with the result before its files are written
    reporter   makes result and report, also of what there is when the command is interrupted; None: `report`, which
               waits for the end
    elsewhere  makes the runs on other machines (`iga.experiment.run.on_ray`), on CPUs; how many at once it decides

    Returns run → "finished" or "non-finite". Raises ValueError before anything is written for whatever does not fit: an
    unknown arm, no structures, networks that no memory holds, a folder that holds something else or is in use. A run
    that cannot go on for another reason than numbers that are not finite raises RuntimeError with its last words; no
    other is begun then, what the others did is kept and reported, and `resume` goes on.
    """
    tracking.check_mode(wandb)
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs must be a whole number from 1 up, got {jobs}")
    check_device(plan.device)
    jobs = min(jobs or max(1, cores() // plan.threads), len(plan.runs()))
    if elsewhere is None:
        _check_room(plan, jobs)
    elif torch.device(plan.device).type != "cpu" or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("runs on a cluster go on on CPUs, each in one process: take device cpu, and no torchrun")
    with processes.initialised(plan.device), Hold() as hold:
        plan, dataset = _begun(plan, folder, resume, hold)
        if on_data is not None and processes.rank() == 0:
            on_data(dataset)
        progress = on_progress or (lambda run, done, steps, loss: None)
        try:
            if elsewhere is not None:
                status = elsewhere(plan, folder, progress)
            elif processes.world() > 1 or torch.device(plan.device).type == "cuda":
                status = _here(plan, folder, wandb, progress)
            else:
                status = _beside(plan, folder, jobs, wandb, progress, hold.number)
        except (RuntimeError, KeyboardInterrupt) as error:
            wanted = reporter is not None or isinstance(error, RuntimeError)
            if processes.world() == 1 and wanted:
                with contextlib.suppress(ValueError, OSError):  # there may be nothing to report yet
                    (reporter or report)(folder, dataset, command, None if reporter is None else on_result)
            raise
        if processes.rank() == 0:
            (reporter or report)(folder, dataset, command, on_result)
    return status


def check_device(name: str) -> None:
    """Raises ValueError for what is neither a CPU nor a CUDA GPU that is there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be cpu or cuda, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {name!r}")
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise ValueError(f"device {name!r} is not there: this torch sees no such CUDA GPU; take --device cpu")


def report(folder: Path, dataset: Dataset, command: str, on_result: OnResult | None = None) -> list[Path]:
    """result.json and, from it alone, report.md and report.html; curves where matplotlib is installed."""
    result = collect(folder, dataset, command)
    if on_result is not None:
        on_result(result)
    write_text(folder / "result.json", json.dumps(result, allow_nan=False) + "\n")
    try:
        check_matplotlib()
        curves = True
    except ValueError:
        curves = False
    name = f"{result['settings']['size']}{', stress' if result['settings']['stress'] else ''}"
    return write_report(
        [(name, result)], markdown=folder / "report.md", html=folder / "report.html", with_curves=curves
    )


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_room(plan: ComparisonPlan, jobs: int) -> None:
    """Raises ValueError where `jobs` processes with torch, weights, gradients and Adam's two moments don't fit."""
    if torch.device(plan.device).type != "cpu":
        return
    try:
        with torch.device("meta"):
            networks = [network_of(plan.any_settings(arm)) for arm in plan.arms]
    except RuntimeError as error:  # more numbers than can be counted
        raise ValueError(f"the network would take more memory than there is ({error}); take smaller sizes") from error
    numbers = max(sum(p.numel() for p in network.parameters()) for network in networks)
    check_room(f"{jobs} runs at once, with networks of {numbers:,} numbers,", jobs * (_PROCESS + 16 * numbers))


def _begun(plan: ComparisonPlan, folder: Path, resume: bool, hold: Hold) -> tuple[ComparisonPlan, Dataset]:
    """The plan to follow and the chains. Both are on disk, where all processes read them; the folder is locked."""
    if processes.rank() == 0:
        hold.take(folder)
        if processes.world() > 1:
            plan = replace(plan, overrides=(*plan.overrides, *_of_processes(plan)))
        plan = plans.check_folder(folder, plan, resume=resume)
        data = folder / plans.DATA
        dataset = None if data.exists() else prepare(plan.any_settings())
        folder.mkdir(parents=True, exist_ok=True)
        if hold.number is None:
            hold.take(folder)
            plans.check_folder(folder, plan, resume=resume)  # another may have made it meanwhile
        if dataset is not None:
            save_dataset(data, dataset)
        plans.write(folder, plan)
    processes.wait()
    return plans.read(folder, type(plan)), load_dataset(folder / plans.DATA)


def _of_processes(plan: ComparisonPlan) -> tuple[str, ...]:
    named = any(override.strip().startswith("training.parts=") for override in plan.overrides)
    return () if named else (f"training.parts={processes.world()}",)


def _here(plan: ComparisonPlan, folder: Path, wandb: str, progress: Progress) -> dict[str, str]:
    """One run after another in this process."""
    status = {}
    for name in plan.runs():
        progress(name, 0, plan.steps, None)

        def log(row: dict[str, float], name: str = name) -> None:
            progress(name, int(row["step"]), plan.steps, row["trans_loss"])

        with threads(plan.threads):
            status[name] = importlib.import_module(plan.WORKER).run(folder, name, wandb=wandb, log=log)
        progress(name, plan.steps, plan.steps, None)
    return status


def _beside(
    plan: ComparisonPlan, folder: Path, jobs: int, wandb: str, progress: Progress, hold: int | None = None
) -> dict[str, str]:
    """`jobs` runs at once, each in a process of its own, which shares the hold on the folder."""
    children: set[subprocess.Popen[str]] = set()
    lock, stopped = threading.Lock(), threading.Event()

    def one(name: str) -> str:
        if stopped.is_set():
            return "running"
        progress(name, 0, plan.steps, None)
        environment = os.environ | {"OMP_NUM_THREADS": str(plan.threads)}
        words = [sys.executable, "-m", plan.WORKER, str(folder), name, "--wandb", wandb]
        where = folder / plans.RUNS / name
        where.mkdir(parents=True, exist_ok=True)
        shared = () if hold is None else (hold,)
        with open(where / "errors.txt", "w+", encoding="utf-8", errors="replace") as errors:
            with lock:
                if stopped.is_set():  # since: whoever stopped the others has not seen this one
                    return "running"
                child = subprocess.Popen(
                    words, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, pass_fds=shared
                )
                children.add(child)
            with child:
                for line in child.stdout or ():
                    step, _, loss = line.partition(" ")
                    if step.isdigit():
                        progress(name, int(step), plan.steps, float(loss))
            code = child.returncode
            with lock:
                children.discard(child)
            if stopped.is_set():
                return "running"
            if code:
                stopped.set()  # before this thread is free to begin another
            errors.seek(0)
            said = errors.read().strip().splitlines()
            if code:
                raise RuntimeError(f"run {name} {_ended(code)}: {' / '.join(said[-3:]) or 'it said nothing'}")
        for line in said[-3:]:
            print(f"{name}: {visible(line)}", file=sys.stderr, flush=True)
        if not said:
            (where / "errors.txt").unlink()
        progress(name, plan.steps, plan.steps, None)
        return status_of(where)["status"]

    def stop() -> None:
        stopped.set()
        with lock:
            for child in children:
                child.terminate()

    return at_once(plan.runs(), jobs, one, stop)


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended {code}"
    name = next((one.name for one in signal.Signals if one == -code), str(-code))
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
