"""Output rows of a layer's projections of s that no output ever depends on, for `gradient_finiteness`.

A row of a weight is one number of one head and point. What is computed and never read has a gradient of exactly 0,
and so has a point that takes another's parameters, for whatever inputs. A gradient may be 0 in passing too: where
softmax has one key left, where a scale lies under a hard floor, where a unit of ReLU is shut. So inputs are kind
(residues close together, all σ alike and far over any floor), and a row that has none is drawn again, with smaller
matrices in turn: a shut softmax opens with them, and a unit is shut by one draw of its bias and not by the next.
Asked of nn.Linear weights over the c_s channels of s, as long as other rows of the same weight reach the output.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from iga._typing import Tensor
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import build, cast, gradients, kept, native, rebuilt
from iga.testing.layer.subject import Subject

__all__ = ["unread_rows"]

RESIDUES = 16
NEAR = 0.1  # nm between residues
LOG_SCALE = -0.7  # σ of half a nanometre
GAINS = (1.0, 0.25, 1.0, 0.25)  # of the parameters, draw by draw


def unread_rows(subject: Subject, case: Case, points: int, seed: int) -> Iterator[tuple[str, list[int]]]:
    """Each weight that was asked for with its rows that reach no output: none, of a right layer.

    Nothing for a case of fewer than 16 residues: the fewer there are, the more often a unit is shut for all of them.
    """
    if case.s.shape[-2] < RESIDUES:
        return
    kind = cast(_kind(case, seed), native(subject))
    dead: dict[str, Tensor] = {}
    for draw, gain in enumerate(GAINS):
        found = dict(_without_gradient(subject, build(subject, points, seed + draw, gain=gain), kind, seed))
        dead = found if draw == 0 else {name: rows & found[name] for name, rows in dead.items() if name in found}
        if not any(bool(rows.any()) for rows in dead.values()):
            break
    for name, rows in dead.items():
        yield name, rows.nonzero()[:, 0].tolist()


def _kind(case: Case, seed: int) -> Case:
    """The first residues of the case, moved close together, every σ half a nanometre."""
    few = kept(case, torch.arange(RESIDUES))
    trans = few.rigid.trans
    apart = torch.randn(trans.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    near = trans[..., :1, :] + NEAR * apart.to(trans)
    scales = torch.full_like(few.rigid.log_scale, LOG_SCALE)
    return replace(rebuilt(few, {"translations": near, "log scales": scales}), mask=torch.ones_like(few.mask))


def _without_gradient(subject: Subject, layer: nn.Module, case: Case, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Of each weight that gets gradient, [rows]: True where the gradient of the output, anyhow weighted, is 0."""
    weights = {
        f"{name}.weight": module.weight
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear) and module.in_features == case.s.shape[-1] and module.weight.requires_grad
    }
    if not weights:
        return
    output = subject.output(layer, case)
    weighting = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    for name, gradient in gradients((output * weighting.to(output)).sum(), weights).items():
        still = None if gradient is None else (gradient == 0).flatten(1).all(dim=1)
        if still is not None and not bool(still.all()):
            yield name, still
