"""Layers at the sizes that people use: residues by the hundred, which blocks of 128 and loops over them see.

`SPREAD` are ways of `calls_agree`: the residues of a case spread over N, all others masked, are the case itself.

`large_sizes` has them all valid: in another order they give the same outputs in that order, and turned about one of
them the same outputs, within twice the budget of one evaluation; in float64 the derivative along a random direction in
the features, in the geometry and in the parameters is what a central difference says it is (`differences`).
Attention with a softmax over residues gives copies of residues the answers of one of each: a layer that does so for 120
residues does so for 300, which ties numbers of valid residues that are met nowhere else to one that is. Where it does
not for 120 (nearest neighbours, a place in the chain) this is not asked.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from iga import rotation
from iga._typing import Tensor
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.testing.check import THOROUGH, check
from iga.testing.contract import Contract
from iga.testing.layer.cases import Case
from iga.testing.layer.differences import central
from iga.testing.layer.edits import build, cast, gradients, kept, leaves, native, rebuilt, skew
from iga.testing.layer.gradient_values import noise_of
from iga.testing.layer.guards import require_geometry
from iga.testing.layer.scene import situation_of
from iga.testing.layer.sensitivity import allowed_of
from iga.testing.layer.subject import Subject
from iga.testing.layer.symmetry import moved
from iga.testing.tally import Tally
from iga.testing.ways import ALL, Answers, Inputs, Scene, Way

__all__ = ["SPREAD", "large_case", "large_sizes"]

MANY = (129, 300, 520)
BEHIND = 310  # residues, of which all but the last are padding
NEW = 97  # that no other way or check has
MOST = 1025  # from profile ci on
ALL_VALID = 150
SHUFFLED = 300  # in another order, with the first set of sizes: over two blocks of 128
BASE, LEARNT, COPIED = 30, 4, 10  # residues; copies of each on which the law is learnt, and with which it is asked
STEP = 2.0**-16  # as in `gradient_values`
PERCENT = 0.01
TURNED = 2.0  # one evaluation, and one up to three times as far from the origin: of a turn about a residue
GROUPS = {"features": ("s", "z"), "geometry": ("rotations", "translations", "local means", "log scales")}


def large_case(case: Case, count: int, seed: int) -> Case:
    """`count` residues with Gaussians of the case, at random places in a ball of their volume, turned at random."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(case.s.dtype)

    chosen = torch.randint(0, case.s.shape[-2], (count,), generator=generator)
    rot = rotation.random(1, count, generator=generator, dtype=torch.float64).to(case.s.dtype)
    frame = Frame(rot, 0.25 * count ** (1 / 3) * normal(1, count, 3))
    rigid = GaussianRigid(frame, case.rigid.local_mean[:, chosen], case.rigid.log_scale[:, chosen])
    s, z = normal(1, count, case.s.shape[-1]), normal(1, count, count, case.z.shape[-1])
    return Case(f"{count} residues of {case.label}", rigid, s, z, torch.ones(1, count, dtype=torch.bool))


def _spread(count: int, *, last: bool = False, inference_first: bool = False) -> Callable[[Scene, Inputs], Answers]:
    """`last`: all at the end, behind blocks of nothing but padding. `inference_first`: what the layer makes for a
    length, and keeps, it makes where nothing can be recorded."""

    def run(scene: Scene, inputs: Inputs) -> Answers:
        here = situation_of(scene)
        case = here.case_of(inputs)
        wide = large_case(case, count, here.seed)
        few = case.s.shape[-2]
        place = torch.linspace(0, count - 1, few).round().long()  # the first, the last, and between
        place = torch.arange(count - few, count) if last else place
        one = torch.zeros((), dtype=torch.long)  # the only sample

        def put(x: Tensor, y: Tensor, *index: Tensor) -> Tensor:
            return x.index_put((one, *index), y[0])

        r, w = case.rigid, wide.rigid
        rigid = GaussianRigid(
            Frame(put(w.rot, r.rot, place), put(w.trans, r.trans, place)),
            put(w.local_mean, r.local_mean, place),
            put(w.log_scale, r.log_scale, place),
        )
        mask = torch.zeros(1, count, dtype=torch.bool)
        mask[:, place] = case.mask
        s, z = put(wide.s, case.s, place), put(wide.z, case.z, place[:, None], place[None, :])
        whole = replace(wide, s=s, z=z, rigid=rigid, mask=mask)
        if inference_first:
            with torch.inference_mode():
                here.output(whole)
        return {"output": here.output(whole)[:, place]}

    return run


SPREAD: dict[int, Way] = {
    count: Way(
        name=f"spread over {count} residues",
        claim="large_sizes",
        run=_spread(count),
        profiles=THOROUGH if count == MOST else ALL,
    )
    for count in (*MANY, MOST)
} | {
    BEHIND: Way(name=f"the last of {BEHIND} residues", claim="large_sizes", run=_spread(BEHIND, last=True)),
    NEW: Way(
        name="a length first met under inference_mode", claim="inference_mode", run=_spread(NEW, inference_first=True)
    ),
}


@check("layer", "of the budget", seen_faults=("calls",), every=20, claims=("large_sizes",))
def large_sizes(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Differences under another order, and of derivatives, each over its own budget."""
    most = subject.claims.max_residues
    count = ALL_VALID if most is None else min(ALL_VALID, most)
    if "large_sizes" in subject.claims.lacking:
        tally.not_supported("large_sizes")
        return
    points = contract.points[0]
    layer, small = build(subject, points, seed), cast(cases[0], native(subject))
    require_geometry(subject, layer, small, tally)
    case = large_case(small, count, seed)
    where = f"{cases[0].label}, {count} residues, P = {points}"
    wide = count if subject.profile.is_other else SHUFFLED if most is None else min(SHUFFLED, most)
    whole, words = large_case(small, wide, seed), f"{cases[0].label}, {wide} residues, P = {points}"
    _reordered(subject, layer, whole, seed, words, tally)
    if not subject.profile.is_other and COPIED * BASE <= (most or COPIED * BASE):
        _copied(subject, layer, small, points, seed, tally)
    if torch.float64 in subject.dtypes and "gradients" not in subject.claims.lacking:
        double = subject.random(points, seed).double()
        _along(subject, double, cast(case, torch.float64), seed, where, tally)


def _reordered(subject: Subject, layer: nn.Module, case: Case, seed: int, where: str, tally: Tally) -> None:
    order = torch.randperm(case.s.shape[-2], generator=torch.Generator().manual_seed(seed))
    turn = rotation.random(1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)[0]
    with torch.no_grad():
        plain = subject.output(layer, case).double()
        shuffled = subject.output(layer, kept(case, order))[:, order.argsort()].double()
        # about the first residue, so that nothing is much further from the origin than it was
        first = case.rigid.trans[0, 0].double()
        about = subject.output(layer, moved(case, turn, first - rotation.rotate(turn, first))).double()
    for words, other in (("shuffled", shuffled), ("turned", about)):
        difference = (other - plain).abs()
        allowed = (1.0 if other is shuffled else TURNED) * allowed_of(difference, subject, layer, case, seed, tally)
        tally.add(difference / allowed, 1.0, f"{where}: {words}", could_fail=allowed < plain.abs().amax())


def _copied(subject: Subject, layer: nn.Module, small: Case, points: int, seed: int, tally: Tally) -> None:
    one = large_case(small, BASE, seed)
    with torch.no_grad():
        alone = subject.output(layer, one).double()
    for times in (LEARNT, COPIED):
        index = torch.arange(times * BASE) % BASE
        many = kept(one, index)
        with torch.no_grad():
            difference = (subject.output(layer, many).double() - alone[:, index]).abs()
        allowed = allowed_of(difference, subject, layer, many, seed, tally)
        if times == LEARNT and bool((difference > allowed).any()):
            return tally.note(f"{times} copies of {BASE} residues have other answers than one: {COPIED} are not asked")
        where = f"{times} copies of {one.label}, P = {points}"
        tally.add(difference / allowed, 1.0, where, could_fail=allowed < alone.abs().amax())


def _along(subject: Subject, layer: nn.Module, case: Case, seed: int, where: str, tally: Tally) -> None:
    generator = torch.Generator().manual_seed(seed)

    def normal(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=torch.float64)

    weights = normal(case.s)
    leaf, inputs = leaves(case)
    parameters = {name: x for name, x in layer.named_parameters() if x.requires_grad}
    output = subject.output(layer, leaf)
    found = gradients((output * weights).sum(), inputs | parameters)
    noise = noise_of(output, weights, subject, layer, case)
    turn = normal(case.rigid.trans)
    tensors = {name: x.detach().clone() for name, x in (inputs | parameters).items()}
    directions = {name: normal(x) * x.square().mean().sqrt().clamp(min=0.1) for name, x in tensors.items()}
    directions["rotations"] = rotation.multiply(tensors["rotations"], skew(turn))
    for group, names in {**GROUPS, "parameters": tuple(parameters)}.items():

        def value(e: float, names: tuple[str, ...] = names) -> Tensor:
            parts = {name: tensors[name] + e * directions[name] for name in names if name in inputs}
            if "rotations" in parts:
                parts["rotations"] = rotation.multiply(tensors["rotations"], rotation.exp(e * turn))
            try:
                for name in set(names) & set(parameters):
                    parameters[name].copy_(tensors[name] + e * directions[name])
                return (subject.output(layer, rebuilt(case, parts)) * weights).sum()
            finally:
                for name in set(names) & set(parameters):
                    parameters[name].copy_(tensors[name])

        with torch.no_grad():
            expected, error = central(value, STEP, noise)
        slopes = [(g * directions[name]).sum() for name in names if (g := found[name]) is not None]
        actual = torch.stack(slopes).sum() if slopes else torch.zeros(())
        able = PERCENT * expected.abs() > error
        tally.add((actual - expected).abs() / error, 1.0, f"{where}: gradient along {group}", could_fail=able)
