"""The log for Weights & Biases: the rows of the CSV files, where the package is installed and asked for."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from iga.experiment.run import processes
from iga.experiment.settings import Settings

__all__ = ["MODES", "check_mode", "logger"]

MODES = ("off", "offline", "online")

# The names under which the metrics of the history that is compared were logged.
_NAMES = {
    "geo_scaled_absmax": "debug/iga/global/geo_scaled_absmax",
    "wmax_sat_frac": "debug/iga/global/wmax_sat_frac",
    "log_det_min": "debug/iga/global/log_det_min",
}


def check_mode(mode: str) -> None:
    """Raises ValueError for an unknown mode, and where wandb is wanted and not installed."""
    if mode not in MODES:
        raise ValueError(f"wandb must be one of {', '.join(MODES)}; got {mode!r}")
    if mode != "off" and importlib.util.find_spec("wandb") is None:
        raise ValueError(f"wandb={mode} needs the package wandb: pip install wandb, or leave it off")


@contextmanager
def logger(mode: str, settings: Settings, folder: Path) -> Iterator[Callable[[dict[str, float], bool], None]]:
    """log(row, held_out) for the rows of a run: to a W&B run of its name, or nowhere."""
    check_mode(mode)
    if mode == "off" or processes.rank() != 0:
        yield lambda row, held_out: None
        return
    import wandb  # pyright: ignore[reportMissingImports]

    # One id for a run that is taken up again; offline parts are merged when they are synchronised.
    run = wandb.init(
        project="iga-compare",
        name=settings.run_name,
        id=settings.run_name,
        resume="allow",
        mode=mode,
        dir=str(folder),
        config=asdict(settings),
    )

    def log(row: dict[str, float], held_out: bool) -> None:
        prefix = "held_out/" if held_out else "train/"
        named = {_NAMES.get(name, prefix + name): value for name, value in row.items() if name != "step"}
        run.log(named, step=int(row["step"]))

    try:
        yield log
    finally:
        run.finish()
