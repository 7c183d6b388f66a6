"""Equal points: as far as frames make them, the logits of P of them are P^a times those of one, with one a for every P.

A sum has a = 1, 1/√P ½, a mean 0. A layer that shows such a power at 1, 2, 4 and 8 points has it at others too: of 12
points that are taken by eights the last four are lost, and nothing else ties a number of points to another.
"""

import math
from dataclasses import replace

import torch
from torch import nn

from iga import bounds
from iga._typing import Tensor
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import cast, kept
from iga.testing.layer.growth_seen import moved_logits
from iga.testing.layer.guards import rolled
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally
from iga.testing.targets import TargetError

__all__ = ["FEW_PLACES", "POWERS", "asked_of", "judge_other_points", "magnitude", "off_a_power"]

POWERS = (1, 2, 4, 8)  # of which a power is read
OTHERS = (3, 5, 6, 7, *range(9, 17), 24, 31, 33, 48)
# nm, of residues a tenth of a nm wide: logits far from what float64 loses
FEW_PLACES = ((0.0, 0.0, 0.0), (0.4, 0.0, 0.0), (0.1, 0.5, 0.0), (0.0, 0.3, 0.6))
WIDTH = 0.2


def asked_of(subject: Subject) -> bool:
    """True if logits are seen, in float64, at as many points as POWERS has."""
    seen = {name for name, how in subject.all_taps.items() if how != "missing"}
    most = subject.claims.max_points or math.inf
    shown = subject.traced or bool({"logits", "geometry_logit"} & seen)
    return shown and torch.float64 in subject.dtypes and most >= max(POWERS)


def judge_other_points(subject: Subject, case: Case, seed: int, tally: Tally) -> None:
    """The power of P at OTHERS, of a layer that has one at POWERS."""
    if not asked_of(subject) or case.s.shape[-2] < len(FEW_PLACES):
        return
    few = cast(kept(case, torch.arange(len(FEW_PLACES))), torch.float64)
    r = few.rigid
    frame = Frame(r.rot, torch.tensor(FEW_PLACES, dtype=torch.float64)[None])
    rigid = GaussianRigid(frame, torch.zeros_like(r.local_mean), torch.full_like(r.log_scale, math.log(WIDTH)))
    few = replace(few, rigid=rigid, mask=torch.ones_like(few.mask))
    most = subject.claims.max_points or math.inf
    sizes = {p: magnitude(subject, few, p, seed) for p in (*POWERS, *(p for p in OTHERS if p <= most))}
    found = {p: size for p, size in sizes.items() if size is not None}
    if any(p not in found for p in POWERS) or not all(math.isfinite(x) and x > 0 for x in found.values()):
        return
    exponent, off, limit = off_a_power(found)
    if bool((off[: len(POWERS)] > limit).any()):
        return tally.note("equal points: no power of P at 1, 2, 4 and 8, and none is asked for")
    tally.add(off, limit, lambda index: f"log2 of the logits of {[*found][index[0]]} equal points, P^{exponent:.3f}")


def off_a_power(sizes: dict[int, float]) -> tuple[float, Tensor, float]:
    """(the exponent between the first two numbers of points, by how much log2 of each size is off it, its limit).

    In float64 sizes err by less than 2⁻²⁴ of themselves: p · u of some 10³ roundings times κ ≤ 5·10³.
    """
    logs = torch.tensor([*sizes.values()], dtype=torch.float64).log2()
    by = torch.tensor([*sizes], dtype=torch.float64).log2()
    exponent = (logs[1] - logs[0]) / (by[1] - by[0])
    off = (logs - logs[0] - exponent * (by - by[0])).abs()
    return float(exponent), off, bounds.unit_roundoff(torch.float32) / math.log(2)


def magnitude(subject: Subject, case: Case, points: int, seed: int, *, gain: float = 1.0) -> float | None:
    """Root mean square of what the frames do to logits, centred by rows; None where points cannot be made equal."""
    try:
        layer = _tied(subject, points, seed, gain).double()
    except TargetError:
        return None
    with torch.no_grad():
        if subject.traced:
            here, there = (subject.trace(layer, one).geo_raw for one in (case, rolled(case)))
            return float((here - there).square().mean().sqrt())
        here, there = (subject.seen(layer, one) for one in (case, rolled(case)))
        name = "geometry_logit" if "geometry_logit" in subject.taps else "logits"
        if not (here.has(name) and there.has(name)):
            return None
        both = here.all(name), there.all(name)  # of each softmax of the call
    if [x.shape for x in both[0]] != [x.shape for x in both[1]]:
        return None
    moved = [moved_logits(*one).square().mean() for one in zip(*both, strict=True)]
    return float(torch.stack(moved).sum().sqrt())


def _tied(subject: Subject, points: int, seed: int, gain: float) -> nn.Module:
    single, layer = subject.random(1, seed, gain=gain), subject.fresh(points, seed)
    two = subject.fresh(2, seed)
    shapes = {name: x.shape for name, x in two.named_parameters()}
    try:  # one point is tied to itself, whatever the layout
        subject.tied(two, single, 2)
        return subject.tied(layer, single, points)
    except TargetError:
        return _alike(layer, single, shapes)


def _alike(layer: nn.Module, single: nn.Module, shapes: dict[str, torch.Size]) -> nn.Module:
    """All points alike, however a layer lays them out: what has another shape for each P is one number throughout.
    `shapes`: those with two points."""
    source = dict(single.named_parameters())
    if shapes.keys() != source.keys() or source.keys() != dict(layer.named_parameters()).keys():
        raise TargetError("points cannot be made equal: the layer has other parameters with another number of them")
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            one = source[name]
            parameter.copy_(one if one.shape == shapes[name] else one.square().mean().sqrt().expand_as(parameter))
    return layer
