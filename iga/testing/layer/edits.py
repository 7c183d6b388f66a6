"""Edits of a layer's inputs that checks share (take apart, cast, crop, permute, stack), and gradients to them."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from iga._typing import Tensor
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.testing.contract import Contract
from iga.testing.judges import overlap as oracle
from iga.testing.layer.cases import Case
from iga.testing.layer.subject import Observation, Subject
from iga.testing.targets import TargetError, one_line

__all__ = [
    "build",
    "cast",
    "gradients",
    "kept",
    "leaves",
    "masked",
    "native",
    "observed",
    "rebuilt",
    "redrawn",
    "skew",
    "stacked",
    "tensors",
]


def native(subject: Subject) -> torch.dtype:
    """The dtype that a layer is judged in where none is asked for: float32 if it claims it."""
    return torch.float32 if torch.float32 in subject.dtypes else subject.dtypes[0]


def build(subject: Subject, points: int, seed: int, *, gain: float = 1.0) -> nn.Module:
    """The layer with random parameters in its native dtype."""
    return subject.random(points, seed, gain=gain).to(native(subject))


def cast(case: Case, dtype: torch.dtype) -> Case:
    """The case in another dtype. A float32 matrix is no rotation in float64, so the nearest one takes its place."""
    r = case.rigid
    if r.dtype == dtype and case.s.dtype == dtype:
        return case
    rot = oracle.nearest_rotation(r.rot) if dtype == torch.float64 else r.rot.to(dtype)
    rigid = GaussianRigid(Frame(rot, r.trans.to(dtype)), r.local_mean.to(dtype), r.log_scale.to(dtype))
    return replace(case, rigid=rigid, s=case.s.to(dtype), z=case.z.to(dtype))


def observed(subject: Subject, layer: nn.Module, case: Case, contract: Contract, points: int) -> Observation:
    """The layer called on the case in its native dtype: for its trace, or for what it shows."""
    layer, case = layer.to(native(subject)), cast(case, native(subject))
    shown = subject.trace(layer, case) if subject.traced else subject.seen(layer, case)
    return Observation(subject, layer, case, shown, contract, f"{case.label}, P = {points}")


def tensors(case: Case) -> dict[str, Tensor]:
    """The case's numbers by the names that reports give them."""
    r = case.rigid
    return {
        "s": case.s,
        "z": case.z,
        "rotations": r.rot,
        "translations": r.trans,
        "local means": r.local_mean,
        "log scales": r.log_scale,
    }


def rebuilt(case: Case, parts: dict[str, Tensor]) -> Case:
    """The case with the numbers of `parts` (names as in `tensors`) in place of its own."""
    own = tensors(case) | parts
    frame = Frame(own["rotations"], own["translations"])
    return replace(case, s=own["s"], z=own["z"], rigid=GaussianRigid(frame, own["local means"], own["log scales"]))


def leaves(case: Case, names: tuple[str, ...] | None = None) -> tuple[Case, dict[str, Tensor]]:
    """The case over fresh tensors that want gradients, and these tensors."""
    parts = {
        name: x.detach().clone().requires_grad_(True)
        for name, x in tensors(case).items()
        if names is None or name in names
    }
    return rebuilt(case, parts), parts


def gradients(value: Tensor, inputs: dict[str, Tensor], *, create_graph: bool = False) -> dict[str, Tensor | None]:
    """∂value/∂input by name; None where there is no path: a value that depends on nothing, a parameter that is frozen.

    Raises TargetError where a layer's backward raises.
    """
    if not value.requires_grad:
        return dict.fromkeys(inputs)
    wanted = {name: x for name, x in inputs.items() if x.requires_grad}
    try:
        found = torch.autograd.grad(value, list(wanted.values()), allow_unused=True, create_graph=create_graph)
    except RuntimeError as error:
        raise TargetError(f"backward raised {one_line(error)}") from error
    return dict.fromkeys(inputs) | dict(zip(wanted, found, strict=True))


def kept(case: Case, index: Tensor) -> Case:
    """The residues `index`, in that order: a crop or a permutation."""
    z = case.z[:, index][:, :, index]
    return replace(case, s=case.s[:, index], z=z, rigid=case.rigid[:, index], mask=case.mask[:, index])


def masked(case: Case, seed: int, *, share: float = 0.25) -> Case:
    """The case with about `share` of its residues masked; of an even seed, and if there are more than a few, the first
    and the last one are. Never all: these two are not, or else three in the middle, which attend to one another."""
    generator = torch.Generator().manual_seed(seed)
    mask = case.mask & (torch.rand(case.mask.shape, generator=generator) > share)
    count = mask.shape[-1]
    if seed % 2 == 0 and count >= 6:
        mask[..., 0] = mask[..., -1] = False
        mask[..., count // 2 - 1 : count // 2 + 2] = True
    else:
        mask[..., 0] = mask[..., -1] = True
    return replace(case, mask=mask)


def redrawn(case: Case, seed: int) -> Case:
    """Other features of the same shape."""
    generator = torch.Generator().manual_seed(seed)

    def normal(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)

    return replace(case, s=normal(case.s), z=normal(case.z))


def stacked(cases: list[Case], shape: tuple[int, ...] | None = None) -> Case:
    """Cases of one sample each as one batch, of shape `shape` if given."""

    def joined(pick: Any) -> Tensor:
        whole = torch.cat([pick(case) for case in cases])
        return whole if shape is None else whole.reshape(*shape, *whole.shape[1:])

    frame = Frame(joined(lambda c: c.rigid.rot), joined(lambda c: c.rigid.trans))
    rigid = GaussianRigid(frame, joined(lambda c: c.rigid.local_mean), joined(lambda c: c.rigid.log_scale))
    label = f"{len(cases)} samples of {cases[0].label}"
    return Case(label, rigid, joined(lambda c: c.s), joined(lambda c: c.z), joined(lambda c: c.mask))


def skew(x: Tensor) -> Tensor:
    """[x]×, so that [x]× y = x × y."""
    zero = torch.zeros_like(x[..., 0])
    a, b, c = x.unbind(-1)
    rows = [torch.stack(row, dim=-1) for row in ((zero, -c, b), (c, zero, -a), (-b, a, zero))]
    return torch.stack(rows, dim=-2)
