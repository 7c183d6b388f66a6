"""`iga sweep`: the grid of arms, points, learning rates and stresses as a command."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from iga._text import one_line
from iga.cli.guard import once
from iga.cli.report import tables
from iga.cli.terminal import (
    Bars,
    Context,
    Reports,
    Structures,
    check_names,
    check_outputs,
    complain,
    kept,
    misuse,
    reported,
    say,
    show_rows,
)
from iga.cli.terminal import console as terminal

__all__ = ["sweep"]

_GOES_ON = "what was done is kept, and the report says what there is: --resume goes on"


def sweep(
    context: Context,
    arms: Annotated[
        str,
        typer.Option(
            help="Names with commas between: those of iga compare, and their parts (docs/experiment/sweep.md)."
        ),
    ] = "ipa,logdet_clamp,sigma_floor,bounded",
    points: Annotated[str, typer.Option(help="Points per head, with commas between.")] = "4",
    learning_rates: Annotated[str, typer.Option(help="Of Adam, with commas between.")] = "1e-3",
    seeds: Annotated[int, typer.Option(help="Runs of each place of the grid, with seeds one after another.")] = 5,
    seed: Annotated[int, typer.Option(help="The first of them, and that of the split.")] = 0,
    steps: Annotated[int, typer.Option(help="Steps of each run.")] = 200,
    gaussians: Annotated[
        str,
        typer.Option(
            help="fixed: those of the residues; learned: they move, and a loss holds them; free: no loss does."
        ),
    ] = "fixed",
    stress: Annotated[str, typer.Option(help="none, collapse, needles or both; several with commas between.")] = "none",
    collapse: Annotated[
        str, typer.Option(help="Doses: shifts of log scales, as -2,-4, each a condition in place of a drawn collapse.")
    ] = "",
    structures: Structures = None,
    size: Annotated[str, typer.Option(help="Of the network: small (CPU) or paper (GPU).")] = "small",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[str, typer.Option(help="Folder of the sweep.")] = "sweep",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the folder's grid, which stays as it is.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Runs at once, on a CPU.", show_default="cores, of the cluster with --ray")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Train on a Ray cluster: auto, HOST:PORT, ray://HOST:PORT, or local."),
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of every run, as training.crop=32; repeats.")
    ] = None,
    report: Reports = None,
) -> None:
    """Train a grid of arms × points × learning rates × stresses, and judge each cure by rules fixed before.

    All runs see the same chains, order and noise, and have one thread each. Grid and order are written down before a
    run; whole cells come one after another, those that decide first. The folder receives result.json, report.md and
    report.html, also of what there is when the command is interrupted; the same command with --resume goes on. Ends 0
    when all runs are made, 1 if one could not be, 2 on misuse.
    """
    check_names(structures=structures or [], out=[out])
    check_outputs(report)
    if ray is not None:
        from iga._ray_cluster import check_address

        with misuse():
            check_address(ray)
    from iga.experiment.run.dataset import Dataset
    from iga.experiment.settings import STRESSES
    from iga.experiment.sweep import run as sweeping
    from iga.experiment.sweep.grid import ALL_ARMS, SweepPlan, names, numbers

    with misuse():
        plan = SweepPlan(
            arms=names(arms, ALL_ARMS, "arm"),
            structures=tuple(structures or ()),
            steps=steps,
            seeds=seeds,
            seed=seed,
            size=size,
            gaussians=gaussians,
            device=device,
            overrides=tuple(override or ()),
            points=numbers(points, "points", int),
            learning_rates=numbers(learning_rates, "learning rates", float),
            stresses=names(stress, ("none", *STRESSES), "stress"),
            doses=numbers(collapse, "doses of collapse", float),
        )

    def on_data(dataset: Dataset) -> None:
        for path, reason in dataset.unreadable:
            say(f"unreadable: {one_line(path)}: {reason}")
        sides = f"{len(dataset.training)} to train on, {len(dataset.held_out)} held out"
        say(f"{dataset.described}: {sides}; {len(plan.runs())} runs of {plan.steps} steps")

    made: list[dict[str, Any]] = []

    def on_result(result: dict[str, Any]) -> None:
        _print_summary(result)
        made.append(result)

    code, words = 0, ""
    try:
        with once(), misuse(), ExitStack() as stack, Bars() as bars:
            elsewhere = None if ray is None else _on_ray(stack, ray, workers)
            sweeping.sweep(
                plan,
                Path(out),
                resume=resume,
                jobs=workers,
                command=context.obj,
                on_data=on_data,
                on_progress=bars.training,
                on_result=on_result,
                elsewhere=elsewhere,
            )
    except RuntimeError as error:
        code, words = 1, f"{error}; {_GOES_ON}"
    except KeyboardInterrupt:
        code, words = 130, f"interrupted; {_GOES_ON}"
    with kept(*(write for result in made for write in reported(cast(Any, result), report, tables))):
        pass
    files = [name for name in ("report.md", "report.html", "result.json") if (Path(out) / name).exists()]
    if made and files:
        terminal().print(f"{out}/{', '.join(files)}", markup=False, highlight=False, soft_wrap=True)
    if code:
        complain(words)
        raise typer.Exit(code)


def _on_ray(stack: ExitStack, address: str, workers: int | None) -> Any:
    """The runs on the cluster at `address`, connected before anything is written."""
    from iga._ray_cluster import cluster
    from iga.experiment.run.on_ray import OnRay

    return OnRay(*stack.enter_context(cluster(address, workers)), workers)


def _print_summary(result: dict[str, Any]) -> None:
    """What there is, before the files that hold it: a disk may be full."""
    from iga.experiment.sweep.readings import cells_of, in_words, runs_at, uncapped
    from iga.experiment.sweep.verdicts import judge

    done = sum(run["status"] != "running" for run in result["runs"])
    rows: list[dict[str, Any]] = []
    for cell in cells_of(result):
        for arm, by_seed in runs_at(result, cell).items():
            found = [uncapped(run, result["settings"]["steps"]) for run in by_seed.values()]
            losses = [value for value in found if value is not None]
            mean = f"{sum(losses) / len(losses):.3g}" if losses else "not finite"
            rows.append(
                {
                    "arm": arm,
                    "condition": in_words(*cell.condition),
                    "P": cell.points,
                    "learning rate": f"{cell.learning_rate:g}",
                    "seeds": len(by_seed),
                    "held-out se3_vf_loss": mean,
                }
            )
    if rows:
        show_rows(rows)
    verdicts = [
        {
            "cure": one.cure.name,
            "condition": in_words(*one.condition) + ("" if one.primary else " (exploratory)"),
            "verdict": one.word,
        }
        for one in judge(result)
    ]
    if verdicts:
        show_rows(verdicts)
    terminal().print(f"{done} of {result['planned']} runs made", markup=False, highlight=False)
