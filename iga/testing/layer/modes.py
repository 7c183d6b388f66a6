"""`reduced_precision`: autocast to bf16 and to fp16, and TF32 (simulated on a CPU), may round features, not geometry.

Outputs are finite in each. A traced layer's geometry is judged as in float32: dist_sq stays float32 and within its
budget. Outputs err by the mode's u where features are concerned, by float32's where geometry is:

    d · u_mode · S_features + p · u_float32 · (S_features + S_geometry)          docs/theory.md, section 13

d = 16 roundings in a row: four products (projection, logit, values, last projection), two operands and a result each,
and four between; the sums of these products are kept in float32. Coordinates as given, and in two groups 500 nm apart,
where a bf16 coordinate is off by 0.5 nm whatever origin a layer chooses; and with Gaussians REACH nm from their
residues, where a turn in bf16 is off by 0.01 nm, which among natural ones, 0.1 nm away, is lost in what features err.

That budget cannot tell a projection that autocast rounds from a turn that it rounds once more. Symmetry can: roundings
in a residue's own frame are the same bits however all frames are turned, those in the frame of space are others. Of
what autocast does to outputs, at most TURNING may turn with the frames, beside twice what does in float32 and what
roundings of bf16 make of that: the mean over a residue's outputs and TURNS turns. Most of these roundings hide a small
change, and the others make a step of it (docs/theory.md, 13.3): one step alone can be all that a residue's outputs err,
so the median residue is asked. And logits that hold a geometry of float32 are numbers that bf16 lacks: where softmax
sees more than half that it has, the sum was made in it. (A residue's own logit may have no geometry.)
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from iga import bounds, rotation
from iga._typing import Tensor
from iga.frame import Frame
from iga.testing.check import THOROUGH, check
from iga.testing.contract import Contract
from iga.testing.layer import accuracy
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import kept
from iga.testing.layer.guards import require_geometry
from iga.testing.layer.sensitivity import sensitivity
from iga.testing.layer.softmax import SoftmaxCatcher
from iga.testing.layer.subject import Observation, Subject
from iga.testing.layer.symmetry import moved, parted
from iga.testing.modes import TF32_BITS, ShortProducts
from iga.testing.tally import Tally
from iga.testing.targets import TargetError

__all__ = ["DEPTH", "MODES", "REACH", "SHIFT", "reaching", "reduced_precision", "turned"]

DEPTH = 16
RESIDUES, FEW = 20, 8  # products round alike however many residues and points there are
FAR_EVERY = 4
TURNING = 1 / 8  # of what autocast does: a definition of what is geometry and what is features
TURNS = 4
SHORT = 1 / 2  # of the logits: a definition, too
SHIFT = (150.0, -160.0, 120.0)  # 250 nm
REACH = 3.0  # nm

# u of each mode: bf16 keeps 8 bits of a number, fp16 11; TF32 cuts operands at 10 bits after the point, not rounds
AUTOCAST = {"bf16 autocast": torch.bfloat16, "fp16 autocast": torch.float16}
MODES: dict[str, float] = {"bf16 autocast": 2.0**-8, "fp16 autocast": 2.0**-11, "TF32, simulated": 2.0**-10}


@check("layer", "of the budget", degenerate=True, profiles=THOROUGH, dtype=torch.float32, seen_faults=("dtypes",))
def reduced_precision(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Outputs under each mode over their budgets, and for traced layers the geometry over its own."""
    if torch.float32 not in subject.dtypes:
        tally.void("float32 is not claimed: nothing is reduced")
        return
    u = bounds.unit_roundoff(torch.float32)
    choices = [p for p in contract.points if p <= FEW] or [contract.points[0]]
    for index, whole in enumerate(cases):
        points = choices[index % len(choices)]
        given = kept(whole, torch.arange(min(RESIDUES, whole.s.shape[-2])))
        layer = subject.random(points, seed + index)
        if index == 0:
            require_geometry(subject, layer, given, tally)
        far = [(", two groups 500 nm apart", parted(given, torch.tensor(SHIFT, dtype=torch.float64)))]
        far += [(f", Gaussians {REACH:g} nm from their residues", reaching(given))]
        for place, case in [("", given), *(far if index % FAR_EVERY == 0 else [])]:
            rounding = sensitivity(subject, layer, case, seed, tally)
            exact = rounding.output
            for name, short in MODES.items():
                where = f"{given.label}{place}, P = {points}, {name}"
                with torch.no_grad(), _mode(name):
                    output = subject.output(layer, case).double()
                    trace = subject.trace(layer, case) if subject.traced else None
                allowed = rounding.budget(short, u_geometry=u, terms=DEPTH) + rounding.budget(u)
                could_fail = allowed < exact.abs().amax()
                tally.add((output - exact).abs() / allowed, 1.0, f"{where}: output", could_fail=could_fail)
                if index == 0 and case is not far[0][1] and name in AUTOCAST:
                    turned(subject, layer, case, output, exact, seed, where, tally)
                if index == 0 and case is given and name in AUTOCAST:
                    _digits(subject, layer, case, AUTOCAST[name], where, tally)
                if trace is None:
                    continue
                if trace.dist_sq.dtype != torch.float32:
                    tally.fail(where, f"{name} reached the geometry: dist_sq is {trace.dist_sq.dtype}")
                else:
                    accuracy.judge_trace(Observation(subject, layer, case, trace, contract, where), tally)


def reaching(case: Case) -> Case:
    """The case with its Gaussians where they are and the residues further off: local means as long as REACH."""
    r = case.rigid
    out = torch.nn.functional.normalize(r.local_mean.double() + 1e-3, dim=-1) * REACH
    trans = r.trans.double() - rotation.rotate(r.rot.double(), out - r.local_mean.double())
    rigid = replace(r, frame=Frame(r.rot, trans.to(r.dtype)), local_mean=out.to(r.dtype))
    return replace(case, rigid=rigid)


def turned(
    subject: Subject,
    layer: nn.Module,
    case: Case,
    output: Tensor,
    exact: Tensor,
    seed: int,
    where: str,
    tally: Tally,
) -> None:
    """The change of the outputs when all frames are turned, in the mode that `where` names: the median residue's."""
    rounds = rotation.random(TURNS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    others = [moved(case, turn, torch.zeros(3, dtype=torch.float64)) for turn in rounds]
    with torch.no_grad():
        own = torch.stack([subject.output(layer, x).double() for x in others]) - subject.output(layer, case).double()
        with _mode(where.rpartition(", ")[2]):
            change = torch.stack([subject.output(layer, x).double() for x in others]) - output
    error, off, moves = (x.abs()[..., case.mask, :] for x in (output - exact, own, change))
    error, off, moves = (x.movedim(-2, 0).flatten(1) for x in (error, off, moves))  # [residues, all the rest]
    steps = (math.sqrt(12) * _rms(error) * _rms(off)) ** 0.5
    allowed = TURNING * error.mean(-1) + 2 * off.mean(-1) + steps
    ratio = (moves.mean(-1) / allowed.clamp(min=torch.finfo(torch.float64).tiny)).median()
    able = (allowed < error.mean(-1)).double().mean() > 0.5
    tally.add(ratio, 1.0, f"{where}: of its error what turns with the frames", could_fail=able)


def _rms(x: Tensor) -> Tensor:
    return x.square().mean(-1).sqrt()


def _digits(subject: Subject, layer: nn.Module, case: Case, dtype: torch.dtype, where: str, tally: Tally) -> None:
    """The share of the logits, as softmax sees them in the mode that `where` names, that are numbers of its dtype."""
    with torch.no_grad(), _mode(where.rpartition(", ")[2]):
        if subject.traced:
            found = [subject.trace(layer, case).logits]
        else:
            try:
                with SoftmaxCatcher(case.s.shape[-2]) as catcher:
                    subject.output(layer, case)
            except TargetError:  # some operators run under no mode: nothing can be caught
                return
            found = [logits for logits, _ in catcher.found if logits is not None]
    for logits in found:
        seen = logits[logits.abs() < torch.finfo(torch.float16).max]  # what a mask adds is no geometry
        share = (seen == seen.to(dtype).to(seen.dtype)).double().mean()
        tally.add(share / SHORT, 1.0, f"{where}: share of the logits that are numbers of {dtype}")


@contextmanager
def _mode(name: str) -> Iterator[None]:
    if name == "TF32, simulated":
        switch = torch.backends.cuda.matmul
        before = switch.fp32_precision == "tf32"
        switch.allow_tf32 = True  # by the old name, which layers may read: torch refuses to mix old and new
        try:
            with ShortProducts(TF32_BITS, by_switch=True):
                yield
        finally:
            switch.allow_tf32 = before
    else:
        with torch.autocast("cpu", dtype=AUTOCAST[name]):
            yield
