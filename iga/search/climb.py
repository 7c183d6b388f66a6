"""The climb by mutation: genomes side by side, each going up what it is measured by.

Nothing is asked of the height but that it can be computed: it may be flat, noisy, or have no gradient.
"""

from collections.abc import Callable

import torch

from iga._typing import Float, Tensor

__all__ = ["climb"]


def climb(
    height: Callable[[Tensor], Tensor],
    mutate: Callable[[Tensor], Tensor],
    genome: Float[Tensor, "n genes"],
    steps: int,
) -> tuple[Tensor, Tensor]:
    """(each genome after `steps` mutations, a lower one never kept; its height)."""
    best, top = genome.clone(), height(genome)
    for _ in range(steps):
        trial = mutate(best)
        now = height(trial)
        better = now >= top  # neutral moves too: rounding has plateaus
        best = torch.where(better[:, None], trial, best)
        top = torch.where(better, now, top)
    return best, top
