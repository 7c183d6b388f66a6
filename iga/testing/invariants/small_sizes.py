"""`small_sizes`: one residue, two, one valid key, none, one point, an empty batch: shapes, finiteness, what is known.

A layer with one valid key depends on no other residue; with none, ours gives zeros (another: anything finite). Each
size is an example of its own: what raises is broken there, and the rest is judged all the same.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from iga._typing import Tensor
from iga.testing.cases import Case
from iga.testing.contract import Contract
from iga.testing.invariants.alive import require_geometry, rolled
from iga.testing.invariants.inputs import build, cast, gradients, kept, leaves, native, rebuilt, redrawn, tensors
from iga.testing.subject import Subject
from iga.testing.tally import Tally
from iga.testing.targets import TargetError

__all__ = ["small_sizes"]

RESIDUES = 12  # of those behind the mask


def small_sizes(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Entries that are not finite among outputs and gradients, and differences that have to be 0."""
    for index, given in enumerate(cases):
        case = cast(kept(given, torch.arange(min(RESIDUES, given.s.shape[-2]))), native(subject))
        for points in sorted({1, contract.points[-1]}):
            layer = build(subject, points, seed + index)
            require_geometry(subject, layer, case, tally)
            for name, example in EXAMPLES.items():
                where = f"{given.label}, P = {points}, {name}"
                try:
                    example(subject, layer, case, where, tally)
                except TargetError as error:
                    tally.fail(where, str(error))


def _finite(subject: Subject, layer: nn.Module, case: Case, where: str, tally: Tally) -> Tensor:
    """The output, once what is not finite in it and in the gradients is counted."""
    leaf, inputs = leaves(case)
    output = subject.output(layer, leaf)
    tally.add((~output.isfinite()).double().sum(), 0.0, f"{where}: output")
    for name, gradient in gradients(output.square().sum(), inputs | dict(layer.named_parameters())).items():
        if gradient is not None:
            tally.add((~gradient.isfinite()).double().sum(), 0.0, f"{where}: gradient of {name}")
    return output.detach()


def _residues(count: int) -> Callable[[Subject, nn.Module, Case, str, Tally], None]:
    def example(subject: Subject, layer: nn.Module, case: Case, where: str, tally: Tally) -> None:
        _finite(subject, layer, kept(case, torch.arange(count)), where, tally)

    return example


def _one_key(subject: Subject, layer: nn.Module, case: Case, where: str, tally: Tally) -> None:
    place = case.s.shape[-2] // 2
    mask = torch.zeros_like(case.mask)
    mask[..., place] = True
    output = _finite(subject, layer, replace(case, mask=mask), where, tally)
    others = tensors(redrawn(rolled(case), seed=place))
    for name, x in tensors(case).items():  # the valid residue as it was, among others
        at = (0, place, place) if name == "z" else (0, place)
        others[name] = others[name].clone()
        others[name][at] = x[at]
    joined = replace(rebuilt(case, others), mask=mask)
    with torch.no_grad():
        moved = subject.output(layer, joined)
    tally.add((moved - output)[mask].abs(), 0.0, f"{where}: other residues changed")


def _no_key(subject: Subject, layer: nn.Module, case: Case, where: str, tally: Tally) -> None:
    output = _finite(subject, layer, replace(case, mask=torch.zeros_like(case.mask)), where, tally)
    if subject.traced:
        tally.add(output.abs(), 0.0, f"{where}: zeros")


def _empty_batch(subject: Subject, layer: nn.Module, case: Case, where: str, tally: Tally) -> None:
    """`subject.output` compares the shape: [0, n, c_s]."""
    empty = replace(case, s=case.s[:0], z=case.z[:0], rigid=case.rigid[:0], mask=case.mask[:0])
    with torch.no_grad():
        output = subject.output(layer, empty)
    tally.add(float(output.dtype != case.s.dtype), 0.0, f"{where}: dtype")


EXAMPLES: dict[str, Callable[[Subject, nn.Module, Case, str, Tally], None]] = {
    "one residue": _residues(1),
    "two residues": _residues(2),
    "one valid key": _one_key,
    "no valid key": _no_key,
    "an empty batch": _empty_batch,
}
