"""Documents as SARIF 2.1.0, which code scanning shows beside the code: a run a document, a rule a check, a result an
outcome that fails.

What GitHub asks beyond the standard is kept too: each result has one location with a file and a line, each rule a help
text, each result a fingerprint that outlives its numbers, and each run a category of its own.
Source: OASIS, SARIF 2.1.0 with errata 01.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from iga._text import one_line
from iga.report.meaning import PAGE, anchor, meaning
from iga.report.outcomes import Outcome, outcomes, subject

__all__ = ["as_sarif"]

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
# The accused where a document names no file of its own: the list of them, in this package.
_LISTS = {
    "verify": "iga/presets.py",
    "inspect": "iga/presets.py",
    "replay": "iga/recording/limits.py",
    "fuzz": "iga/overlap.py",
    "faults": "iga/testing/checks.py",
    "bench": "iga/bench/implementations.py",
    "compare": "iga/experiment/settings.py",
    "sweep": "iga/experiment/cures.py",
}


def as_sarif(documents: Sequence[Any]) -> bytes:
    categories: set[str] = set()
    runs = [_run(document, categories) for document in documents]
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": runs}
    return (json.dumps(log, indent=2, allow_nan=False) + "\n").encode()


def _run(document: Any, categories: set[str]) -> dict[str, Any]:
    found = outcomes(document)
    rules = list(dict.fromkeys(one.rule for one in found))
    failing = [one for one in found if one.state == "fails"]
    version = document["environment"].get("iga") or document["environment"].get("versions", {}).get("iga", "")
    driver = {"name": "iga", "rules": [_rule(rule) for rule in rules]} | ({"version": version} if version else {})
    return {
        "tool": {"driver": driver},
        "automationDetails": {"id": _category(document, categories)},
        "invocations": [
            {
                "commandLine": one_line(document["command"]),
                "exitCode": document["exit_code"],
                "executionSuccessful": True,  # the tool's own run, whatever it found
            }
        ],
        "originalUriBaseIds": {"%SRCROOT%": {"description": {"text": "The folder that the run began in."}}},
        "results": [_result(document, one, rules) for one in failing],
    }


def _rule(rule: str) -> dict[str, Any]:
    text, more = meaning(rule), anchor(rule)
    return {
        "id": rule,
        "name": "".join(word.capitalize() for word in rule.split("_")),
        "shortDescription": {"text": text},
        "fullDescription": {"text": text},
        "help": {"text": f"{text} See {more}.", "markdown": f"{text} See `{more}`."},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["numerics"], "documentation": more or PAGE},
    }


def _result(document: Any, one: Outcome, rules: list[str]) -> dict[str, Any]:
    named = "" if one.name == one.rule else f"{one.name}: "
    parts = [
        f"{named}{one.verdict}: {one.says}",
        one.where and f"at {one.where}",
        one.command and f"alone: {one.command}",
    ]
    print_of = "\n".join((document["document"], subject(document), one.rule, one.name))
    return {
        "ruleId": one.rule,
        "ruleIndex": rules.index(one.rule),
        # a check that could not show anything is no proof of a fault
        "level": "warning" if one.verdict.startswith("vacuous") else "error",
        "message": {"text": one_line(f"{one.meaning} {'; '.join(filter(None, parts))}")},
        "locations": [{"physicalLocation": _place(document)}],
        "partialFingerprints": {"igaOutcome/v1": hashlib.sha256(print_of.encode("utf-8", "replace")).hexdigest()},
    }


def _place(document: Any) -> dict[str, Any]:
    """The accused's file and line; a file outside of the run's folder is named by itself."""
    source = document.get("source") or {"file": _LISTS[document["document"]], "line": None}
    file = source["file"]
    absolute = PurePosixPath(file).is_absolute() or file[1:2] == ":"
    base = {} if absolute else {"uriBaseId": "%SRCROOT%"}
    uri = ("file:///" + quote(file.lstrip("/"), errors="replace")) if absolute else quote(file, errors="replace")
    return {"artifactLocation": {"uri": uri, **base}, "region": {"startLine": source["line"] or 1}}


def _category(document: Any, known: set[str]) -> str:
    """A name of the run that stays the same from commit to commit, and that no other run of the file has."""
    words = quote(one_line(subject(document)), safe=":.,= ").replace(" ", "-")
    base = f"iga/{document['document']}/{words}"
    name, number = base, 1
    while name in known:
        number += 1
        name = f"{base}-{number}"
    known.add(name)
    return name + "/"
