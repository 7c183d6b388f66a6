"""`mask_inertness`: what lies behind the mask leaves no trace in outputs or gradients, and masked rows are zero."""

import copy
import math
from dataclasses import replace

import torch
from torch import nn

from iga import bounds
from iga._typing import Tensor
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.testing.check import check
from iga.testing.contract import Contract
from iga.testing.layer import budgets
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import build, cast, gradients, kept, leaves, masked, native, rebuilt, tensors
from iga.testing.layer.guards import require_geometry
from iga.testing.layer.sensitivity import allowed_of, keeps_float64, two_evaluations
from iga.testing.layer.softmax import NORMALISED, SoftmaxCatcher
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally
from iga.testing.targets import TargetError

__all__ = ["FILLS", "NUMBERS", "behind_mask", "mask_inertness"]

# What stands behind a mask may be anything: None is the largest finite number of the dtype.
FILLS: dict[str, float | None] = {
    "large numbers": 1e4,
    "numbers of a million": 1e6,
    "numbers of 10³⁰": 1e30,
    "the largest number": None,
    "NaN": torch.nan,
}
DRIVEN = 1e6  # ten times the 10⁵ that OpenFold's mask takes from a logit
FEW = 15  # residues
# Masks come as numbers too: what replaces by a bool may multiply by these, and 0 times NaN is NaN.
NUMBERS = (("floats", "float_mask", None), ("int64", "int_mask", torch.int64))


@check("layer", "output")
def mask_inertness(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Exact: a masked key has weight 0 and its contents are replaced before any arithmetic, so nothing may differ.

    A third of the residues is masked. The output must be bitwise the same whether they hold what they held, other
    numbers or NaN; weights of masked keys and masked rows must be 0; gradients to masked inputs must be 0 and the
    others finite; and removing the masked residues altogether, or appending some, must change the valid outputs by
    rounding only.
    """
    if not subject.traced:
        _by_outputs(subject, cases, contract, seed, tally)
        return
    for index, case in enumerate(cases):
        points = contract.points[index % len(contract.points)]
        where = f"{case.label}, P = {points}"
        case = masked(replace(case, mask=torch.ones_like(case.mask)), seed + index, share=1 / 3)
        mask, layer = case.mask, subject.random(points, seed)
        plain = subject.output(layer, case).detach()
        require_geometry(subject, layer, case, tally)
        with torch.no_grad():
            trace = subject.trace(layer, case)
        shut_keys = ~mask[..., None, None, :].expand(trace.weights.shape)
        tally.add(trace.weights[shut_keys], 0.0, f"{where}: weights of masked keys")
        valid = plain[mask]
        tally.add(plain[~mask].abs(), 0.0, f"{where}: masked rows")
        _behind(subject, layer, case, plain, where, tally)
        _behind_numbers(subject, layer, case, where, tally)
        _numbers_for_bools(subject, layer, case, seed, where, tally)
        _driven(subject, layer, case, seed, where, tally)
        # Removing the masked residues changes the order of sums and the rounding of the centre, no more.
        cropped = subject.output(layer, _cropped(case)).detach()
        logit = budgets.geometry_logit(trace, subject.iga_config, contract, 2 * budgets.displacement(trace, contract))
        logit = trace.geo_weight.detach().double() / subject.iga_config.temperature * logit
        allowed = 2 * budgets.output(trace, logit, 0.0, layer)
        could_fail = allowed[mask] < valid.abs().amax()
        tally.add((cropped[0] - valid).abs(), allowed[mask], f"{where}: masked against removed", could_fail=could_fail)
        _padding(subject, layer, case, plain, allowed, where, tally)
        _patterns(subject, layer, case, seed, where, tally)


def _by_outputs(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """The same for a layer that shows only outputs, at valid residues: what it gives at masked ones is its own affair.

    Still exact behind the mask: a weight of 0 times a number is 0, and adding 0 rounds nothing.
    """
    for index, given in enumerate(cases):
        points = contract.points[index % len(contract.points)]
        where = f"{given.label}, P = {points}"
        layer = build(subject, points, seed)
        case = masked(cast(given, native(subject)), seed + index, share=1 / 3)
        mask = case.mask
        require_geometry(subject, layer, case, tally)
        plain = subject.output(layer, case).detach()
        _behind(subject, layer, case, plain, where, tally)
        _behind_numbers(subject, layer, case, where, tally)
        _numbers_for_bools(subject, layer, case, seed, where, tally)
        _driven(subject, layer, case, seed, where, tally)
        allowed = two_evaluations(subject, layer, case, seed, tally)
        cropped = subject.output(layer, _cropped(case)).detach()
        could_fail = allowed[mask] < plain[mask].abs().amax()
        difference = (cropped[0] - plain[mask]).abs()
        tally.add(difference, allowed[mask], f"{where}: masked against removed", could_fail=could_fail)
        _padding(subject, layer, case, plain, allowed, where, tally)
        _patterns(subject, layer, case, seed, where, tally)


def _behind(subject: Subject, layer: nn.Module, case: Case, plain: Tensor, where: str, tally: Tally) -> None:
    """Other numbers behind the mask: no valid output moves, no gradient leads to what is masked, all are finite."""
    for name, fill in FILLS.items():
        hidden, inputs = leaves(behind_mask(case, torch.finfo(case.s.dtype).max if fill is None else fill))
        _unmoved(subject, layer, hidden, inputs, case.mask, plain, f"{name} behind the mask", where, tally)


def _behind_numbers(subject: Subject, layer: nn.Module, whole: Case, where: str, tally: Tally) -> None:
    """The same where the mask is of numbers, 0 and 1."""
    case = kept(whole, torch.arange(min(FEW, whole.s.shape[-2])))
    for kind, claim, dtype in NUMBERS:
        if claim in subject.claims.lacking:
            continue
        given = case.mask.to(dtype or case.s.dtype)
        plain = subject.output(layer, replace(case, mask=given)).detach()
        for name in ("large numbers", "NaN"):
            hidden, inputs = leaves(behind_mask(case, FILLS[name] or 0.0))
            hidden, what = replace(hidden, mask=given), f"{name} behind a mask of {kind}"
            _unmoved(subject, layer, hidden, inputs, case.mask, plain, what, where, tally)


def _numbers_for_bools(subject: Subject, layer: nn.Module, whole: Case, seed: int, where: str, tally: Tally) -> None:
    """A mask of numbers, 0 and 1, shuts as many keys as the bool mask, but for rounding: in float64, where a weight
    of 10⁻⁶ shows that float32 hides."""
    if torch.float64 not in subject.dtypes:
        return
    case = cast(kept(whole, torch.arange(min(FEW, whole.s.shape[-2]))), torch.float64)
    exact = copy.deepcopy(layer).double()
    with torch.no_grad():
        plain = subject.output(exact, case)
        for kind, claim, dtype in NUMBERS:
            if claim in subject.claims.lacking:
                continue
            given = replace(case, mask=case.mask.to(dtype or case.s.dtype))
            difference = (subject.output(exact, given) - plain)[case.mask].abs()
            kept_digits = not difference.any() or keeps_float64(subject, exact, case, seed)
            u = bounds.unit_roundoff(torch.float64 if kept_digits else torch.float32)
            allowed = allowed_of(difference, subject, layer, case, seed, tally, at=case.mask, u=u)
            able = allowed < plain[case.mask].abs().amax()
            tally.add(difference, allowed, f"{where}: a mask of {kind} against one of bools", could_fail=able)


def _unmoved(
    subject: Subject,
    layer: nn.Module,
    hidden: Case,
    inputs: dict[str, Tensor],
    mask: Tensor,
    plain: Tensor,
    what: str,
    where: str,
    tally: Tally,
) -> None:
    """Of one such case, `hidden`, over `inputs`, whose valid residues are those of the bool `mask`."""
    output = subject.output(layer, hidden)
    judged = slice(None) if subject.traced else mask
    tally.add((output - plain)[judged].detach().abs(), 0.0, f"{where}: {what}")
    if "gradients" in subject.claims.lacking:
        return
    for part, gradient in gradients(output[mask].square().sum(), inputs).items():
        if gradient is None:
            continue
        shut = ~(mask[..., :, None] & mask[..., None, :]) if part == "z" else ~mask
        tally.add(gradient[shut].abs(), 0.0, f"{where}: gradient of {part}, {what}")
        tally.add((~gradient.isfinite()).double().sum(), 0.0, f"{where}: gradient of {part} beside {what}")


def _driven(subject: Subject, layer: nn.Module, whole: Case, seed: int, where: str, tally: Tally) -> None:
    """All valid pairs have one z, of 10⁶: in some heads every valid logit is far under what a finite mask adds.

    Softmax does not see what all keys of a row share, so that what is masked must still change no bit, and may as well
    not be there.
    """
    if not subject.pair_features:
        return
    case = kept(whole, torch.arange(min(FEW, whole.s.shape[-2])))
    generator, mask = torch.Generator().manual_seed(seed), case.mask
    pairs = (mask[..., :, None] & mask[..., None, :])[..., None]
    shared = DRIVEN * torch.randn(case.z.shape[-1], generator=generator, dtype=torch.float64).to(case.z.dtype)
    for sign in (1.0, -1.0):
        driven = replace(case, z=torch.where(pairs, sign * shared, case.z))
        with torch.no_grad():
            plain, other = (subject.output(layer, behind_mask(driven, fill))[mask] for fill in (0.0, 1.0))
            cropped = subject.output(layer, _cropped(driven))[0]
        here = f"{where}: every valid logit far from 0"
        tally.add((other - plain).abs(), 0.0, here)
        # what is noted of a layer at 10⁶ is not what it is like
        difference, unheard = (cropped - plain).abs(), Tally(tally.name, tally.unit)
        allowed = allowed_of(difference, subject, layer, driven, seed, unheard, mask)
        if bool((difference > allowed).any()):
            # exp(x − log Σ exp x) is a softmax too: its weights no longer sum to 1, but err by the rounding of a sum
            # and a logarithm of the size of x, in either call
            lost = math.expm1(4 * bounds.unit_roundoff(driven.s.dtype) * _largest_logit(subject, layer, driven))
            allowed = allowed + lost * plain.abs().amax(dim=-1, keepdim=True)
        able = allowed < plain.abs().amax()
        tally.add(difference, allowed, f"{here}, masked against removed", could_fail=able)


def _largest_logit(subject: Subject, layer: nn.Module, case: Case) -> float:
    """Among valid residues, as softmax is caught with it; what drives them where none is caught, or what is caught are
    the logarithms of weights, which no longer say how large the logits were."""
    valid = case.mask[0].nonzero().flatten()
    try:
        with torch.no_grad(), SoftmaxCatcher(case.s.shape[-2]) as catcher:
            subject.output(layer, case)
    except TargetError:  # some operators run under no mode
        return DRIVEN
    seen = [x[:, valid] for x, _ in catcher.found if x is not None]
    if not seen or any(bool((x.double().logsumexp(-1).abs() < NORMALISED).all()) for x in seen):
        return DRIVEN
    return max(float(x[:, :, valid].abs().amax()) for x in seen)


def _patterns(subject: Subject, layer: nn.Module, whole: Case, seed: int, where: str, tally: Tally) -> None:
    """Masks of other shapes than a random third: what is masked may as well not be there."""
    case = kept(whole, torch.arange(min(FEW, whole.s.shape[-2])))
    place = torch.arange(case.s.shape[-2])
    for name, mask in (
        ("only the last valid", place == place[-1]),
        ("only the first valid", place == 0),
        ("every second valid", place % 2 == 1),
        ("the second half valid", place >= len(place) // 2),
    ):
        if not bool(mask.any()):  # of one residue, every second
            continue
        one = replace(case, mask=mask[None].clone())
        with torch.no_grad():
            plain, cropped = subject.output(layer, one)[0][mask], subject.output(layer, _cropped(one))[0]
        difference = (cropped - plain).abs()
        allowed = allowed_of(difference, subject, layer, one, seed, tally, one.mask)
        able = allowed < plain.abs().amax()
        tally.add(difference, allowed, f"{where}: {name}, against the others removed", could_fail=able)


def _padding(
    subject: Subject, layer: nn.Module, case: Case, plain: Tensor, allowed: Tensor, where: str, tally: Tally
) -> None:
    """Masked residues appended, as batches of unequal lengths have them: zeros, which are no rotations, or garbage."""
    n, valid = case.s.shape[-2], case.mask
    for count in (1, 16):
        for name, fill in (("zeros", 0.0), ("large numbers", 1e4)):
            with torch.no_grad():
                output = subject.output(layer, _padded(case, count, fill))[:, :n]
            difference = (output - plain)[valid].abs()
            could_fail = allowed[valid] < plain[valid].abs().amax()
            tally.add(difference, allowed[valid], f"{where}: {count} appended, {name}", could_fail=could_fail)


def _padded(case: Case, count: int, fill: float) -> Case:
    def longer(x: Tensor, dims: tuple[int, ...]) -> Tensor:
        for dim in dims:
            shape = list(x.shape)
            shape[dim] = count
            x = torch.cat([x, x.new_full(shape, fill)], dim=dim)
        return x

    parts = {name: longer(x, (1, 2) if name == "z" else (1,)) for name, x in tensors(case).items()}
    mask = torch.cat([case.mask, case.mask.new_zeros(1, count)], dim=-1)
    return replace(rebuilt(case, parts), mask=mask)


def behind_mask(case: Case, fill: float) -> Case:
    shut = ~case.mask
    pairs = shut[..., :, None] | shut[..., None, :]

    def filled(x: Tensor, where: Tensor) -> Tensor:
        while where.ndim < x.ndim:
            where = where[..., None]
        return torch.where(where, torch.full_like(x, fill), x)

    r = case.rigid
    frame = Frame(filled(r.rot, shut), filled(r.trans, shut))
    rigid = GaussianRigid(frame, filled(r.local_mean, shut), filled(r.log_scale, shut))
    return replace(case, s=filled(case.s, shut), z=filled(case.z, pairs), rigid=rigid)


def _cropped(case: Case) -> Case:
    keep = case.mask[0].nonzero().flatten()
    return replace(
        case, s=case.s[:, keep], z=case.z[:, keep][:, :, keep], rigid=case.rigid[:, keep], mask=case.mask[:, keep]
    )
