"""The page: documents as one HTML file that loads nothing, whatever their names hold.

Jinja2 escapes every text; only the drawings, made here, are taken as they are. The page's policy allows no request, and
of scripts the page's own alone, by its hash: what a name holds could not run even as markup.
"""

import base64
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from iga._text import visible
from iga.report.document import Block
from iga.report.outcomes import outcomes, subject, title
from iga.report.page import drawings, inspect, others, verify
from iga.report.page.model import Reds, Run, Section

__all__ = ["as_page"]

FOLDER = Path(__file__).parent


def as_page(documents: Sequence[Any], tables: Callable[[Any], Sequence[Block]] | None = None) -> str:
    """The HTML. tables(document): the blocks of a comparison, which its own part of iga makes."""
    runs = [_run(f"run{number}", document, tables) for number, document in enumerate(documents, start=1)]
    verified = [(subject(one), one) for one in documents if one["document"] == "verify"]
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template().render(
        runs=runs,
        red=sum(run.red > 0 for run in runs),
        together=verify.growth(verified) if len(verified) > 1 else [],
        style=Markup(style),  # noqa: S704 - a file of this package
        script=Markup(script),  # noqa: S704
        allowed=allowed,
        without=drawings.WITHOUT,
        numbers=itertools.count(1),
    )


def _run(name: str, document: Any, tables: Callable[[Any], Sequence[Block]] | None) -> Run:
    found = outcomes(document)
    red = [one for one in found if one.state == "fails"]
    passes, skipped = (sum(one.state == state for one in found) for state in ("passes", "skipped"))
    sections = [Section("What does not hold", [Reds(tuple(red))])] if red else []
    sections += _sections(document, tables)
    facts = _facts(document)
    kind, command = document["document"], document["command"]
    return Run(name, kind, title(document), command, len(red), passes, skipped, facts, sections)


def _sections(document: Any, tables: Callable[[Any], Sequence[Block]] | None) -> list[Section]:
    match document["document"]:
        case "verify":
            return verify.sections(document)
        case "faults":
            return others.fault_sections(document)
        case "fuzz":
            return others.fuzz_sections(document)
        case "inspect":
            return inspect.sections(document)
        case "replay":
            return others.replay_sections(document)
        case "bench":
            return others.bench_sections(document)
        case _:
            return others.compare_sections(document, None if tables is None else tables(document))


def _facts(document: Any) -> tuple[str, ...]:
    """The environment in a few words, and how long it took."""
    environment = document["environment"]
    versions = environment.get("versions", environment)
    made = [f"{name} {versions[name]}" for name in ("iga", "torch", "python") if name in versions]
    made += [
        f"{name} {environment[name]}"
        for name in ("profile", "implementation", "device", "seed")
        if environment.get(name) not in (None, "")
    ]
    made += [str(environment[name]) for name in ("platform", "date") if name in environment]
    if "seconds" in document:
        made.append(f"{document['seconds']:.1f} s")
    if "layer" in document:
        made.append(document["layer"])
    source = document.get("source")
    if source:
        made.append(f"{source['file']}:{source['line'] or 1}")
    return tuple(made)


@cache
def _template() -> Any:
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["inline"] = _inline
    made.filters["command"] = _command
    made.filters["kind"] = lambda part: type(part).__name__
    made.filters["svg"] = _svg
    made.filters["shown"] = lambda text: visible(str(text))
    return made.get_template("page.html.j2")


def _svg(drawing: str, numbers: Iterator[int]) -> Markup:
    """A drawing of this package's own making, whose parts get names that no other drawing of the page has."""
    return Markup(drawing.replace(drawings.UNNUMBERED, f"d{next(numbers)}-"))  # noqa: S704


def _command(text: str) -> Markup:
    """A command line that breaks between its words alone, and is copied as it is."""
    return Markup(" ").join(Markup("<span>{}</span>").format(word) for word in visible(text).split(" "))


def _inline(text: str) -> Markup:
    """Text with `code` between backticks."""
    escaped = str(escape(visible(text)))
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", escaped))  # noqa: S704 - escaped in the line above
