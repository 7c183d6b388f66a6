"""The tables of a run: metrics.csv with a row a step, held_out.csv with a row an evaluation.

An empty cell says that the arm has no such number: ipa has no log-det. NaN and infinity are written as such.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

from iga._files import write_text

__all__ = ["COLUMNS", "HELD_OUT_COLUMNS", "LOSSES", "WATCHED", "Logger", "Tables", "lacking", "read_table"]

LOSSES = ("trans_loss", "trans_loss_raw", "rots_vf_loss", "se3_vf_loss", "gaussian_loss")
WATCHED = ("geo_scaled_absmax", "wmax_sat_frac", "log_det_min")
COLUMNS = ("step", "samples", *LOSSES, "clamped_samples", *WATCHED, "grad_norm", "seconds")
HELD_OUT_COLUMNS = ("step", *LOSSES, "se3_vf_loss_raw", "shuffled_se3_vf_loss_raw")

# Called with every row, and whether it is one of held_out.csv.
Logger = Callable[[dict[str, float], bool], None]
_FILES = (("metrics.csv", COLUMNS), ("held_out.csv", HELD_OUT_COLUMNS))


def read_table(path: Path) -> list[dict[str, float | None]]:
    """The rows of metrics.csv or held_out.csv; None where a cell is empty. A row that was cut off is left out.

    Raises ValueError, naming file and line, for a row that holds anything but numbers.
    """
    if not path.exists():
        return []
    rows = []
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        text = file.read()
    for number, row in enumerate(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])), start=2):
        try:
            rows.append({name: None if cell in ("", None) else float(cell) for name, cell in row.items()})
        except (TypeError, ValueError) as error:
            words = f"{path}, line {number}, is damaged; remove its folder, and --resume makes the run anew"
            raise ValueError(words) from error
    return rows


def lacking(folder: Path, step: int, evaluated: Iterable[int]) -> set[str]:
    """The names of those of the two files that lack rows. metrics.csv must have one of each of the first `step` steps,
    held_out.csv of each step that was `evaluated`, each once and in order. held_out.csv may have more: a run that was
    shorter before has evaluated its last step."""
    names = set()
    for (name, _), due in zip(_FILES, (range(1, step + 1), evaluated), strict=True):
        found = [at for row in read_table(folder / name) if (at := row.get("step")) is not None and at <= step]
        if found != sorted(set(found)) or not set(due) <= set(found):
            names.add(name)
    return names


class Tables:
    """The two files of a run in `folder`. What they have after step `step` is cut off; new rows are added, and handed
    to `log`. With writes = False nothing is done: another process of the same run writes."""

    def __init__(self, folder: Path, step: int, *, log: Logger | None = None, writes: bool = True) -> None:
        self._folder, self._after, self._log, self._writes = folder, step, log, writes
        self._files: list[TextIO] = []

    def __enter__(self) -> "Tables":
        files = _FILES if self._writes else ()
        for name, columns in files:
            _cut(self._folder / name, columns, self._after)
        for name, _ in files:
            self._files.append(open(self._folder / name, "a", newline="", encoding="utf-8"))
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files:
            file.close()

    def step(self, row: dict[str, float]) -> None:
        """A row of metrics.csv."""
        self._add(0, row)

    def held_out(self, row: dict[str, float]) -> None:
        """A row of held_out.csv."""
        self._add(1, row)

    def flush(self) -> None:
        for file in self._files:
            file.flush()

    def _add(self, which: int, row: dict[str, float]) -> None:
        if not self._writes:
            return
        _, columns = _FILES[which]
        csv.writer(self._files[which], lineterminator="\n").writerow([_cell(name, row[name]) for name in columns])
        if self._log is not None:
            self._log(row, which == 1)


def _cut(path: Path, columns: tuple[str, ...], step: int) -> None:
    """The file without the rows after `step`: they come again."""
    rows = [row for row in read_table(path) if 0 < (row.get("step") or 0) <= step]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(name, row[name]) for name in columns] for row in rows)
    write_text(path, buffer.getvalue())


def _cell(name: str, value: float | None) -> str:
    """The shortest text that reads back as the same number; a log_det_min of +inf says that there is none."""
    if value is None or (name == "log_det_min" and value == math.inf):
        return ""
    return str(int(value)) if name in ("step", "samples", "clamped_samples") and math.isfinite(value) else repr(value)
