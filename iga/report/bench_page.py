"""docs/benchmarks.md from results: `python -m iga.report.bench_page benches/results/bench_*.json > docs/benchmarks.md`.

Every number comes from a file; a device without a result is "not measured".
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iga.bench.baseline import read_result
from iga.bench.implementations import IMPLEMENTATIONS
from iga.report.bench import COLUMNS, exponent_lines, left_out_lines, limit_line, noise_line, ratio_line, row_cells

__all__ = ["main", "render"]

_INTRODUCTION = """# Benchmarks

Written by `python -m iga.report.bench_page` from the results of `iga bench --json`; edit neither.

One call is the whole attention: scalar and geometric logits, softmax, values and value points; batch 1, 16 channels,
12 value points, no pair features, the default preset, a synthetic structure. "forward + backward" has the gradients of
all inputs. Every implementation was judged against float64 before it was timed. Repeats are interleaved; intervals are
order statistics, 95 %. A pair-point is one (query residue, key residue, head, point). Peak memory is that over an idle
process, inputs and outputs included.
"""


def render(results: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """The page, Markdown, of (name of the file, result); CPU before GPU."""
    parts = [_INTRODUCTION]
    for device, title in (("cpu", "CPU"), ("gpu", "GPU")):
        parts.append(f"## {title}\n")
        own = [(name, r) for name, r in results if (r["environment"]["device"] == "cpu") == (device == "cpu")]
        parts += [_section(name, result) for name, result in own] or ["not measured\n"]
    return "\n".join(parts)


def _section(name: str, result: dict[str, Any]) -> str:
    environment = result["environment"]
    where = environment["cpu"] if environment["device"] == "cpu" else environment["device"]
    versions = ", ".join(f"{package} {version}" for package, version in environment["versions"].items())
    commit = environment.get("commit")
    lines = [
        f"### {where}, {environment['threads']} threads\n",
        f"{environment['date'][:10]}, {versions}{', commit ' + commit[:12] if commit else ''}; `{name}`\n",
        _table(COLUMNS, [row_cells(row) for row in result["rows"]]),
    ]
    if result["ratios"]:
        heads = ("time of", "in times of", "direction", "N", "H", "P", "median", "95 %")
        lines.append(_table(heads, [ratio_line(entry) for entry in result["ratios"]]))
    notes = [*exponent_lines(result["exponents"]), noise_line(result["noise"]), limit_line(environment)]
    notes += [f"left out: {line}" for line in left_out_lines(environment)]
    names = dict.fromkeys(row["implementation"] for row in result["rows"])
    notes += [f"{name}: {IMPLEMENTATIONS[name].what}" for name in names if name in IMPLEMENTATIONS]
    return "\n".join([*lines, "\n".join(f"- {note}" for note in notes), ""])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; nothing else on its lines."""
    made = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in made) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Writes the page to stdout; 2 and one line where a file is no result."""
    try:
        results = [(Path(name).name, read_result(Path(name))) for name in arguments]
    except (ValueError, OSError, json.JSONDecodeError) as error:
        sys.stderr.write(f"iga.report.bench_page: {error}\n")
        return 2
    sys.stdout.write(render(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
