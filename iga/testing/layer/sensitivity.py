"""The rounding budget of a layer whose inside is unknown, measured. Derived in docs/theory.md, section 13.

The layer is evaluated in float64 with every input and parameter turned by a small random amount: what that changes,
over the size of the amount, is how much of a rounding error reaches the output. A backward stable layer computes the
output of inputs and parameters that err by at most p·u, p the number of roundings along its longest chain of sums:

    budget = p · (u · S_features + u_geometry · S_geometry) + (n + 16) · u_geometry · reach · S_position

S_features is the change per relative error of s, z and parameters, S_geometry per radian of the frames, per e-fold of
the scales and per relative error of the lengths, S_position per nm of the origins, `reach` nm from the origin of space.

A layer that rounds to float32 inside a float64 call does not follow amounts so small: it moves by a step of float32, or
not at all (`keeps_float64`). Its budget is measured by amounts that float32 follows. That float64's digits are not
there is left to `gradient_values`: one finding, and not one of every check.
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import nn

from iga import bounds, rotation
from iga._typing import Float, Tensor
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import cast, gradients, leaves, native, rebuilt, tensors
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally
from iga.testing.targets import TargetError

__all__ = [
    "COARSE",
    "PROBES",
    "STEP",
    "Sensitivity",
    "allowed_of",
    "chain",
    "keeps_float64",
    "sensitivity",
    "shaken",
    "two_evaluations",
]

PROBES = 3
STEP, COARSE = 2.0**-24, 2.0**-12  # of float64; of what has float32's digits alone
FEATURES = ("s", "z", "parameters")
GEOMETRY = ("rotations", "lengths", "log scales")
POSITION = ("translations",)
GROUPS = (FEATURES, GEOMETRY, POSITION)
FINE = 2.0**-34  # far under what float32 follows, far over what float64 rounds
BEND = 2.0**-4  # share of a slope that STEP may bend: curvatures up to 2²¹ slopes (docs/theory.md, 13.2)
FEW = 8  # residues that show the digits of all
CORNER, EXTENT = 3.0, 0.9  # nm: numbers between 2 and 4, of which float32 has one in every 2⁻²², four STEPs


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Largest change of each residue's output, [*b, n, 1], per unit of error; `output` [*b, n, c_s] is unperturbed.

    terms   p, the roundings along the longest chain of sums
    places  n + 16, those of them at the distance from the origin: the coordinates, and the sum of value points
    reach   the largest distance of a residue from the origin of space, nm
    """

    output: Tensor
    features: Tensor
    geometry: Tensor
    position: Tensor
    terms: int
    places: int
    reach: float

    def budget(
        self, u: float, *, u_geometry: float | None = None, reach: float | None = None, terms: int | None = None
    ) -> Float[Tensor, "*b n c"]:
        """Allowed error of the output. `terms` in place of p for the features, where sums are kept in more digits."""
        own = u if u_geometry is None else u_geometry
        by_features = (self.terms if terms is None else terms) * u * (self.features + self.output.abs())
        by_place = self.places * (self.reach if reach is None else reach) * self.position
        return by_features + own * (self.terms * self.geometry + by_place)


def chain(subject: Subject, points: int, residues: int) -> int:
    """p: the sums of a projection, a logit, softmax, the values, the last projection; 64 for what is elementwise."""
    p = subject.profile
    last = p.no_heads * (p.c_hidden + 4 * p.no_v_points + p.c_z)
    return p.c_s + p.c_z + p.c_hidden + 3 * points + 2 * residues + last + 64


def sensitivity(
    subject: Subject, layer: nn.Module, case: Case, seed: int, tally: Tally, *, least: bool = False
) -> Sensitivity:
    """Measured in float64 at steps of 2⁻²⁴; where it is not claimed or not kept, at steps of 2⁻¹² (and noted).

    `least`: from one of the ten evaluations, and so from below: nothing here exceeds what the whole measurement gives.
    """
    if torch.float64 in subject.dtypes:
        layer, case, step = copy.deepcopy(layer).double(), cast(case, torch.float64), STEP
        if not least and not keeps_float64(subject, layer, case, seed):
            step = COARSE
            tally.note("float32 inside a float64 call, which gradient_values judges: budgets at steps of 2⁻¹²")
    else:
        layer, case, step = copy.deepcopy(layer), cast(case, native(subject)), COARSE
        tally.note("float64 is not claimed: budgets from float32 at steps of 2⁻¹²")
    with torch.no_grad():
        output = subject.output(layer, case)
        terms = chain(subject, _points(subject, layer), case.s.shape[-2])
        sizes = [step] * (PROBES - 1) + [terms**0.5 * step]

        def largest(what: tuple[str, ...]) -> Tensor:
            changes = [
                (subject.output(*shaken(layer, case, size, what, seed + index)) - output).abs() / size
                for index, size in enumerate(sizes)
            ]
            return torch.stack(changes).double().amax(dim=0).amax(dim=-1, keepdim=True)

        if least:
            sizes = sizes[:1]
            features = largest(FEATURES)
            geometry = position = torch.zeros_like(features)
        else:
            features, geometry, position = largest(FEATURES), largest(GEOMETRY), largest(POSITION)
    reach = float(case.rigid.trans.double().norm(dim=-1).amax())
    places = case.s.shape[-2] + 16
    return Sensitivity(output.double(), features, geometry, position, terms, places, reach)


def _points(subject: Subject, layer: nn.Module) -> int:
    return max(subject.profile.no_v_points, getattr(layer, "no_qk_points", 0))


def keeps_float64(
    subject: Subject, layer: nn.Module, case: Case, seed: int, groups: tuple[tuple[str, ...], ...] = GROUPS
) -> bool:
    """Whether a layer in float64 follows changes that float32 does not; False if it rounds to float32 inside.

    Changes by STEP and by FINE, of the same signs and over their sizes, are one slope, but for its bend and for what
    float64 rounds: twice p·u of all that enters, over the size. What stands still under both has to stand still under
    COARSE too. Slopes may still part because the function bends more than that, as logits that are driven hard do: then
    its derivative decides (`_bends`). A few residues are looked at, near the origin. What is not finite is for others
    to judge. `groups`: of what is shaken together, by the names of `shaken`.
    """
    case = _few(case)
    with torch.no_grad():
        output = subject.output(layer, case)
        if output.dtype != torch.float64:
            return False

        def slope(what: tuple[str, ...], size: float) -> Tensor:
            return (subject.output(*shaken(layer, case, size, what, seed)) - output) / size

        slopes = {what: slope(what, STEP) for what in (*GROUPS, *groups)}
        sizes = {what: float(x.abs().amax()) for what, x in slopes.items()}
        reach = float(case.rigid.trans.norm(dim=-1).amax())
        total = float(output.abs().amax()) + sizes[FEATURES] + sizes[GEOMETRY] + reach * sizes[POSITION]
        terms = chain(subject, _points(subject, layer), case.s.shape[-2])
        rounding = 2 * terms * bounds.unit_roundoff(torch.float64) * total * (1 / FINE + 1 / STEP)
        for what in groups:
            fine = slope(what, FINE)
            parted = slopes[what] - fine
            apart = float(parted.abs().amax()) > BEND * sizes[what] + rounding
            if apart and not _bends(subject, layer, case, seed, what, parted, fine, rounding):
                return False
            still = not bool((fine != 0).any()) and sizes[what] == 0
            if still and bool((slope(what, COARSE) != 0).any()):
                return False
    return True


def _bends(
    subject: Subject,
    layer: nn.Module,
    case: Case,
    seed: int,
    what: tuple[str, ...],
    parted: Tensor,
    fine: Tensor,
    rounding: float,
) -> bool:
    """Whether slopes by STEP and by FINE lie `parted` because the function bends, and not because it rounds to float32.

    With curvature M the slope by h is the derivative and Mh/2: by FINE it is the derivative but for FINE/STEP = 2⁻¹⁰ of
    what parts the two. A way through float32 is in the derivative, since a cast hands it on, and in the slope by STEP
    for the most part, but not in that by FINE, which lacks it whole: it errs by about all that parts the two. BEND
    lies between 2⁻¹⁰ and 1. Summed over the output with the signs of `parted`, so that nothing cancels and one
    backward pass is enough. Without a derivative it is not known to bend.
    """
    signs = parted.sign()
    layer = copy.deepcopy(layer).requires_grad_(True)
    leaf, inputs = leaves(case)
    moved, turned = shaken(layer, case, FINE, what, seed)
    ends = tensors(turned) | dict(moved.named_parameters())
    inputs |= dict(layer.named_parameters())
    with torch.enable_grad():
        try:
            found = gradients((subject.output(layer, leaf) * signs).sum(), inputs)
        except TargetError:
            return False
    derivative = sum(
        float((x * (ends[name] - inputs[name])).sum()) / FINE for name, x in found.items() if x is not None
    )
    error = abs(float((fine * signs).sum()) - derivative)
    return error <= BEND * float(parted.abs().sum()) + rounding * parted.numel()


def _few(case: Case) -> Case:
    """A few valid residues, at positions that float32 has and whose neighbours in it are further away than STEP."""
    valid = case.mask.reshape(-1, case.mask.shape[-1])[0].bool()
    index = torch.cat([valid.nonzero()[:, 0], (~valid).nonzero()[:, 0]])[:FEW]
    z, rigid = case.z[..., index, :, :][..., index, :], case.rigid[..., index]
    centred = rigid.trans - rigid.trans.mean(dim=-2, keepdim=True)
    small = centred * (EXTENT / centred.norm(dim=-1).amax().clamp(min=EXTENT))
    few = replace(case, s=case.s[..., index, :], z=z, rigid=rigid, mask=case.mask[..., index])
    return rebuilt(few, {"translations": (CORNER + small).float().to(small)})


def shaken(layer: nn.Module, case: Case, size: float, what: tuple[str, ...], seed: int) -> tuple[nn.Module, Case]:
    """Copies of both in which the numbers named in `what` err by `size` with random signs.

    "s", "z", "parameters": relative. "rotations": `size` radians about each axis,
    and then every entry relative. "log scales": absolute. "lengths":
    local means relative, and translations relative to their mean. "translations": `size` nm.
    """
    generator = torch.Generator().manual_seed(seed)

    def signs(x: Tensor) -> Tensor:
        draw = torch.randint(0, 2, x.shape, generator=generator, dtype=torch.int8)
        return size * (2.0 * draw.to(x.dtype) - 1.0)

    parts = tensors(case)
    new: dict[str, Tensor] = {}
    trans = parts["translations"]
    for name in what:
        if name in ("s", "z"):
            new[name] = parts[name] * (1 + signs(parts[name]))
        elif name == "log scales":
            new[name] = parts[name] + signs(parts[name])
        elif name == "rotations":
            turn = rotation.exp(signs(trans).double())
            turned = rotation.multiply(parts[name].double(), turn).to(trans.dtype)
            new[name] = turned * (1 + signs(turned))  # rounded matrices are no rotations
        elif name == "lengths":
            new["local means"] = parts["local means"] * (1 + signs(trans))
            new["translations"] = trans + signs(trans) * (trans - trans.mean(dim=-2, keepdim=True))
        elif name == "translations":
            new[name] = trans + signs(trans)
    if "parameters" in what:
        layer = copy.deepcopy(layer)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(1 + signs(parameter))
    return layer, rebuilt(case, new)


def two_evaluations(
    subject: Subject,
    layer: nn.Module,
    case: Case,
    seed: int,
    tally: Tally,
    *,
    least: bool = False,
    u: float | None = None,
) -> Float[Tensor, "*b n c"]:
    """How far apart two ways of computing the layer's output on this case may be: twice one's own budget, by `u` or
    by the unit roundoff of the layer's own dtype."""
    found = sensitivity(subject, layer, case, seed, tally, least=least)
    return 2 * found.budget(bounds.unit_roundoff(native(subject)) if u is None else u)


def allowed_of(
    difference: Tensor,
    subject: Subject,
    layer: nn.Module,
    case: Case,
    seed: int,
    tally: Tally,
    at: Tensor | None = None,
    *,
    u: float | None = None,
) -> Tensor:
    """What `two_evaluations` allows a difference of outputs, [*b, n, c] or those `at` some residues (bool, [*b, n]).

    Measured no further than it takes: a fifth of the work allows most differences already.
    """
    for least in (True, False):
        allowed = two_evaluations(subject, layer, case, seed, tally, least=least, u=u)
        allowed = allowed if at is None else allowed[at]
        if not bool((difference > allowed).any()):
            break
    return allowed
