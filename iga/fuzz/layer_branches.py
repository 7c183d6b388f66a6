"""The branches inside a layer: calls of a few residues, moved by gradient to the sides that no drawn call takes.

A population is one call: its samples are the genomes, each with features and geometry of its own, so that a step of all
costs one pass forward and one back. Of a site inside the layer, a condition on all pairs say, the nearest element of
each sample counts: one pair in a narrow box is enough. A genome's numbers are, for each residue,

    trans (3), turn (3), local_mean (3), log_scale (3)

lengths as asinh(x/0.01 nm)/2 and log σ as ln(σ)/2, so that a step is a share of what is there; the turn is a rotation
vector in the frame that it began with. Features are drawn, and not moved.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from iga import rotation
from iga._typing import Float, Tensor
from iga.frame import Frame
from iga.fuzz.branches import watch_branches
from iga.fuzz.layer_draw import FARTHEST, Room, draw
from iga.fuzz.layer_genome import GEOMETRY, LayerGenome, case_of
from iga.fuzz.layer_measure import Asked
from iga.fuzz.layer_scene import LayerScene
from iga.fuzz.seeking import Coverage, seek
from iga.gaussian import GaussianRigid
from iga.testing.state.watch import Watch, watching

__all__ = ["LayerSpace", "calls_at_branches", "drawn_population"]

ROWS = 13  # samples of a population: no size of its call is a multiple, so that a dimension of theirs is seen to be one
RESIDUES = (2, 3, 4, 5)
NUMBERS = 12  # of a residue
LENGTH = 0.01  # nm, under which a step is no longer a share of a coordinate
WIDEST_MEAN = 100.0  # nm
POPULATIONS = 3  # whose sides are counted in a round, before the last of them is moved
PATIENCE = 6  # rounds in which a side is sought before it is taken for one that no geometry has, a clamp's say
KEPT = 6  # genomes of a round of which relations are asked


@dataclass(frozen=True, eq=False)
class LayerSpace:
    """Populations in the frames and with the sizes, features and parameters of `base`, [b, n]; `room` bounds them."""

    base: LayerGenome
    room: Room

    @property
    def genes(self) -> int:
        return NUMBERS * self.base.residues

    def encode(self) -> Float[Tensor, "b genes"]:
        """The base itself."""
        base = self.base
        still = torch.zeros_like(base.trans)
        parts = (_short(base.trans), still, _short(base.local_mean), base.log_scale / 2)
        return self.confined(torch.cat(parts, dim=-1).flatten(-2))

    def decode(self, genome: Float[Tensor, "b genes"], dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Rotations [b, n, 3, 3]; origins, local means and log scales [b, n, 3]."""
        trans, turn, mean, log_scale = genome.unflatten(-1, (-1, NUMBERS)).split(3, dim=-1)
        rot = rotation.multiply(self.base.rot, rotation.exp(turn))
        return rot.to(dtype), _long(trans).to(dtype), _long(mean).to(dtype), (2 * log_scale).to(dtype)

    def confined(self, genome: Float[Tensor, "b genes"]) -> Float[Tensor, "b genes"]:
        low, high = self.room.log_scales
        far, wide = (_short(torch.tensor(x, dtype=torch.float64)) for x in (FARTHEST, WIDEST_MEAN))
        trans, turn, mean, log_scale = genome.unflatten(-1, (-1, NUMBERS)).split(3, dim=-1)
        parts = (trans.clamp(-far, far), turn.clamp(-math.pi, math.pi), mean.clamp(-wide, wide))
        return torch.cat([*parts, log_scale.clamp(low / 2, high / 2)], dim=-1).flatten(-2)

    def mutate(self, genome: Float[Tensor, "b genes"], generator: torch.Generator) -> Float[Tensor, "b genes"]:
        """A tenth of the numbers moved, by a step of any size; now and then one becomes 0 or its neighbour's."""
        shape = genome.shape
        step = 10.0 ** (-4.0 * torch.rand(shape[0], 1, generator=generator, dtype=torch.float64))
        moved = genome + step * torch.randn(shape, generator=generator, dtype=torch.float64)
        kind = torch.rand(shape, generator=generator)
        out = torch.where(kind < 0.1, moved, genome)
        tied = torch.rand(shape[0], 1, generator=generator) < 0.3
        out = torch.where(tied & (kind > 0.97), genome.roll(1, dims=-1), out)  # the component before it
        out = torch.where(tied & (kind > 0.94) & (kind <= 0.97), genome.roll(NUMBERS, dims=-1), out)  # the residue's
        return self.confined(torch.where(tied & (kind > 0.91) & (kind <= 0.94), 0.0, out))

    def call(self, row: int, genome: Float[Tensor, " genes"]) -> LayerGenome:
        """One genome of row `row` as a call of its own."""
        single = LayerSpace(self.base.picked(torch.tensor([row])), self.room)
        parts = dict(zip(GEOMETRY, single.decode(genome[None], torch.float64), strict=True))
        return replace(single.base, **parts)


def drawn_population(room: Room, generator: torch.Generator) -> LayerSpace:
    """A call of ROWS samples, of one where a target takes no more, all valid, in float64 if that is claimed."""
    residues = RESIDUES[int(torch.randint(0, len(RESIDUES), (), generator=generator))]
    genome = draw(room, generator, "residues", residues)
    rows = room.size("samples", ROWS)
    others = [draw(room, generator, "residues", residues) for _ in range(rows)]
    parts = {name: torch.stack([getattr(one, name)[0] for one in others]) for name in GEOMETRY}
    base = replace(
        genome,
        **parts,
        samples=torch.arange(rows),
        mask=torch.ones(rows, genome.residues, dtype=torch.bool),
        shape=(rows,),
        layout="plain",
        dtype=torch.float64 if torch.float64 in room.dtypes else room.dtypes[0],
    )
    return LayerSpace(base, room)


def calls_at_branches(
    asked: Asked, coverage: Coverage, generator: torch.Generator, alive: Callable[[], None]
) -> tuple[int, list[LayerGenome]]:
    """(sides first taken, calls of one sample that took a rare side or came near one); none where no branch is seen.

    Where the layer raises, all samples of that call: relations are asked of each, and will meet it.
    """
    before = coverage.met
    with watching(Watch()):
        for _ in range(POPULATIONS):
            space = drawn_population(asked.room, generator)
            called = _Called(asked.scene(space.base))
            numbers = space.encode()
            try:
                with torch.no_grad():
                    _, seen = watch_branches(
                        called, *space.decode(numbers, space.base.dtype), rows=len(numbers), columns=1
                    )
            except Exception:  # the accused's own, whatever it is
                return coverage.met - before, called.latest(space)
            coverage.note(seen, len(numbers), sampled=True)
            alive()
        if not coverage.rare and not coverage.ranges:
            return coverage.met - before, []
        found = _sought(called, space, coverage, generator, alive)
    return coverage.met - before, found


def _sought(
    called: "_Called", space: LayerSpace, coverage: Coverage, generator: torch.Generator, alive: Callable[[], None]
) -> list[LayerGenome]:
    """Each sample as it was when it last took a rare side; where these are few, some that came near one."""
    met: dict[int, LayerGenome] = {}
    start = space.encode()
    rows, numbers = torch.arange(0), start[:0]
    try:
        walk = seek(called, space, start, space.base.dtype, coverage, generator, columns=1, patience=PATIENCE)
        for arrived in walk:
            alive()
            met |= {row: space.call(row, one) for row, one in zip(rows.tolist(), numbers, strict=True)}
            rows, numbers = arrived  # the last are all of them, wherever they are
    except Exception:  # the accused's own, whatever it is
        return called.latest(space)
    order = torch.randperm(len(numbers), generator=generator).tolist()
    near = [space.call(row, numbers[row]) for row in order if row not in met]
    return [*(met[row] for row in order if row in met), *near][:KEPT]


class _Called:
    """The layer's output as a function of the geometry, features and mask as they are; it knows its latest call."""

    def __init__(self, scene: LayerScene) -> None:
        self.scene, self.plain = scene, case_of(scene.genome)
        self.given: tuple[Tensor, ...] = ()

    def __call__(self, *given: Tensor) -> Tensor:
        """rot, trans, local_mean, log_scale"""
        self.given = tuple(x.detach() for x in given)
        rot, trans, mean, log_scale = given
        rigid = GaussianRigid(Frame(rot, trans), mean, log_scale)
        layer = self.scene.layer.requires_grad_(False)  # built here, where what it raises is looked for
        return self.scene.subject.output(layer, replace(self.plain, rigid=rigid))

    def latest(self, space: LayerSpace) -> list[LayerGenome]:
        """The samples of the latest call, each as a call of its own."""
        parts = {name: x.double() for name, x in zip(GEOMETRY, self.given, strict=True)}
        whole = replace(space.base, **parts)
        return [whole.picked(torch.tensor([row])) for row in range(len(space.base.samples))]


def _short(x: Tensor) -> Tensor:
    return (x / LENGTH).asinh() / 2


def _long(x: Tensor) -> Tensor:
    return LENGTH * (2 * x).sinh()
