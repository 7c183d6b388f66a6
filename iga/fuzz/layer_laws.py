"""Laws that a layer has to have shown on ordinary calls before they are asked of it elsewhere.

copies      every residue m times over gives every copy the answer of one: what ties N to smaller N with all valid
alike       residues that are all alike have equal geometry logits, whatever P: the output does not depend on P
points      where logits are seen, geometry of equal points grows as a power of P
continuity  a call moved along a line has outputs without a jump

Attention with a softmax over residues and geometry in its logits has the first three, and none of ours jumps. Another
design may not have them: such a law is left out for it, since it fails on the ordinary calls of `LEARNT` too.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from iga import bounds, rotation
from iga._typing import Tensor
from iga.fuzz.layer_draw import Room, draw
from iga.fuzz.layer_genome import LayerGenome, case_of
from iga.fuzz.layer_relations import Relation
from iga.fuzz.layer_scene import LayerScene
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import stacked
from iga.testing.layer.equal_points import FEW_PLACES, POWERS, asked_of, magnitude, off_a_power
from iga.testing.tally import Tally

__all__ = ["LAWS", "learnt"]

LEARNT = (("residues", 4), ("residues", 6), ("no_qk_points", 1), ("no_qk_points", 2), ("no_qk_points", 4))
OTHER_POINTS = (2, 4)  # what another number of points is compared with
STATIONS, WIDE = 32, 6  # of a line; halvings after which fewer of its intervals are kept
LEVELS, EARLY = 48, 20  # halvings of the intervals that bend most, and when a smooth one is given up
FEW = 4  # residues of a line


# --- copies --------------------------------------------------------------------------------------------------


def equal_copies(scene: LayerScene, tally: Tally) -> None:
    """m copies of some residues fill N, or as much of it as they can; what is left over is masked."""
    genome = scene.genome.picked(torch.tensor([0]))
    n = genome.residues
    if n < 2:
        return
    counts = [k for k in range(1, min(n // 2, 8) + 1) if n % k == 0]  # without a remainder all N are valid
    base = counts[genome.choice % len(counts)] if genome.choice % 3 else min(1 + genome.choice % 5, n // 2)
    few = replace(genome.kept(torch.arange(base)), mask=torch.ones(1, base, dtype=torch.bool))
    index = torch.arange(n) % base
    index = index if genome.choice % 2 else index.sort().values
    many = replace(few.kept(index), mask=torch.ones(1, n, dtype=torch.bool))
    times = n // base
    for place in range(base):  # as many copies of each
        many.mask[0, (index == place).nonzero().flatten()[times:]] = False
    one, all_of_them = LayerScene(scene.subject, few, scene.contract), LayerScene(scene.subject, many, scene.contract)
    difference = all_of_them.plain - one.plain[:, index]
    all_of_them.judge(tally, difference, f"{times} copies of {base} residues in N = {n}")


# --- points --------------------------------------------------------------------------------------------------


def alike_residues(scene: LayerScene, tally: Tally) -> None:
    """Another number of points where points cannot matter: residues of one s and one Gaussian, which z alone parts."""
    genome = scene.genome.picked(torch.tensor([0]))
    first = torch.zeros(genome.residues, dtype=torch.int64)
    ids, same = genome.ids, genome.kept(first)
    alike = LayerScene(scene.subject, replace(same, mask=torch.ones_like(genome.mask)), scene.contract)
    # features of pairs by the residues' own numbers, so that weights differ
    alike.case = replace(alike.case, z=case_of(replace(same, ids=ids)).z)
    for points in OTHER_POINTS:
        if points == genome.points or points > (scene.subject.claims.max_points or points):
            continue
        other = _with_parameters(alike.built(points), alike.layer)
        difference = alike.output(alike.case, layer=other) - alike.plain
        alike.judge(tally, difference, f"all residues alike, P = {genome.points} against {points}")


def _with_parameters(layer: nn.Module, given: nn.Module) -> nn.Module:
    """The layer with all parameters that the other has in the same shape."""
    known = dict(given.named_parameters())
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name in known and known[name].shape == parameter.shape:
                parameter.copy_(known[name])
    return layer


def equal_points(scene: LayerScene, tally: Tally) -> None:
    """Logits of equal points are one power of P: `iga.testing.layer.equal_points`."""
    genome = scene.genome.picked(torch.tensor([0]))
    if not asked_of(scene.subject) or genome.residues < 3:
        return
    case = case_of(replace(_ordinary(genome), dtype=torch.float64))
    points = (*POWERS, genome.points)
    sizes = [magnitude(scene.subject, case, p, genome.seed, gain=genome.gain) for p in points]
    found = {p: size for p, size in zip(points, sizes, strict=True) if size is not None and math.isfinite(size)}
    if any(p not in found for p in points) or min(found.values()) == 0:
        return  # no logit depends on the frames, or none is a number: of that other relations speak
    exponent, off, limit = off_a_power(found)
    tally.add(off, limit, lambda index: f"logits of {[*found][index[0]]} equal points, P^{exponent:.3f}")


def _ordinary(genome: LayerGenome) -> LayerGenome:
    """A few valid residues, nm apart, a tenth of a nm wide: logits far from what float64 loses."""
    few = genome.kept(torch.arange(min(FEW, genome.residues)))
    n = few.residues
    places = torch.tensor(FEW_PLACES, dtype=torch.float64)
    return replace(
        few,
        trans=places[None, :n],
        local_mean=torch.zeros_like(few.trans),
        log_scale=torch.full_like(few.log_scale, math.log(0.2)),
        mask=torch.ones_like(few.mask),
    )


# --- continuity ----------------------------------------------------------------------------------------------


def no_jumps(scene: LayerScene, tally: Tally) -> None:
    """Along a line of calls (a residue walks away, turns, widens, a feature grows) the intervals that bend most
    are halved and halved again: of a continuous function the change vanishes, a jump stays."""
    if torch.float64 not in scene.subject.dtypes or not bool(scene.valid[0].any()):
        return
    genome = scene.genome.picked(torch.tensor([0]))
    genome = replace(genome.kept(genome.mask[0].nonzero().flatten()[:FEW]), dtype=torch.float64)
    line, low, high = _line(genome, scene)
    layer = copy.deepcopy(scene.layer).double()
    together = "batch_size" not in scene.subject.claims.lacking

    def at(places: Tensor) -> Tensor:
        cases = [line(float(t)) for t in places]
        if not together:
            return torch.cat([scene.output(case, layer=layer) for case in cases])
        return scene.output(stacked(cases), layer=layer)

    ends = torch.linspace(low, high, STATIONS + 1, dtype=torch.float64)
    found = at(ends)
    left, right, at_left, at_right = ends[:-1], ends[1:], found[:-1], found[1:]
    begun = float((at_right - at_left).abs().amax())
    if not math.isfinite(begun):
        return  # `finite_outputs` speaks of that
    for level in range(LEVELS):
        middle = (left + right) / 2
        between = at(middle)
        bend = (between - (at_left + at_right) / 2).abs().flatten(1).amax(-1)
        keep = bend.argsort(descending=True)[: max(STATIONS >> max(level - WIDE, 0), 2)]
        left, middle, right = left[keep], middle[keep], right[keep]
        at_left, between, at_right = at_left[keep], between[keep], at_right[keep]
        left, right = torch.cat([left, middle]), torch.cat([middle, right])
        at_left, at_right = torch.cat([at_left, between]), torch.cat([between, at_right])
        change = float((at_right - at_left).abs().amax())
        if level == EARLY and change <= begun * 2.0 ** (-0.7 * EARLY):
            tally.add(change, begun, f"the largest change after {EARLY} halvings")
            return
    order = (at_right - at_left).abs().flatten(1).amax(-1).argsort(descending=True)
    left, right, at_left, at_right = left[order], right[order], at_left[order], at_right[order]
    worst = float((at_right - at_left).abs().amax())
    width = float((right - left)[0]) / max(abs(float(left[0])), 1.0)
    own = LayerScene(scene.subject, genome, scene.contract)
    own.case = line(float(left[0]))
    own.layer = layer
    by = float(right[0] - left[0])  # relative, radians or e-folds, as what is measured is per
    limit = float((2 * own.least.budget(bounds.unit_roundoff(torch.float64)) + 2 * by * own.least.features).amax())
    if worst > limit:
        whole = own.whole
        budget = whole.budget(own.u) + own.u * whole.places * whole.reach * own.lever
        moved = by * (whole.features + whole.geometry + whole.reach * whole.position)
        limit = float((2 * budget + 2 * moved).amax())
    place = f"{_NAMES[genome.choice % len(_NAMES)]} {_said(genome.choice, float(left[0]))}"
    words = f"a jump at {place}, over {width:.1g} of it"
    tally.add(worst, limit, words, could_fail=limit < float(own.least.output.abs().amax()))


_NAMES = ("distance", "distance", "turn", "log scale", "size of s")
_BY_LOG = (0, 1, 4)


def _said(choice: int, t: float) -> str:
    kind = choice % len(_NAMES)
    unit = " nm" if kind < 2 else ""
    return f"{math.exp(t) if kind in _BY_LOG else t:.6g}{unit}"


def _line(genome: LayerGenome, scene: LayerScene) -> tuple[Callable[[float], Case], float, float]:
    """(the call at t, smallest t, largest t). Distances and sizes go by their logarithm."""
    kind, case, generator = genome.choice % len(_NAMES), case_of(genome), scene.generator
    place = int(torch.randint(0, genome.residues, (), generator=generator))
    away = torch.randn(3, generator=generator, dtype=torch.float64)
    away = away / away.norm()
    anchor = case.rigid.trans[0, (place + 1) % genome.residues].clone()
    low, high = Room(scene.subject.claims, scene.contract, ()).log_scales

    def at(t: float) -> Case:
        r, s = case.rigid, case.s
        if kind < 2:
            trans = r.trans.clone()
            trans[0, place] = anchor + math.exp(t) * away
            return replace(case, rigid=replace(r, frame=replace(r.frame, trans=trans)))
        if kind == 2:
            rot = r.rot.clone()
            rot[0, place] = rotation.multiply(rot[0, place], rotation.exp(t * away))
            return replace(case, rigid=replace(r, frame=replace(r.frame, rot=rot)))
        if kind == 3:
            log_scale = r.log_scale.clone()
            log_scale[0, place, 0] = t
            return replace(case, rigid=replace(r, log_scale=log_scale))
        s = s.clone()
        s[0, place] = math.exp(t) * s[0, place]
        return replace(case, s=s)

    far = (math.log(1e-2), math.log(2e3))
    return at, *(far, far, (0.0, 2 * math.pi), (low, high), (math.log(1e-2), math.log(10.0)))[kind]


# --- what a layer has shown ----------------------------------------------------------------------------------


LAWS: dict[str, Relation] = {
    one.name: one
    for one in (
        Relation("equal_copies", "of the output", equal_copies),
        Relation("alike_residues", "of the output", alike_residues),
        Relation("equal_points", "log2 of the logits", equal_points),
        Relation("no_jumps", "output", no_jumps),
    )
}


def learnt(law: Relation, subject: object, room: Room) -> bool:
    """Whether the law holds on ordinary calls: small, nm apart, all valid, of powers of two of points."""
    generator = torch.Generator().manual_seed(0)
    for name, value in LEARNT[: 2 if law.name == "no_jumps" else None]:
        genome = draw(room, generator, name, value)
        genome = _ordinary(genome.picked(torch.tensor([0])))
        points = value if name == "no_qk_points" else 2
        genome = replace(genome, layout="plain", gain=1.0, s_size=1.0, z_size=1.0).sized(
            no_qk_points=room.size("no_qk_points", points)
        )
        tally = Tally(law.name, law.unit)
        try:
            law.measure(LayerScene(subject, genome, room.contract), tally)  # pyright: ignore[reportArgumentType]
        except Exception:  # what raises here has not shown it
            return False
        if tally.broken:
            return False
    return True
