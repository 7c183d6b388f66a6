"""`iga faults`: the matrix fault by check as a command."""

from pathlib import Path
from typing import Annotated

import typer

from iga.cli.terminal import Bars, Context, Reports, check_outputs, finish, misuse

__all__ = ["faults"]


def faults(
    context: Context,
    json: Annotated[Path | None, typer.Option(help="Write the matrix to this file too.")] = None,
    profile: Annotated[
        str, typer.Option(help="fast: a sample of the faults; ci: all; nightly: all, 200 seeds.")
    ] = "fast",
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
    report: Reports = None,
) -> None:
    """Prove that every check can fail: plant faults, and see which checks catch them.

    Prints the matrix fault by check, with the smallest fault that each check detects. The fast profile plants every
    check's own fault and others that the seed draws. Ends 0 only if each fault is caught, each check catches one, and
    the clean targets raise no alarm; 2 on misuse.
    """
    check_outputs(report, json=json)
    from iga.report.faults import blocks
    from iga.testing.faults.matrix import measure_matrix

    with misuse(), Bars() as on_progress:
        matrix = measure_matrix(profile=profile, seed=seed, on_progress=on_progress)
    document = matrix.document(context.obj)
    finish(document, blocks(document), json, report)
