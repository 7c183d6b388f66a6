"""Ways of calling a layer that differ in shape: batches and places, leading dimensions, expanded operands, masks."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch

from iga._typing import Tensor
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import native, stacked
from iga.testing.layer.scene import Situation, situation_of
from iga.testing.targets import TargetError
from iga.testing.ways import Answers, Inputs, Scene, Way, may_refuse

__all__ = ["BATCHES", "MASKS", "SHAPES", "among", "mask_dtypes"]

COPIES = 3  # of the sample, where an operand is expanded over a batch

# (samples, place): powers of two, their neighbours and others; the first place, the last, and places between.
PLACES = ((2, 1), (3, 0), (4, 2), (5, 4), (7, 2), (8, 0), (9, 8), (16, 2), (17, 16), (33, 32))


def among(count: int, place: int, shape: tuple[int, ...] | None = None) -> Callable[[Scene, Inputs], Answers]:
    """The run of a way: the case at this place of a batch, among neighbours with masks and geometry of their own."""

    def run(scene: Scene, inputs: Inputs) -> Answers:
        here = situation_of(scene)
        batch = [here.neighbours[k % len(here.neighbours)] for k in range(count)]
        batch[place] = here.case_of(inputs)
        output = here.output(stacked(batch, shape))
        return {"output": (output if shape is None else output.flatten(0, len(shape) - 1))[place][None]}

    return run


def _beside(change: Callable[[Case], Case]) -> Callable[[Scene, Inputs], Answers]:
    """Between two samples that are changed; a layer that refuses those has said so."""

    def run(scene: Scene, inputs: Inputs) -> Answers:
        here = situation_of(scene)
        other = change(here.neighbours[0])
        with may_refuse():
            return {"output": here.output(stacked([other, here.case_of(inputs), other]))[1:2]}

    return run


def _no_number(case: Case) -> Case:
    return replace(case, s=torch.full_like(case.s, math.nan), z=torch.full_like(case.z, math.nan))


def _large(case: Case) -> Case:
    """Features a thousand times as large, residues a hundred times as far from each other."""
    r = case.rigid
    rigid = GaussianRigid(Frame(r.rot, 100 * r.trans), r.local_mean, r.log_scale)
    return replace(case, s=1000 * case.s, z=1000 * case.z, rigid=rigid)


def _changed(case: Case, change: Callable[[Tensor], Tensor]) -> Case:
    """The case with every operand changed alike."""
    r = case.rigid
    frame = Frame(change(r.rot), change(r.trans))
    rigid = GaussianRigid(frame, change(r.local_mean), change(r.log_scale))
    return replace(case, s=change(case.s), z=change(case.z), rigid=rigid, mask=change(case.mask))


def _without_batch(scene: Scene, inputs: Inputs) -> Answers:
    here = situation_of(scene)
    return {"output": here.output(_changed(here.case_of(inputs), lambda x: x[0]))[None]}


def _empty_dimension_before(scene: Scene, inputs: Inputs) -> Answers:
    here = situation_of(scene)
    return {"output": here.output(_changed(here.case_of(inputs), lambda x: x[None, None]))[0, 0]}


def _expanded(*names: str) -> Callable[[Scene, Inputs], Answers]:
    """Three times the sample, the operands `names` expanded without memory, so that their gradients are sums, as the
    gradient of the output is expanded over the three."""

    def run(scene: Scene, inputs: Inputs) -> Answers:
        here = situation_of(scene)
        case = here.case_of(inputs)

        def many(name: str, x: Tensor) -> Tensor:
            wide = x.expand(COPIES, *x.shape[1:])
            return wide if name in names else wide + torch.zeros_like(wide) if x.is_floating_point() else wide.clone()

        return {"output": here.output(_by_operand(case, many)).sum(dim=0, keepdim=True) / COPIES}

    return run


def _by_operand(case: Case, change: Callable[[str, Tensor], Tensor]) -> Case:
    r = case.rigid
    frame = Frame(change("r", r.rot), change("r", r.trans))
    rigid = GaussianRigid(frame, change("r", r.local_mean), change("r", r.log_scale))
    return replace(
        case, s=change("s", case.s), z=change("z", case.z), rigid=rigid, mask=change("mask", case.mask.contiguous())
    )


# What samples of a batch may share, by what is theirs.
PARTS: dict[str, tuple[str, ...]] = {
    "frames": ("rot", "trans"),
    "Gaussians": ("local_mean", "log_scale"),
    "features and mask": ("s", "z", "mask"),
}


def _shared(part: str) -> Callable[[Scene, Inputs], Answers]:
    """The case behind a neighbour that has its operands `part`, expanded without memory, and all others of its own."""

    def run(scene: Scene, inputs: Inputs) -> Answers:
        here = situation_of(scene)
        case, before = here.case_of(inputs), here.neighbours[0]

        def both(name: str, own: Tensor, other: Tensor) -> Tensor:
            return own.expand(2, *own.shape[1:]) if name in PARTS[part] else torch.cat([other, own])

        r, o = case.rigid, before.rigid
        frame = Frame(both("rot", r.rot, o.rot), both("trans", r.trans, o.trans))
        gaussians = both("local_mean", r.local_mean, o.local_mean), both("log_scale", r.log_scale, o.log_scale)
        features = {"s": both("s", case.s, before.s), "z": both("z", case.z, before.z)}
        mask = both("mask", case.mask, before.mask)
        return {"output": here.output(replace(case, **features, rigid=GaussianRigid(frame, *gaussians), mask=mask))[1:]}

    return run


def _after_nothing_valid(scene: Scene, inputs: Inputs) -> Answers:
    """A call of which nothing is valid is led back too, as on a machine that has padding alone: to zeros."""
    here = situation_of(scene)
    case = here.case_of(inputs)
    nothing = here.output(replace(case, mask=torch.zeros_like(case.mask)))
    leaves = [x for x in inputs.values() if x.requires_grad]
    if leaves and torch.is_grad_enabled():
        torch.autograd.grad(nothing.sum(), leaves, allow_unused=True)
    return {"output": here.output(case)}


def _one_for_all(*names: str) -> Callable[[Scene, Inputs], Answers]:
    """Three times the sample, of the operands `names` one alone, whose gradients are sums over the three."""

    def run(scene: Scene, inputs: Inputs) -> Answers:
        here = situation_of(scene)

        def many(name: str, x: Tensor) -> Tensor:
            return x if name in names else x.expand(COPIES, *x.shape[1:]).clone()

        case = _by_operand(here.case_of(inputs), many)
        return {"output": _answered(here, case).mean(dim=0, keepdim=True)}

    return run


def _answered(here: Situation, case: Case) -> Tensor:
    """The layer's answer on operands that broadcast."""
    arguments, options = here.arguments(case)
    answer = here.layer(*arguments, **options)
    if not isinstance(answer, Tensor) or answer.shape != case.s.shape:
        got = list(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise TargetError(f"expected an output of shape {list(case.s.shape)}, got {got}")
    return answer


def _by_broadcasting(along: int, *names: str) -> Callable[[Scene, Inputs], Answers]:
    """The second of 2 × 3 samples along dimension `along`, where they differ; the operands `names` are 2 × 1, or 1 × 3,
    whose gradients are sums over the dimension that is 1."""

    def run(scene: Scene, inputs: Inputs) -> Answers:
        here = situation_of(scene)
        batch = [here.neighbours[k % len(here.neighbours)] for k in range((2, 3)[along])]
        batch[1] = here.case_of(inputs)

        def many(name: str, x: Tensor) -> Tensor:
            x = x.unsqueeze(1 - along)
            return x if name in names else x.expand(2, 3, *x.shape[2:]).clone()

        return {"output": _answered(here, _by_operand(stacked(batch), many)).select(along, 1).mean(dim=0)[None]}

    return run


def _masked(change: Callable[[Situation, Tensor], Tensor]) -> Callable[[Scene, Inputs], Answers]:
    def run(scene: Scene, inputs: Inputs) -> Answers:
        here = situation_of(scene)
        case = here.case_of(inputs)
        return {"output": here.output(replace(case, mask=change(here, case.mask)))}

    return run


def _strided(here: Situation, mask: Tensor) -> Tensor:
    """Every second number of a tensor whose other numbers say the opposite."""
    return torch.stack([mask, ~mask], dim=-1).flatten(-2)[..., ::2]


def _slice(here: Situation, mask: Tensor) -> Tensor:
    """The second half of a tensor whose first half says the opposite."""
    return torch.cat([~mask, mask], dim=-1)[..., mask.shape[-1] :]


def mask_dtypes() -> list[tuple[str, str, Callable[[Situation, Tensor], Tensor]]]:
    """(name, claim, change) of each dtype a mask may have."""
    named: list[tuple[str, str, torch.dtype]] = [
        ("float64", "float_mask", torch.float64),
        ("int64", "int_mask", torch.int64),
        ("uint8", "int_mask", torch.uint8),
    ]
    found: list[tuple[str, str, Callable[[Situation, Tensor], Tensor]]] = [
        ("a mask of the features' dtype", "float_mask", lambda here, mask: mask.to(native(here.subject)))
    ]
    return found + [
        (f"a mask of {name}", claim, lambda here, mask, dtype=dtype: mask.to(dtype)) for name, claim, dtype in named
    ]


def _place(count: int, place: int) -> str:
    return f"sample {place + 1} of {count}"


BATCHES: tuple[Way, ...] = tuple(
    Way(name=_place(count, place), claim="batch_size", run=among(count, place)) for count, place in PLACES
)
SHAPES: tuple[Way, ...] = (
    Way(name="no batch dimension", claim="no_batch_dimension", run=_without_batch),
    Way(name="three leading dimensions", claim="several_batch_dimensions", run=_empty_dimension_before),
    Way(name="third of 2 × 2", claim="several_batch_dimensions", run=among(4, 2, (2, 2))),
    Way(name="fifth of 2 × 1 × 3", claim="several_batch_dimensions", run=among(6, 4, (2, 1, 3))),
    # no two neighbouring dimensions alike, and none of them 1: whatever is exchanged with another shows
    Way(name="eighth of 2 × 3 × 2", claim="several_batch_dimensions", run=among(12, 7, (2, 3, 2))),
    *(
        Way(name=f"{' and '.join(names)} expanded over a batch", claim="expanded", run=_expanded(*names))
        for names in (("s",), ("z",), ("r",), ("mask",), ("s", "z", "r", "mask"))
    ),
    # values alone: 0 · NaN is NaN, in what parameters get
    Way(name="beside samples without a number", claim="batch_size", run=_beside(_no_number), gradients=False),
    Way(name="beside samples of large numbers", claim="batch_size", run=_beside(_large), gradients=False),
    *(Way(name=f"{part} expanded, of two samples", claim="expanded", run=_shared(part)) for part in PARTS),
    *(
        Way(name=f"{' and '.join(names)} of one sample for several", claim="broadcast", run=_one_for_all(*names))
        for names in (("z",), ("mask",), ("z", "r", "mask"))
    ),
    *(
        Way(
            name=f"{name} of {shape} beside 2 × 3",
            claim="broadcast",
            run=_by_broadcasting(along, name),
            excused=("several_batch_dimensions",),
        )
        for name in ("z", "r", "mask")
        for along, shape in enumerate(("2 × 1", "1 × 3"))
    ),
)
MASKS: tuple[Way, ...] = (
    *(Way(name=name, claim=claim, run=_masked(change)) for name, claim, change in mask_dtypes()),
    Way(name="after a call without a valid residue, led back", claim="empty_batch", run=_after_nothing_valid),
    Way(name="a strided mask", claim="strided", run=_masked(_strided)),
    Way(name="a mask that is a slice", claim="strided", run=_masked(_slice)),
)
