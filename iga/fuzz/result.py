"""The result of a campaign as a document."""

from typing import Any

from iga._runtime import environment
from iga.fuzz.campaign import Campaign
from iga.report.documents import Fuzz
from iga.report.schema import SCHEMA

__all__ = ["document"]


def document(campaign: Campaign, command: str) -> Fuzz:
    """The document; exit code 1 if anything was found, or is suspected and was not judged."""
    counts = [stream.record["counts"] for stream in campaign.streams]
    covered = [stream.record["covered"] for stream in campaign.streams if stream.record["covered"] is not None]
    engines: dict[str, list[int]] = {}
    for one in counts:
        for name, rounds in one["rounds"].items():
            known = engines.setdefault(name, [0, 0])
            known[0] += rounds
            known[1] += one["engines"][name]
    sites: dict[str, list[int]] = {}
    for one in covered:
        for name, (true, false) in one["sides"].items():
            known = sites.setdefault(name, [0, 0])
            known[0] += true
            known[1] += false
    return {
        "schema": SCHEMA,
        "document": "fuzz",
        "command": command,
        "target": campaign.plan.target,
        "kind": str(campaign.facts.get("kind", "unknown")),
        "exit_code": int(bool(campaign.findings) or any(one["verdict"] == "not judged" for one in campaign.doubtful)),
        "seconds": campaign.seconds,
        "environment": environment(campaign.plan.options["seed"]),
        "examples": campaign.examples,
        "streams": [f"{stream.index}/{campaign.plan.count}" for stream in campaign.streams],
        "findings": _plain(campaign.findings),
        "doubtful": _plain(campaign.doubtful),
        "worst": [{"check": name, "worst": _finite(value)} for name, value in campaign.worst.items()],
        "engines": [{"name": name, "rounds": one[0], "examples": one[1]} for name, one in engines.items()],
        "sites": [{"place": name, "true": one[0], "false": one[1]} for name, one in sites.items()],
        "cells": max((one["cells"] for one in covered), default=0),
        "of_cells": max((one["of_cells"] for one in covered), default=0),
        "blind": sorted({words for one in covered for words in one["blind"]}),
    }


def _finite(value: float) -> float | None:
    return value if value < float("inf") else None


def _plain(found: list[dict[str, Any]]) -> Any:
    return [dict(one) for one in found]
