"""The child: it loads the target, says what will be judged, and sends each finding as soon as it is there."""

import json
import os
import sys
import traceback
from dataclasses import asdict, replace
from typing import Any

from iga.testing.gate.channel import Channel
from iga.testing.run import Run
from iga.testing.targets import Unloadable, load_target, one_line
from iga.testing.verify import prepare

__all__ = ["main", "serve"]


def serve(channel: Channel, options: dict[str, Any], done: list[str], changes: dict[str, tuple[int, str]]) -> None:
    """Prepare a run with `options` (those of `prepare`; `target` is a place, "file.py:name"), and send what it finds by
    the checks that are not `done`. `changes` are those of the process that an earlier child saw."""
    try:
        plan = prepare(load_target(options.pop("target"), kind=options["kind"]), **options)
    except Unloadable as error:
        channel.send(unloadable=str(error))
        return
    except (ValueError, OSError) as error:
        channel.send(misuse=_words(error))
        return
    channel.send(plan=_facts(plan))
    plan.watch.changes.update(changes)
    rest = replace(plan, checks=[check for check in plan.checks if check.name not in done])
    progress = lambda what, now, total: channel.send(progress=[what, now, total])  # noqa: E731
    for finding in rest.findings(progress, lambda names: channel.send(start=names)):
        channel.send(changes=plan.watch.changes)
        channel.send(finding=vars(finding))
    channel.send(end=rest.records)


def _facts(plan: Run) -> dict[str, Any]:
    """What the report says beside the findings."""
    return {
        "name": plan.name,
        "kind": plan.kind,
        "checks": [[check.name, check.unit] for check in plan.checks],
        "skipped": plan.skipped,
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


def main(descriptor: int, request: str) -> None:
    """Serve the request, and leave the process whatever comes: no atexit, no thread, no frame above has a say."""
    channel = Channel(descriptor)
    try:
        serve(channel, **json.loads(request))
    except BaseException as error:  # of the accused, or of the suite in what the accused made of the process
        traceback.print_exc()
        channel.send(ended=one_line(error))
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(0)
