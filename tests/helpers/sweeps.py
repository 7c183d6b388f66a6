"""Results of a sweep made by hand, so that the verdict on them is known."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

INPUT = 4.0
STEPS = 40


def make_sweep(
    losses: Mapping[str, Callable[[int], float | None]],
    *,
    seeds: int = 5,
    points: Sequence[int] = (4,),
    rates: Sequence[float] = (1e-3,),
    stresses: Sequence[str] = ("collapse",),
    doses: Sequence[float] = (),
    gaussians: str = "fixed",
) -> dict[str, Any]:
    """A whole result: {arm: loss of the seed}, the same in every cell; None: the run went non-finite."""
    conditions = [
        (stress, dose)
        for stress in stresses
        for dose in (doses if stress == "collapse" and doses else [None])  # pyright: ignore[reportOptionalIterable]
    ]
    runs = [
        _run(arm, seed, loss(seed), stress, dose, p, rate)
        for stress, dose in conditions
        for p in points
        for rate in rates
        for seed in range(seeds)
        for arm, loss in losses.items()
    ]
    return {
        "schema": 1,
        "document": "sweep",
        "exit_code": 0,
        "command": "iga sweep --seeds 5",
        "environment": {
            **{"iga": "0.1.0", "torch": "2.0", "python": "3.11", "numpy": "2.0", "gemmi": "0.7", "platform": "Linux"},
            **{"date": "2026-01-01", "seed": 0, "device": "cpu", "threads": 1, "threads_a_run": 1},
        },
        "settings": {
            **{"size": "small", "steps": STEPS, "seeds": seeds, "seed": 0, "gaussians": gaussians},
            **{"stresses": [*stresses], "doses": [*doses], "points": [*points], "learning_rates": [*rates]},
            **{"structures": "2 files", "arms": [*losses], "overrides": []},
        },
        "data": {"training_chains": 10, "held_out_chains": 2, "fingerprint": "0123"},
        "input_loss": INPUT,
        "planned": len(runs),
        "runs": runs,
    }


def _run(
    arm: str, seed: int, loss: float | None, stress: str, dose: float | None, points: int, rate: float
) -> dict[str, Any]:
    died = loss is None
    totals = {"steps": STEPS, "samples": 4 * STEPS, "clamped_samples": 2, "clamped_steps": 0, "wmax_sat_frac": 0.25}
    logits = {"geo_scaled_absmax": 10.0 * points, "geo_scaled_absmax_late": 10.0 * points, "log_det_min": -20.0}
    return {
        **{"stress": stress, "dose": dose, "points": points, "learning_rate": rate, "arm": arm, "label": f"_{arm}"},
        **{"seed": seed, "status": "non-finite" if died else "finished", "steps_done": STEPS},
        **{"first_non_finite": STEPS if died else None, "what_non_finite": "a loss: trans_loss" if died else None},
        **{"seconds_a_step": 0.1, "peak_mb": 400.0, "parameters": 12345, "totals": {**totals, **logits}},
        "series": {"step": [20.0, 40.0], "trans_loss": [2.0, None]},
        "held_out": [] if died else [{"step": STEPS, "se3_vf_loss_raw": loss}],
        "entropy": [{"step": STEPS, "row_entropy": 2.0}],
        "left": None,
    }


def left(sigma: Sequence[int] | None = None) -> dict[str, Any]:
    """The numbers of a run after training."""
    return {
        **{"width": 0.5, "start": {"sigma": -7.0, "kappa": 0.0}, "sigma": sigma, "kappa": [3, 1]},
        **{"kappa_over_100": 0.25, "weights": [[0.3, 0.4]], "at_cap": 0.0, "removed": 4.5, "shuffled": None},
    }
