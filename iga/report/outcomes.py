"""The outcomes of a document: each thing that it judges, in the same words for every format. Nothing is judged anew.

A document whose exit code is not 0 has at least one outcome that fails, and one whose code is 0 has none.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from iga.report.bench import digits
from iga.report.documents import Bench, Compare, Faults, Fuzz, Verify
from iga.report.inspected import Inspect
from iga.report.meaning import anchor, meaning
from iga.report.replayed import Replay
from iga.report.swept import Sweep
from iga.report.verify import PASSING, verdict

__all__ = ["Outcome", "outcomes", "subject", "title"]

State = Literal["passes", "fails", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """One judgement: `rule` is the check, or what else was judged (`iga.report.meaning`), and `name` of what.

    says     the numbers, or the reason, in a line
    where    the worst example, if there is one
    command  shows it alone; empty where none does
    """

    rule: str
    name: str
    state: State
    verdict: str
    says: str = ""
    where: str = ""
    command: str = ""

    @property
    def meaning(self) -> str:
        return meaning(self.rule)

    @property
    def anchor(self) -> str:
        return anchor(self.rule)


def outcomes(document: Any) -> list[Outcome]:
    """All of them, in the document's order."""
    made = _MAKERS[document["document"]](document)
    if document["exit_code"] and not any(one.state == "fails" for one in made):
        says = f"the run ended {document['exit_code']}, and judged nothing that says why"
        made.append(Outcome("judged", "exit code", "fails", "nothing judged", says))
    return made


def subject(document: Any) -> str:
    """What was judged, in few words."""
    match document["document"]:
        case "verify" | "fuzz" | "inspect" | "replay":
            return document["target"]
        case "faults":
            return f"the checks, profile {document['profile']}"
        case "bench":
            return document["environment"]["device"]
        case _:
            settings = document["settings"]
            return f"{settings.get('size', '')} {settings.get('steps', '')} steps".strip()


def title(document: Any) -> str:
    """The command and what it judged."""
    return f"{document['document']}: {subject(document)}"


def _verify(document: Verify) -> list[Outcome]:
    made = []
    for row in document["invariants"]:
        words = verdict(row)
        state: State = "passes" if words == "holds" else "skipped" if words in PASSING else "fails"
        worst, budget = ("not finite" if x is None else f"{x:.4g}" for x in (row["worst"], row["budget"]))
        kind = "floor" if row.get("lower") else "budget"
        numbers = f"worst {worst}, {kind} {budget} ({row['unit']}), {row['examples']:,} examples"
        expected = row["expected_broken"]
        says = "; ".join(part for part in (numbers, row["note"], expected and f"expected: {expected}") if part)
        command = row.get("reproduce", "")
        made.append(Outcome(row["name"], row["name"], state, words, says, row["worst_example"], command))
    for one in document["not_applicable"]:
        made.append(Outcome(one["name"], one["name"], "skipped", "not applicable", one["reason"]))
    return made


def _faults(document: Faults) -> list[Outcome]:
    made = []
    for row in document["faults"]:
        name = f"{row['bench']}: {row['name']}"
        lost = sorted(set(row["expected"]) - set(row["caught_by"]))
        caught = f"caught by {', '.join(row['caught_by']) or 'none'}"
        if lost:
            made.append(Outcome("fault_is_caught", name, "fails", "missed", f"not seen by {', '.join(lost)}; {caught}"))
        elif row["missed"]:
            made.append(Outcome("fault_is_caught", name, "skipped", "missed, openly", row["missed"]))
        else:
            made.append(Outcome("fault_is_caught", name, "passes", "caught", caught))
    for check in document["invariants"]:
        rows = [row for row in document["faults"] if row["bench"] == check["bench"]]
        count = sum(check["name"] in row["caught_by"] for row in rows)
        name, says = f"{check['bench']}: {check['name']}", f"catches {count} of {len(rows)} faults"
        state: State = "passes" if count else "fails"
        made.append(Outcome("check_can_fail", name, state, "can fail" if count else "idle", says))
    for one in document["false_alarms"]:
        name, where = f"{one['target']}: {one['invariant']}", f"seed {one['seed']}"
        made.append(Outcome("no_false_alarm", name, "fails", "false alarm", "red for what is right", where))
    if document["clean_runs"] and not document["false_alarms"]:
        runs = f"{document['clean_runs']} clean runs"
        made.append(Outcome("no_false_alarm", "clean targets", "passes", "no alarm", runs))
    return made


def _fuzz(document: Fuzz) -> list[Outcome]:
    made = []
    for one in document["findings"]:
        value, limit = ("not finite" if x is None else f"{x:.4g}" for x in (one["value"], one["limit"]))
        numbers = f"value {value}, limit {limit} ({one['unit']}), after {one['seconds']:.0f} s by {one['engine']}"
        says = "; ".join(part for part in (numbers, one["note"], one["inputs"]) if part)
        words = ["iga", "fuzz", document["target"], "--kind", document["kind"], "--replay", one["inputs"]]
        command = shlex.join(words) if one["inputs"] else ""
        made.append(Outcome(one["check"], one["check"], "fails", one["verdict"], says, one["where"], command))
    broken = {one["check"] for one in document["findings"]}
    for one in document["worst"]:
        if one["check"] not in broken:
            worst = "not finite" if one["worst"] is None else f"{one['worst']:.3g}"
            says = f"nearest: {worst} of its limit"
            made.append(Outcome(one["check"], one["check"], "passes", "nothing found", says))
    for one in document["doubtful"]:
        waits = one["verdict"] == "not judged"  # suspected, and the time was over: nobody knows that it holds
        says = "the time was over before it was judged again" if waits else one["note"]
        state: State = "fails" if waits else "skipped"
        made.append(Outcome(one["check"], one["check"], state, one["verdict"], says, one["where"]))
    return made


def _bench(document: Bench) -> list[Outcome]:
    made = []
    for row in document["rows"]:
        size = f"N={row['residues']} H={row['heads']} P={row['points']}"
        name = f"{row['implementation']} {row['direction'].replace('_', ' + ')} {size}"
        error = "not finite" if row["error"] is None else f"{row['error']:.2g}"
        says = f"error {error}, budget {row['error_budget']:.2g}"
        if row["median_ms"] is None:
            made.append(Outcome("right_before_timed", name, "fails", "wrong", says))
        else:
            timed = f"{digits(row['median_ms'])} ms; {says}"
            made.append(Outcome("right_before_timed", name, "passes", "timed", timed))
    baseline = document["baseline"]
    for one in [] if baseline is None else baseline["changes"]:
        slow = one["ratio"] > (allowed := baseline["max_ratio"] if baseline is not None else 0.0)
        size = f"N={one['residues']} H={one['heads']} P={one['points']}"
        name = f"{one['implementation']} {one['direction'].replace('_', ' + ')} {size}"
        says = f"{one['ratio']:.2f} times the earlier time relative to the yardstick; allowed {allowed:g}"
        made.append(Outcome("not_slower", name, "fails" if slow else "passes", "slower" if slow else "ok", says))
    return made


def _compare(document: Compare) -> list[Outcome]:
    made = []
    for run in document["runs"]:
        name = f"{run['arm']}, seed {run['seed']}"
        says = f"{run['steps_done']} steps"
        if run["first_non_finite"] is not None:
            says += f"; {run['what_non_finite']} not finite at step {run['first_non_finite']}"
        state: State = "fails" if run["status"] == "running" else "passes"
        made.append(Outcome("run_is_made", name, state, "not made" if state == "fails" else run["status"], says))
    return made


def _sweep(document: Sweep) -> list[Outcome]:
    """A run each, and one for those of the grid that have not begun."""
    made = []
    for run in document["runs"]:
        dose = "" if run["dose"] is None else f" {run['dose']:g}"
        place = f"{run['stress']}{dose}, P {run['points']}, rate {run['learning_rate']:g}"
        says = f"{run['steps_done']} steps"
        if run["first_non_finite"] is not None:
            says += f"; {run['what_non_finite']} not finite at step {run['first_non_finite']}"
        state: State = "fails" if run["status"] == "running" else "passes"
        name = f"{run['arm']}, {place}, seed {run['seed']}"
        made.append(Outcome("run_is_made", name, state, "not made" if state == "fails" else run["status"], says))
    waiting = document["planned"] - len(document["runs"])
    if waiting:
        says = f"{waiting} of {document['planned']} runs have not begun; --resume goes on"
        made.append(Outcome("run_is_made", "the rest of the grid", "fails", "not made", says))
    return made


def _inspect(document: Inspect) -> list[Outcome]:
    made = []
    for protein in document["proteins"]:
        for row in protein["invariants"]:
            # of one protein: a bound that could not have been passed there says nothing of the layer
            state: State = {"holds": "passes", "broken": "fails"}.get(row["verdict"], "skipped")  # pyright: ignore[reportAssignmentType]
            worst, budget = ("not finite" if x is None else f"{x:.4g}" for x in (row["worst"], row["budget"]))
            kind = "floor" if row.get("lower") else "bound"
            says = f"worst {worst}, {kind} {budget} ({row['unit']}), {row['examples']:,} numbers"
            says = "; ".join(part for part in (says, row["note"]) if part)
            name = f"{PurePath(protein['path']).name}: {row['name']}"
            made.append(Outcome(row["name"], name, state, row["verdict"], says, row["worst_example"]))
    return made


def _replay(document: Replay) -> list[Outcome]:
    made = []
    for one in document["crossed"]:
        then, now = ("not finite" if x is None else f"{x:.6g}" for x in (one["then"], one["now"]))
        says = f"limit {one['limit']:.6g} {one['unit']}, recorded {then}, run alone {now}"
        says += f"; not finite: {', '.join(one['names'])}" if one["names"] else ""
        state: State = "fails" if one["crossed"] else "passes"
        verdict_now = "crossed" if one["crossed"] else "kept"
        made.append(Outcome(f"watched_{one['kind']}", one["kind"], state, verdict_now, says, one["where"]))
    return made


_MAKERS: dict[str, Callable[[Any], list[Outcome]]] = {
    "verify": _verify,
    "faults": _faults,
    "fuzz": _fuzz,
    "bench": _bench,
    "compare": _compare,
    "sweep": _sweep,
    "inspect": _inspect,
    "replay": _replay,
}
