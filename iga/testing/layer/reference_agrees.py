"""`reference_agrees`: a layer's values and gradients against the reference that it names, with the same weights.

Both in float64, at natural and degenerate geometry, with a mask and without, and at every number of points in turn;
then the layer's float32 values against the reference's float64. The budget is measured on the reference, in which all
numbers err at once (docs/theory.md, 13.7): what rounding may do to two evaluations of one function. Gradients by
rotations are compared along turns: off SO(3) two forms of one function differ. Masked residues have no say.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from iga import bounds
from iga._typing import Tensor
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.testing.check import REFERENCE, check
from iga.testing.contract import Contract
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import cast, gradients, kept, leaves, masked
from iga.testing.layer.references import Unpaired, find_reference, paired, parameters_of
from iga.testing.layer.sensitivity import FEATURES, GEOMETRY, POSITION, PROBES, allowed_of, chain, shaken
from iga.testing.layer.sizes import large_case
from iga.testing.layer.subject import Subject
from iga.testing.layer.symmetry import HALF_TURNS
from iga.testing.tally import Tally
from iga.testing.targets import TargetError

__all__ = ["as_subject", "judge_case", "reference_agrees", "with_reference"]

RESIDUES = 40
ROOM = 20_000  # pair-points of a case: with many points there are fewer residues
STEP = 2.0**-24
BETWEEN = (24, 3, 5, 7, 12, 6, 10)  # numbers of points that are no powers of two, on FEWEST residues of FEW cases
FEW, FEWEST = 3, 10
HEADS = 12  # as AlphaFold has them
LONG = 260  # residues, with the fewest points: over two blocks of 128
APART = (10.0, 100.0)  # times as far from each other, FEWEST residues: 30 nm across, as long proteins are, and 300


@check("layer", "of the budget", degenerate=True, needs=REFERENCE, claims=("gradients",))
def reference_agrees(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """|value − reference| and |gradient − reference|, each over its own budget: at most 1."""
    assert subject.reference is not None
    tally.note(f"reference: {subject.reference.name}")
    if subject.reference.odd:
        return tally.fail(subject.name, subject.reference.odd)
    if subject.reference.textbook is not None:
        tally.note("the reference's form loses κ² digits, so float32 is not judged, and float64 with κ times the room")
    for index, given in enumerate(cases):
        natural = torch.equal(given.rigid.log_scale, cases[0].rigid.log_scale)
        turn = index + subject.profile.no_heads
        usual = contract.points[turn % len(contract.points)]
        asked: list[tuple[Subject, int, int, Callable[[Case], Case] | None]] = [(subject, usual, RESIDUES, None)]
        if index < FEW:
            asked.append((subject, BETWEEN[turn % len(BETWEEN)], FEWEST, None))
        if index == 0:
            asked += [(subject, usual, FEWEST, partial(_drawn_apart, times=times)) for times in APART]
            asked += [(subject, usual, FEWEST, change) for change in (_at_the_start, _half_turned)]
            asked.append((subject, usual, FEWEST, partial(_wide, ceiling=contract.sigma_max, seed=seed)))
            asked.append((_with_heads(subject, HEADS), usual, FEWEST, None))
        for at, points, most, change in asked:
            if points > (subject.claims.max_points or points):
                continue
            most = min(most, int((ROOM / (points * at.profile.no_heads)) ** 0.5))
            case = kept(given, torch.arange(min(most, given.s.shape[-2])))
            case = masked(case, seed + index) if index % 2 else _with_zeros(case)
            case = case if change is None else change(case)
            layer = at.random(points, seed + index)
            right = subject.reference.take(as_subject(at).fresh(points, seed).to(_dtype(layer)), layer).double()
            near = natural and change is None  # else float32 rounds what is far
            where = f"P = {points}" if at is subject else f"H = {at.profile.no_heads}, P = {points}"
            judge_case(at, layer, right, case, contract, seed + index, where, tally, single=near)
    _judge_long(subject, cases[0], contract, seed, tally)


def _judge_long(subject: Subject, given: Case, contract: Contract, seed: int, tally: Tally) -> None:
    """Values of a long protein, within twice the budget that is measured on the reference (13.2)."""
    assert subject.reference is not None
    if torch.float64 not in subject.dtypes or "large_sizes" in subject.claims.lacking:
        return
    points = contract.points[0]
    count = min(LONG, subject.claims.max_residues or LONG)
    case = cast(large_case(given, count, seed), torch.float64)
    layer = subject.random(points, seed)
    right = subject.reference.take(as_subject(subject).fresh(points, seed).to(_dtype(layer)), layer).double()
    layer = copy.deepcopy(layer).double()
    with torch.no_grad():
        expected = as_subject(subject).output(right, case)
        difference = (subject.output(layer, case) - expected).abs()
    kappa = subject.reference.condition(case, contract)
    lost = 1.0 if subject.reference.textbook is None else kappa
    u = kappa * lost * bounds.unit_roundoff(torch.float64)
    allowed = allowed_of(difference, as_subject(subject), right, case, seed, tally, u=u)
    where = f"{given.label}, {count} residues, P = {points}: value in float64"
    tally.add(difference / allowed, 1.0, where, could_fail=allowed < expected.abs().amax())


def with_reference(
    subject: Subject, place: str | None = None, probe: Case | None = None, *, odd: bool = False
) -> Subject:
    """The subject with the reference that it claims, after one call on `probe` with the subject's weights.

    `place` is where the target was loaded from. Raises ValueError, one line, for a reference that is not there, is no
    such layer, or has other parameters; with `odd` the last is for `reference_agrees` to say: the layer is not it.
    """
    reference = find_reference(subject.claims.reference, place)
    subject = replace(subject, reference=reference)
    try:
        layer, other = subject.fresh(2, seed=0), as_subject(subject).fresh(2, seed=0)
        reference = replace(reference, names=paired(parameters_of(other), parameters_of(layer)))
        right = reference.take(other, layer).double()
        if probe is not None:
            with torch.no_grad():
                as_subject(subject).output(right, cast(probe, torch.float64))
    except (TargetError, ValueError) as error:
        words = f"{subject.name} and its reference {reference.name}: {error}"
        if not odd or not isinstance(error, Unpaired):
            raise ValueError(words) from error
        reference = replace(reference, odd=words)
    return replace(subject, reference=reference)


def _with_zeros(case: Case) -> Case:
    """Features of zero: numbers like others, which some layers take for padding. Every fifth pair, every seventh
    residue."""
    place = torch.arange(case.s.shape[-2])
    pair = (place[:, None] + 2 * place) % 5 == 1
    single = place % 7 == 3
    return replace(case, s=case.s.masked_fill(single[:, None], 0.0), z=case.z.masked_fill(pair[..., None], 0.0))


def _with_heads(subject: Subject, count: int) -> Subject:
    profile = replace(subject.profile, no_heads=count).rounded(subject.claims.multiple_of)
    return replace(subject, profile=profile)


def _drawn_apart(case: Case, times: float) -> Case:
    """Residues so many times as far from the first."""
    r, first = case.rigid, case.rigid.trans[..., :1, :]
    frame = Frame(r.rot, first + times * (r.trans - first))
    rigid = GaussianRigid(frame, r.local_mean, r.log_scale)
    return replace(case, label=f"{case.label}, {times:.0f} times as far apart", rigid=rigid)


def _at_the_start(case: Case) -> Case:
    """All frames the identity, as before a structure module's first step."""
    r = case.rigid
    frame = Frame(torch.eye(3, dtype=r.dtype).expand_as(r.rot).clone(), torch.zeros_like(r.trans))
    rigid = GaussianRigid(frame, r.local_mean, r.log_scale)
    return replace(case, label=f"{case.label}, all frames the identity", rigid=rigid)


def _half_turned(case: Case) -> Case:
    """Frames of the identity and of exact half turns, in turn: between two residues there is none, or a half turn."""
    r = case.rigid
    some = torch.stack([torch.eye(3, dtype=torch.float64), *(turn for _, turn in HALF_TURNS)]).to(r.rot)
    rot = some[torch.arange(r.rot.shape[-3]) % len(some)].expand_as(r.rot).clone()
    rigid = GaussianRigid(Frame(rot, r.trans), r.local_mean, r.log_scale)
    return replace(case, label=f"{case.label}, frames half a turn apart", rigid=rigid)


def _wide(case: Case, ceiling: float, seed: int) -> Case:
    """Scales from a twentieth of the ceiling up to it, along each axis: what is learned on top takes σ past it."""
    r, generator = case.rigid, torch.Generator().manual_seed(seed)
    down = math.log(20) * torch.rand(r.log_scale.shape, generator=generator, dtype=torch.float64)
    rigid = GaussianRigid(r.frame, r.local_mean, (math.log(ceiling) - down).to(r.dtype))
    return replace(case, label=f"{case.label}, scales up to {ceiling:g} nm", rigid=rigid)


def _dtype(layer: nn.Module) -> torch.dtype:
    return next((x.dtype for x in layer.parameters()), torch.float32)


def as_subject(subject: Subject) -> Subject:
    """The reference as a layer under test, of the subject's sizes: what it raises is a TargetError."""
    reference = subject.reference
    assert reference is not None
    same = {"name": f"the reference {reference.name}", "layer": reference.factory, "foreign": True}
    return replace(subject, **same, config=None, reference=None)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, eq=False)
class _Evaluated:
    """Output [*b, n, c_s], zeros where masked, and gradients by name of Σ weights · output; of rotations, torques."""

    output: Tensor
    slopes: dict[str, Tensor]


def judge_case(
    subject: Subject,
    layer: nn.Module,
    right: nn.Module,
    given: Case,
    contract: Contract,
    seed: int,
    where: str,
    tally: Tally,
    *,
    single: bool,
) -> None:
    """One case in float64 and, if `single` and of a form that does not lose it, in float32."""
    reference = subject.reference
    assert reference is not None
    kappa = reference.condition(given, contract)
    lost = 1.0 if reference.textbook is None else kappa
    judge, case = as_subject(subject), cast(given, torch.float64)
    n = case.s.shape[-2]
    terms = chain(subject, max(contract.points), n)
    weights = torch.randn(case.s.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    exact = _evaluated(judge, right, case, weights)
    change, bends = _changes(judge, right, case, weights, exact, terms, seed)
    where = f"{given.label}, {n} residues, {where}"
    sizes = {torch.float64: case} | ({torch.float32: given} if single and reference.textbook is None else {})
    able = exact.output.abs().amax()
    for dtype in (dtype for dtype in sizes if dtype in subject.dtypes):
        accused, u = copy.deepcopy(layer).to(dtype), bounds.unit_roundoff(dtype)
        name = str(dtype).removeprefix("torch.")
        # where somebody's own reference saturates, how large the terms are that cancel is not known
        graded = dtype == torch.float64 and (single or reference.defined) and "gradients" not in subject.claims.lacking
        found = _evaluated(subject, accused, sizes[dtype], weights, reference.names, graded=graded)
        # two evaluations, either of which may err by that; scales as they are keep float32's κ small
        wide = kappa * lost if dtype == torch.float64 else 1.0
        limit = 2 * terms * u * (wide * change + exact.output.abs())
        error = (found.output.double() - exact.output).abs()
        valid = case.mask[..., None].expand(error.shape)
        ratio = (error / limit.clamp(min=1e-300))[valid]
        tally.add(ratio, 1.0, f"{where}: value in {name}", could_fail=(limit < able).expand(error.shape)[valid])
        largest = max(float(x.abs().amax()) for x in exact.slopes.values())
        own = parameters_of(accused)
        for part, slope in found.slopes.items():
            # a parameter of the accused may stand for several of the reference's: its gradient is their sum
            mine = own.get(reference.names.get(part, ""))
            same = [x for x, name in reference.names.items() if own[name] is mine] or [part]
            expected = sum((exact.slopes[x] for x in same), start=torch.zeros(()))
            bend, scale = sum(bends[x] for x in same), expected.abs().amax()
            roundings = (2 * terms + n * n) * u
            # A right form errs in ∂/∂μ by κ of the largest that it can be (9.3), and an offset is σ times that. A
            # gradient that cancels, as of a bias that softmax does not see, leaves the rounding of its terms.
            limit = 2 * roundings * (kappa * (lost * bend + scale) + largest)
            ratio = (slope - expected).abs().amax() / limit
            tally.add(ratio, 1.0, f"{where}: gradient of {part}", could_fail=limit < scale)


def _changes(
    judge: Subject, right: nn.Module, case: Case, weights: Tensor, exact: _Evaluated, terms: int, seed: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """How much each residue's output, [*b, n, 1], and each gradient changes per unit of error of all numbers at once:
    relative of features, parameters and lengths, radians, e-folds, and of positions the distance from the origin."""
    reach = float(case.rigid.trans.norm(dim=-1).amax())
    outputs, slopes = torch.zeros_like(exact.output), dict.fromkeys(exact.slopes, torch.zeros(()))
    for index, step in enumerate([STEP] * (PROBES - 1) + [terms**0.5 * STEP]):
        layer, moved = shaken(right, case, step, FEATURES + GEOMETRY, seed + index)
        _, moved = shaken(right, moved, reach * step, POSITION, seed + PROBES + index)
        layer.slack = step  # pyright: ignore[reportArgumentType] - of `judges.layers`; of no account elsewhere
        near = _evaluated(judge, layer, moved, weights)
        outputs = torch.maximum(outputs, (near.output - exact.output).abs() / step)
        for name, slope in near.slopes.items():
            slopes[name] = torch.maximum(slopes[name], (slope - exact.slopes[name]).abs().amax() / step)
    return outputs.amax(dim=-1, keepdim=True), slopes


def _evaluated(
    subject: Subject,
    layer: nn.Module,
    case: Case,
    weights: Tensor,
    names: Mapping[str, str] | None = None,
    *,
    graded: bool = True,
) -> _Evaluated:
    """The layer on the case; `names` says which of its parameters is which of the reference's."""
    leaf, inputs = leaves(case)
    if not subject.pair_features:
        del inputs["z"]
    own = parameters_of(layer)
    wanted = inputs | (own if names is None else {name: own[other] for name, other in names.items()})
    valid = case.mask[..., None]
    with torch.set_grad_enabled(graded):
        output = torch.where(valid, subject.output(layer, leaf), 0.0)
        if not graded:
            return _Evaluated(output, {})
        found = gradients((output * weights).sum(), wanted)
    # of a frozen parameter nothing is asked
    held = {name: x for name, x in found.items() if wanted[name].requires_grad}
    slopes = {name: torch.zeros_like(wanted[name]) if x is None else x for name, x in held.items()}
    slopes["rotations"] = _torque(inputs["rotations"].detach(), slopes["rotations"])
    return _Evaluated(output.detach(), slopes)


def _torque(rot: Tensor, slope: Tensor) -> Tensor:
    """The derivative by a turn ω of R exp([ω]×): twice the skew part of Rᵀ ∂R, as a vector [..., 3]."""
    m = (rot[..., :, :, None] * slope[..., :, None, :]).sum(-3)
    return torch.stack([m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], dim=-1)
