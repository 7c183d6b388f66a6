"""Corners that `iga fuzz` finds, by engine, and what plain searches find of them.

    python benches/fuzz_benchmark.py [--seconds 60] [--seeds 3] [--corners 0,5] [--json FILE] [--page docs/fuzzing.md]

Each search has so many seconds of one core a corner (`iga.testing.faults.corners`). Beside all three engines, and
each alone: uniform sampling, the pairs of `iga.search.pairs` in batches of 10⁵ judged by `accuracy` and
`gradient_values`; and Hypothesis, the strategies of this package with `target()` on the error over its budget.
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
from iga.fuzz.objectives import judge_pairs
from iga.fuzz.overlap import ENGINES, OverlapStream
from iga.overlap import gaussian_overlap
from iga.search.pairs import Domain, decode, degenerate_pairs
from iga.testing.checks import checks_of
from iga.testing.faults import Fault
from iga.testing.faults.corners import CORNERS
from iga.testing.overlap.subject import OverlapSubject

CLEAN = OverlapSubject("iga", gaussian_overlap)
CHECKS = [checks_of("overlap")[name] for name in ("accuracy", "gradient_values")]
ROWS = [check for check in checks_of("overlap").values() if check.every == 1]
BATCH = 100_000
FIGURES = "<!-- figures -->"


class _Over(BaseException):
    """The time is up, or it is found."""


def searched(engines: tuple[str, ...]) -> Callable[[Fault, int, float], float | None]:
    """The seconds that a stream with these engines takes to the first counterexample that is believed."""

    def search(fault: Fault, seed: int, seconds: float) -> float | None:
        stream, start = (
            OverlapStream(fault.planted(CLEAN), checks=ROWS, seed=seed, engines=engines),
            time.process_time(),
        )
        while (spent := time.process_time() - start) < seconds:
            for candidate in stream.round().candidates:
                if stream.judge(candidate).verdict == "broken":
                    return time.process_time() - start
        return None if spent >= seconds else spent

    return search


def sampled(fault: Fault, seed: int, seconds: float) -> float | None:
    """Batches of degenerate pairs, each a hundred thousand, a tenth of them for the gradients."""
    generator, subject, start = torch.Generator().manual_seed(seed), fault.planted(CLEAN), time.process_time()
    while time.process_time() - start < seconds:
        genome = degenerate_pairs(BATCH, generator)
        for check, share in zip(CHECKS, (BATCH, BATCH // 10), strict=True):
            given = lambda dtype, share=share: decode(genome[:share], Domain(dtype=dtype))  # noqa: E731, B023
            if judge_pairs([check], subject, given, share)[check.name].finding.verdict == "broken":
                return time.process_time() - start
    return None


def by_hypothesis(fault: Fault, seed: int, seconds: float) -> float | None:
    """@given of one pair, with target() on the largest value over its limit."""
    subject, start = fault.planted(CLEAN), time.process_time()

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
        worst = max(float(one.ratio.max()) for one in found.values())
        hypothesis.target(min(worst, 1e6))
        if worst > 1:
            raise _Over

    with contextlib.suppress(_Over):
        look()
    spent = time.process_time() - start
    return spent if spent < seconds else None


SEARCHES: dict[str, Callable[[Fault, int, float], float | None]] = {
    "all": searched(ENGINES),
    **{engine: searched((engine,)) for engine in ENGINES},
    "uniform": sampled,
    "hypothesis": by_hypothesis,
}


def page(document: dict[str, Any]) -> str:
    """The figures as a table: found of how many seeds, median seconds."""
    names = document["searches"]
    lines = [
        f"Measured on {document['date']}, {document['machine']['cpu']}, one core, {document['seconds']:g} s each, "
        f"{document['seeds']} seeds: found, and the median of the seconds to it.",
        "",
        "| corner | " + " | ".join(names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    for row in document["rows"]:
        cells = []
        for name in names:
            times = row["seconds"].get(name, [])
            met = [one for one in times if one is not None]
            cells.append(f"{len(met)}/{len(times)}" + (f", {statistics.median(met):.1f} s" if met else ""))
        words = row["corner"].replace("|", "\\|")
        lines.append(f"| {row['kind']}: {words} | " + " | ".join(cells) + " |")
    found = {n: sum(any(x is not None for x in row["seconds"].get(n, [])) for row in document["rows"]) for n in names}
    lines += [
        "",
        "Corners found at least once: " + ", ".join(f"{n} {found[n]} of {len(document['rows'])}" for n in names),
    ]
    return "\n".join(lines) + ".\n"


def main(arguments: list[str] | None = None) -> int:
    """Search, print the table, write what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--corners", help="numbers, with commas; all")
    parser.add_argument("--searches", default=",".join(SEARCHES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--page", type=Path, help="write the table behind <!-- figures --> in this file")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names = chosen.searches.split(",")
    corners = range(len(CORNERS)) if chosen.corners is None else [int(x) for x in chosen.corners.split(",")]
    rows = []
    for number in corners:
        fault = CORNERS[number]
        row: dict[str, Any] = {"corner": fault.name, "kind": fault.kind, "share": fault.size, "seconds": {}}
        for name in names:
            row["seconds"][name] = [SEARCHES[name](fault, seed, chosen.seconds) for seed in range(chosen.seeds)]
        rows.append(row)
        sys.stderr.write(f"{number}: {fault.kind}: {fault.name}: {row['seconds']}\n")
    document = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "seconds": chosen.seconds,
        "seeds": chosen.seeds,
        "searches": names,
        "rows": rows,
    }
    text = page(document)
    sys.stdout.write(text)
    if chosen.json is not None:
        write_text(chosen.json, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    if chosen.page is not None:
        before = chosen.page.read_text(encoding="utf-8").split(FIGURES)[0]
        write_text(chosen.page, before + FIGURES + "\n\n" + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
