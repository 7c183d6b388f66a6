"""Checks of a layer called again and otherwise: order, repetition, small sizes. Ways of calling are `agreement`'s.

`permutations`: residues in another order give the same outputs in that order; points in another order, the same.

Sums change their order, so the outputs may differ by rounding: twice the budget of one evaluation. Points are permuted
within each head, in the parameters of a traced layer that names them as InvariantGaussianAttention does: its
linear_{q,k}_{offsets,scales} have rows [h, P, 3].

`determinism`: a layer in eval mode is a function. Everything here is exact, to the last bit.

The same call twice; with calls on other inputs of the same shape in between, and beside a fresh copy that has seen
nothing else (a stale cache); with other numbers in the same tensors; under other states of the global generator; and
neither inputs nor parameters nor buffers are changed by a call.

`small_sizes`: one residue, two, one valid key, none, one point, an empty batch: shapes, finiteness, what is known.

A layer with one valid key depends on no other residue; with none, ours gives zeros (another: anything finite). Each
size is an example of its own: what raises is broken there, and the rest is judged all the same.
"""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from iga._typing import Tensor
from iga.testing.check import check
from iga.testing.contract import Contract
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import (
    build,
    cast,
    gradients,
    kept,
    leaves,
    masked,
    native,
    rebuilt,
    redrawn,
    tensors,
)
from iga.testing.layer.guards import require_geometry, rolled
from iga.testing.layer.masks import NUMBERS
from iga.testing.layer.sensitivity import allowed_of
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally
from iga.testing.targets import TargetError

__all__ = ["determinism", "permutations", "small_sizes"]

POINT_ROWS = ("linear_q_offsets", "linear_k_offsets", "linear_q_scales", "linear_k_scales")


@check("layer", "of the budget")
def permutations(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Differences of the valid outputs, each over its own budget, under a reversal and a random order."""
    several = [p for p in contract.points if p > 1] or list(contract.points)
    for index, given in enumerate(cases):
        points = several[index % len(several)]
        generator = torch.Generator().manual_seed(seed + index)
        layer, case = build(subject, points, seed + index), masked(cast(given, native(subject)), seed + index)
        require_geometry(subject, layer, replace(case, mask=torch.ones_like(case.mask)), tally)
        n = case.s.shape[-2]
        with torch.no_grad():
            plain = subject.output(layer, case).double()
            valid, size = case.mask, plain[case.mask].abs().amax()

            def judge(output: Tensor, name: str, at: Tensor = valid, plain: Tensor = plain) -> None:
                where = f"{given.label}, P = {points}, {name}"  # noqa: B023 - called within the turn of the loop
                difference = (output.double() - plain)[at].abs()
                allowed = allowed_of(difference, subject, layer, case, seed, tally, at)  # noqa: B023
                tally.add(difference / allowed, 1.0, where, could_fail=allowed < size)  # noqa: B023

            for name, order in (
                ("residues reversed", torch.arange(n).flip(0)),
                ("residues shuffled", torch.randperm(n, generator=generator)),
            ):
                judge(subject.output(layer, kept(case, order))[:, order.argsort()], name)
            if points > 1 and (shuffled := _points_shuffled(layer, subject, points, generator)) is not None:
                judge(subject.output(shuffled, case), "points shuffled")


def _points_shuffled(layer: nn.Module, subject: Subject, points: int, generator: torch.Generator) -> nn.Module | None:
    """The layer with the points of each head in another order; None if it does not have them where ours does."""
    heads = subject.profile.no_heads
    parameters = dict(layer.named_parameters())
    names = [f"{name}.{part}" for name in POINT_ROWS for part in ("weight", "bias")]
    if not subject.traced or any(
        name not in parameters or parameters[name].shape[0] != heads * points * 3 for name in names
    ):
        return None
    rows = torch.arange(heads * points * 3).reshape(heads, points, 3)
    order = torch.stack([rows[h, torch.randperm(points, generator=generator)] for h in range(heads)]).flatten()
    other = copy.deepcopy(layer)
    for name, parameter in other.named_parameters():
        if name in names:
            parameter.copy_(parameters[name][order])
    return other


@check("layer", "output")
def determinism(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Absolute differences, all of which have to be 0."""
    for index, given in enumerate(cases):
        points = contract.points[(index + 1) % len(contract.points)]
        where = f"{given.label}, P = {points}"
        case = cast(given, native(subject))
        other = redrawn(rolled(case), seed + 1)
        layer = build(subject, points, seed + index)
        require_geometry(subject, layer, case, tally)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            before = _copies(case, layer)
            first = subject.output(layer, case)
            tally.add((first - subject.output(layer, case)).abs(), 0.0, f"{where}: repeated")
            for name, value in _copies(case, layer).items():
                tally.add((value != before[name]).double().sum(), 0.0, f"{where}: {name} changed in place")

            torch.manual_seed(seed + 1)
            second = subject.output(layer, other)
            fresh = subject.output(build(subject, points, seed + index), other)
            tally.add((second - fresh).abs(), 0.0, f"{where}: after another call, against a fresh layer")
            tally.add((subject.output(layer, case) - first).abs(), 0.0, f"{where}: after another call, repeated")

            parts = {name: x.clone() for name, x in tensors(case).items()}
            same_tensors = rebuilt(case, parts)
            subject.output(layer, same_tensors)
            for name, x in tensors(other).items():
                parts[name].copy_(x)
            output = subject.output(layer, replace(same_tensors))
            tally.add((output - fresh).abs(), 0.0, f"{where}: other numbers in the same tensors")


def _copies(case: Case, layer: nn.Module) -> dict[str, Tensor]:
    """Everything that a call may read, copied."""
    held = {name: value for name, value in layer.state_dict().items() if isinstance(value, Tensor)}
    return {name: value.clone() for name, value in (tensors(case) | {"mask": case.mask} | held).items()}


RESIDUES = 12  # of those behind the mask


@check("layer", "see example", claims=("empty_batch",))
def small_sizes(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Entries that are not finite among outputs and gradients, and differences that have to be 0."""
    for index, given in enumerate(cases):
        case = cast(kept(given, torch.arange(min(RESIDUES, given.s.shape[-2]))), native(subject))
        for points in sorted({1, contract.points[-1]}):
            layer = build(subject, points, seed + index)
            require_geometry(subject, layer, case, tally)
            for name, example in EXAMPLES.items():
                if name == EMPTY and "empty_batch" in subject.claims.lacking:
                    tally.not_supported("empty_batch")
                    continue
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
    if "gradients" in subject.claims.lacking:
        return output.detach()
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
    for kind, claim, dtype in NUMBERS:
        if claim not in subject.claims.lacking:
            mask = torch.zeros_like(case.mask, dtype=dtype or case.s.dtype)
            _finite(subject, layer, replace(case, mask=mask), f"{where}, a mask of {kind}", tally)


def _empty_batch(subject: Subject, layer: nn.Module, case: Case, where: str, tally: Tally) -> None:
    """`subject.output` compares the shape: [0, n, c_s]."""
    empty = replace(case, s=case.s[:0], z=case.z[:0], rigid=case.rigid[:0], mask=case.mask[:0])
    with torch.no_grad():
        output = subject.output(layer, empty)
    tally.add(float(output.dtype != case.s.dtype), 0.0, f"{where}: dtype")


EMPTY = "an empty batch"
EXAMPLES: dict[str, Callable[[Subject, nn.Module, Case, str, Tally], None]] = {
    "one residue": _residues(1),
    "two residues": _residues(2),
    "one valid key": _one_key,
    "no valid key": _no_key,
    EMPTY: _empty_batch,
}
