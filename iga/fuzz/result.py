"""The result of a campaign, or of several that were joined, as a document."""

import math
from collections.abc import Sequence
from typing import Any

from iga._runtime import environment
from iga.fuzz.campaign import Campaign
from iga.fuzz.records import Fact, cells_met
from iga.report.documents import Fuzz
from iga.report.schema import SCHEMA

__all__ = ["document", "made_of"]


def document(campaign: Campaign, command: str, lacking: Sequence[str] = ()) -> Fuzz:
    """The document of `made_of`; the checks that no round came to are among what could not be followed.

    lacking  streams that were not searched, each with why: they are there too, and make the exit code 1
    """
    made = made_of(
        [stream.record for stream in campaign.streams],
        command=command,
        target=campaign.plan.target,
        kind=campaign.facts.get("kind"),
        seconds=campaign.seconds,
        seed=campaign.plan.options["seed"],
        streams=[f"{stream.index}/{campaign.plan.count}" for stream in campaign.streams],
        findings=campaign.findings,
        doubtful=campaign.doubtful,
    )
    come_to = {one["check"] for one in [*made["worst"], *made["findings"], *made["doubtful"]]}
    left = [name for name in campaign.facts.get("checks", ()) if name not in come_to]
    if left:
        made["blind"].append(f"checks that nothing was judged by: {', '.join(left)}")
    if campaign.facts and not campaign.facts["checks"]:
        made["blind"].append("none of the checks that were asked for applies to it")
    if lacking:
        made["blind"] += lacking
        made["exit_code"] = 1
    return made


def made_of(
    records: Sequence[Fact],
    *,
    command: str,
    target: str,
    kind: str | None,
    seconds: float,
    seed: int,
    streams: list[str],
    findings: Sequence[Fact],
    doubtful: Sequence[Fact],
) -> Fuzz:
    """The document of these streams' records: counts are added, sides and cells united.

    Exit code 1 if anything was found, or is suspected and was not judged, or where no check has judged anything.
    """
    counts = [record["counts"] for record in records]
    covered = [record["covered"] for record in records if record["covered"] is not None]
    engines: dict[str, list[int]] = {}
    worst: dict[str, float] = {}
    for one in counts:
        for name, rounds in one["rounds"].items():
            known = engines.setdefault(name, [0, 0])
            known[0] += rounds
            known[1] += one["engines"][name]
        for name, value in one["worst"].items():
            worst[name] = max(worst.get(name, 0.0), math.inf if value is None else value)
    sites: dict[str, list[int]] = {}
    for one in covered:
        for name, (true, false) in one["sides"].items():
            known = sites.setdefault(name, [0, 0])
            known[0] += true
            known[1] += false
    made: Fuzz = {
        "schema": SCHEMA,
        "document": "fuzz",
        "command": command,
        "target": target,
        "kind": kind or "unknown",
        "exit_code": int(bool(findings) or not worst or any(one["verdict"] == "not judged" for one in doubtful)),
        "seconds": seconds,
        "environment": environment(seed),
        "examples": sum(one["examples"] for one in counts),
        "streams": streams,
        "findings": _plain(findings),
        "doubtful": _plain(doubtful),
        "worst": [{"check": name, "worst": value if value < math.inf else None} for name, value in worst.items()],
        "engines": [{"name": name, "rounds": one[0], "examples": one[1]} for name, one in engines.items()],
        "sites": [{"place": name, "true": one[0], "false": one[1]} for name, one in sites.items()],
        "cells": cells_met(records),
        "of_cells": max((one["of_cells"] for one in covered), default=0),
        "blind": sorted({words for one in covered for words in one["blind"]}),
    }
    if kind == "layer":
        made["pair_points"] = sum(one.get("pair_points", 0) for one in counts)
    return made


def _plain(found: Sequence[Fact]) -> Any:
    return [dict(one) for one in found]
