"""The types of the document of `iga sweep`: a grid of runs, summed up, of which the verdicts follow."""

from typing import Literal, TypedDict

from iga.report.common import Environment

__all__ = ["Left", "Sweep", "SweepEnvironment", "SweepRun", "SweepSettings"]


class SweepEnvironment(Environment):
    """The environment of a sweep."""

    threads_a_run: int


class SweepSettings(TypedDict):
    """The grid as it was planned; `doses` are conditions in place of a collapse that is drawn."""

    size: str
    steps: int
    seeds: int
    seed: int
    gaussians: str
    stresses: list[str]
    doses: list[float]
    points: list[int]
    learning_rates: list[float]
    structures: str
    arms: list[str]
    overrides: list[str]


class SweptChains(TypedDict):
    """The chains that were trained on and held out."""

    training_chains: int
    held_out_chains: int
    fingerprint: str


class Totals(TypedDict):
    """Over the steps that a run made with finite losses. Of geometry logits the median, `late` over the last quarter of
    the planned steps; null where there is none."""

    steps: int
    samples: int
    clamped_samples: int
    clamped_steps: int
    geo_scaled_absmax: float | None
    geo_scaled_absmax_late: float | None
    wmax_sat_frac: float | None
    log_det_min: float | None


class Left(TypedDict):
    """A network as training leaves it, of held-out chains: counts of log10 σ [nm] and log10 κ in bins of `width` from
    `start` on, the share of Gaussians with κ > 100, the weight of the geometry by block and head, the share of pairs at
    the cap, and se3_vf_loss_raw with the geometry logit removed, or shuffled among keys. Null: the arm has none."""

    width: float
    start: dict[str, float]
    sigma: list[int] | None
    kappa: list[int] | None
    kappa_over_100: float | None
    weights: list[list[float]]
    at_cap: float | None
    removed: float | None
    shuffled: float | None


class SweepRun(TypedDict):
    """One run: its place in the grid, and its series in bins of steps, of which `step` is the last."""

    stress: str
    dose: float | None
    points: int
    learning_rate: float
    arm: str
    label: str
    seed: int
    status: Literal["finished", "non-finite", "running"]
    steps_done: int
    first_non_finite: int | None
    what_non_finite: str | None
    seconds_a_step: float | None
    peak_mb: float | None
    parameters: int
    totals: Totals
    series: dict[str, list[float | None]]
    held_out: list[dict[str, float | None]]
    entropy: list[dict[str, float | None]]
    left: Left | None


class Sweep(TypedDict):
    """The result.json of `iga sweep`: exit code 1 while runs of the grid are not made, of which there are `planned`."""

    schema: Literal[1]
    document: Literal["sweep"]
    command: str
    exit_code: int
    environment: SweepEnvironment
    settings: SweepSettings
    data: SweptChains
    input_loss: float | None
    planned: int
    runs: list[SweepRun]
