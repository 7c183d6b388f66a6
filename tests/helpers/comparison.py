"""Results of a comparison made by hand, so that what a report must say of them is known."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ARMS = ("ipa", "logdet_clamp", "sigma_floor", "bounded")
STEPS = 40
HELD_OUT = ("trans_loss", "trans_loss_raw", "rots_vf_loss", "se3_vf_loss", "gaussian_loss")

# What a healthy run shows at every step, unless a test says otherwise.
QUIET = {
    "trans_loss": 1.0,
    "trans_loss_raw": 1.5,
    "rots_vf_loss": 2.0,
    "se3_vf_loss": 3.0,
    "gaussian_loss": 0.0,
    "clamped_samples": 1,
    "samples": 4,
    "geo_scaled_absmax": 10.0,
    "wmax_sat_frac": 0.02,
    "log_det_min": -20.0,
}
Series = Mapping[str, Sequence[float | None] | float | None]


def make_run(arm: str, seed: int, steps: int = STEPS, status: str = "finished", **series: Any) -> dict[str, Any]:
    """One run of constant series; keywords replace a series, by a number or one number a step."""
    made = {
        name: [value] * steps if value is None or isinstance(value, (int, float)) else list(value)
        for name, value in (QUIET | ({"log_det_min": None} if arm == "ipa" else {}) | series).items()
    }
    held_out = [
        {name: QUIET[name] for name in HELD_OUT}
        | {"step": step, "se3_vf_loss_raw": 3.5, "shuffled_se3_vf_loss_raw": 7.0 + 0.01 * seed}
        for step in range(10, steps + 1, 10)
    ]
    return {
        "arm": arm,
        "label": f"_{arm}",
        "seed": seed,
        "status": status,
        "steps_done": steps,
        "first_non_finite": None,
        "what_non_finite": None,
        "seconds_a_step": 0.125,
        "peak_mb": 400.0,
        "parameters": 12345,
        "steps": made,
        "held_out": held_out,
    }


def make_result(
    series: Mapping[str, Callable[[int], Mapping[str, Any]]] | None = None,
    *,
    arms: Sequence[str] = ARMS,
    seeds: int = 3,
    steps: int = STEPS,
    **settings: Any,
) -> dict[str, Any]:
    """A whole result; `series` gives, by arm, a function of the seed that returns the series to replace."""
    series = series or {}
    runs = [
        make_run(arm, seed, steps, **series.get(arm, lambda seed: {})(seed))
        for arm, seed in itertools.product(arms, range(seeds))
    ]
    return {
        "schema": 1,
        "command": "iga compare --size small",
        "environment": {"device": "cpu", "versions": {"python": "3.11"}},
        "settings": {
            **{"size": "small", "steps": steps, "seeds": seeds, "gaussians": "fixed", "stress": False},
            **{"structures": "2 files", "arms": list(arms)},
            **settings,
        },
        "data": {"training_chains": 10, "held_out_chains": 2, "skipped": {"short": 3}},
        "baselines": {
            "mean_frame": {"trans_raw": 4.0, "rots_vf": 2.0, "se3_vf_raw": 6.0},
            "input": {"trans_raw": 2.5, "rots_vf": 1.5, "se3_vf_raw": 4.0},
        },
        "runs": runs,
    }


def find_run(result: dict[str, Any], arm: str, seed: int) -> dict[str, Any]:
    return next(run for run in result["runs"] if run["arm"] == arm and run["seed"] == seed)


def stop(run: dict[str, Any], after: int) -> None:
    """The run goes non-finite at the step after `after` steps: its losses are null there, and nothing follows."""
    for name, values in run["steps"].items():
        run["steps"][name] = values[:after] + [None if name.endswith("loss") else values[after]]
    run["held_out"] = [row for row in run["held_out"] if row["step"] <= after]
    run |= {"status": "non-finite", "steps_done": after + 1, "first_non_finite": after + 1, "what_non_finite": "loss"}
