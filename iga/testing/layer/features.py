"""`feature_laws`: how a layer may read what it is given, whatever it computes.

*Rows.* The logits of query i are over the pairs (i, j), and so are the pair features that its weights add up. Output i
is a function of the row z_i· alone: with every other row redrawn, it stays. A softmax over queries, z read transposed
for keys or values, and features that are averaged over the pairs do not stay. Attention that means to mix rows claims
`unsupported=("pair_rows",)`.

*Zeros.* A zero is a number: the output is the same where it is ±10⁻³⁰ instead, which is less than rounds. A layer that
takes features, places, frames or offsets of zero for padding jumps there. An identity matrix has six zeros.

Both within twice the budget of one evaluation (docs/theory.md, 13), since blocks and sums may be made otherwise.
"""

from dataclasses import replace

import torch
from torch import nn

from iga._typing import Tensor
from iga.testing.check import check
from iga.testing.contract import Contract
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import build, cast, kept, masked, native, rebuilt, redrawn, tensors
from iga.testing.layer.guards import require_geometry
from iga.testing.layer.sensitivity import allowed_of
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally

__all__ = ["feature_laws"]

RESIDUES = 20
TINY = 1e-30  # of float32 a number like others; of a feature, a nanometre or a radian it moves no digit
OPERANDS = {"s": 1, "z": 1, "rotations": 2, "translations": 1, "local means": 1, "log scales": 1}  # → dims of one item


@check("layer", "of the budget", claims=("pair_rows",))
def feature_laws(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Differences of the valid outputs, each over its own budget: rows of z redrawn, zeros in place of 10⁻³⁰."""
    for index, given in enumerate(cases):
        points = contract.points[(index + 1) % len(contract.points)]
        layer = build(subject, points, seed + index)
        case = cast(kept(given, torch.arange(min(RESIDUES, given.s.shape[-2]))), native(subject))
        require_geometry(subject, layer, case, tally)
        where = f"{given.label}, P = {points}"
        with torch.no_grad():
            _rows(subject, layer, masked(case, seed + index), seed + index, where, tally)
            _zeros(subject, layer, case, seed + index, where, tally)


def _rows(subject: Subject, layer: nn.Module, case: Case, seed: int, where: str, tally: Tally) -> None:
    """Half of the rows of z redrawn, then the other half: the outputs of those that stay."""
    if not subject.pair_features:
        return
    if "pair_rows" in subject.claims.lacking:
        tally.not_supported("pair_rows")
        return
    n = case.s.shape[-2]
    plain, other = subject.output(layer, case), redrawn(case, seed + 1).z
    half = torch.randperm(n, generator=torch.Generator().manual_seed(seed)) < (n + 1) // 2
    for name, stays in (("half", half), ("the other half", ~half)):
        output = subject.output(layer, replace(case, z=torch.where(stays[:, None, None], case.z, other)))
        _judge(subject, layer, case, output, plain, case.mask & stays, seed, f"{where}: {name} of the rows of z", tally)


def _zeros(subject: Subject, layer: nn.Module, case: Case, seed: int, where: str, tally: Tally) -> None:
    """Every third residue, or pair, holds zeros; the identity where that is a matrix. The origin is in their middle."""
    generator = torch.Generator().manual_seed(seed)
    valid = torch.ones_like(case.mask)
    trans = case.rigid.trans
    case = rebuilt(case, {"translations": trans - trans.mean(dim=-2, keepdim=True)})
    for name, core in OPERANDS.items():
        if name == "z" and not subject.pair_features:
            continue
        x = tensors(case)[name]
        at = torch.rand(x.shape[: x.ndim - core], generator=generator) < 1 / 3
        at[..., 0] = True
        signs = torch.randint(0, 2, x.shape, generator=generator).to(x.dtype) * 2 - 1
        item = torch.eye(3, dtype=x.dtype) if core == 2 else x.new_zeros(x.shape[-1])
        zero = torch.where(at.reshape(at.shape + (1,) * core), item, x)
        near = torch.where(zero == 0, TINY * signs, zero)
        at_zero, beside = (rebuilt(case, {name: one}) for one in (zero, near))
        plain, output = subject.output(layer, at_zero), subject.output(layer, beside)
        # the budget is measured beside the zeros: at them a jump would pass for sensitivity
        _judge(subject, layer, beside, output, plain, valid, seed, f"{where}: {name} of zero", tally)


def _judge(
    subject: Subject,
    layer: nn.Module,
    case: Case,
    output: Tensor,
    plain: Tensor,
    at: Tensor,
    seed: int,
    where: str,
    tally: Tally,
) -> None:
    difference = (output.double() - plain.double())[at].abs()
    allowed = allowed_of(difference, subject, layer, case, seed, tally, at)
    size = plain[at].abs().amax() if bool(at.any()) else 0.0
    tally.add(difference / allowed, 1.0, where, could_fail=allowed < size)
