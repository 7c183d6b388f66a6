"""The plan of a comparison: what was asked for, which runs follow from it, and whether a folder can be resumed for it.

FOLDER/plan.json        what is compared            FOLDER/data.pt    the chains (`iga.experiment.run.dataset`)
FOLDER/runs/NAME/…      one folder a run            FOLDER/result.json, report.md, report.html, report_1.png
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import ClassVar, TypeVar

from iga._files import write_text
from iga.experiment.settings import ARMS, Settings, load_settings
from iga.experiment.typed import built, refuse_references

__all__ = [
    "DATA",
    "PLAN",
    "RUNS",
    "ComparisonPlan",
    "OnRow",
    "Progress",
    "check_folder",
    "chosen_arms",
    "read",
    "write",
]

PLAN, DATA, RUNS = "plan.json", "data.pt", "runs"
# Settings that have an option of their own.
RESERVED = ("training.steps", "training.seed", "model.gaussians", "data.stress", "data.structures")
_RANGES = {"steps": (1, 10**9), "seeds": (1, 100), "threads": (1, 1024), "samples": (0, 10**6)}
OnRow = Callable[[dict[str, float]], None]
# on_progress(run, steps done, steps, the last trans_loss or None)
Progress = Callable[[str, int, int, float | None], None]


@dataclass(frozen=True)
class ComparisonPlan:
    """What `iga compare` was asked for.

    seed        the first of `seeds` seeds, and that of the split and of synthetic structures
    overrides   "training.lr=1e-3", applied to every arm
    threads     of each run, which decides the order of some sums: a run that is taken up again keeps it
    samples     structures sampled by every arm with the first seed

    A grid of runs of another shape is a subclass: FILE, in which it lies, WHAT it is called, the module of WORKER that
    makes a run of it, and what GROWS may be raised when it is taken up again.
    """

    FILE: ClassVar[str] = PLAN
    WHAT: ClassVar[str] = "comparison"
    WORKER: ClassVar[str] = "iga.experiment.run.worker"
    GROWS: ClassVar[tuple[str, ...]] = ("steps", "seeds", "samples", "arms")

    arms: tuple[str, ...] = ARMS
    structures: tuple[str, ...] = ()
    steps: int = 200
    seeds: int = 3
    seed: int = 0
    size: str = "small"
    gaussians: str = "fixed"
    stress: bool = False
    device: str = "cpu"
    threads: int = 1
    samples: int = 1
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be a whole number from {least} to {most}, got {getattr(self, name)}")
        if not self.arms:
            raise ValueError(f"arms must name at least one of {', '.join(ARMS)}")
        if len(set(self.arms)) < len(self.arms):
            raise ValueError(f"arms must be named once each, got {', '.join(self.arms)}")
        for override in self.overrides:
            if override.partition("=")[0].strip() in RESERVED:
                raise ValueError(f"{override!r} has an option of its own (--steps, --seed, --gaussians, --stress, …)")
        self.runs()  # refuses what the settings refuse

    def runs(self) -> dict[str, tuple[str, int]]:
        """Name → (arm, seed), all arms of a seed before the next: what is there early can be compared early."""
        numbers = range(self.seed, self.seed + self.seeds)
        return {self._settings(arm, seed).run_name: (arm, seed) for seed in numbers for arm in self.arms}

    def settings_of(self, run: str) -> Settings:
        return self._settings(*self.runs()[run])

    def any_settings(self, arm: str | None = None) -> Settings:
        """Of the first seed, and the first arm unless one is named: for what does not depend on them."""
        return self._settings(arm or self.arms[0], self.seed)

    def _settings(self, arm: str, seed: int) -> Settings:
        settings = load_settings(arm, self.size, self.overrides)
        return replace(
            settings,
            model=replace(settings.model, gaussians=self.gaussians),
            training=replace(settings.training, steps=self.steps, seed=seed),
            data=replace(settings.data, stress=self.stress, structures=self.structures),
        )


P = TypeVar("P", bound=ComparisonPlan)


def read(folder: Path, kind: type[P] = ComparisonPlan) -> P:
    """The plan of a folder; ValueError where there is none, or one of another release."""
    name = kind.FILE
    try:
        text = (folder / name).read_text(encoding="utf-8")
        state = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{folder} holds no {kind.WHAT} that can be read ({name}): {error}") from error
    try:
        refuse_references(text, name)
        return built(kind, state, source=name)
    except ValueError as error:
        raise ValueError(f"{folder / name} is damaged or of another release: {error}") from error


def write(folder: Path, plan: ComparisonPlan) -> None:
    write_text(folder / plan.FILE, json.dumps(asdict(plan), indent=2) + "\n")


def check_folder(folder: Path, plan: P, *, resume: bool) -> P:
    """The plan to follow in `folder`: `plan`, or with `resume` that of the folder, enlarged to it.

    Of a comparison arms and seeds may be added, and steps (`GROWS`). Raises ValueError where the folder holds anything
    else; nothing is written.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder that is empty or not there yet")
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):  # without a name: nothing is left
            pass
    except OSError as error:
        raise ValueError(f"{folder} can't be made: {there}: {error.strerror}") from error
    if not folder.exists() or not any(folder.iterdir()):
        return plan
    what = plan.WHAT
    if not (folder / plan.FILE).exists():
        raise ValueError(f"{folder} is not empty and holds no {what}; name a folder that is empty or not there yet")
    old = read(folder, type(plan))
    if not resume:
        raise ValueError(f"{folder} holds a {what} already; go on with it by --resume, or name another folder")
    for field in fields(plan):
        name, was, now = field.name, getattr(old, field.name), getattr(plan, field.name)
        if name in plan.GROWS and name != "arms":
            if now < was:
                raise ValueError(
                    f"{folder} was made with {name} = {was}; --resume can raise that, not lower it to {now}"
                )
        elif name in plan.GROWS:
            if missing := [arm for arm in was if arm not in now]:
                raise ValueError(f"{folder} has the arm {missing[0]} too: name it again, or take another folder")
        elif name not in ("threads",) and was != now:
            raise ValueError(f"{folder} was made with {name} = {was!r}, not {now!r}; take another folder")
    return replace(plan, threads=old.threads)


def chosen_arms(text: str | Sequence[str] | None) -> tuple[str, ...]:
    """ "a,b" as a tuple of known arms, all of them for None; ValueError names those that exist."""
    if text is None:
        return ARMS
    names = tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else tuple(text)
    for name in names:
        if name not in ARMS:
            raise ValueError(f"unknown arm {name!r}; arms: {', '.join(ARMS)}")
    return names
