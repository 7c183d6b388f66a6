"""Small documents of every command for tests of reports: real ones where that is quick, and damaged copies of them."""

import copy
import gzip
import json
from collections.abc import Callable
from functools import cache
from typing import Any

from helpers.scripts import ROOT
from helpers.sweeps import left, make_sweep
from iga import verify
from iga.bench.probe import Limit
from iga.bench.run import plan, run
from iga.inspection.layer import the_layer
from iga.inspection.protein import look
from iga.inspection.run import Found, document_of
from iga.structure.synthetic import synthetic_structures
from iga.testing.faults.matrix import Matrix, Row
from iga.testing.source import source_of

__all__ = ["EVIL", "documents", "everywhere", "short_comparison"]

# Markup of every format, a control character, half a surrogate pair, and what XML 1.0 has no place for.
EVIL = "<img src=x onerror=alert(1)>|`*[x](javascript:alert(1))]]>\x1b[2J\ud800\x00\"'&amp;{{ 7*7 }}"


def documents() -> dict[str, Any]:
    """A document of each kind, by a name; "red …" end 1, the others 0. Copies: a test may change them."""
    return copy.deepcopy(_made())


@cache
def _made() -> dict[str, Any]:
    function = "iga.overlap:gaussian_overlap"
    green: Any = verify(function, kind="overlap", only=["determinism", "accuracy"]).document("iga verify")
    green["source"] = source_of(function)
    red = copy.deepcopy(green)
    red["exit_code"], red["invariants"][1]["verdict"], red["invariants"][1]["worst"] = 1, "vacuous", None
    red["invariants"][0] |= {
        "verdict": "broken",
        "worst": 3.0,
        "budget": 1.0,
        "reproduce": "iga verify --only accuracy",
    }
    layer: Any = verify("pre_fix", points=[1, 8], only=["growth_with_points", "log_det_floor"]).document("iga verify")
    own: Any = verify("bounded", points=[1, 8], only=["growth_with_points", "log_det_floor"]).document("iga verify")
    seen = Row("layer", "one", "layer", 0.5, ("accuracy",), ("accuracy",), {"accuracy": 0.25}, ("transforms",))
    lost = Row("layer", "lost", "layer", 1.0, (), ("accuracy",), {})
    planned = plan(residues=[6, 8], heads=1, points=[1, 2], implementations=["dense", "ipa_sdpa"], memory=False)
    timed: Any = run(planned, seconds=lambda call: 2e-3 if call() else 2e-3, limit=Limit(1e9, "pretended"))
    wrong = copy.deepcopy(timed)
    wrong["exit_code"] = 1
    wrong["rows"][0] |= {"median_ms": None, "interval_ms": None, "mpairpoints_per_s": None, "error": None}
    return {
        "green verify": green,
        "red verify": red,
        "red layer": layer,
        "green layer": own,
        "red faults": Matrix([seen, lost], [("closed form", 3, "accuracy")], clean_runs=1).document("iga faults"),
        "green bench": timed,
        "red bench": wrong,
        "green compare": short_comparison(),
        "green sweep": make_sweep({"ipa": lambda seed: 1.5, "bounded": lambda seed: 1.4}, seeds=2),
        "red sweep": _short_sweep(),
        "red fuzz": _fuzz(green["environment"], found=True),
        "green fuzz": _fuzz(green["environment"], found=False),
        "red inspect": inspection("pre_fix"),
        "green inspect": inspection("bounded"),
        "red replay": _replay(crossed=True),
        "green replay": _replay(crossed=False),
    }


def _short_sweep() -> Any:
    """A sweep of which one run goes on, and one has not begun."""
    made = make_sweep({"ipa": lambda seed: 1.5, "bounded": lambda seed: None})
    made["runs"][0] |= {"status": "running", "left": left()}
    return made | {"exit_code": 1, "planned": len(made["runs"]) + 1}


def _replay(*, crossed: bool) -> dict[str, Any]:
    """As `iga replay` writes it; its own tests hold a real one to the type."""
    versions = {"iga": "0.1.0", "torch": "2.0"}
    place = {"device": "cpu", "platform": "Linux", "date": "2026-01-01", "recorded_date": "2026-01-01"}
    limit = {"kind": "log_det", "unit": "ln nm⁶", "limit": -18.96, "then": -39.5, "now": None, "crossed": crossed}
    return {
        **{"schema": 1, "document": "replay", "command": "iga replay step5-log_det", "target": "l0 (trunk), Layer"},
        **{"exit_code": int(crossed), "seconds": 0.5, "step": 5, "rank": 0, "notes": ["run on another device"]},
        "environment": {**place, "recorded_device": "cuda:0", "versions": versions, "recorded_versions": versions},
        "crossed": [limit | {"where": "log_det nan at sample 0, head 1", "names": ["log_det"]}],
        "metrics": {"log_det_min": None, "wmax_mean": 0.5},
    }


def inspection(preset: str) -> Any:
    """A small chain through a preset's layer."""
    layer = the_layer(None, preset, (2,), seed=0)
    structure = synthetic_structures(1, seed=3, lengths=(20, 24))[0]
    found = Found(layer, [(structure, look(layer, structure, 16, (1, 2), 0))], ["bad.pdb: no atoms"])
    return document_of(found, "iga inspect a.pdb", 0, 1.0)


def short_comparison() -> Any:
    """The first steps of a committed comparison's first run."""
    result = json.loads(gzip.decompress((ROOT / "benches/results/compare_small_fixed_plain.json.gz").read_bytes()))
    one = result["runs"][0]
    short = {"steps": {name: values[:2] for name, values in one["steps"].items()}, "held_out": one["held_out"][:1]}
    return {**result, "document": "compare", "exit_code": 0, "runs": [one | short]}


def _fuzz(environment: dict[str, Any], *, found: bool) -> dict[str, Any]:
    """As `iga fuzz` writes it; the fields are those of its type, which its own tests hold it to."""
    own = {name: environment[name] for name in environment if name not in ("profile", "implementation", "points")}
    own = {name: one for name, one in own.items() if not name.startswith("sigma") and name != "digits"}
    one = {
        **{"check": "accuracy", "verdict": "broken", "value": None, "limit": 1.0, "unit": "of the budget"},
        **{"where": "pair 0: sigma 1 1 1", "note": "", "engine": "climb", "seconds": 3.25, "examples": 1000},
        "inputs": "found/accuracy",
    }
    return {
        **{"schema": 1, "document": "fuzz", "command": "iga fuzz mine.py:overlap", "target": "mine.py:overlap"},
        **{"kind": "overlap", "exit_code": int(found), "seconds": 12.5, "environment": own, "examples": 123456},
        "streams": ["0/1"],
        "findings": [one] if found else [],
        "doubtful": [one | {"verdict": "ill-conditioned", "check": "score_laws"}],
        "worst": [{"check": "accuracy", "worst": None if found else 0.5}, {"check": "determinism", "worst": 0.0}],
        "engines": [{"name": "climb", "rounds": 3, "examples": 123456}],
        "sites": [{"place": "mine.py:7 lt", "true": 3, "false": 0}, {"place": "mine.py:9 gt", "true": 1, "false": 2}],
        **{"cells": 7, "of_cells": 1950, "blind": ["a numba kernel"], "source": {"file": "mine.py", "line": 3}},
    }


# Values that mean something to a reader of documents.
_KEPT = ("document", "verdict", "status", "bench", "direction", "size", "arm", "along", "gaussians", "label")


def everywhere(part: Any, change: Callable[[str], str], key: str = "") -> Any:
    """A copy in which every text that a user may have chosen is changed; free dictionaries' keys stay."""
    if isinstance(part, dict):
        return {name: everywhere(one, change, name) for name, one in part.items()}
    if isinstance(part, list):
        return [everywhere(one, change, key) for one in part]
    return change(part) if isinstance(part, str) and key not in _KEPT else part
