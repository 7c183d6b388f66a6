"""The report of one or more results: as Markdown, and as one HTML page that needs no other file.

    python -m iga.experiment.results.page RESULT.json … --markdown FILE --html FILE [--sizes small,paper] [--no-curves]

Every number is computed from the results. Beside the Markdown file stand its pictures, one PNG a result.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iga._files import write_bytes
from iga.experiment.results import curves
from iga.experiment.results.readings import Result, check_result, read_result
from iga.experiment.results.sections import blocks_of, title_of
from iga.report.document import Block, Picture, as_markdown
from iga.report.page.page import as_page
from iga.report.plots import check_matplotlib

__all__ = ["main", "write_report"]


def write_report(
    results: Sequence[tuple[str, Result]],
    *,
    markdown: Path | None = None,
    html: Path | None = None,
    with_curves: bool = True,
    sizes: Sequence[str] = (),
) -> list[Path]:
    """Writes the report of (name, result) pairs; the files written, each whole or not at all.

    sizes: model sizes of which a result is expected; one without stands in the Markdown as not measured.
    Raises ValueError for a result of another schema, and where the curves are wanted and matplotlib is missing.
    """
    for name, result in results:
        try:
            check_result(result)
        except ValueError as error:
            raise ValueError(f"{name} is no result of iga compare (schema 1): {error}") from error
    if with_curves:
        check_matplotlib()
    files: dict[Path, bytes] = {}
    pictures: dict[int, Picture] = {}
    for number, (_, result) in enumerate(results if with_curves else ()):
        light, dark = curves.png(result), curves.png(result, dark=True)
        name = f"{(markdown or html or Path('curves')).stem}_{number + 1}.png"
        words = f"Curves of {title_of(result)}"
        pictures[number] = Picture(name, curves.data_uri(light), curves.data_uri(dark), words)
        if markdown is not None:
            files[markdown.with_name(name)] = light
    if markdown is not None:
        files[markdown] = as_markdown(blocks_of(results, pictures, sizes)).encode()
    if html is not None:
        # a file that is older than the key "document" lacks it
        documents = [{"document": "compare", "exit_code": 0, **result} for _, result in results]
        numbers = {id(document): number for number, document in enumerate(documents)}

        def tables(document: Any) -> list[Block]:
            number = numbers[id(document)]
            own = {0: pictures[number]} if number in pictures else {}
            return blocks_of([(results[number][0], document)], own)

        files[html] = as_page(documents, tables).encode()
    for path, data in files.items():
        write_bytes(path, data)
    return list(files)


def main(arguments: Sequence[str]) -> int:
    """2 and one line where a file is no result, cannot be written, or matplotlib is missing."""
    parser = argparse.ArgumentParser(prog="python -m iga.experiment.results.page", description="The report of results.")
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT.json")
    parser.add_argument("--markdown", type=Path, help="write the report as Markdown, its pictures beside it")
    parser.add_argument("--html", type=Path, help="write the report as one HTML page")
    parser.add_argument("--sizes", default="", help="model sizes expected, by commas; one without result: not measured")
    parser.add_argument("--no-curves", action="store_true", help="leave the curves out (they need matplotlib)")
    options = parser.parse_args(arguments)
    if options.markdown is None and options.html is None:
        parser.error("nothing to write: give --markdown FILE, --html FILE, or both")
    try:
        results = [(path.name, read_result(path)) for path in options.results]
        write_report(
            results,
            markdown=options.markdown,
            html=options.html,
            with_curves=not options.no_curves,
            sizes=[size for size in options.sizes.split(",") if size],
        )
    except (ValueError, OSError) as error:
        sys.stderr.write(f"iga.experiment.results.page: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
