"""The search for the pairs on which rounding costs the closed form most: sample degenerate pairs, judge, climb.

Each error stands beside what is required and what is proven.

`python -m iga.testing.overlap.worst_rounding` draws pairs (needles, pancakes, nearly shared frames, δ along and across
the long axes), judges `gaussian_overlap` in float32 against float64, the worst of them against 50 digits, climbs from
those, judges again, and prints measured beside required and proven. Exit code 1 if anything required is exceeded.

A pair is a genome, one row of numbers that the climb mutates; `decode` turns genomes into float32 Gaussians. A search
gives lower bounds on the true worst; the proven budgets (docs/theory.md, section 6) are upper bounds.
"""

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from iga import bounds
from iga._files import check_target, write_text
from iga._typing import Float, Tensor
from iga.overlap import gaussian_overlap
from iga.search.climb import climb
from iga.search.pairs import DOMAIN, Domain, Pairs, decode, degenerate_pairs, mutated
from iga.testing.judges.overlap import condition, nearest_rotation, overlap_digits, overlap_reference

__all__ = ["BANDS", "MEASURES", "Measure", "Outcome", "Record", "hill_climb", "judge", "ratio", "search", "table"]

Judge = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Measure:
    """`value`, `required` and `proven` of an Outcome, per pair and in `unit`; the search goes up value/required."""

    name: str
    unit: str
    requirement: str
    theorem: str
    value: Callable[["Outcome"], Tensor]
    required: Callable[["Outcome"], Tensor]
    proven: Callable[["Outcome"], Tensor]
    grows: bool = True  # with κ: then it is searched in bands of κ


@dataclass(frozen=True)
class Outcome:
    """Pairs with what was computed (float64 copies) and what is true."""

    pairs: Pairs
    domain: Domain
    dist_sq: Tensor
    log_det: Tensor
    true_dist_sq: Tensor
    true_log_det: Tensor

    @property
    def kappa(self) -> Tensor:
        return condition(self.pairs[2], self.pairs[5])

    @property
    def u(self) -> float:
        return bounds.unit_roundoff(self.domain.dtype)

    @property
    def floor(self) -> float:
        return bounds.log_det_floor(self.domain.sigma_min)

    @property
    def ceiling(self) -> Tensor:
        delta_sq = (self.pairs[1].double() - self.pairs[4].double()).square().sum(-1)
        return bounds.dist_sq_bound(delta_sq, self.domain.sigma_min)


def _ulp(x: Tensor | float, u: float) -> Tensor:
    """The spacing of floating-point numbers at x."""
    return 2.0 * u * torch.exp2(torch.as_tensor(x, dtype=torch.float64).abs().log2().floor())


def _rounding_above_16u(o: Outcome) -> Tensor:
    """Half a spacing at log_det in excess of 16u: from |log_det| = 32 on, no result can be nearer."""
    return (0.5 * _ulp(o.true_log_det, o.u) / o.u - 16.0).clamp(min=0.0)


def _proven_floor(o: Outcome) -> Tensor:
    budget = bounds.log_det_floor_budget(o.domain.dtype, o.domain.sigma_min, roundings=bounds.REFERENCE) / float(
        _ulp(o.floor, o.u)
    )
    return torch.full_like(o.log_det, budget)


def _proven_log_det(o: Outcome) -> Tensor:
    size = o.true_log_det.abs()
    return bounds.log_det_budget(o.kappa, o.domain.dtype, magnitude=size, roundings=bounds.REFERENCE)


MEASURES = (
    Measure(
        "dist_sq, relative",
        "u",
        "15 + 8κ",
        "47 + 59.6κ",
        lambda o: (o.dist_sq - o.true_dist_sq).abs() / o.true_dist_sq / o.u,
        lambda o: 15.0 + 8.0 * o.kappa,
        lambda o: bounds.dist_sq_budget(o.kappa, o.domain.dtype, roundings=bounds.REFERENCE) / o.u,
    ),
    Measure(
        "log_det, absolute",
        "u",
        "25 + 3κ",
        "23 + 12.5κ + 1 ulp",
        lambda o: (o.log_det - o.true_log_det).abs() / o.u,
        lambda o: 25.0 + 3.0 * o.kappa + _rounding_above_16u(o),
        lambda o: _proven_log_det(o) / o.u,
    ),
    Measure(
        "log_det under its floor",
        "ulp",
        "4",
        "35u + 1 ulp",
        lambda o: (o.floor - o.log_det) / _ulp(o.floor, o.u),
        lambda o: torch.full_like(o.log_det, 4.0),
        _proven_floor,
        grows=False,
    ),
    Measure(
        "dist_sq over |δ|²/(2σ_min²), relative",
        "u",
        "15 + 2κ",
        "50 + 59.6κ",
        lambda o: (o.dist_sq / o.ceiling - 1.0) / o.u,
        lambda o: 15.0 + 2.0 * o.kappa,
        lambda o: bounds.dist_sq_bound_budget(o.kappa, o.domain.dtype, roundings=bounds.REFERENCE) / o.u,
    ),
)


def judge(
    pairs: Pairs, domain: Domain = DOMAIN, *, oracle: Judge = overlap_reference, nearest: bool = False
) -> Outcome:
    """The closed form on the pairs beside the oracle's numbers; `nearest`: those of the nearest rotations."""
    dist_sq, log_det = gaussian_overlap(*pairs)
    reference = pairs
    if nearest:
        q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = pairs
        reference = (nearest_rotation(q_rot), q_mean, q_sigma, nearest_rotation(k_rot), k_mean, k_sigma)
    true_dist_sq, true_log_det = oracle(*reference)
    return Outcome(pairs, domain, dist_sq.double(), log_det.double(), true_dist_sq, true_log_det)


def ratio(measure: Measure, outcome: Outcome) -> Tensor:
    """value/required; a value that is not finite is the worst there is, a pair without distance judges no dist_sq."""
    share = measure.value(outcome) / measure.required(outcome)
    broken = ~(outcome.dist_sq.isfinite() & outcome.log_det.isfinite())
    return torch.where(broken, math.inf, torch.where(share.isnan(), 0.0, share))


# A requirement is nearest to being exceeded at small κ, where constants rule; what grows with κ is searched apart.
BANDS = ((1.0, 10.0), (10.0, 1000.0), (1000.0, math.inf))


@dataclass(frozen=True)
class Record:
    """The worst of one measure in one band of κ at one stage; `value`, `required`, `proven` in `unit` at that pair.

    `pair` holds the numbers of q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma.
    """

    measure: str
    band: str
    stage: str
    unit: str
    value: float
    required: float
    proven: float
    kappa: float
    ratio: float
    requirement: str
    theorem: str
    pair: list[list[float]]


def hill_climb(
    measure: Measure,
    genome: Float[Tensor, "n genes"],
    steps: int,
    generator: torch.Generator,
    domain: Domain = DOMAIN,
    *,
    band: tuple[float, float] = (1.0, math.inf),
    nearest: bool = False,
) -> Float[Tensor, "n genes"]:
    """Each genome after `steps` mutations, a milder one never kept; all climb side by side, κ within `band`."""

    def height(candidate: Tensor) -> Tensor:
        outcome = judge(decode(candidate, domain), domain, nearest=nearest)
        return torch.where(_inside(outcome.kappa, band), ratio(measure, outcome), -math.inf)

    return climb(height, lambda best: mutated(best, generator, domain), genome, steps)[0]


def search(
    pairs: int,
    climb_steps: int,
    *,
    seed: int = 0,
    population: int = 1024,
    rejudge: int = 1000,
    chunk: int = 200_000,
    domain: Domain = DOMAIN,
    nearest: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[Record]:
    """The worst of each measure and band of κ: over `pairs` samples in float64, of their worst `rejudge` in 50 digits,
    and of the worst `rejudge` of `population` climbers in 50 digits.
    """
    generator = torch.Generator().manual_seed(seed)
    kept = {(m.name, band): torch.empty(0, 22, dtype=torch.float64) for m in MEASURES for band in _bands(m)}
    scores = {key: torch.empty(0, dtype=torch.float64) for key in kept}
    drawn = 0
    while drawn < pairs:
        genome = degenerate_pairs(min(chunk, pairs - drawn), generator, domain)
        outcome = judge(decode(genome, domain), domain, nearest=nearest)
        for m in MEASURES:
            share = ratio(m, outcome)
            for band in _bands(m):
                inside = _inside(outcome.kappa, band)
                key = (m.name, band)
                score, index = torch.cat([scores[key], share[inside]]).sort(descending=True)
                index = index[: max(population, rejudge)]
                scores[key] = score[: len(index)]
                kept[key] = torch.cat([kept[key], genome[inside]])[index]
        drawn += len(genome)
        say(f"{drawn} pairs")
    records = []
    for m in MEASURES:
        for band in _bands(m):
            worst = kept[m.name, band]
            if not len(worst):
                continue
            sampled = judge(decode(worst, domain), domain, nearest=nearest)
            records.append(_record(m, band, "sampled, float64", sampled))
            records.append(_digits(m, band, "sampled, 50 digits", worst[:rejudge], domain, nearest))
            if climb_steps:
                climbed = hill_climb(m, worst[:population], climb_steps, generator, domain, band=band, nearest=nearest)
                share = ratio(m, judge(decode(climbed, domain), domain, nearest=nearest))
                top = climbed[share.argsort(descending=True)[:rejudge]]
                records.append(_digits(m, band, "climbed, 50 digits", top, domain, nearest))
            say(f"{m.name}, {_name(band)}: {records[-1].ratio:.3f} of the requirement")
    return records


def table(records: list[Record], stages: tuple[str, ...] = ()) -> str:
    """The records as a Markdown table; only those of `stages`, if any are named."""
    lines = [
        "| quantity | κ | stage | measured | at κ | required there | proven there |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in records:
        if not stages or r.stage in stages:
            name = f"{r.measure} (required {r.requirement}, proven {r.theorem})".replace("|", "\\|")
            figures = (f"{r.value:.4g} {r.unit}", f"{r.kappa:.4g}", f"{r.required:.4g}", f"{r.proven:.4g}")
            lines.append("| " + " | ".join((name, r.band, r.stage, *figures)) + " |")
    return "\n".join(lines)


def _digits(
    measure: Measure, band: tuple[float, float], stage: str, genome: Tensor, domain: Domain, nearest: bool
) -> Record:
    outcome = judge(decode(genome, domain), domain, oracle=overlap_digits, nearest=nearest)
    return _record(measure, band, stage, outcome)


def _record(measure: Measure, band: tuple[float, float], stage: str, outcome: Outcome) -> Record:
    share = ratio(measure, outcome)
    k = int(share.argmax())
    return Record(
        measure=measure.name,
        band=_name(band),
        stage=stage,
        unit=measure.unit,
        value=float(measure.value(outcome)[k]),
        required=float(measure.required(outcome)[k]),
        proven=float(measure.proven(outcome)[k]),
        kappa=float(outcome.kappa[k]),
        ratio=float(share[k]),
        requirement=measure.requirement,
        theorem=measure.theorem,
        pair=[x[k].double().flatten().tolist() for x in outcome.pairs],
    )


def _bands(measure: Measure) -> tuple[tuple[float, float], ...]:
    return BANDS if measure.grows else ((1.0, math.inf),)


def _inside(kappa: Tensor, band: tuple[float, float]) -> Tensor:
    return (kappa >= band[0]) & (kappa < band[1])


def _name(band: tuple[float, float]) -> str:
    return f"≥ {band[0]:g}" if band[1] == math.inf else f"{band[0]:g}–{band[1]:g}"


def main(arguments: list[str] | None = None) -> int:
    """Run the search, print the table, write the JSON; 1 if a required figure is exceeded, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m iga.testing.overlap.worst_rounding", description="Worst rounding, by search."
    )
    parser.add_argument("--pairs", type=int, default=10_000_000, help="degenerate pairs to sample")
    parser.add_argument("--climb-steps", type=int, default=2500, help="mutations of each climber; 0: no climb")
    parser.add_argument("--population", type=int, default=1024, help="climbers per measure and band of κ")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sigma-min", type=float, default=0.03, help="nm")
    parser.add_argument("--sigma-max", type=float, default=150.0, help="nm")
    parser.add_argument("--nearest", action="store_true", help="judge against the nearest rotations")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    chosen = parser.parse_args(arguments)
    for name in ("pairs", "population"):
        if getattr(chosen, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if not 0 < chosen.sigma_min < chosen.sigma_max:
        parser.error("--sigma-min must be above 0 and below --sigma-max")
    if chosen.json is not None:
        try:
            check_target(chosen.json)
        except OSError as error:
            parser.error(f"--json {error.filename}: {error.strerror}")
    domain = Domain(chosen.sigma_min, chosen.sigma_max)
    start = time.perf_counter()

    def say(line: str) -> None:
        sys.stderr.write(f"{time.perf_counter() - start:7.1f} s  {line}\n")

    records = search(
        chosen.pairs,
        chosen.climb_steps,
        seed=chosen.seed,
        population=chosen.population,
        domain=domain,
        nearest=chosen.nearest,
        say=say,
    )
    sys.stdout.write(table(records) + "\n")
    if chosen.json is not None:
        document = {
            "date": date.today().isoformat(),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "machine": f"{platform.machine().replace('_', '-')} CPU, {os.cpu_count()} cores",
            "dtype": "float32",
            "reference": "nearest rotations" if chosen.nearest else "the given matrices",
            "pairs": chosen.pairs,
            "climb_steps": chosen.climb_steps,
            "population": chosen.population,
            "seed": chosen.seed,
            "sigma_min": chosen.sigma_min,
            "sigma_max": chosen.sigma_max,
            "seconds": round(time.perf_counter() - start, 1),
            "records": [vars(r) for r in records],
        }
        write_text(chosen.json, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return 1 if any(r.ratio > 1.0 for r in records) else 0


if __name__ == "__main__":
    sys.exit(main())
