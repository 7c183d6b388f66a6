"""`iga report`: pages and CI files from the JSON documents of runs, as a command; and `--report` of the others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from iga.cli.terminal import check_outputs, console, kept, misuse
from iga.report.document import Block

__all__ = ["report", "tables"]


def report(
    files: Annotated[list[Path], typer.Argument(help="JSON documents (.json or .json.gz), of one run or of many.")],
    html: Annotated[Path | None, typer.Option(help="Write one HTML page that needs no other file.")] = None,
    md: Annotated[Path | None, typer.Option(help="Write Markdown, for the summary of a CI job.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Write SARIF 2.1.0, for code scanning.")] = None,
) -> None:
    """Make pages and CI files of what verify, faults, fuzz, bench, compare and sweep wrote with --json.

    Without an option the Markdown is printed. Ends 0 whatever the documents found, since their own commands were the
    gate; 2 on misuse.
    """
    check_outputs(html=html, md=md, junit=junit, sarif=sarif)
    from iga._files import write_bytes
    from iga.report.formats import check_report, rendered
    from iga.report.schema import read

    wanted = {".html": html, ".md": md, ".xml": junit, ".sarif": sarif}
    with misuse():
        for kind, path in wanted.items():
            if path is not None:
                check_report(Path(f"report{kind}"))
        documents = [read(file) for file in files]
        made = {path: rendered(kind, documents, tables) for kind, path in wanted.items() if path is not None}
    with kept(*(lambda path=path, data=data: write_bytes(path, data) for path, data in made.items())):
        if not made:
            text = rendered(".md", documents).decode()
            console().print(text, markup=False, highlight=False, soft_wrap=True, end="")


def tables(document: Any) -> Sequence[Block]:
    """The tables of a comparison or a sweep, with its curves where matplotlib is installed."""
    if document["document"] == "sweep":
        from iga.experiment.sweep import sections
        from iga.experiment.sweep.run import shown_pictures

        return sections.blocks_of(document, shown_pictures(document))
    from iga.experiment.results import curves
    from iga.experiment.results.sections import blocks_of, title_of
    from iga.report.document import Picture
    from iga.report.plots import check_matplotlib

    pictures = {}
    try:
        check_matplotlib()
    except ValueError:
        pass
    else:
        light, dark = (curves.data_uri(curves.png(document, dark=dark)) for dark in (False, True))
        pictures[0] = Picture("", light, dark, f"Curves of {title_of(document)}")
    return blocks_of([("this run", document)], pictures)
