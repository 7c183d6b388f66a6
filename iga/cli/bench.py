"""`iga bench`: the attention and its peers, judged and timed, as a command."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from iga.cli.terminal import Bars, Context, Reports, check_outputs, finish, misuse, whole_numbers

__all__ = ["bench"]


def bench(
    context: Context,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    points: Annotated[
        str | None,
        typer.Option(help="Numbers of points P, with commas between.", show_default="1,2,4,8,16,32,64; quick: 1,4,16"),
    ] = None,
    residues: Annotated[
        str | None, typer.Option(help="Numbers of residues N, with commas between.", show_default="256; quick: 64,128")
    ] = None,
    heads: Annotated[int, typer.Option(help="Heads H.")] = 8,
    implementations: Annotated[
        str | None,
        typer.Option(
            help="Who is timed, names with commas between; the first is what the others are compared with.",
            show_default="ours, then all peers that are installed",
        ),
    ] = None,
    backward: Annotated[bool, typer.Option("--backward", help="Time forward and backward together too.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="At most a minute: small sizes, nothing that must be compiled.")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="Threads of the CPU.", show_default="torch's")] = None,
    repeats: Annotated[int | None, typer.Option(help="Repeats of each case.", show_default="21; quick: 7")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the inputs.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the result to this file too.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the times to this PNG, SVG or PDF file.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="An earlier result: end 1 if ours became slower relative to dense.")
    ] = None,
    max_ratio: Annotated[float, typer.Option(help="How much slower than the baseline is allowed.")] = 1.25,
    report: Reports = None,
) -> None:
    """Time the attention beside its peers, each judged against float64 first.

    Repeats are interleaved; the table gives medians with intervals, pair-points a second, peak memory, the share of the
    machine's own measured limit, ratios, and how time grows with P and N. Ends 1 if an implementation is wrong or
    slower than the baseline allows, 2 on misuse.
    """
    check_outputs(report, json=json, plot=plot)
    if not max_ratio > 0:
        raise typer.BadParameter(f"must be above 0, got {max_ratio}", param_hint="--max-ratio")
    counts = None if points is None else whole_numbers(points)
    lengths = None if residues is None else whole_numbers(residues, "--residues")
    named = None if implementations is None else [name.strip() for name in implementations.split(",")]
    from iga.bench.baseline import against, check_common, read_baseline
    from iga.bench.implementations import YARDSTICK
    from iga.bench.run import DEFAULTS, plan, run
    from iga.report.bench import blocks
    from iga.report.bench_plot import draw
    from iga.report.plots import check_file

    with misuse():
        then = None if baseline is None else read_baseline(baseline)
        if then is not None:
            named = [*(named or DEFAULTS.get(device, ())), YARDSTICK]
        planned = plan(
            device=device,
            points=counts,
            residues=lengths,
            heads=heads,
            implementations=named,
            backward=backward,
            quick=quick,
            threads=threads,
            repeats=repeats,
            seed=seed,
        )
        if plot is not None:
            check_file(plot)
        if then is not None:
            check_common(planned.cases, then)
    with Bars() as on_progress:
        document = run(planned, context.obj, on_progress=on_progress)
    if then is not None:
        document = against(document, then, max_ratio)
    timed = any(row["median_ms"] is not None for row in document["rows"])
    picture = partial(draw, document, plot) if plot is not None and timed else None
    finish(document, blocks(document), json, report, picture)
