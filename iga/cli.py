"""The command line. Exit codes: 0 all holds, 1 something does not, 2 misuse (one clear line, no traceback).

Nothing heavy is imported before a command runs: `iga --help` never waits for torch.
"""

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from iga._guard import guarded
from iga._terminal import (
    Bars,
    CommandError,
    check_names,
    check_outputs,
    complain,
    kept,
    misuse,
    print_rows,
    say,
    whole_numbers,
)
from iga._terminal import console as terminal
from iga.cli_compare import compare
from iga.cli_warm import warm

__all__ = ["app", "main"]

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

_command_line = "iga"  # as it was typed, for the report


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Invariant Gaussian Attention: verify a layer's numerical invariants, print its bounds, draw the picture."""
    if version:
        from iga import __version__

        print(f"iga {__version__}")
        raise typer.Exit(0)


@app.command()
def verify(
    target: Annotated[
        str | None,
        typer.Argument(
            help="What to check: package.module:attribute or path/to/file.py:attribute. Without it: a preset."
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="What TARGET is, unless it says so itself (iga.testing.target): overlap or layer."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="pre_fix, logdet_clamp, sigma_floor, soft_start or bounded.", show_default="bounded"),
    ] = None,
    structures: Annotated[
        list[str] | None,
        typer.Option(
            help="A PDB or mmCIF file (.gz or not), a folder, or a quoted glob; repeats. "
            "Without it: synthetic structures drawn from the seed."
        ),
    ] = None,
    points: Annotated[
        str | None,
        typer.Option(help="Numbers of points P to examine, of a layer.", show_default="1,2,4,8,16,32,64"),
    ] = None,
    sigma_min: Annotated[
        float | None,
        typer.Option(
            help="Floor of the contract, nm, and of the presets that have the product's floor.",
            show_default="0.03, or what TARGET claims",
        ),
    ] = None,
    digits: Annotated[
        int, typer.Option(help="Significant digits asked for: what rounded inputs leave open by more is not judged.")
    ] = 2,
    profile: Annotated[str, typer.Option(help="How much to examine: fast, ci or nightly.")] = "fast",
    only: Annotated[list[str] | None, typer.Option(help="Only this invariant; repeats.")] = None,
    implementation: Annotated[
        str | None,
        typer.Option(
            help="Which implementation of a preset's layer to judge: reference, cpu or auto.",
            show_default="reference in the fast profile, else auto",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of parameters, features and synthetic structures.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the report to this file too.")] = None,
) -> None:
    """Check the numerical invariants of a preset, of a layer or of an overlap function of yours.

    The contract is the product's: sigma_min 0.03 nm, any geometry with sigma up to 150 nm, any P, unless a target
    claims less. Ends 0 if all hold, 1 if any does not, 2 on misuse.
    """
    if target is not None and preset is not None:
        raise typer.BadParameter("a preset and a target exclude each other", param_hint="--preset")
    if target is None and kind is not None:
        raise typer.BadParameter("says what a TARGET is, and none is given", param_hint="--kind")
    if target is not None and ":" not in target:
        expected = "expected package.module:attribute or path/to/file.py:attribute"
        raise typer.BadParameter(f"{target!r} names no target: {expected}", param_hint="TARGET")
    if preset is not None and ":" in preset:
        raise typer.BadParameter(f"unknown preset {preset!r}", param_hint="--preset")
    check_outputs(json=json)
    check_names(structures=structures or [])
    counts = None if points is None else whole_numbers(points)
    from iga.report import print_report, write_json
    from iga.testing.verify import prepare

    with misuse():
        plan = prepare(
            next((name for name in (target, preset) if name is not None), "bounded"),
            kind=kind,
            structures=structures,
            points=counts,
            sigma_min=sigma_min,
            digits=digits,
            profile=profile,
            seed=seed,
            only=only,
            implementation=implementation,
        )
    with Bars() as on_progress:
        report = plan.run(on_progress)
    with kept(json and partial(write_json, report, _command_line, json)):
        print_report(report, terminal(json))
    raise typer.Exit(report.exit_code)


@app.command()
def faults(
    json: Annotated[Path | None, typer.Option(help="Write the matrix to this file too.")] = None,
    profile: Annotated[str, typer.Option(help="Seeds of the clean targets: fast or ci 20, nightly 200.")] = "fast",
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
) -> None:
    """Prove that every check can fail: plant faults, and see which checks catch them.

    Prints the matrix fault by check, with the smallest fault that each check detects. Ends 0 only if each fault is
    caught, each check catches one, and the clean targets raise no alarm; 2 on misuse.
    """
    check_outputs(json=json)
    from iga.report import print_matrix, write_matrix
    from iga.testing.faults.matrix import measure_matrix

    with misuse(), Bars() as on_progress:
        matrix = measure_matrix(profile=profile, seed=seed, on_progress=on_progress)
    with kept(json and partial(write_matrix, matrix, _command_line, json)):
        print_matrix(matrix, terminal(json))
    raise typer.Exit(matrix.exit_code)


@app.command()
def bounds(
    sigma_min: Annotated[float, typer.Option(help="Floor of every sigma, nm.")] = 0.03,
    sigma_max: Annotated[float, typer.Option(help="Largest sigma, nm.")] = 150.0,
    extent: Annotated[float, typer.Option(help="Largest distance of two anchors, nm.")] = 20.0,
    points: Annotated[int, typer.Option(help="Points P per head.")] = 8,
    cap: Annotated[float | None, typer.Option(help="Cap c of the geometry logit, if any.")] = None,
    residues: Annotated[int, typer.Option(help="Residues N of a row, for the saturation bound.")] = 256,
) -> None:
    """Print the proven bounds.

    For given floors, extent, P and cap: every bound, whether it fits in fp16, whether softmax can saturate, and how
    many digits float32 leaves.
    """
    from iga.bounds import bounds_summary
    from iga.bounds.summary import check_range

    with misuse():
        rows = bounds_summary(sigma_min, sigma_max, extent, points, cap, keys=residues)
        check_range(sigma_min, sigma_max, extent)
    print_rows(rows)


@app.command()
def picture(
    output: Annotated[Path, typer.Argument(help="PNG or SVG file to write.")] = Path("presets.png"),
    seed: Annotated[int, typer.Option(help="Seed of parameters and synthetic structures.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the numbers behind the picture to this file too.")] = None,
) -> None:
    """Draw what the presets do.

    Lowest log_det and largest |geometry logit| as sigma_max grows from 0.3 to 150 nm, and growth with P.
    """
    check_outputs(OUTPUT=output, json=json)
    from iga.picture import draw, measure, write_numbers
    from iga.plots import check_plot

    with misuse():
        check_plot(output)
    with misuse(), Bars() as on_progress:
        data = measure(seed=seed, on_progress=on_progress)
    with kept(json and partial(write_numbers, data, json), partial(draw, data, output)):
        pass
    say(f"wrote {output}")


@app.command()
def bench(
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
) -> None:
    """Time the attention beside its peers, each judged against float64 first.

    Repeats are interleaved; the table gives medians with intervals, pair-points a second, peak memory, the share of the
    machine's own measured limit, ratios, and how time grows with P and N. Ends 1 if an implementation is wrong or
    slower than the baseline allows, 2 on misuse.
    """
    check_outputs(json=json, plot=plot)
    if not max_ratio > 0:
        raise typer.BadParameter(f"must be above 0, got {max_ratio}", param_hint="--max-ratio")
    counts = None if points is None else whole_numbers(points)
    lengths = None if residues is None else whole_numbers(residues, "--residues")
    named = None if implementations is None else [name.strip() for name in implementations.split(",")]
    from iga.bench import baseline as earlier
    from iga.bench.implementations import YARDSTICK
    from iga.bench.plot import draw
    from iga.bench.report import describe, print_changes, print_result, write_json
    from iga.bench.run import DEFAULTS, Options, plan, run
    from iga.plots import check_plot

    with misuse():
        then = None if baseline is None else earlier.read_result(baseline)
        if then is not None:
            named = [*(named or DEFAULTS.get(device, ())), YARDSTICK]
        options = Options(
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
        planned = plan(options)
        if plot is not None:
            check_plot(plot)
        if then is not None:
            earlier.check_common(planned.cases, then)
    with Bars() as on_progress:
        result = run(planned, describe(), on_progress=on_progress)
    console = terminal(json)
    timed = [row["median_ms"] is not None for row in result["rows"]]
    code = int(not all(timed))
    drawing = partial(draw, result, plot) if plot is not None and any(timed) else None
    with kept(json and partial(write_json, result, json), drawing):
        print_result(result, console)
        changes = [] if then is None else earlier.compare(result, then)
        print_changes(changes, max_ratio, console)
    if any(change.ratio > max_ratio for change in changes):
        code = 1
    raise typer.Exit(code)


app.command()(compare)
app.command()(warm)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    global _command_line
    given = sys.argv[1:] if arguments is None else arguments
    _command_line = shlex.join(["iga", *given])
    sys.exit(guarded(partial(_run, given)))


def _run(arguments: list[str]) -> int:
    try:
        code = app(args=arguments, prog_name="iga", standalone_mode=False)
    except CommandError as error:
        if not arguments:
            say(cast(Any, error).format_message())  # the help
            return 2
        complain(cast(Any, error).format_message())
        return 130 if getattr(error, "exit_code", 2) == 130 else 2
    except typer.Abort:
        code = 130
    if code == 130 and arguments[:1] != ["compare"]:  # Ctrl-C, of which typer makes a code; compare says more
        complain("interrupted")
    return code if isinstance(code, int) else 0
