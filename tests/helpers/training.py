"""Runs that take a second: the smallest network, short chains, few steps."""

from pathlib import Path

from iga.experiment.run.dataset import Dataset, prepare
from iga.experiment.run.plan import ComparisonPlan
from iga.experiment.run.records import read_table
from iga.experiment.settings import Settings, load_settings

TINY = (
    *("model.c_s=16", "model.c_z=8", "model.c_hidden=4", "model.heads=2", "model.points=2", "model.value_points=2"),
    *("model.blocks=1", "model.transformer_heads=2", "training.crop=20", "training.residues_squared=1600"),
    *("training.evaluate_every=4", "training.checkpoint_every=2"),
)
# The smallest comparison.
SMALLEST = ComparisonPlan(arms=("ipa", "bounded"), steps=3, seeds=1, samples=0, overrides=(*TINY, "data.synthetic=6"))


def tiny(arm: str = "bounded", *overrides: str, steps: int = 6) -> Settings:
    return load_settings(arm, "small", [*TINY, "data.synthetic=6", f"training.steps={steps}", *overrides])


def data(settings: Settings | None = None) -> Dataset:
    return prepare(settings or tiny())


def metrics(folder: Path) -> list[dict[str, float | None]]:
    """The rows of a run without their seconds."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_table(folder / "metrics.csv")]
