"""A sweep of each preset over long scales and many points: the README's picture in numbers.

Measured on synthetic structures and their degenerate perturbations."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from iga._files import write_text
from iga._runtime import Progress
from iga.diagnostics import geo_scaled_absmax, log_det_min
from iga.presets import PRESETS
from iga.structure.synthetic import synthetic_structures
from iga.testing.contract import DEFAULT_POINTS, PROFILES, Contract, check_seed
from iga.testing.layer.cases import PERTURBATIONS, make_case, perturbed_case
from iga.testing.layer.subject import Subject

__all__ = ["SIGMA_MAX", "measure", "write_numbers"]

SIGMA_MAX = (0.3, 1.0, 3.0, 10.0, 30.0, 75.0, 150.0)  # nm
POINTS = 8


def measure(
    *,
    seed: int = 0,
    sigma_max: Sequence[float] = SIGMA_MAX,
    points: Sequence[int] = DEFAULT_POINTS,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """{"sigma_max", "points", "presets": {name: {"log_det_min", "logit_absmax", "growth"}}}: the numbers drawn.

    log_det_min and logit_absmax: over all degenerate perturbations of one synthetic structure whose σ reach sigma_max
    (nm), random parameters, P = 8. growth: largest |geometry logit| of a fresh layer with P equal points.
    """
    check_seed(seed)
    report = on_progress or (lambda what, done, total: None)
    profile = replace(PROFILES["fast"], residues=48)
    structure = synthetic_structures(1, seed=seed)[0]
    case = make_case(structure, profile, residues=profile.residues, seed=seed)
    result: dict[str, Any] = {"sigma_max": list(sigma_max), "points": list(points), "seed": seed, "presets": {}}
    for done, (name, config) in enumerate(PRESETS.items()):
        report("presets", done, len(PRESETS))
        subject = Subject(name, config, profile)
        layer = subject.random(POINTS, seed)
        lowest, largest = [], []
        with torch.no_grad():
            for ceiling in sigma_max:
                contract = Contract(sigma_max=ceiling)
                traces = [
                    subject.trace(layer, perturbed_case(case, label, contract, seed=seed)) for label in PERTURBATIONS
                ]
                lowest.append(min(float(log_det_min(trace)) for trace in traces))
                largest.append(max(float(geo_scaled_absmax(trace)) for trace in traces))
            growth = [float(geo_scaled_absmax(subject.trace(subject.coherent(p, seed), case))) for p in points]
        result["presets"][name] = {"log_det_min": lowest, "logit_absmax": largest, "growth": growth}
    report("presets", len(PRESETS), len(PRESETS))
    return result


def write_numbers(data: dict[str, Any], path: Path) -> None:
    """`measure`'s numbers as JSON; OSError if that can't be done."""
    write_text(path, json.dumps(data, indent=2) + "\n")
