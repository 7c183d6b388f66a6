"""Ways of calling an overlap function on a list of pairs: batch sizes, neighbours, which inputs want gradients.

A fault hides in a size: the tail behind the last whole block, what lies beyond the first tile, a batch of one. So the
same few pairs are asked for in batches of sizes around powers of two, in larger ones as copies, and each copy's answer
and gradient has to be theirs.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import torch

from iga._runtime import threads
from iga._typing import Tensor
from iga.testing.common_ways import one_changed, with_answers_of
from iga.testing.overlap.scenes import OPERANDS
from iga.testing.overlap.subject import OverlapSubject
from iga.testing.ways import THOROUGH, Answers, Inputs, Scene, Way, may_refuse
from iga.testing.ways_back import plainly

__all__ = ["BATCHES", "LARGER", "PAIRS", "SUBSETS"]

PAIRS = 37  # of the list; no power of two is near a multiple of it
NEW = 23  # of them, and the 14 that are left
SIZES = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1025)
LARGE = (1000, 1023, 1024, 2047, 2048, 2049, 4095, 4096, 4097, 16_385, 65_535, 65_537)
OVER_A_MILLION = 1_152_001  # and over 2²⁰, and one more than whole blocks of 2¹⁰, 1000, 768, 720 and their like
PARALLEL = 40_001  # torch divides a loop among threads from 32 768 numbers on


def _in_batches(size: int) -> Callable[[Scene, Inputs], Answers]:
    """The run of a way: the list, or its copies one after another, in batches of the size and one of the rest."""

    def run(scene: Scene, inputs: Inputs) -> Answers:
        copies = inputs["q_mean"].ndim > 2
        flat = {name: x.flatten(0, 1) if copies else x for name, x in inputs.items()}
        count = len(flat["q_mean"])
        parts = [scene.call({name: x[k : k + size] for name, x in flat.items()}) for k in range(0, count, size)]
        answers = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return {name: x.view(-1, PAIRS) if copies else x for name, x in answers.items()}

    return run


def _batches(size: int, *, name: str | None = None) -> Way:
    copies = -(-size // PAIRS) if size > PAIRS else 0
    name = f"batches of {size}" if name is None else name
    return Way(name=name, claim="batch_size", run=_in_batches(size), copies=copies)


def _threaded(count: int) -> Way:
    one = _batches(PARALLEL, name=f"{count} threads, batches of {PARALLEL}")

    def run(scene: Scene, inputs: Inputs) -> Answers:
        with threads(count):
            return one.run(scene, inputs)

    return replace(one, claim="threads", run=run)


def _reordered(order: Callable[[int], Tensor]) -> Callable[[Scene, Inputs], Answers]:
    def run(scene: Scene, inputs: Inputs) -> Answers:
        index = order(len(inputs["q_mean"]))
        back = index.argsort()
        return {n: x[back] for n, x in scene.call({name: x[index] for name, x in inputs.items()}).items()}

    return run


def _between(scene: Scene, inputs: Inputs, others: Inputs) -> Answers:
    count, few = len(inputs["q_mean"]), len(others["q_mean"])
    joined = {name: torch.cat([others[name], x, others[name]]) for name, x in inputs.items()}
    return {name: x[few : few + count] for name, x in scene.call(joined).items()}


def _beside(scene: Scene, inputs: Inputs) -> Answers:
    """Between others, of another size of σ and far away."""
    return _between(scene, inputs, scene.other)


def _beside_no_number(scene: Scene, inputs: Inputs) -> Answers:
    """Between pairs whose means are no number; a function that refuses those has said so."""
    others = {name: x * math.nan if name.endswith("mean") else x for name, x in scene.other.items()}
    with may_refuse():
        return _between(scene, inputs, others)


def _among(scene: Scene, inputs: Inputs) -> Answers:
    """Each with another on either side."""
    count = len(inputs["q_mean"])
    index = torch.arange(count) % len(scene.other["q_mean"])
    mixed = {name: torch.stack([x, scene.other[name][index]], dim=1).flatten(0, 1) for name, x in inputs.items()}
    return {name: x[::2] for name, x in scene.call(mixed).items()}


def _summed(dim: int) -> Callable[[Scene, Inputs], Answers]:
    """Each pair twice, added up over a dimension of two: the gradient of an answer is expanded over that one alone."""

    def run(scene: Scene, inputs: Inputs) -> Answers:
        answers = scene.call({name: torch.stack([x, x], dim=dim) for name, x in inputs.items()})
        return {name: x.sum(dim) / 2 for name, x in answers.items()}

    return run


def _every_other(scene: Scene, inputs: Inputs) -> Answers:
    """The even ones and the odd ones, as views of the list."""
    even, odd = (scene.call({name: x[k::2] for name, x in inputs.items()}) for k in (0, 1))
    order = torch.cat([torch.arange(0, PAIRS, 2), torch.arange(1, PAIRS, 2)]).argsort()
    return {name: torch.cat([even[name], odd[name]])[order] for name in even}


def _none_first(scene: Scene, inputs: Inputs) -> Answers:
    """No pairs at all: answers of no pair, of the shape asked for, whose gradient is of no pair."""
    nothing = scene.call({name: x[:0] for name, x in inputs.items()})
    for shape in ((4, 0), (0, 4), (4, 0, 2)):
        scene.call({name: x[0].expand(*shape, *x[0].shape) for name, x in inputs.items()})
        scene.call({name: x[0] if name[0] == "k" else x[0].expand(*shape, *x[0].shape) for name, x in inputs.items()})
    answers = scene.call(inputs)
    return {name: torch.cat([nothing[name], x]) for name, x in answers.items()}


def _new_form(scene: Scene, inputs: Inputs) -> Answers:
    """Six leading dimensions and a count that no other call has, first under inference_mode: what is made for a form,
    and kept, is made where nothing can be recorded."""
    parts = []
    for few in (slice(0, NEW), slice(NEW, None)):
        form = {name: x[few][(None,) * 5] for name, x in inputs.items()}
        with torch.inference_mode():
            scene.call(form)
        parts.append({name: x.flatten() for name, x in scene.call(form).items()})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _other_dtype(scene: Scene, inputs: Inputs) -> None:
    subject: OverlapSubject = scene.details
    for dtype in subject.dtypes:
        if dtype != inputs["q_mean"].dtype:
            scene.accused(*(inputs[name].detach().to(dtype) for name in OPERANDS))


def _copied(scene: Scene, inputs: Inputs) -> Answers:
    copied = replace(scene.details, function=copy.deepcopy(scene.accused))
    return dict(zip(("dist_sq", "log_det"), copied(*(inputs[name] for name in OPERANDS)), strict=True))


def _subset(*names: str) -> Way:
    return Way(name=f"gradients by {', '.join(names)} alone", claim="partial_gradients", run=plainly, gradients=names)


BATCHES: tuple[Way, ...] = (
    *(_batches(size) for size in SIZES),
    Way(name="reversed", claim="order", run=_reordered(lambda n: torch.arange(n).flip(0))),
    Way(name="in another order", claim="order", run=_reordered(lambda n: torch.arange(n) * 10 % n)),
    Way(name="between others", claim="order", run=_beside),
    Way(name="between pairs without a number", claim="batch_size", run=_beside_no_number, gradients=False),
    Way(name="each beside another", claim="order", run=_among),
    Way(name="two rows, added up", claim="leading_dimensions", run=_summed(0)),
    Way(name="two columns, added up", claim="leading_dimensions", run=_summed(1)),
    Way(name="every second one", claim="order", run=_every_other),
    Way(name="a form first met under inference_mode", claim="inference_mode", run=_new_form),
    Way(name="with an empty batch", claim="empty_batch", run=_none_first),
    Way(name="after calls that share all operands but one", claim="repeat", run=one_changed),
    Way(name="after another dtype", claim="repeat", run=with_answers_of(_other_dtype)),
    Way(name="a deep copy", claim="deepcopy", run=_copied),
)

LARGER: tuple[Way, ...] = (
    *(_batches(size) for size in LARGE),
    _threaded(2),
    _threaded(3),
    replace(_batches(OVER_A_MILLION), gradients=False),
    replace(
        _batches(OVER_A_MILLION, name=f"batches of {OVER_A_MILLION}, led back"),
        gradients=("q_mean", "q_sigma", "k_rot"),
        profiles=THOROUGH,
    ),
)

SUBSETS: tuple[Way, ...] = (
    *(_subset(name) for name in OPERANDS),
    *(_subset(*two) for two in combinations(OPERANDS, 2)),
    *(_subset(*(name for name in OPERANDS if name != left)) for left in OPERANDS),
    _subset(*OPERANDS[:3]),
    _subset(*OPERANDS[3:]),
    *(_subset(*(name for name in OPERANDS if name[2:] != kind)) for kind in ("rot", "mean", "sigma")),
)
