"""`se3_invariance`: a rigid motion of all frames changes neither geometry logits nor outputs, but for rounding.

Three motions: a rotation, a rotation with a translation of 10 nm, a translation by 10³ nm. A float32 translation of
10³ nm rounds each position by up to 3e-5 nm before the layer sees it; that is part of the budget, derived, per pair.
Besides, frames that are all the identity, or every second one a half turn, under half turns, as copies in a crystal or
a dimer have them: no number is rounded, and where a quaternion or an angle is made of a matrix, w is 0 and the
logarithm has two values.
A layer that shows no scores is judged by its outputs alone, with the budget of `sensitivity`.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from iga import bounds, rotation
from iga.frame import Frame
from iga.testing.check import check
from iga.testing.contract import Contract
from iga.testing.layer import budgets
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import build, cast, kept, native
from iga.testing.layer.guards import require_geometry
from iga.testing.layer.sensitivity import sensitivity
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally

__all__ = ["HALF_TURNS", "moved", "parted", "se3_invariance"]

FAR = 1000.0  # nm
FEW = 15  # residues
Motion = tuple[str, torch.Tensor, torch.Tensor]
# 2 n nᵀ − 1: entries of 0 and ±1
HALF_TURNS = [
    (name, torch.tensor(rows, dtype=torch.float64))
    for name, rows in (
        ("x", [[1, 0, 0], [0, -1, 0], [0, 0, -1]]),
        ("y", [[-1, 0, 0], [0, 1, 0], [0, 0, -1]]),
        ("z", [[-1, 0, 0], [0, -1, 0], [0, 0, 1]]),
        ("x + y", [[0, 1, 0], [1, 0, 0], [0, 0, -1]]),
    )
]


@check("layer", "of the budget", degenerate=True)
def se3_invariance(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Differences of G and of the output under a shared motion, each over its own budget: at most 1."""
    if not subject.traced:
        _by_outputs(subject, cases, contract, seed, tally)
        return
    for index, (case, motions) in enumerate(_asked(cases, seed)):
        points = contract.points[index % len(contract.points)]
        layer = subject.random(points, seed + index)
        with torch.no_grad():
            plain = subject.trace(layer, case)
            if plain.output is None:
                tally.fail(case.label, "the trace has no output")
                continue
            if index == 0:  # a structure as it is; on degenerate ones residues may well be interchangeable
                require_geometry(subject, layer, case, tally)
            for name, turn, shift in motions:
                where = f"{case.label}, P = {points}, {name}"
                other_case = moved(case, turn, shift)
                other = subject.trace(layer, other_case)
                # what the motion's own rounding did to positions, and to rotations as an angle
                reach = float(case.rigid.trans.double().norm(dim=-1).amax() + shift.norm())
                dtype = plain.dist_sq.dtype
                slip = 4 * bounds.unit_roundoff(dtype) * reach
                shift_sqrt = 2 * budgets.displacement(plain, contract, extra=slip) + _turned(plain, contract)
                limit = 2 * budgets.geometry_logit(plain, subject.iga_config, contract, shift_sqrt)
                ratio = (other.geo_raw.double() - plain.geo_raw.double()).abs() / limit
                tally.add(ratio, 1.0, f"{where}: geometry logit", could_fail=plain.geo_raw.abs() > limit)
                scaled = plain.geo_weight.double() / subject.iga_config.temperature * limit
                allowed = 2 * budgets.output(plain, scaled, 2 * slip, layer)
                output = subject.output(layer, other_case).double()
                ratio = (output - plain.output.double()).abs() / allowed
                # with a budget as large as the output the example cannot fail: it counts as vacuous
                tally.add(ratio, 1.0, f"{where}: output", could_fail=allowed < plain.output.double().abs().amax())


def _by_outputs(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Two evaluations, the second `shift` further away; n + 16 roundings of places cover that of the motion itself."""
    u = bounds.unit_roundoff(native(subject))
    for index, (given, motions) in enumerate(_asked(cases, seed)):
        points = contract.points[index % len(contract.points)]
        layer, case = build(subject, points, seed + index), cast(given, native(subject))
        with torch.no_grad():
            if index == 0:
                require_geometry(subject, layer, case, tally)
            plain = subject.output(layer, case).double()
            size = plain.abs().amax()
            rounding = sensitivity(subject, layer, case, seed, tally)
            for name, turn, shift in motions:
                output = subject.output(layer, moved(case, turn, shift)).double()
                allowed = rounding.budget(u) + rounding.budget(u, reach=rounding.reach + float(shift.norm()))
                where = f"{case.label}, P = {points}, {name}: output"
                tally.add((output - plain).abs() / allowed, 1.0, where, could_fail=allowed < size)


def moved(case: Case, turn: torch.Tensor, shift: torch.Tensor) -> Case:
    """The case after x → turn x + shift, computed in float64 and rounded once."""
    r = case.rigid
    rot = rotation.multiply(turn, r.rot.double()).to(r.dtype)
    trans = (rotation.rotate(turn, r.trans.double()) + shift).to(r.dtype)
    return replace(case, rigid=replace(r, frame=Frame(rot, trans)))


def parted(case: Case, shift: torch.Tensor) -> Case:
    """The case with every second residue moved by `shift` and the others by as much the other way: two groups, each
    near together, both far from any origin that a layer may choose."""
    r = case.rigid
    signs = 1.0 - 2.0 * (torch.arange(r.trans.shape[-2]) % 2).double()
    trans = (r.trans.double() + signs[:, None] * shift).to(r.dtype)
    return replace(case, rigid=replace(r, frame=Frame(r.rot, trans)))


def _asked(cases: list[Case], seed: int) -> Iterator[tuple[Case, list[Motion]]]:
    """Each case with its motions; last, a few residues of the first in frames of the identity, and of half turns."""
    for index, case in enumerate(cases):
        yield case, _motions(seed + index)
    few = kept(cases[0], torch.arange(min(FEW, cases[0].s.shape[-2])))
    halves = [(f"turned by half about {axis}", half, torch.zeros(3, dtype=torch.float64)) for axis, half in HALF_TURNS]
    unturned = torch.eye(3, dtype=few.rigid.dtype).expand_as(few.rigid.rot).clone()
    turned = unturned.clone()
    turned[..., 1::2, :, :] = HALF_TURNS[0][1].to(unturned)
    for name, rot, motions in (
        ("all frames the identity", unturned, halves),
        ("every second frame a half turn", turned, halves[:1]),  # which exchanges the two
    ):
        rigid = replace(few.rigid, frame=Frame(rot, few.rigid.trans))
        yield replace(few, label=f"{few.label}, {name}", rigid=rigid), motions


def _motions(seed: int) -> list[Motion]:
    generator = torch.Generator().manual_seed(seed)
    turns = rotation.random(2, generator=generator, dtype=torch.float64)
    direction = torch.nn.functional.normalize(torch.randn(3, generator=generator, dtype=torch.float64), dim=0)
    still = torch.eye(3, dtype=torch.float64)
    return [
        ("rotated", turns[0], torch.zeros(3, dtype=torch.float64)),
        ("rotated and moved by 10 nm", turns[1], 10.0 * direction),
        ("moved by 1000 nm", still, FAR * direction),
    ]


def _turned(trace, contract: Contract):
    """Change of √dist_sq when both rotations are rounded: relative (|R error| = 3u) κ, and the offsets swing with R."""
    u = bounds.unit_roundoff(trace.dist_sq.dtype)
    kappa = budgets.condition(trace, contract)
    query, key = budgets.local_reach(trace)
    swing = bounds.displacement_bound(3 * u * (query[..., :, None] + key[..., None, :]), contract.sigma_min)
    return swing + 3 * u * kappa * trace.dist_sq.double().sqrt()
