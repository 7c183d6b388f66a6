"""Seconds of one training step of every arm on one thread, forward, backward and Adam, statistics included.

    python benches/experiment_step.py [SIZE] [KEY=VALUE ...] [--json benches/results/experiment_step.json]

A batch is max_samples chains of crop residues, synthetic backbones half way to noise. Arms take turns, with denormal
numbers as they are and taken for zero, so that a busy spell of the machine hits all of them; the first steps, in which
kernels are compiled, are not counted.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from iga import rotation
from iga._runtime import machine
from iga.experiment.model.arms import ARMS, network_of
from iga.experiment.settings import load_settings
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.report.schema import write
from iga.structure.synthetic import synthetic_structures

WARM_UP, ROUNDS = 3, 15
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description="seconds of one training step of every arm, on one thread")
    parser.add_argument("size", nargs="?", default="small")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, help="write the result there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = {arm: load_settings(arm, options.size, options.overrides) for arm in ARMS}
    training = settings["bounded"].training
    noised, clean = batch(training.max_samples, training.crop)
    mask = torch.ones(noised.shape, dtype=torch.bool)
    t, index = torch.full(noised.shape[:1], 0.5), torch.arange(noised.shape[1]).expand(noised.shape)
    networks = {arm: network_of(settings[arm]) for arm in ARMS}
    optimisers = {arm: torch.optim.Adam(networks[arm].parameters(), lr=training.lr) for arm in ARMS}

    def step(arm: str) -> float:
        start = time.perf_counter()
        found = networks[arm](noised, t, mask, index, [])
        turned = rotation.log(rotation.multiply(rotation.transpose(clean.rot), found.rot))
        loss = (found.trans - clean.trans).square().mean() + turned.square().mean()
        optimisers[arm].zero_grad()
        loss.backward()
        optimisers[arm].step()
        return 1e3 * (time.perf_counter() - start)

    times: dict[tuple[str, bool], list[float]] = {(arm, flush): [] for arm in ARMS for flush in (False, True)}
    for number in range(WARM_UP + ROUNDS):
        for arm, flush in times:
            torch.set_flush_denormal(flush)
            took = step(arm)
            if number >= WARM_UP:
                times[arm, flush].append(took)
    arms = {
        arm: {
            "parameters": sum(p.numel() for p in networks[arm].parameters()),
            "median_ms": statistics.median(times[arm, False]),
            "least_ms": min(times[arm, False]),
            "flushed_median_ms": statistics.median(times[arm, True]),
            "flushed_least_ms": min(times[arm, True]),
        }
        for arm in ARMS
    }
    print(f"{training.max_samples} samples of {training.crop} residues, float32, {ROUNDS} steps after {WARM_UP}")
    print(f"{'arm':20} {'median ms':>10} {'least':>8} {'flushed: median':>16} {'least':>8} {'parameters':>11}")
    for arm, row in arms.items():
        print(
            f"{arm:20} {row['median_ms']:10.1f} {row['least_ms']:8.1f} {row['flushed_median_ms']:16.1f} "
            f"{row['flushed_least_ms']:8.1f} {row['parameters']:11}"
        )
    if options.json:
        problem = {"size": options.size, "overrides": options.overrides, "rounds": ROUNDS, "warm_up": WARM_UP}
        environment = machine() | {"device": "cpu", "threads": 1, "seed": SEED}
        write({"schema": 1, "environment": environment, "problem": problem, "arms": arms}, options.json)


def batch(samples: int, residues: int) -> tuple[GaussianRigid, GaussianRigid]:
    """(noised, clean), [samples, residues]."""
    found = [s.gaussian for s in synthetic_structures(samples, seed=SEED, lengths=(residues, residues))]
    rot, trans, local_mean, log_scale = (
        torch.stack([getattr(g, name) for g in found]) for name in ("rot", "trans", "local_mean", "log_scale")
    )
    generator = torch.Generator().manual_seed(SEED)
    turned = rotation.random(samples, residues, generator=generator)
    moved = (trans + torch.randn(trans.shape, generator=generator)) / 2
    return (
        GaussianRigid(Frame(turned, moved), local_mean, log_scale),
        GaussianRigid(Frame(rot, trans), local_mean, log_scale),
    )


if __name__ == "__main__":
    main()
