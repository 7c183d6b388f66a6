"""The child: it loads the target, says what will be judged, and sends each finding as soon as it is there."""

import importlib
import json
import os
import sys
from dataclasses import asdict, replace
from typing import Any

from iga.testing.checks import LAST, share_of
from iga.testing.gate.channel import Channel
from iga.testing.run import Run
from iga.testing.state.watch import Watch
from iga.testing.targets import Unloadable, load_target, one_line, own_layer, place_of
from iga.testing.verify import prepare

__all__ = ["main", "serve"]


def serve(channel: Channel, options: dict[str, Any], done: list[str], share: int, watched: list[Any]) -> None:
    """Prepare a run, and send what it finds by the checks of its `share` that are not `done`.

    options  those of `prepare`; `target` is a place, "file.py:name", or None where there is a `preset`
    watched  what calls in other children did to their processes, for the last share; the others send theirs
    """
    place, name = options.pop("target"), options.pop("preset")
    try:
        plan = prepare(own_layer(name) if place is None else load_target(place, kind=options["kind"]), **options)
    except Unloadable as error:
        channel.send(unloadable=str(error))
        return
    except (ValueError, OSError) as error:
        channel.send(misuse=_words(error))
        return
    channel.send(plan=_facts(plan))
    watch = plan.watch if share == LAST else Watch()
    for calls, changes in watched:
        watch.add(calls, changes)
    mine = [check for check in plan.checks if share_of(check.name) == share and check.name not in done]
    rest = replace(plan, checks=mine, watch=watch)
    progress = lambda what, now, total: channel.send(progress=[what, now, total])  # noqa: E731
    for finding in rest.findings(progress, lambda names: channel.send(start=names)):
        channel.send(watch=[watch.calls, watch.changes])
        channel.send(finding=vars(finding))
    channel.send(end=rest.records)


def _facts(plan: Run) -> dict[str, Any]:
    """What the report says beside the findings."""
    return {
        "name": plan.name,
        "kind": plan.kind,
        "checks": [[check.name, check.unit] for check in plan.checks],
        "skipped": plan.skipped,
        "implementation": plan.implementation,
        "taps": plan.taps,
        "missing": plan.missing,
        "expected_broken": dict(plan.expected_broken),
        "contract": asdict(plan.contract),
        "records": plan.records,
    }


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def main(descriptor: int, request: str, number: int) -> None:
    """Serve the request, by the function that its key "serve" names if there is one, and leave the process whatever
    comes: no atexit, no thread, no frame above has a say. `number` is the one that its messages carry."""
    channel = Channel(descriptor, number)
    try:
        given = json.loads(request)
        module, _, name = given.pop("serve", f"{__name__}:serve").partition(":")
        getattr(importlib.import_module(module), name)(channel, **given)
    except BaseException as error:  # of the accused, or of the suite in what the accused made of the process
        channel.send(ended=one_line(error) + place_of(error))
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(0)
