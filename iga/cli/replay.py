"""`iga replay`: a call that crossed a limit in training, run alone."""

import math
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from iga.cli.terminal import Context, Reports, check_outputs, finish, misuse

__all__ = ["replay"]


def replay(
    context: Context,
    folder: Annotated[Path, typer.Argument(help="A folder that iga.watch wrote.")],
    target: Annotated[
        str | None,
        typer.Option(help="What makes a layer that is not this package's: file.py:factory, or package.module:factory."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the limits, places and metrics to this file too.")] = None,
    reports: Reports = None,
) -> None:
    """Run a call alone that crossed a limit while iga.watch looked at it.

    Shows the limits it crossed, then and now, with the sample, head, point, query and key that did it, and the metrics
    of the call. A layer that is not this package's is made by --target, a function without arguments, whose file also
    imports the classes of the layer's arguments; its parameters and inputs come from the folder, read from JSON and
    safetensors alone. Ends 1 while a limit is crossed, 0 if none is, 2 on misuse or for a folder that is damaged.
    """
    check_outputs(reports, json=json)
    from iga.recording.folder import read
    from iga.recording.replay import replayed
    from iga.report.replay import blocks
    from iga.testing.targets import load_target

    started = time.perf_counter()
    factory: Any = None
    classes: dict[str, type] = {}
    with misuse():
        record, tensors = read(folder)
        if target is not None:
            loaded = load_target(target, kind="layer")
            factory, classes = loaded.function, _classes(target)
        found = replayed(record, tensors, factory, classes)
    document = _document(record, found, context.obj, time.perf_counter() - started)
    finish(document, blocks(document), json, reports)


def _classes(target: str) -> dict[str, type]:
    """The classes that the target's file has by name."""
    place = target.rpartition(":")[0]
    module = sys.modules[f"_iga_target_{Path(place).stem}" if place.endswith(".py") else place]
    return {one.__qualname__: one for one in vars(module).values() if isinstance(one, type)}


def _document(record: Any, found: Any, command: str, seconds: float) -> Any:
    """The document of `iga replay`."""
    from importlib.metadata import version

    import torch

    from iga._runtime import machine
    from iga.recording.limits import UNITS
    from iga.report.schema import SCHEMA

    here, layer = machine(), record["layer"]
    return {
        "schema": SCHEMA,
        "document": "replay",
        "command": command,
        "target": f"{layer['number']} ({layer['name'] or 'the model'}), {layer['kind']}",
        "exit_code": found.exit_code,
        "seconds": round(seconds, 3),
        "environment": {
            "device": record["device"] if torch.cuda.is_available() else "cpu",
            "platform": here["platform"],
            "date": here["date"],
            "versions": here["versions"] | {"safetensors": version("safetensors")},
            "recorded_versions": {name: str(version) for name, version in record["versions"].items()},
            "recorded_date": record["date"],
            "recorded_device": record["device"],
        },
        "step": record["step"],
        "rank": record["rank"],
        "crossed": [
            {
                "kind": one.kind,
                "unit": UNITS.get(one.kind, ""),
                "limit": one.limit,
                "then": _finite(one.then),
                "now": _finite(one.now),
                "crossed": one.crossed,
                "where": one.where,
                "names": list(one.names),
            }
            for one in found.verdicts
        ],
        "metrics": {name: _finite(value) for name, value in found.metrics.items()},
        "notes": list(found.notes),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
