"""One call of the layer as tensors by the names of taps, [h, p, q, k] and [h, q, k], from its trace or its taps."""

from dataclasses import dataclass, replace

import torch

from iga._typing import Tensor
from iga.functional import Trace
from iga.inspection.layer import Layer
from iga.structure import Structure
from iga.testing.layer.cases import Case, make_case
from iga.testing.layer.seen import Seen
from iga.testing.layer.subject import Observation
from iga.testing.targets import TargetError

__all__ = ["Shown", "called", "case_of"]

_OF_TRACE = {
    **{name: name for name in ("log_det", "dist_sq", "score", "logits", "weights")},
    "geometry_logit": "geo_scaled",
}


@dataclass(frozen=True, eq=False)
class Shown:
    """tensors   name of a tap → [h, p, q, k] or [h, q, k]
    sigmas    (of queries, of keys), each [h, p, n, 3], nm; empty where they are not shown
    """

    observation: Observation
    tensors: dict[str, Tensor]
    sigmas: list[tuple[Tensor, Tensor]]


def case_of(layer: Layer, structure: Structure, index: Tensor, seed: int) -> Case:
    """The residues `index` of the structure as one input, with features drawn from the seed."""
    chosen = replace(structure, gaussian=structure.gaussian[index], mask=structure.mask[index])
    case = make_case(chosen, layer.subject.profile, residues=len(index), seed=seed)
    dtype = layer.dtype
    return replace(case, rigid=case.rigid.to(dtype=dtype), s=case.s.to(dtype), z=case.z.to(dtype))


def called(layer: Layer, case: Case) -> Shown:
    """One call. Raises ValueError, one line, where a target raises, or shows what cannot be read."""
    subject = layer.subject
    try:
        with torch.no_grad():
            shown = subject.trace(layer.module, case) if subject.traced else subject.seen(layer.module, case)
            observation = Observation(subject, layer.module, case, shown, layer.contract, case.label)
            return Shown(observation, *_tensors(shown))
    except TargetError as error:
        raise ValueError(f"{subject.name}: {error}") from error


def _tensors(shown: Trace | Seen) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
    if isinstance(shown, Trace):
        tensors = {name: getattr(shown, own)[0] for name, own in _OF_TRACE.items()}
        return tensors, [(shown.query.sigma[0], shown.key.sigma[0])]
    tensors = {}
    for name in _OF_TRACE:
        if shown.has(name):
            one = shown.heads(name)[0]
            n = shown.output.shape[-2]
            tensors[name] = one.expand(*one.shape[:-2], n, n)
    return tensors, [(query[0], key[0]) for query, key in shown.pairs("sigma")]
