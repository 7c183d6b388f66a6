"""Corners that `iga fuzz` finds, by engine, and what plain searches find of them.

    python benches/fuzz_benchmark.py [--kind layer] [--seconds 60] [--seeds 3] [--corners 0,5] [--searches all,climb]
                                     [--json FILE] [--page docs/fuzzing.md]

Each search has so many seconds of one core a corner (`iga.testing.faults.corners`, `layer_corners`). Beside all
engines, and each alone, for an overlap: uniform sampling, the pairs of `iga.search.pairs` in batches of 10⁵ judged by
`accuracy` and `gradient_values`; and Hypothesis, the strategies of this package with `target()` on the error over its
budget. With --json FILE each search is kept as it ends, and the same command goes on from what is there.
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import hypothesis
import torch

from iga._files import write_text
from iga._runtime import machine
from iga.fuzz.layer import ENGINES as LAYER_ENGINES
from iga.fuzz.layer import LayerStream
from iga.fuzz.objectives import judge_pairs
from iga.fuzz.overlap import ENGINES, OverlapStream
from iga.overlap import gaussian_overlap
from iga.presets import preset
from iga.search.pairs import Domain, decode, degenerate_pairs
from iga.testing.checks import checks_of
from iga.testing.contract import PROFILES, Contract
from iga.testing.faults import Fault
from iga.testing.faults.corners import CORNERS
from iga.testing.faults.layer_corners import LAYER_CORNERS
from iga.testing.layer.subject import Subject
from iga.testing.overlap.subject import OverlapSubject

CLEAN = OverlapSubject("iga", gaussian_overlap)
CHECKS = [checks_of("overlap")[name] for name in ("accuracy", "gradient_values")]
ROWS = [check for check in checks_of("overlap").values() if check.every == 1]
BATCH = 100_000
LAYER = Subject("bounded", preset("bounded"), PROFILES["fast"])
FIGURES = {"overlap": "figures", "layer": "layer figures"}
Found = tuple[float, str]  # seconds, and the check that broke


class _Over(BaseException):
    """The time is up, or it is found."""


def searched(engines: tuple[str, ...], *, layer: bool = False) -> Callable[[Fault, int, float], Found | None]:
    """What a stream with these engines takes to the first counterexample that is believed."""

    def search(fault: Fault, seed: int, seconds: float) -> Found | None:
        start = time.process_time()
        if layer:
            checks = list(checks_of("layer").values())
            stream = LayerStream(fault.planted(LAYER), Contract(), checks=checks, seed=seed, engines=engines)
        else:
            stream = OverlapStream(fault.planted(CLEAN), checks=ROWS, seed=seed, engines=engines)
        while time.process_time() - start < seconds:
            for candidate in stream.round().candidates:
                broken = stream.judge(candidate).verdict == "broken"
                spent = time.process_time() - start
                if broken and spent <= seconds:
                    return spent, candidate.check
        return None

    return search


def sampled(fault: Fault, seed: int, seconds: float) -> Found | None:
    """Batches of degenerate pairs, each a hundred thousand, a tenth of them for the gradients."""
    generator, subject, start = torch.Generator().manual_seed(seed), fault.planted(CLEAN), time.process_time()
    while time.process_time() - start < seconds:
        genome = degenerate_pairs(BATCH, generator)
        for check, share in zip(CHECKS, (BATCH, BATCH // 10), strict=True):
            given = lambda dtype, share=share: decode(genome[:share], Domain(dtype=dtype))  # noqa: E731, B023
            if judge_pairs([check], subject, given, share)[check.name].finding.verdict == "broken":
                return time.process_time() - start, check.name
    return None


def by_hypothesis(fault: Fault, seed: int, seconds: float) -> Found | None:
    """@given of one pair, with target() on the largest value over its limit."""
    subject, start, broken = fault.planted(CLEAN), time.process_time(), []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=10**9,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.target],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(hypothesis.strategies.integers(0, 2**31), hypothesis.strategies.floats(0.0, 1.0))
    def look(number: int, share: float) -> None:
        if time.process_time() - start > seconds:
            raise _Over
        genome = degenerate_pairs(16, torch.Generator().manual_seed(number))
        found = judge_pairs(CHECKS, subject, lambda dtype: decode(genome, Domain(dtype=dtype)), len(genome))
        worst, name = max((float(one.ratio.max()), name) for name, one in found.items())
        hypothesis.target(min(worst, 1e6))
        if worst > 1:
            broken.append(name)
            raise _Over

    with contextlib.suppress(_Over):
        look()
    return (time.process_time() - start, broken[0]) if broken else None


SEARCHES: dict[str, dict[str, Callable[[Fault, int, float], Found | None]]] = {
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
    names, rows = document["searches"], document["rows"]
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
    return "\n".join([*lines, "", f"Corners found at least once: {counts}."]) + "\n"


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
    faults: tuple[Fault, ...] = tuple({"overlap": CORNERS, "layer": LAYER_CORNERS}[chosen.kind])
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
                known.append(searches[name](fault, seed, chosen.seconds))
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
