"""A call of a layer made as small and simple as it can be while the same relation, law or check breaks.

In this order, over and over until nothing helps: one sample, few residues (by halves, then one by one), small sizes, a
plain form, a plain mask, then numbers: identity frames, places and scales that are zero, equal or of few digits.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from itertools import permutations

import torch

from iga._typing import Tensor
from iga.fuzz.layer_genome import GEOMETRY, LayerGenome, call_of, genome_of
from iga.fuzz.layer_measure import Asked
from iga.fuzz.stream import Candidate

__all__ = ["shrunk", "simplest"]

Fails = Callable[[LayerGenome], bool]
ENOUGH = 12.0  # seconds: a call costs hundredths, and its steps are some hundred
ONE_BY_ONE = 16  # residues up to which each is looked at alone


def shrunk(asked: Asked, candidate: Candidate, seconds: float) -> Candidate:
    """The candidate on the simplest call that was found; as it is, where it does not break."""
    given, name = genome_of(candidate.call), candidate.check

    def fails(genome: LayerGenome) -> bool:
        return asked.measure(name, asked.scene(genome)).broken

    if not fails(given):
        return candidate
    small = simplest(given, fails, min(seconds, ENOUGH))
    one = asked.measure(name, asked.scene(small))
    if not one.broken:
        return candidate
    found = one.finding
    where = f"{small.label}: {found.worst_example}"
    return replace(candidate, call=call_of(small), ratio=one.ratio, where=where, note=found.note)


def simplest(genome: LayerGenome, fails: Fails, seconds: float) -> LayerGenome:
    """The simplest call that still fails, of those tried within so many seconds."""
    last = time.monotonic() + seconds
    changed = True
    while changed:
        changed = False
        for step in (_samples, _residues, _sizes, _form, _masks, _frames, _places, _scales, _means, _seeds):
            found = _first(step, genome, fails, last)
            while found is not None:
                genome, changed = found, True
                found = _first(step, genome, fails, last)
    return genome


def _first(step: Callable[[LayerGenome], Iterable[LayerGenome]], g: LayerGenome, fails: Fails, last: float):  # noqa: ANN202
    """The first proposal of a step that is simpler and fails."""
    own = _cost(g)
    return next((x for x in step(g) if time.monotonic() < last and _cost(x) < own and fails(x)), None)


def _cost(g: LayerGenome) -> tuple[int, ...]:
    """Compared in order: samples, residues, sizes, the form, what is masked, the digits of the numbers, seeds."""
    form = (g.layout != "plain") + (len(g.shape) != 1)
    form += sum({0.0: 0, 1.0: 1}.get(size, 2) for size in (g.gain, g.s_size, g.z_size))
    digits = sum(len(repr(x)) for name in GEOMETRY for x in getattr(g, name).flatten().tolist())
    seeds = g.choice + g.features + g.seed
    return len(g.samples), g.residues, sum(g.sizes.values()), form, int((~g.mask).sum()), digits, seeds


def _samples(g: LayerGenome) -> Iterator[LayerGenome]:
    """Each sample alone, then the first half, the second, and all but one."""
    count = len(g.samples)
    if count == 1:
        if g.shape != (1,):
            yield replace(g, shape=(1,))
        return
    if g.shape != (count,):
        yield replace(g, shape=(count,))
    for index in _subsets(count):
        yield g.picked(index)


def _residues(g: LayerGenome) -> Iterator[LayerGenome]:
    for index in _subsets(g.residues):
        yield g.kept(index)


def _subsets(count: int) -> Iterator[Tensor]:
    """Parts of 0 … count − 1: a few at either end; then all but a half, a quarter, …, but one where there are few."""
    whole = torch.arange(count)
    for few in (1, 2, 3, 5, 9):
        if few < count // 2:
            yield whole[:few]
            yield whole[-few:]
    size = count // 2
    while size >= 1:
        for begin in range(0, count, size):
            kept = torch.cat([whole[:begin], whole[begin + size :]])
            if len(kept):
                yield kept
        if size == 1 or (size < 4 and count > 4 * ONE_BY_ONE):
            return
        size //= 2


def _sizes(g: LayerGenome) -> Iterator[LayerGenome]:
    for name, now in g.sizes.items():
        for less in dict.fromkeys((1, 2, 3, now // 2, now - 1)):
            if 1 <= less < now:
                yield g.sized(**{name: less})


def _form(g: LayerGenome) -> Iterator[LayerGenome]:
    simple = {"layout": "plain", "gain": 1.0, "s_size": 1.0, "z_size": 1.0, "shape": (len(g.samples),)}
    for name, value in simple.items():
        if getattr(g, name) != value:
            yield replace(g, **{name: value})
    for name in ("gain", "s_size", "z_size"):  # without parameters a layer's Gaussians are the residues' own
        if getattr(g, name):
            yield replace(g, **{name: 0.0})


def _masks(g: LayerGenome) -> Iterator[LayerGenome]:
    """All valid, the last of each sample masked, and one masked residue fewer."""
    if bool(g.mask.all()):
        return
    yield replace(g, mask=torch.ones_like(g.mask))
    last = torch.ones_like(g.mask)
    last[:, -1] = False
    shut = (~g.mask).nonzero().tolist()
    if len(shut) > int((~last).sum()):
        yield replace(g, mask=last)
    for sample, residue in shut[:ONE_BY_ONE] if len(shut) > 1 else []:
        mask = g.mask.clone()
        mask[sample, residue] = True
        yield replace(g, mask=mask)


def _frames(g: LayerGenome) -> Iterator[LayerGenome]:
    for turn in (torch.eye(3, dtype=torch.float64), *_turns()):
        yield from _numbers(g, "rot", turn.expand_as(g.rot))


@cache
def _turns() -> tuple[Tensor, ...]:
    """Turns of numbers that a person can read: by the angle of a triangle of sides 3, 4, 5 about one axis, about two
    axes, about three; so no axis of the last lies in a plane of the first frame."""
    about = []
    for first in range(3):
        a, b = (first + 1) % 3, (first + 2) % 3
        turn = torch.eye(3, dtype=torch.float64)
        turn[a, a], turn[a, b], turn[b, a], turn[b, b] = 0.6, -0.8, 0.8, 0.6
        about.append(turn)
    pairs = [x @ y for x in about for y in about if x is not y]
    triples = [x @ y @ z for x, y, z in permutations(about)]
    return tuple(x.mul(1e4).round().div(1e4) for x in (*about, *pairs, *triples))


def _places(g: LayerGenome) -> Iterator[LayerGenome]:
    zero = torch.zeros_like(g.trans)
    yield from _numbers(g, "trans", zero)
    along = torch.zeros_like(g.trans)
    along[..., 0] = torch.arange(g.residues).double()
    yield from _numbers(g, "trans", along, alone=False)
    lengths = zero.clone()
    lengths[..., 0] = (g.trans - g.trans[:, :1]).norm(dim=-1)  # as far from the first, along one axis
    if bool((g.trans[..., 1:] != 0).any()):
        yield replace(g, trans=lengths)
    yield from _rounded(g, "trans")


def _scales(g: LayerGenome) -> Iterator[LayerGenome]:
    yield from _numbers(g, "log_scale", torch.full_like(g.log_scale, -1.0))
    yield from _rounded(g, "log_scale")


def _means(g: LayerGenome) -> Iterator[LayerGenome]:
    yield from _numbers(g, "local_mean", torch.zeros_like(g.local_mean))
    yield from _rounded(g, "local_mean")


def _numbers(g: LayerGenome, name: str, plain: Tensor, *, alone: bool = True) -> Iterator[LayerGenome]:
    """Plain numbers for all residues at once; else, of few, for one residue after the other."""
    own = getattr(g, name)
    if torch.equal(own, plain):
        return
    yield replace(g, **{name: plain.clone()})
    if not alone or own.shape[0] * own.shape[1] > ONE_BY_ONE:
        return
    for sample in range(own.shape[0]):
        for residue in range(own.shape[1]):
            if not torch.equal(own[sample, residue], plain[sample, residue]):
                changed = own.clone()
                changed[sample, residue] = plain[sample, residue]
                yield replace(g, **{name: changed})


def _rounded(g: LayerGenome, name: str) -> Iterator[LayerGenome]:
    """Numbers of one digit, or two."""
    own = getattr(g, name)
    for digits in (1, 2):
        short = torch.tensor([float(f"{x:.{digits}g}") for x in own.flatten().tolist()], dtype=torch.float64)
        if torch.equal(short.reshape(own.shape), own):
            return
        yield replace(g, **{name: short.reshape(own.shape)})


def _seeds(g: LayerGenome) -> Iterable[LayerGenome]:
    for name in ("choice", "features", "seed"):
        for value in range(4):
            if getattr(g, name) > value:
                yield replace(g, **{name: value})
