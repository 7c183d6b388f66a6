"""`calls_agree`: every way of calling a layer gives what a plain call gives, values and gradients.

Ways are rows of tables: what serves whatever is judged (`common_ways`), modes of the process (`process_ways`), batches
and shapes (`batch_ways`), states (`state_ways`), torch's transforms (`transform_ways`). The plain call is in eval mode,
of one sample, with everything that can want a gradient wanting one; it is judged against float64. A product of another
size may add up in another order, so a way may differ by rounding: twice the budget of one evaluation, of the output
(docs/theory.md, 13.2) and of each gradient (13.4). Each budget is measured once a case. What is said to hold to the bit
does: a state that was saved and loaded.

`compiled_calls`: the same for torch.compile, forward and backward, and torch.export, which take their time.

Two ways have measures of their own. Under bf16 autocast the output is finite and within the budget of
`reduced_precision`, as given, in two groups 500 nm apart, and with Gaussians far from their residues; in the last two
its error is the features' rounding, which no turn of the frames changes. Forward mode is right or refused: the tangent
along a direction is what the gradients say it is.
"""

import warnings

import torch
import torch.autograd.forward_ad as forward_ad

from iga import bounds, rotation
from iga.testing.check import THOROUGH, check
from iga.testing.common_ways import COMMON
from iga.testing.contract import Contract
from iga.testing.layer.batch_ways import BATCHES, MASKS, SHAPES
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import build, cast, kept, masked, native, redrawn, skew, tensors
from iga.testing.layer.guards import require_geometry
from iga.testing.layer.modes import DEPTH, REACH, SHIFT, reaching, turned
from iga.testing.layer.modes import MODES as PRECISIONS
from iga.testing.layer.scene import Situation, layer_scene, plain_of, situation_of
from iga.testing.layer.sensitivity import Sensitivity, sensitivity
from iga.testing.layer.sizes import SPREAD
from iga.testing.layer.state_ways import COPIES, MODES, PARAMETERS, TWO_AT_ONCE, wanting
from iga.testing.layer.subject import Subject
from iga.testing.layer.symmetry import parted
from iga.testing.layer.transform_ways import COMPILERS, DYNAMO, EXPORT, INDUCTOR, TRACED, TRANSFORMS
from iga.testing.process_ways import PROCESS
from iga.testing.tally import Tally
from iga.testing.ways import Plain, Scene, Way, judge_ways

__all__ = ["calls_agree", "compiled_calls"]

RESIDUES = (19, 11)  # over and under the sixteen that blocks of many kernels have
FEW = 4  # points: no way of calling sees how many there are
AUTOCAST, FORWARD = "autocast", "forward_ad"

OWN = [way for way in COMMON if way.name != TWO_AT_ONCE]  # of which a layer has its own
ROWS: tuple[Way, ...] = (*OWN, *PROCESS, *BATCHES, *SHAPES, *MASKS, *MODES, *COPIES, *PARAMETERS, *TRANSFORMS)
CLAIMS = tuple(dict.fromkeys((*(way.claim for way in ROWS), "partial_gradients", "large_sizes", AUTOCAST, FORWARD)))


@check("layer", "of the budget", claims=CLAIMS, seen_faults=("calls", "control flow"), every=20)
def calls_agree(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Differences from the plain call, each over its own budget."""
    for index, given in enumerate(cases):
        scene, where = _scene(subject, given, index, contract, seed, tally)
        plain, rounding = plain_of(scene, tally, where)
        rows = [*ROWS, *wanting(scene, tuple(plain.inputs))]
        if situation_of(scene).points == contract.points[0]:  # of N² P pairs as few as there can be
            most = subject.claims.max_residues
            rows += [way for count, way in SPREAD.items() if most is None or count <= most]
        judge_ways(rows, scene, plain, subject.profile.name, subject.claims.lacking, where, tally)
        _autocast(scene, rounding, where, tally)
        _forward_mode(scene, plain, where, tally)


COMPILED_CLAIMS = tuple(dict.fromkeys(way.claim for way in COMPILERS))


@check("layer", "of the budget", claims=COMPILED_CLAIMS, seen_faults=("compiled",), every=1000)
def compiled_calls(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """The same of compilers, on one structure: the backend that only traces with one set of sizes, the default one with
    the other, and export with both; in the fast profile, as on planted faults, dynamo alone with the one and export
    with the other."""
    scene, where = _scene(subject, cases[0], 0, contract, seed, tally)
    plain, _ = plain_of(scene, tally, where)
    first = not subject.profile.is_other
    if subject.profile.name in THOROUGH:
        rows = [EXPORT, TRACED if first else INDUCTOR]
    else:
        rows = [DYNAMO if first else EXPORT]
    judge_ways(rows, scene, plain, "ci", subject.claims.lacking, where, tally)


def _scene(subject: Subject, given: Case, index: int, contract: Contract, seed: int, tally: Tally) -> tuple[Scene, str]:
    """The layer on some residues of a case, a quarter of them masked, and how reports name it."""
    choices = [p for p in contract.points if p <= FEW] or [contract.points[0]]
    turn = index + subject.profile.no_heads  # so that the two sets of sizes differ in more than these
    points, count = choices[turn % len(choices)], min(RESIDUES[(turn + 1) % len(RESIDUES)], given.s.shape[-2])
    layer, whole = build(subject, points, seed + index), cast(given, native(subject))
    case = masked(kept(whole, torch.arange(count)), seed + index + 1)  # of seed 0 the ends are valid, and may not be
    held = {name: x.clone() for name, x in tensors(case).items()}
    require_geometry(subject, layer, case, tally)
    for name, x in tensors(case).items():  # by the first call of all: later ones would find the change made
        if not torch.equal(x, held[name]):
            tally.fail(case.label, f"it changed the {name} that it was given")
            x.copy_(held[name])
    here = Situation(subject, layer, case, contract, points, seed + index)
    other = redrawn(kept(whole, torch.arange(max(count - 4, 1))), seed + 3)
    return layer_scene(here, other), f"{given.label}, P = {points}"


def _autocast(scene: Scene, rounding: Sensitivity, where: str, tally: Tally) -> None:
    here = situation_of(scene)
    if native(here.subject) != torch.float32:
        return
    if AUTOCAST in here.subject.claims.lacking:
        tally.not_supported(AUTOCAST)
        return
    u, valid = bounds.unit_roundoff(torch.float32), here.case.mask
    far = parted(here.case, torch.tensor(SHIFT, dtype=torch.float64))
    reach = f", Gaussians {REACH:g} nm from their residues"
    for place, case in (("", here.case), (", two groups 500 nm apart", far), (reach, reaching(here.case))):
        found = rounding if case is here.case else sensitivity(here.subject, here.layer, case, here.seed, tally)
        exact = found.output
        allowed = (found.budget(PRECISIONS["bf16 autocast"], u_geometry=u, terms=DEPTH) + found.budget(u))[valid]
        try:
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
                output = here.output(case).double()
        except Exception as error:  # whatever somebody else's code raises is a finding about it
            tally.fail(f"{where}, autocast", f"autocast: capability: it raised {error}; if known, claim {AUTOCAST!r}")
            return
        off = (output - exact)[valid].abs() / allowed
        able = allowed < exact[valid].abs().amax()
        here_too = f"{where}{place}, bf16 autocast"
        tally.add(off, 1.0, f"{here_too}: value", could_fail=able)
        if place:  # where a rounded geometry is far off, and the budget of features still hides it
            turned(here.subject, here.layer, case, output, exact, here.seed, here_too, tally)


def _forward_mode(scene: Scene, plain: Plain, where: str, tally: Tally) -> None:
    """Σ weights · tangent along a random direction of the inputs against Σ gradient · direction."""
    here = situation_of(scene)
    lacking = here.subject.claims.lacking
    if FORWARD in lacking or not plain.slopes:
        tally.not_supported(FORWARD if FORWARD in lacking else "gradients")
        return
    generator = torch.Generator().manual_seed(here.seed)
    directions = {
        name: torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
        for name, x in plain.inputs.items()
    }
    omega = directions["translations"]  # as good as any other, and as long
    directions["rotations"] = rotation.multiply(plain.inputs["rotations"], skew(omega))
    try:
        with warnings.catch_warnings(), forward_ad.dual_level():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, where it first derives forwards
            duals = {name: forward_ad.make_dual(x, directions[name]) for name, x in plain.inputs.items()}
            output = here.output(here.case_of(duals))
            tangent = forward_ad.unpack_dual(output).tangent
    except Exception as error:  # refusing is right
        tally.note(f"forward mode is refused: {type(error).__name__}")
        return
    found = 0.0 if tangent is None else float((tangent.detach().double() * plain.weights["output"]).sum())
    expected = float(sum((plain.slopes[name].double() * x.double()).sum() for name, x in directions.items()))
    reach = {name: x.abs().double().sum() for name, x in (directions | {"rotations": omega}).items()}
    limit = float(sum(plain.bends[name] * x for name, x in reach.items()))
    tally.add(abs(found - expected), limit, f"{where}, forward mode: tangent", could_fail=limit < 0.5 * abs(expected))
