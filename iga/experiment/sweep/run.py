"""The work of `iga sweep`: the grid's runs by the machinery of a comparison, and the report of what there is."""

import json
from pathlib import Path
from typing import Any

from iga._files import write_bytes, write_text
from iga.experiment.compare import OnResult, compare
from iga.experiment.run.dataset import Dataset
from iga.experiment.sweep.collect import collect
from iga.experiment.sweep.grid import SweepPlan
from iga.experiment.sweep.sections import blocks_of
from iga.report.document import Picture, as_markdown
from iga.report.page.page import as_page
from iga.report.plots import check_matplotlib

__all__ = ["report", "shown_pictures", "sweep"]


def sweep(plan: SweepPlan, folder: Path, **options: Any) -> dict[str, str]:
    """Makes, or goes on with, the grid `plan` in `folder`, and writes its result and report there, also when it is
    interrupted. Options, answer and errors are those of `iga.experiment.compare.compare`."""
    return compare(plan, folder, reporter=report, **options)


def report(folder: Path, dataset: Dataset, command: str, on_result: OnResult | None = None) -> list[Path]:
    """result.json and, from it alone, report.md and report.html; pictures where matplotlib is installed."""
    result = collect(folder, dataset, command)
    if on_result is not None:
        on_result(result)
    write_text(folder / "result.json", json.dumps(result, allow_nan=False) + "\n")
    drawn = _drawn(result)
    pictures = {along: [picture for picture, _ in some] for along, some in drawn.items()}
    files = {picture.file: data for some in drawn.values() for picture, data in some}
    files["report.md"] = as_markdown(blocks_of(result, pictures)).encode()
    files["report.html"] = as_page([result], lambda document: blocks_of(document, pictures)).encode()
    for name, data in files.items():
        write_bytes(folder / name, data)
    return [folder / name for name in ("result.json", *files)]


def shown_pictures(result: Any) -> dict[str, list[Picture]]:
    """The pictures of a result, for a page that is made of its document alone."""
    return {along: [picture for picture, _ in some] for along, some in _drawn(result).items()}


def _drawn(result: Any) -> dict[str, list[tuple[Picture, bytes]]]:
    try:
        check_matplotlib()
    except ValueError:
        return {}
    from iga.experiment.sweep.figures import pictures

    return pictures(result)
