"""The page docs/benchmarks.md, made of documents: `python tools/benchmarks_page.py benches/results/bench_*.json`.

Every number comes from a file; a device without a result is "not measured".
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from iga.report import bench
from iga.report.document import Block, Heading, Items, Paragraph, as_markdown
from iga.report.documents import Bench
from iga.report.schema import read_as

__all__ = ["main", "render"]

_INTRODUCTION = """Written by `python tools/benchmarks_page.py` from the results of `iga bench --json`; edit neither.

One call is the whole attention: scalar and geometric logits, softmax, values and value points; batch 1, 16 channels,
12 value points, no pair features, the default preset, a synthetic structure. "forward + backward" has the gradients of
all inputs. Every implementation was judged against float64 before it was timed. Repeats are interleaved; intervals are
order statistics, 95 %. A pair-point is one (query residue, key residue, head, point). Peak memory is that over an idle
process, inputs and outputs included."""


def render(results: Sequence[tuple[str, Bench]]) -> str:
    """The page, Markdown, of (name of the file, document); CPU before GPU."""
    blocks: list[Block] = [Heading(1, "Benchmarks"), Paragraph(_INTRODUCTION)]
    for title, of_cpu in (("CPU", True), ("GPU", False)):
        own = [one for one in results if (one[1]["environment"]["device"] == "cpu") == of_cpu]
        blocks.append(Heading(2, title))
        blocks += [block for one in own for block in _section(*one)] or [Paragraph("not measured")]
    return as_markdown(blocks)


def _section(name: str, document: Bench) -> list[Block]:
    environment = document["environment"]
    where = environment["cpu"] if environment["device"] == "cpu" else environment["device"]
    versions = ", ".join(f"{package} {version}" for package, version in environment["versions"].items())
    commit = "" if environment["commit"] is None else f", commit {environment['commit'][:12]}"
    return [
        Heading(3, f"{where}, {environment['threads']} threads"),
        Paragraph(f"{environment['date'][:10]}, {versions}{commit}; `{name}`"),
        *bench.blocks(document),
        Items(tuple(f"{name}: {what}" for name, what in document["implementations"].items())),
    ]


def main(arguments: Sequence[str]) -> int:
    """Writes the page to stdout; 2 and one line where a file is no bench document."""
    try:
        results = [(Path(name).name, read_as(Path(name), Bench)) for name in arguments]
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    sys.stdout.write(render(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
