"""The choice of the default preset: candidates measured on real structures, P = 1, 8, 64.

    python benches/choose_bounded.py FILE... [--json benches/results/choose_bounded.json]

For each candidate a fresh layer (8 heads, three seeds) over each structure: largest |geometry logit|, row-centred
spread, share of rows with w_max > 0.9, mean row entropy, share of pairs that pass gradient, share of log scales that
receive gradient through the floor. docs/presets.md says what was made of it.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from iga import diagnostics
from iga._runtime import environment
from iga.presets import IGAConfig, preset
from iga.structure import Structure, read_structure
from iga.testing.contract import PROFILES
from iga.testing.layer.alive import gradient_shares
from iga.testing.layer.cases import make_case
from iga.testing.layer.subject import Subject

BASE = preset("bounded", logit_cap=None, floor="hard", sigma_max=None)
GAUSS = replace(BASE, score="gaussian", point_scaling="rsqrt", geo_scale_init=-4.0)
CANDIDATES: dict[str, IGAConfig] = {
    "Gaussian, 1/√P, start −4": GAUSS,
    "Gaussian, 1/√P, start −4, cap 10": replace(GAUSS, logit_cap=10.0),
    "Gaussian, mean, start −4, cap 10": replace(GAUSS, logit_cap=10.0, point_scaling="mean"),
    "Gaussian, mean, start −1, cap 10": replace(GAUSS, logit_cap=10.0, point_scaling="mean", geo_scale_init=-1.0),
    "Student-t ν = 4, 1/√P, start −1": replace(BASE, point_scaling="rsqrt", geo_scale_init=-1.0),
    "Student-t ν = 4, mean, start 0.54": replace(BASE, geo_scale_init=0.541324854612918),
    "Student-t ν = 4, mean, start −1": replace(BASE, geo_scale_init=-1.0),
    "Student-t ν = 4, mean, start −4": replace(BASE, geo_scale_init=-4.0),
    "Student-t ν = 1, mean, start −1": replace(BASE, dof=1.0, geo_scale_init=-1.0),
    "Student-t ν = 4, mean, start −1, cap 50": replace(BASE, geo_scale_init=-1.0, logit_cap=50.0),
    "the same with the smooth floor (bounded)": replace(BASE, geo_scale_init=-1.0, logit_cap=50.0, floor="smooth"),
}
POINTS = (1, 8, 64)


def measure(config: IGAConfig, structures: list[Structure], points: int, seeds: int) -> dict[str, float]:
    """Means over structures and seeds; the largest for absmax."""
    profile = replace(PROFILES["fast"], no_heads=8)
    rows: list[list[Tensor]] = []
    for index, structure in enumerate(structures):
        for seed in range(seeds):
            case = make_case(structure, profile, residues=96, seed=seed)
            subject = Subject("candidate", config, profile)
            trace = subject.trace(subject.fresh(points, 100 * seed + index), case)
            pairs, scales = gradient_shares(trace)
            rows.append(
                [
                    diagnostics.geo_scaled_absmax(trace),
                    diagnostics.row_spread(trace).square().mean().sqrt(),
                    diagnostics.saturated_share(trace),
                    diagnostics.row_entropy(trace).mean(),
                    pairs,
                    scales,
                ]
            )
    table = torch.tensor([[float(value.detach()) for value in row] for row in rows])
    names = ("absmax", "spread", "saturated", "entropy", "pairs_with_gradient", "scales_with_gradient")
    result = dict(zip(names, table.mean(dim=0).tolist(), strict=True))
    result["absmax"] = float(table[:, 0].max())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    structures = [read_structure(path) for path in arguments.files]
    names = [Path(structure.path).name for structure in structures]
    result: dict[str, object] = {"environment": environment(0), "structures": names, "rows": []}
    rows = []
    print("absmax / spread / saturated / entropy / pairs with gradient / scales with gradient, at P = 1, 8, 64")
    for name, config in CANDIDATES.items():
        by_points = {str(p): measure(config, structures, p, arguments.seeds) for p in POINTS}
        rows.append({"candidate": name, "points": by_points})
        cells = [" / ".join(f"{value:.3g}" for value in row.values()) for row in by_points.values()]
        print(f"{name:48s} | " + " | ".join(cells))
    result["rows"] = rows
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
