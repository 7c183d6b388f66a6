"""`iga verify`: the checks of a preset, a layer or an overlap function as a command."""

import math
from pathlib import Path
from typing import Annotated

import typer

from iga.cli.terminal import (
    Bars,
    Context,
    Reports,
    check_folder,
    check_names,
    check_outputs,
    finish,
    misuse,
    say,
    typed,
    whole_numbers,
)

__all__ = ["verify"]


def verify(
    context: Context,
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
        typer.Option(help="Numbers of points P to examine, of a layer.", show_default="1,2,3,4,7,8,16,32,64"),
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
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds that a check of TARGET may take, and loading it.",
            show_default="120; ci: 600; nightly: 3600",
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Write the inputs of each broken check's worst example to this folder: CHECK/case.json."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report to this file too.")] = None,
    reports: Reports = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print every check's examples, worst example and note too.")
    ] = False,
) -> None:
    """Check the numerical invariants of a preset, of a layer or of an overlap function of yours.

    The contract is the product's: sigma_min 0.03 nm, any geometry with sigma up to 150 nm, any P, unless a target
    claims less. A target runs in a process of its own: one that ends it, fills the memory or hangs is broken, and the
    run goes on. Ends 0 if all hold, 1 if any does not, 2 on misuse.
    """
    if target is not None and preset is not None:
        raise typer.BadParameter("a preset and a target exclude each other", param_hint="--preset")
    if target is None and kind is not None:
        raise typer.BadParameter("says what a TARGET is, and none is given", param_hint="--kind")
    if timeout is not None and target is None:
        raise typer.BadParameter("is for a TARGET, and none is given", param_hint="--timeout")
    if timeout is not None and not 0 < timeout < math.inf:
        raise typer.BadParameter(f"must be above 0, got {timeout}", param_hint="--timeout")
    check_outputs(reports, json=json)
    check_folder(save=save)
    check_names(structures=structures or [])
    counts = None if points is None else whole_numbers(points)
    from iga.report.verify import blocks, brief
    from iga.testing.gate.parent import judge
    from iga.testing.gate.start import side_by_side
    from iga.testing.reproduce import add_commands
    from iga.testing.source import source_of, source_of_preset
    from iga.testing.targets import own_layer
    from iga.testing.verify import prepare

    options = {
        "structures": structures,
        "points": counts,
        "sigma_min": sigma_min,
        "digits": digits,
        "profile": profile,
        "seed": seed,
        "only": only,
        "implementation": implementation,
        "save": None if save is None else str(save),
    }
    printed, stopped = list[str](), list[int]()
    chosen = None if target is not None else "bounded" if preset is None else preset
    if chosen is not None and (only or not side_by_side()):  # two processes would only take longer
        with misuse():
            plan = prepare(own_layer(chosen), **options)
        with Bars() as on_progress:
            report = plan.run(on_progress)
    else:
        limits = {"kind": kind, "timeout": timeout}
        with misuse(), Bars() as on_progress:
            report = judge(
                target,
                preset=chosen,
                **limits,
                on_progress=on_progress,
                on_output=printed.append,
                on_stop=stopped.append,
                **options,
            )
    for line in printed:
        say(f"the target printed: {line}" if chosen is None else line)
    document = report.document(context.obj)
    own = typed(context, "only", "seed", "structures", "json", "save", "reports", "verbose")
    add_commands(document, own, structures or [])
    document["source"] = source_of_preset(str(chosen)) if target is None else source_of(target)
    try:
        finish(document, blocks(document) if verbose else brief(document), json, reports)
    except typer.Exit:
        if stopped:
            raise typer.Exit(128 + stopped[0]) from None
        raise
