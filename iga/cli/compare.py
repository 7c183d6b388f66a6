"""`iga compare`: the comparison of arms as a command."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from iga._text import one_line
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
from iga.report.documents import Compare
from iga.report.schema import read_as

__all__ = ["compare"]


def compare(
    context: Context,
    arms: Annotated[
        str | None,
        typer.Option(
            help="Names with commas between, of ipa, pre_fix, logdet_clamp, sigma_floor, soft_start, bounded, "
            "gaussian_tanh, bounded_time_gate.",
            show_default="all",
        ),
    ] = None,
    structures: Structures = None,
    steps: Annotated[int, typer.Option(help="Steps of each run.")] = 200,
    seeds: Annotated[int, typer.Option(help="Runs of each arm, with seeds one after another.")] = 3,
    seed: Annotated[int, typer.Option(help="The first of them, and that of the split.")] = 0,
    size: Annotated[str, typer.Option(help="Of the network: small (CPU) or paper (GPU).")] = "small",
    gaussians: Annotated[
        str, typer.Option(help="fixed: those of the residues; learned: scales and local means move as well.")
    ] = "fixed",
    stress: Annotated[bool, typer.Option("--stress", help="Start from scales that collapse, and needles.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[str, typer.Option(help="Folder of the comparison.")] = "comparison",
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the folder's comparison; steps, seeds and arms may be added."),
    ] = False,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of every arm, as training.lr=1e-4; repeats.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Runs at once, on a CPU.", show_default="cores / threads")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of each run.", show_default="1; paper: all cores")
    ] = None,
    samples: Annotated[int, typer.Option(help="Structures that each arm samples at the end, as PDB files.")] = 1,
    wandb: Annotated[str, typer.Option(help="Weights & Biases beside the CSV files: off, offline or online.")] = "off",
    report: Reports = None,
) -> None:
    """Train IPA and the IGA arms side by side on SE(3) flow matching, and report losses, blow-ups and verdicts.

    All arms see the same chains, order and noise. The folder receives a CSV file a run, checkpoints, result.json,
    report.md and report.html. A run whose loss is not finite ends there, which is its result. Interrupted, the same
    command with --resume goes on. Several processes: torchrun --nproc-per-node 2 -m iga compare …. Ends 0 when all runs
    are made, 1 if one could not be, 2 on misuse.
    """
    check_names(structures=structures or [], out=[out])
    check_outputs(report)
    from iga.experiment import compare as comparison
    from iga.experiment.run import processes
    from iga.experiment.run.dataset import Dataset
    from iga.experiment.run.plan import ComparisonPlan, chosen_arms

    with misuse():
        plan = ComparisonPlan(
            arms=chosen_arms(arms),
            structures=tuple(structures or ()),
            steps=steps,
            seeds=seeds,
            seed=seed,
            size=size,
            gaussians=gaussians,
            stress=stress,
            device=device,
            threads=(1 if size == "small" else comparison.cores()) if threads is None else threads,
            samples=samples,
            overrides=tuple(override or ()),
        )

    def on_data(dataset: Dataset) -> None:
        skipped = "".join(f", {count} skipped: {reason}" for reason, count in dataset.skipped.items())
        for path, reason in dataset.unreadable:
            say(f"unreadable: {one_line(path)}: {reason}")
        sides = f"{len(dataset.training)} to train on, {len(dataset.held_out)} held out"
        chains, breaks = dataset.breaks
        broken = f", {chains} of them with {breaks} chain breaks" if breaks else ""
        say(f"{dataset.described}: {sides}{broken}{skipped}")

    made: list[dict[str, Any]] = []

    def on_result(result: dict[str, Any]) -> None:
        _print_summary(result)
        made.append(result)

    try:
        with misuse(), Bars() as bars:
            status = comparison.compare(
                plan,
                Path(out),
                resume=resume,
                jobs=jobs,
                wandb=wandb,
                command=context.obj,
                on_data=on_data,
                on_progress=bars.training if processes.rank() == 0 else None,
                on_result=on_result,
            )
    except RuntimeError as error:
        complain(f"{error}; what was done is kept: --resume goes on")
        _report_unfinished(Path(out), report)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        complain("interrupted; what was done is kept: --resume goes on")
        raise typer.Exit(130) from error
    with kept(*(write for result in made for write in reported(cast(Compare, result), report, tables))):
        pass
    if status and processes.rank() == 0:
        terminal().print(f"{out}/report.md, report.html, result.json", markup=False, highlight=False, soft_wrap=True)


def _report_unfinished(out: Path, report: list[Path] | None) -> None:
    """The reports of a comparison of which a run could not be made, where there was anything to collect."""
    if report is None or not (out / "result.json").exists():
        return
    with misuse():
        document = read_as(out / "result.json", Compare)
    if document["exit_code"]:
        with kept(*reported(document, report, tables)):
            pass


def _print_summary(result: dict[str, Any]) -> None:
    """The verdicts, before the files that hold them: a disk may be full."""
    from iga.experiment.results.verdicts import judge_all

    rows: list[dict[str, Any]] = []
    for run in result["runs"]:
        last = run["held_out"][-1] if run["held_out"] else {}
        stopped = f"not finite at step {run['first_non_finite']}" if run["status"] == "non-finite" else run["status"]
        seconds = run["seconds_a_step"]
        rows.append(
            {
                "arm": run["arm"],
                "seed": run["seed"],
                "status": stopped,
                "held-out se3_vf_loss": _short(last.get("se3_vf_loss")),
                "seconds a step": _short(seconds),
            }
        )
    show_rows(rows)
    judged = judge_all(result)
    verdicts = [
        {"claim": f"({one.rule.letter}) {one.rule.claim}", "arm": one.arm, "verdict": one.word}
        for one in judged
        if one.steps
    ]
    if verdicts:
        show_rows(verdicts)
    else:
        terminal().print(f"no claim is judged: {judged[0].reason}", markup=False, highlight=False)
    lost = sum(run["samples_not_written"] for run in result["runs"])
    if lost:
        words = "not finite; the runs' samples/*/not_written.txt names them"
        terminal().print(f"samples not written: {lost} ({words})", markup=False, highlight=False)


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
