"""Seconds of one training step of every arm on one thread, forward, backward and Adam, statistics included.

    python benches/experiment_step.py [SIZE] [KEY=VALUE ...] [--flush-denormal]

A batch is max_samples chains of crop residues, synthetic backbones half way to noise. Arms take turns, so that a busy
spell of the machine hits all of them; the first steps, in which kernels are compiled, are not counted. Prints the
median and the least of the steps and the numbers of parameters. --flush-denormal: the processor takes denormal numbers
for zero.
"""

import platform
import statistics
import sys
import time

import torch

from iga import rotation
from iga.experiment.arms import ARMS, network_of
from iga.experiment.settings import load_settings
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.synthetic import synthetic_structures

WARM_UP, ROUNDS = 3, 15


def batch(samples: int, residues: int) -> tuple[GaussianRigid, GaussianRigid]:
    """(noised, clean), [samples, residues]."""
    found = [s.gaussian for s in synthetic_structures(samples, seed=0, lengths=(residues, residues))]
    rot, trans, local_mean, log_scale = (
        torch.stack([getattr(g, name) for g in found]) for name in ("rot", "trans", "local_mean", "log_scale")
    )
    generator = torch.Generator().manual_seed(0)
    turned = rotation.random(samples, residues, generator=generator)
    moved = (trans + torch.randn(trans.shape, generator=generator)) / 2
    return (
        GaussianRigid(Frame(turned, moved), local_mean, log_scale),
        GaussianRigid(Frame(rot, trans), local_mean, log_scale),
    )


def main(size: str = "small", *overrides: str) -> None:
    torch.set_num_threads(1)
    settings = {arm: load_settings(arm, size, overrides) for arm in ARMS}
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
        return time.perf_counter() - start

    times: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(WARM_UP + ROUNDS):
        for arm in ARMS:
            seconds = step(arm)
            if number >= WARM_UP:
                times[arm].append(seconds)
    print(f"torch {torch.__version__}, {platform.machine()}, 1 thread, {ROUNDS} steps after {WARM_UP}, size {size}")
    print(f"{training.max_samples} samples of {training.crop} residues, float32")
    print(f"{'arm':20} {'median ms':>10} {'least ms':>10} {'parameters':>11}")
    for arm in ARMS:
        count = sum(p.numel() for p in networks[arm].parameters())
        print(f"{arm:20} {1e3 * statistics.median(times[arm]):10.1f} {1e3 * min(times[arm]):10.1f} {count:11}")


if __name__ == "__main__":
    torch.set_flush_denormal("--flush-denormal" in sys.argv)
    main(*(argument for argument in sys.argv[1:] if argument != "--flush-denormal"))
