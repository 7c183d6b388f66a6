"""`iga inspect`: one protein through a layer, as a command."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from iga.cli.terminal import (
    Bars,
    Context,
    Reports,
    check_folder,
    check_names,
    check_outputs,
    finish,
    kept,
    misuse,
    whole_numbers,
)

__all__ = ["inspect"]


def inspect(
    context: Context,
    structures: Annotated[
        list[str], typer.Argument(help="PDB or mmCIF files (.gz or not), folders, or quoted globs.", show_default=False)
    ],
    preset: Annotated[
        str | None,
        typer.Option(help="pre_fix, logdet_clamp, sigma_floor, soft_start or bounded.", show_default="bounded"),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="A layer of yours: file.py:attribute or package.module:attribute; what it shows is shown."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Parameters: .safetensors, or a file of torch, of which tensors alone are read."),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Which of the checkpoint's layers, by the name before its parameters'.")
    ] = None,
    points: Annotated[
        str,
        typer.Option(
            help="Numbers of points P: the layer has the first (a checkpoint's has its own); growth is shown over all."
        ),
    ] = "8,1,2,4,16,32,64",
    residues: Annotated[int, typer.Option(help="Most residues that go through the layer; more are sampled.")] = 192,
    seed: Annotated[int, typer.Option(help="Seed of parameters, features and samples.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Write each structure's Gaussians to this folder, as PDB with ANISOU and as mmCIF."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all numbers to this file too.")] = None,
    reports: Reports = None,
) -> None:
    """Look at proteins as a layer sees them.

    Shows their Gaussians, sigma, kappa, dist_sq, log_det and logits beside their bounds, the attention of each head
    beside the contact map, saturated rows, growth with P, and the residues and pairs that drive the extremes. Features
    are drawn from the seed. Ends 0 if every number lies within its bound, 1 if one does not or none has one, 2 on
    misuse.
    """
    if target is not None and preset is not None:
        raise typer.BadParameter("a preset and a target exclude each other", param_hint="--preset")
    if layer is not None and checkpoint is None:
        raise typer.BadParameter("says which layer of a --checkpoint, and none is given", param_hint="--layer")
    if not 2 <= residues <= 2048:
        raise typer.BadParameter(f"must be from 2 to 2048, got {residues}", param_hint="--residues")
    check_outputs(reports, json=json)
    check_folder(out=out)
    check_names(structures=structures)
    counts = whole_numbers(points)
    from iga.inspection.files import write_files
    from iga.inspection.run import document_of, inspected
    from iga.report.inspect import blocks
    from iga.testing.source import source_of, source_of_preset

    started = time.perf_counter()
    with misuse(), Bars() as on_progress:
        found = inspected(
            structures,
            preset=preset or "bounded",
            target=target,
            checkpoint=checkpoint,
            layer=layer,
            points=counts,
            residues=residues,
            seed=seed,
            on_progress=on_progress,
        )
    with kept(out and (lambda: write_files(found, out))):
        pass
    document: Any = document_of(found, context.obj, seed, time.perf_counter() - started)
    document["source"] = source_of_preset(preset or "bounded") if target is None else source_of(target)
    finish(document, blocks(document), json, reports)
