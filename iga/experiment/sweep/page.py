"""The page of a sweep from its result alone, which says the same as the sweep's own report.md, without pictures.

python -m iga.experiment.sweep.page RESULT.json MARKDOWN
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from iga._files import write_text
from iga.experiment.sweep.sections import blocks_of
from iga.report.document import as_markdown
from iga.report.schema import read

__all__ = ["main", "page"]


def page(result: Path) -> str:
    """The Markdown of a result.json, plain or gzipped. ValueError where it is no document of `iga sweep`, OSError where
    it cannot be read."""
    document = read(result)
    if document["document"] != "sweep":
        raise ValueError(f"{result} is a document of iga {document['document']}; name a result.json of iga sweep")
    return as_markdown(blocks_of(document))


def main(arguments: Sequence[str]) -> int:
    """2 and one line where the file is no result of a sweep, or the page cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m iga.experiment.sweep.page", description="The page of a sweep.")
    parser.add_argument("result", type=Path, metavar="RESULT.json")
    parser.add_argument("markdown", type=Path, metavar="MARKDOWN")
    options = parser.parse_args(arguments)
    try:
        write_text(options.markdown, page(options.result))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"iga.experiment.sweep.page: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
