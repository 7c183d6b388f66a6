"""Real structures as what calls of a layer are drawn from: stretches of their chains, whole or in part.

Of a stretch places, turns, scales and local means are kept together, or one of them is a degenerate family's.
"""

from collections.abc import Mapping, Sequence

import torch

from iga._typing import Tensor
from iga.structure import Structure
from iga.testing.judges.overlap import nearest_rotation

__all__ = ["Parts", "parts_of", "stretch"]

Parts = Mapping[str, Tensor]  # rot [n, 3, 3], trans, local_mean, log_scale [n, 3], float64


def parts_of(structures: Sequence[Structure]) -> tuple[Parts, ...]:
    """The valid residues of each; of a matrix that is one of float32 the nearest rotation."""
    found = []
    for structure in structures:
        g = structure.gaussian[structure.mask.nonzero().flatten()]
        parts = {"trans": g.trans, "local_mean": g.local_mean, "log_scale": g.log_scale}
        found.append({"rot": nearest_rotation(g.rot), **{name: x.double() for name, x in parts.items()}})
    return tuple(parts for parts in found if len(parts["trans"]))


def stretch(parts: Sequence[Parts], n: int, generator: torch.Generator) -> dict[str, Tensor]:
    """n residues in a row of one of them, about its centre; of a shorter one copies, each beside the last."""
    chosen = parts[int(torch.randint(0, len(parts), (), generator=generator))]
    length = len(chosen["trans"])
    index = torch.arange(n) + int(torch.randint(0, max(length - n, 0) + 1, (), generator=generator))
    found = {name: x[index % length] for name, x in chosen.items()}
    places = found["trans"] - found["trans"].mean(0)
    extent = 2 * places.norm(dim=-1).amax()
    beside = (index // length).double()[:, None] * torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    return {**found, "trans": places + extent * beside}
