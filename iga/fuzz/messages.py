"""Messages between a child and its campaign: candidates as JSON, every number exactly, nothing unpickled."""

import math
from typing import Any

from iga._typing import Tensor
from iga.fuzz.packed import packed, unpacked
from iga.fuzz.stream import Candidate
from iga.testing.cases_file import read_input, written
from iga.testing.latest import Call

__all__ = ["LOADING", "TO", "Lost", "candidate_of", "document_of", "finite", "process_verdict"]

LOADING = 60.0  # seconds for a child to load its target, beside those of the limit
LARGE = 10_000  # numbers from which on a tensor is sent as bytes
TO = "campaign"  # who reads what a child sends


class Lost(ValueError):
    """The target could not be loaded, or was misused: one line."""


def document_of(one: Candidate) -> dict[str, Any]:
    """A candidate as JSON, every number exactly."""
    return {
        "check": one.check,
        "ratio": finite(one.ratio),
        "where": one.where,
        "note": one.note,
        "engine": one.engine,
        "kind": one.call.kind,
        "layer": dict(one.call.layer),
        "inputs": {name: _document(x) for name, x in one.call.inputs.items()},
    }


def candidate_of(found: dict[str, Any]) -> Candidate:
    """The candidate of such JSON."""
    inputs = {name: _tensor(one, name) for name, one in found["inputs"].items()}
    call = Call(found["kind"], inputs, dict(found["layer"]))
    ratio = math.inf if found["ratio"] is None else float(found["ratio"])
    return Candidate(found["check"], call, ratio, found["where"], found["note"], found["engine"])


def _document(x: Tensor) -> Any:
    """As a case has it; what is large, as bytes, or a batch would not fit a message."""
    return written(x) if x.numel() <= LARGE else packed(x)


def _tensor(one: Any, name: str) -> Tensor:
    return unpacked(one, (None,) * len(one["shape"])) if "bytes" in one else read_input(one, name)


def finite(value: float) -> float | None:
    """None for what JSON has no number for."""
    return float(value) if math.isfinite(value) else None


def process_verdict(words: str) -> dict[str, Any]:
    """The verdict on what ended its process, as a judgement is sent."""
    return {"verdict": "broken", "value": None, "limit": None, "unit": "the process", "where": words, "note": ""}
