"""`iga replay`: a call that crossed a limit in training, run alone."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from iga.cli.terminal import console, misuse

__all__ = ["replay"]


def replay(
    folder: Annotated[Path, typer.Argument(help="A folder that iga.watch wrote.")],
    target: Annotated[
        str | None,
        typer.Option(help="What makes a layer that is not this package's: file.py:factory, or package.module:factory."),
    ] = None,
) -> None:
    """Run a call alone that crossed a limit while iga.watch looked at it.

    Shows the limits it crossed, then and now, with the sample, head, point, query and key that did it, and the metrics
    of the call. A layer that is not this package's is made by --target, a function without arguments, whose file also
    imports the classes of the layer's arguments; its parameters and inputs come from the folder, read from JSON and
    safetensors alone. Ends 1 while a limit is crossed, 0 if none is, 2 on misuse or for a folder that is damaged.
    """
    from iga.recording.folder import read
    from iga.recording.replay import replayed
    from iga.report.console import show
    from iga.testing.targets import load_target

    factory: Any = None
    classes: dict[str, type] = {}
    with misuse():
        record, tensors = read(folder)
        if target is not None:
            loaded = load_target(target, kind="layer")
            factory, classes = loaded.function, _classes(target)
        found = replayed(record, tensors, factory, classes)
    show(_blocks(record, found), console())
    raise typer.Exit(found.exit_code)


def _classes(target: str) -> dict[str, type]:
    """The classes that the target's file has by name."""
    place = target.rpartition(":")[0]
    module = sys.modules[f"_iga_target_{Path(place).stem}" if place.endswith(".py") else place]
    return {one.__qualname__: one for one in vars(module).values() if isinstance(one, type)}


def _blocks(record: Any, found: Any) -> list[Any]:
    from iga.recording.limits import UNITS
    from iga.report.document import Items, Paragraph, Table

    layer, versions = record["layer"], record["versions"]
    head = f"step {record['step']}, rank {record['rank']}, layer {layer['number']} ({layer['name'] or 'the model'}), "
    head += f"{layer['kind']}; torch {versions.get('torch')}, iga {versions.get('iga')}"
    rows, places = [], []
    for one in found.verdicts:
        now = "not shown" if one.now is None else f"{one.now:.6g}"
        verdict = "crossed" if one.crossed else "kept"
        rows.append((one.kind, verdict, f"{one.limit:.6g}", f"{one.then:.6g}", now, UNITS.get(one.kind, "")))
        names = f" (in {', '.join(one.names)})" if one.names else ""
        places.append(f"{one.kind}{names}: {one.where or 'nothing of it is shown'}")
    metrics = tuple((name, f"{value:.6g}") for name, value in found.metrics.items())
    return [
        Paragraph(head),
        Table(("limit", "now", "limit at", "recorded", "run alone", "unit"), tuple(rows), words=(0, 1, 5)),
        Items(tuple(places)),
        Table(("metric", "value"), metrics),
        *([Items(found.notes)] if found.notes else []),
    ]
