"""The training of one run. A run that was interrupted goes on from its last checkpoint and ends with the same bits.

Step k is a function of the weights, the optimiser's state and k: batches and noise have no state of their own. A step
logs the losses and the three numbers in which the blow-up showed (`iga.diagnostics`): the largest, the mean and the
lowest over the blocks. A loss or gradient that is not finite ends the run before it reaches the weights; that is the
result of the run.

A run's folder: config.yaml, metrics.csv (a row a step), held_out.csv, checkpoint.pt and the one before, status.json.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from iga import _runtime as _memory
from iga import diagnostics
from iga._files import write_text
from iga._typing import Tensor
from iga.experiment.model.arms import network_of
from iga.experiment.model.network import FlowNetwork
from iga.experiment.run import checkpoint, processes
from iga.experiment.run.dataset import Dataset
from iga.experiment.run.evaluate import Evaluation, batches_of
from iga.experiment.run.records import LOSSES, WATCHED, Logger, Tables, lacking
from iga.experiment.settings import Settings, from_yaml, to_yaml
from iga.experiment.task.batches import Batches
from iga.experiment.task.chains import Batch
from iga.experiment.task.flow import TRANS_CLAMP, losses, noised
from iga.kernels import Statistics

__all__ = ["Probe", "status_of", "train"]

Probe = Callable[[FlowNetwork, int], None]  # called after an evaluation, with the number of steps done

_STATUS = ("finished", "non-finite", "running")
_KEYS = {"steps_done", "first_non_finite", "what_non_finite", "seconds_a_step", "peak_mb", "parameters"}


@dataclass
class _Run:
    settings: Settings
    network: FlowNetwork
    optimizer: torch.optim.Optimizer
    step: int = 0  # of steps done
    seconds: float = 0.0
    peak_mb: float = 0.0  # MiB: of the process, or of CUDA's allocator


def train(
    settings: Settings,
    dataset: Dataset,
    folder: Path,
    *,
    device: str = "cpu",
    log: Logger | None = None,
    probe: Probe | None = None,
) -> str:
    """Trains to settings.training.steps, from the checkpoint in `folder` if there is one. Returns the status,
    "finished" or "non-finite"; a run that has one already is left alone. `probe` comes before the checkpoint of its
    step: it is called again where that is lost, and must leave the network and the global generators as they are.

    Raises ValueError where `folder` holds a run with other settings than these, but for the number of steps.
    """
    writes = processes.rank() == 0
    found = _begin(settings, folder) if writes else None
    processes.wait()
    if found is None:
        found = status_of(folder)
    if _ended(found, settings):
        return found["status"]
    run = _restored(settings, folder, device)
    batches = _batches(settings, dataset)
    evaluation = Evaluation(dataset.held_out, settings, device)
    model = processes.together(run.network)
    _forget_peak(device)
    with Tables(folder, run.step, log=log, writes=writes) as tables:
        wrong = None
        while run.step < settings.training.steps and wrong is None:
            started = time.perf_counter()
            row, wrong = _step(run, model, _mine(batches, run.step), device)
            run.seconds += time.perf_counter() - started
            run.step += 1
            run.peak_mb = max(run.peak_mb, _peak_mb(device))
            tables.step({"step": float(run.step), **row, "seconds": time.perf_counter() - started})
            last = run.step == settings.training.steps
            if wrong is None and (last or run.step % settings.training.evaluate_every == 0):
                tables.held_out({"step": float(run.step), **evaluation.network(run.network)})
                if probe is not None and writes:
                    probe(run.network, run.step)
            if wrong is None and writes and (last or run.step % settings.training.checkpoint_every == 0):
                tables.flush()
                _keep(run, folder)
    status = "finished" if wrong is None else "non-finite"
    if writes:
        _write_status(folder, run, status, None if wrong is None else run.step, wrong)
    processes.wait()
    return status


def status_of(folder: Path) -> dict[str, Any]:
    """status.json of a run: status, steps_done, first_non_finite, what_non_finite, seconds_a_step, peak_mb (in units
    of 2²⁰ bytes), parameters. Raises ValueError, naming the file, where it is damaged."""
    path = folder / "status.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); --resume makes it anew") from error
    if not isinstance(state, dict) or state.get("status") not in _STATUS or not _KEYS <= state.keys():
        raise ValueError(f"{path} is no status of a run; --resume makes it anew")
    return state


def _begin(settings: Settings, folder: Path) -> dict[str, Any]:
    """The status of what is in the folder, or of a run that has not begun."""
    config = folder / "config.yaml"
    if config.exists() and (text := config.read_bytes().strip(b"\0\r\n\t ")):  # nothing: lost with the power
        try:
            old = from_yaml(text.decode())
        except ValueError as error:
            raise ValueError(f"{config}: {error}; remove {folder}, and --resume makes this run anew") from error
        _compare_settings(old, settings, folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(config, to_yaml(settings))
    try:
        if (folder / "status.json").exists():
            status_of(folder)
    except ValueError:
        checkpoint.set_aside(folder / "status.json")
    _fit_to_tables(settings, folder)
    if not (folder / "status.json").exists():
        _write_status(folder, _restored(settings, folder, "cpu"), "running", None, None)
    return status_of(folder)


def _ended(status: dict[str, Any], settings: Settings) -> bool:
    done = status["status"] == "finished" and status["steps_done"] >= settings.training.steps
    return done or status["status"] == "non-finite"


def _fit_to_tables(settings: Settings, folder: Path) -> None:
    """Sets aside a status and checkpoints that are further on than the tables: steps without a row are done again. A
    table that lacks rows is named, and a copy of it is kept; its rows up to the checkpoint that is left stay."""
    every = settings.training.evaluate_every
    lost: set[str] = set()

    def fits(state: dict[str, Any]) -> bool:
        step, last = state["step"], settings.training.steps
        names = lacking(folder, step, {*range(every, step + 1, every), *([last] if last <= step else [])})
        lost.update(names)
        return not names

    path = folder / "status.json"
    if path.exists() and _ended(status := status_of(folder), settings):
        done = status["steps_done"]
        # the step that was not finite has a row and no evaluation
        evaluated = {*range(every, done, every), *([done] if status["status"] == "finished" else [])}
        lost.update(lacking(folder, done, evaluated))
        if not lost:
            return
        path.unlink()
    checkpoint.newest(folder, fits)
    for name in sorted(lost):
        checkpoint.set_aside(folder / name, copy=True)


def _compare_settings(old: Settings, new: Settings, folder: Path) -> None:
    """More steps are the same run, gone on with; anything else is another one."""

    def lines(settings: Settings) -> set[str]:
        return {line.strip() for line in to_yaml(settings).splitlines() if not line.strip().startswith("steps:")}

    differing = sorted(lines(old) ^ lines(new))
    if differing:
        raise ValueError(f"{folder} holds a run with other settings ({'; '.join(differing[:4])}); take another folder")


def _restored(settings: Settings, folder: Path, device: str) -> _Run:
    network = network_of(settings).to(device)
    t = settings.training
    run = _Run(settings, network, torch.optim.Adam(network.parameters(), lr=t.lr, weight_decay=t.weight_decay))
    state = checkpoint.newest(folder)
    if state is not None:
        network.load_state_dict(state["network"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.step, run.seconds, run.peak_mb = state["step"], state["seconds"], state["peak_mb"]
    return run


def _keep(run: _Run, folder: Path) -> None:
    state = {"network": run.network.state_dict(), "optimizer": run.optimizer.state_dict()}
    checkpoint.keep(folder, {**state, "step": run.step, "seconds": run.seconds, "peak_mb": run.peak_mb})
    _write_status(folder, run, "running", None, None)


def _write_status(folder: Path, run: _Run, status: str, first: int | None, what: str | None) -> None:
    state = {
        "status": status,
        "steps_done": run.step,
        "first_non_finite": first,
        "what_non_finite": what,
        "seconds_a_step": run.seconds / run.step if run.step else None,
        "peak_mb": run.peak_mb,
        "parameters": sum(p.numel() for p in run.network.parameters()),
    }
    write_text(folder / "status.json", json.dumps(state, indent=2) + "\n")


def _batches(settings: Settings, dataset: Dataset) -> Batches:
    t = settings.training
    if processes.world() not in (1, t.parts):
        raise ValueError(
            f"training.parts must be the number of processes, {processes.world()}, got {t.parts}; "
            f"pass --set training.parts={processes.world()}"
        )
    return batches_of(dataset.training, t, seed=t.seed, parts=t.parts)


def _mine(batches: Batches, step: int) -> Batch:
    """Our share of the step's batch, all of it where there is one process."""
    return batches.whole(step) if processes.world() == 1 else batches(step, processes.rank())


def _step(run: _Run, model: torch.nn.Module, batch: Batch, device: str) -> tuple[dict[str, float], str | None]:
    """One step of the optimiser: (the row of metrics.csv, what was not finite)."""
    settings, t = run.settings, run.settings.training
    x = noised(batch, seed=t.seed, gaussians=settings.model.gaussians, stress=settings.data.stressed).to(device)
    mask, index = batch.mask.to(device), batch.index.to(device)
    watched: list[Statistics] = []
    run.optimizer.zero_grad(set_to_none=True)
    found = losses(model(x.gaussian, x.t, mask, index, watched), x, mask)
    loss = (found.se3_vf + found.gaussian).mean()
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in run.network.parameters() if p.grad is not None])
    each = torch.stack([found.trans, found.trans_raw, found.rots_vf, found.se3_vf, found.gaussian], dim=-1)
    each = processes.gathered(each.detach()).double().cpu()
    row = {"samples": float(len(each)), **dict(zip(LOSSES, each.mean(dim=0).tolist(), strict=True))}
    row["clamped_samples"] = float((each[:, 1] >= TRANS_CLAMP).sum())
    row |= _watch(watched, mask)
    row["grad_norm"] = float(norm)
    if not each.isfinite().all():
        return row, "a loss: " + ", ".join(
            n for n, x in zip(LOSSES, each.unbind(-1), strict=True) if not x.isfinite().all()
        )
    if not norm.isfinite():
        bad = (n for n, p in run.network.named_parameters() if p.grad is not None and not p.grad.isfinite().all())
        return row, f"a gradient: {next(bad, 'their norm')}"
    if t.clip_grad is not None:
        torch.nn.utils.clip_grads_with_norm_(run.network.parameters(), t.clip_grad, norm)
    run.optimizer.step()
    return row, None


def _watch(watched: Iterable[Statistics], mask: Tensor) -> dict[str, float]:
    """Over all blocks, and all processes."""
    per_block = [diagnostics.statistics_metrics(one, mask, prefix="") for one in watched]
    rows = torch.tensor([[one[name] for name in WATCHED] for one in per_block], dtype=torch.float64)
    rows = processes.gathered(rows)
    absmax, share, lowest = rows.unbind(-1)
    values = (absmax.amax(), share.mean(), lowest.amin())
    return dict(zip(WATCHED, (float(v) for v in values), strict=True))


def _forget_peak(device: str) -> None:
    """Runs that follow one another in a process have a peak each."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    _memory.forget_peak()


def _peak_mb(device: str) -> float:
    cuda = torch.device(device).type == "cuda"
    return (torch.cuda.max_memory_allocated() if cuda else _memory.peak()) / 2**20
