"""A run in float64 for torchrun or alone: python two_processes.py FOLDER STEPS [SIZE_OF_THE_SHAKE]. Prints nothing.

With a shake every weight starts moved by that relative amount, with random signs: what it changes is what rounding may.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.training import data, tiny
from iga.experiment.model.arms import network_of
from iga.experiment.run import evaluate, processes, train


def main(folder: Path, steps: int, shake: float) -> None:
    torch.set_num_threads(1)  # two processes on two cores
    right = train.noised

    def network(settings):
        made = network_of(settings).double()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in made.parameters():
                signs = 2.0 * torch.randint(0, 2, parameter.shape, generator=generator) - 1
                parameter.mul_(1 + shake * signs)
        return made

    def noised(*args, **options):
        x = right(*args, **options)
        wide = (part.to(dtype=torch.float64) for part in (x.t, x.gaussian, x.target))
        return replace(x, **dict(zip(("t", "gaussian", "target"), wide, strict=True)))

    train.network_of, train.noised, evaluate.noised, evaluate.SAMPLES = network, noised, noised, 2
    settings = tiny("bounded", "training.parts=2", steps=steps)
    with processes.initialised("cpu"):
        train.train(settings, data(), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
