"""The sample of the catalogue that `iga faults` plants by default: every check's own fault, and others by the seed."""

import random

from iga.testing.faults import FAULTS, Fault
from iga.testing.faults.subjects import CHECKS

__all__ = ["DRAWN", "OWN", "kept", "sampled"]

# For every check a fault that it alone catches.
OWN: dict[str, dict[str, str]] = {
    "overlap": {
        "accuracy": "one pair in a thousand off by a share",
        "coincident_means": "equal means kept apart",
        "score_laws": "axis-aligned frames taken as equal",
        "gradient_values": "the same in float32 only",
        "gradient_finiteness": "the square of the root of a Gaussian and itself",
        "calls_agree": "a frame stored by columns is read by rows",
        "determinism": "every second call an ulp larger",
        "second_derivatives": "a second derivative off by a share of the gradient's square",
        "reduced_precision": "geometry by matrix products",
        "process_state": "the default dtype becomes float64",
    },
    "layer": {
        "log_det_floor": "a floor too low by a share",
        "dist_sq_bound": "one dist_sq shown under zero by",
        "geometry_logit_bound": "one score shown that no Gaussian has",
        "growth_with_points": "a head weight that starts with √P",
        "point_scaling_law": "equal points counted once",
        "geometry_is_alive": "a cap so low that geometry is a constant",
        "se3_invariance": "value points left in the global frame",
        "mask_inertness": "NaN behind the mask comes through",
        "gradient_finiteness": "a root of scales that have collapsed",
        "accuracy": "wrong in float64 only, by a share",
        "attention_weights": "weights that do not sum to one, by",
        "permutations": "the first valid residue's update is a tenth larger",
        "determinism": "z is scaled in place, and back",
        "small_sizes": "an empty batch is not expected",
        "gradient_values": "frames in float32 inside a float64 call",
        "gradient_bounds": "a gradient of log_det too large by a share where scales collapsed",
        "score_slopes": "a score too steep at the floor",
        "reduced_precision": "geometry by matrix products",
        "second_derivatives": "a second derivative off",
        "reference_agrees": "the geometry's sign is turned",
        "calls_agree": "a factor of training",
        "compiled_calls": "half the gradient when compiled",
        "feature_laws": "z is symmetrised",
        "large_sizes": "a mean of features is counted in eight bits",
        "process_state": "a draw from the global generator, unused",
    },
}
# How many others are drawn; of the benches that are not named, all.
DRAWN = {"overlap": 10, "layer": 4}


def kept(bench: str) -> list[Fault]:
    """The checks' own faults. A check without a row in `OWN` keeps every fault of which nothing else is expected."""
    own = OWN.get(bench, {})
    unnamed = [(check,) for check in CHECKS[bench] if check not in own]
    return [fault for fault in FAULTS[bench] if fault.name in own.values() or fault.expected in unnamed]


def sampled(seed: int) -> dict[str, list[Fault]]:
    """The faults of each bench, in the catalogue's order: those that are kept, and `DRAWN` others."""
    chosen: dict[str, list[Fault]] = {}
    for bench, faults in FAULTS.items():
        own = kept(bench)
        others = [fault for fault in faults if fault not in own]
        drawn = random.Random(f"{seed} {bench}").sample(others, min(DRAWN.get(bench, len(others)), len(others)))
        chosen[bench] = [fault for fault in faults if fault in own or fault in drawn]
    return chosen
