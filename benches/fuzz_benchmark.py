"""Corners that `iga fuzz` finds, by engine, and what plain searches find of them.

    python benches/fuzz_benchmark.py [--kind layer] [--seconds 60] [--seeds 3] [--corners 0,5] [--searches all,climb]
                                     [--json FILE] [--page docs/fuzzing.md]

Each search has so many seconds of one core a corner (`iga.testing.faults.corners`, `layer_corners`). Beside all
engines, and each alone, for an overlap: uniform sampling, the pairs of `iga.search.pairs` in batches of 10⁵ judged by
`accuracy` and `gradient_values`; and Hypothesis, the strategy `gaussian_pairs` and pairs of any numbers, with
`target()` on the value over its limit. The last corner of overlaps is none: the function is right, and what counts is
how near to their limits each search drives these two checks. With --json FILE each search is kept as it ends, and the
same command goes on from what is there.
"""

import argparse
import contextlib
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import hypothesis
import torch
from hypothesis import strategies as st

from iga._files import write_text
from iga._runtime import machine
from iga.fuzz.layer import ENGINES as LAYER_ENGINES
from iga.fuzz.layer import LayerStream
from iga.fuzz.objectives import judge_pairs
from iga.fuzz.overlap import ENGINES, OverlapStream
from iga.overlap import gaussian_overlap
from iga.presets import preset
from iga.search.pairs import Domain, Pairs, decode, degenerate_pairs
from iga.testing.checks import checks_of
from iga.testing.contract import PROFILES, Contract
from iga.testing.faults import Fault
from iga.testing.faults.corners import CORNERS
from iga.testing.faults.layer_corners import LAYER_CORNERS
from iga.testing.layer.subject import Subject
from iga.testing.overlap.subject import OverlapSubject
from iga.testing.strategies import GaussianPair, gaussian_pairs

CLEAN = OverlapSubject("iga", gaussian_overlap)
CHECKS = [checks_of("overlap")[name] for name in ("accuracy", "gradient_values")]
ROWS = [check for check in checks_of("overlap").values() if check.every == 1]
BATCH = 100_000
RIGHT = Fault("none", "right", lambda clean, size: clean, ())
LAYER = Subject("bounded", preset("bounded"), PROFILES["fast"])
FAULTS: dict[str, tuple[Fault, ...]] = {"overlap": (*CORNERS, RIGHT), "layer": tuple(LAYER_CORNERS)}
FIGURES = {"overlap": "figures", "layer": "layer figures"}
Found = tuple[float, str]  # seconds, and the check that broke
Search = Callable[[Fault, int, "Seen"], None]


class _Over(BaseException):
    """The time is up, or it is found."""


class Seen:
    """The record of a search in its seconds of this process: `found`, and the largest value over limit by check."""

    def __init__(self, seconds: float) -> None:
        self.start, self.seconds = time.process_time(), seconds
        self.found: Found | None = None
        self.worst: dict[str, float] = {}

    def __call__(self, ratios: Mapping[str, float], broken: str | None) -> None:
        """The search says what it saw, as often as it can. _Over where it is to end."""
        spent = time.process_time() - self.start
        if spent > self.seconds:
            raise _Over
        for check in CHECKS:
            self.worst[check.name] = max(self.worst.get(check.name, 0.0), ratios.get(check.name, 0.0))
        if broken:
            self.found = (spent, broken)
            raise _Over


def searched(engines: tuple[str, ...], *, layer: bool = False) -> Search:
    """The rounds of a stream with these engines; what it found is judged again before it counts."""

    def search(fault: Fault, seed: int, see: Seen) -> None:
        if layer:
            checks = list(checks_of("layer").values())
            stream = LayerStream(fault.planted(LAYER), Contract(), checks=checks, seed=seed, engines=engines)
        else:
            stream = OverlapStream(fault.planted(CLEAN), checks=ROWS, seed=seed, engines=engines)
        while True:
            outcome = stream.round()
            see(outcome.worst, None)
            for candidate in outcome.candidates:
                see({}, candidate.check if stream.judge(candidate).verdict == "broken" else None)

    return search


def sampled(fault: Fault, seed: int, see: Seen) -> None:
    """Batches of degenerate pairs, each a hundred thousand, a tenth of them for the gradients."""
    generator, subject = torch.Generator().manual_seed(seed), fault.planted(CLEAN)
    while True:
        genome = degenerate_pairs(BATCH, generator)
        for check, share in zip(CHECKS, (BATCH, BATCH // 10), strict=True):
            given = lambda dtype, share=share: decode(genome[:share], Domain(dtype=dtype))  # noqa: E731, B023
            found = judge_pairs([check], subject, given, share)[check.name]
            broken = check.name if found.finding.verdict == "broken" else None
            see({check.name: float(found.ratio.max())}, broken)


# A genome of `iga.search.pairs` as numbers that Hypothesis can climb: frame, axis, log10 of the angle, ln σ, log10 |δ|,
# signs, mean. Axes have nine digits: the square of a smaller one can underflow, and then it is none.
NUMBERS = st.tuples(
    *[st.floats(-math.pi, math.pi).map(lambda x: round(x, 9))] * 3,
    *[st.floats(-1.0, 1.0).map(lambda x: round(x, 9))] * 3,
    st.floats(-7.0, math.log10(math.pi)),
    *[st.floats(math.log(0.03), math.log(150.0))] * 6,
    *[st.floats(-9.0, 3.0)] * 3,
    *[st.sampled_from([1.0, -1.0])] * 3,
    *[st.floats(-1e3, 1e3)] * 3,
)


def _of_numbers(numbers: tuple[float, ...], dtype: torch.dtype) -> Pairs:
    pairs = decode(torch.tensor([numbers], dtype=torch.float64), Domain(dtype=dtype))
    return tuple(x[0] for x in pairs)  # pyright: ignore[reportReturnType] - six of them


def by_hypothesis(fault: Fault, seed: int, see: Seen) -> None:
    """@given of sixteen pairs, a tenth of them for the gradients, with target() on the largest value over its limit."""
    subject = fault.planted(CLEAN)

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=10**9,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.target],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(st.lists(st.one_of(gaussian_pairs(), NUMBERS), min_size=16, max_size=16), st.integers(0, 9))
    def look(drawn: list[GaussianPair | tuple[float, ...]], number: int) -> None:
        def pairs(dtype: torch.dtype) -> Pairs:
            each = [one.tensors if isinstance(one, GaussianPair) else _of_numbers(one, dtype) for one in drawn]
            return tuple(torch.stack(x).to(dtype) for x in zip(*each, strict=True))  # pyright: ignore[reportReturnType]

        check = CHECKS[number == 0]
        found = judge_pairs([check], subject, pairs, len(drawn))[check.name]
        ratio = float(found.ratio.max())
        hypothesis.target(min(ratio, 1e6), label=check.name)
        see({check.name: ratio}, check.name if found.finding.verdict == "broken" else None)

    look()


SEARCHES: dict[str, dict[str, Search]] = {
    "overlap": {
        "all": searched(ENGINES),
        **{engine: searched((engine,)) for engine in ENGINES},
        "uniform": sampled,
        "hypothesis": by_hypothesis,
    },
    "layer": {
        "all": searched(LAYER_ENGINES, layer=True),
        **{engine: searched((engine,), layer=True) for engine in LAYER_ENGINES},
    },
}


def page(document: dict[str, Any]) -> str:
    """The figures as a table: found of how many seeds, median seconds, and by which checks."""
    names, seeds = document["searches"], document["seeds"]
    whole = [row for row in document["rows"] if all(len(row["found"].get(name, [])) == seeds for name in names)]
    rows = [row for row in whole if "worst" not in row]
    lines = [
        f"`{document['command']}`, on {document['date']}, {document['machine']['cpu']}: of one core "
        f"{document['seconds']:g} s each, {document['seeds']} seeds; found, and the median of the seconds to it.",
        "",
        "| corner | " + " | ".join(names) + " | by |",
        "| --- |" + " --- |" * (len(names) + 1),
    ]
    for row in rows:
        cells, checks = [], []
        for name in names:
            times = row["found"].get(name, [])
            met = [one[0] for one in times if one is not None]
            checks += [one[1] for one in times if one is not None]
            cells.append(f"{len(met)}/{len(times)}" + (f", {statistics.median(met):.1f} s" if met else ""))
        words = f"{row['kind']}: {row['corner']}".replace("|", "\\|")
        by = ", ".join(f"`{name}`" for name in dict.fromkeys(checks))
        lines.append(f"| {words} | " + " | ".join(cells) + f" | {by} |")
    once = {n: sum(any(x is not None for x in row["found"].get(n, [])) for row in rows) for n in names}
    counts = ", ".join(f"{name} {once[name]} of {len(rows)}" for name in names)
    lines += ["", f"Corners found at least once: {counts}."]
    searches = {n: sum(len(row["found"].get(n, [])) for row in rows) for n in names}
    found = {n: sum(x is not None for row in rows for x in row["found"].get(n, [])) for n in names}
    counts = ", ".join(f"{name} {found[name]} of {searches[name]}" for name in names)
    lines += [f"Searches that found theirs: {counts}."]
    engines = [name for name in names if name in ENGINES] if document["kind"] == "overlap" else []
    if len(engines) == len(ENGINES):
        met = {
            n: {row["corner"] for row in rows if any(x is not None for x in row["found"].get(n, []))} for n in engines
        }
        alone = {n: met[n].difference(*(met[other] for other in engines if other != n)) for n in engines}
        words = [f"{n} {len(alone[n])}" + (f" ({'; '.join(sorted(alone[n]))})" if alone[n] else "") for n in engines]
        lines += ["", f"Found by one of the three engines alone, and by neither of the others: {', '.join(words)}."]
    measured = {row["corner"] for row in rows}
    left = [fault for fault in FAULTS[document["kind"]] if fault.name not in measured and fault is not RIGHT]
    if left:
        kinds = ", ".join(f"{fault.kind}: {fault.name}" for fault in left)
        lines += ["", f"Not measured in this run: {kinds}."]
    for row in whole:
        if "worst" in row:
            lines += ["", *_worst(names, row["worst"])]
    return "\n".join(lines) + "\n"


def _worst(names: list[str], worst: dict[str, list[dict[str, float]]]) -> list[str]:
    """The table of the largest values over their limits, medians of the seeds."""
    lines = [
        "Of the function that is right: the largest value over its limit that each search met, medians of the seeds.",
        "",
        "| check | " + " | ".join(names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    for check in CHECKS:
        cells = [f"{statistics.median(one[check.name] for one in worst[n]):.2f}" if n in worst else "" for n in names]
        lines.append(f"| `{check.name}` | " + " | ".join(cells) + " |")
    return lines


def begun(file: Path | None, facts: dict[str, Any]) -> dict[str, Any]:
    """What is in the file already, of the same facts; else a new document. SystemExit for a file of other facts."""
    if file is None or not file.exists():
        return facts | {"rows": []}
    known = json.loads(file.read_text(encoding="utf-8"))
    if any(known.get(name) != facts[name] for name in ("kind", "seconds", "seeds", "searches")):
        sys.exit(f"{file} is of another kind, other seconds, seeds or searches: name another file")
    return known


def main(arguments: list[str] | None = None) -> int:
    """Search, print the table, write what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kind", choices=tuple(SEARCHES), default="overlap")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--corners", help="numbers, with commas; all")
    parser.add_argument("--searches", help="names, with commas; all")
    parser.add_argument("--json", type=Path, help="keep each search in this file, and go on from what is there")
    parser.add_argument("--page", type=Path, help="write the table between <!-- figures --> and its end in this file")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    faults = FAULTS[chosen.kind]
    searches = SEARCHES[chosen.kind]
    names = list(searches) if chosen.searches is None else chosen.searches.split(",")
    corners = range(len(faults)) if chosen.corners is None else [int(x) for x in chosen.corners.split(",")]
    words = {"kind": chosen.kind, "seconds": f"{chosen.seconds:g}", "seeds": chosen.seeds, "searches": chosen.searches}
    options = " ".join(f"--{name} {value}" for name, value in words.items() if value is not None)
    facts = {
        "command": f"python benches/fuzz_benchmark.py {options}",
        "kind": chosen.kind,
        "date": date.today().isoformat(),
        "machine": machine(),
        "seconds": chosen.seconds,
        "seeds": chosen.seeds,
        "searches": names,
    }
    document = begun(chosen.json, facts)
    for number in corners:
        fault = faults[number]
        row = next((one for one in document["rows"] if one["corner"] == fault.name), None)
        if row is None:
            region = fault.region if chosen.kind == "layer" else fault.kind
            row = {"corner": fault.name, "kind": region, "share": fault.size, "found": {}}
            document["rows"].append(row)
        for name in names:
            known = row["found"].setdefault(name, [])
            for seed in range(len(known), chosen.seeds):
                seen = Seen(chosen.seconds)
                with contextlib.suppress(_Over):  # how a search ends: `seen` has what it came to
                    searches[name](fault, seed, seen)
                known.append(seen.found)
                if fault is RIGHT:
                    row.setdefault("worst", {}).setdefault(name, []).append(seen.worst)
                if chosen.json is not None:
                    write_text(chosen.json, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        sys.stderr.write(f"{number}: {row['kind']}: {fault.name}: {row['found']}\n")
    text = page(document)
    sys.stdout.write(text)
    if chosen.page is not None:
        mark = FIGURES[chosen.kind]
        first, last = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
        before, _, rest = chosen.page.read_text(encoding="utf-8").partition(first)
        write_text(chosen.page, f"{before}{first}\n{text}\n{last}{rest.partition(last)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
