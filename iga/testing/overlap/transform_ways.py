"""Ways of calling an overlap function through torch's transforms: vmap, torch.func, forward mode, compile, export.

A classic autograd.Function, without a setup_context of its own, is beyond torch.func altogether: who claims "vmap" away
is not asked for the others either.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd import forward_ad

from iga._typing import Tensor
from iga.testing.modes import quiet
from iga.testing.overlap.scenes import OPERANDS, as_pair
from iga.testing.ways import THOROUGH, Answers, Inputs, Refused, Scene, Way, weighted
from iga.testing.ways_back import plainly

__all__ = ["EXPORTED", "MAPPED", "TRACED", "TRANSFORMS"]

QUERY, KEY = (0, 0, 0, None, None, None), (None, None, None, 0, 0, 0)


def _answers(values: Any) -> Answers:
    return dict(zip(("dist_sq", "log_det"), values, strict=True))


# --- vmap -------------------------------------------------------------------------------------------------------


def _vmap(scene: Scene, inputs: Inputs) -> Answers:
    return _answers(torch.func.vmap(scene.accused)(*as_pair(inputs)))


def _vmap_inner(scene: Scene, inputs: Inputs) -> Answers:
    """Over a last leading dimension: what is mapped stands behind the pairs."""
    moved = [x.unsqueeze(0).transpose(0, 1) for x in as_pair(inputs)]  # [n, 1, …]
    values = torch.func.vmap(scene.accused, in_dims=1, out_dims=1)(*moved)
    return {name: x.squeeze(1) for name, x in _answers(values).items()}


def _vmap_mixed_dims(scene: Scene, inputs: Inputs) -> Answers:
    """Each operand mapped over another of its dimensions; the pairs' own come first in some, last in others."""
    blocks = [x.unflatten(0, (1, len(x))) for x in as_pair(inputs)]  # [1, n, …]
    given = [x if k % 2 else x.transpose(0, 1) for k, x in enumerate(blocks)]
    values = torch.func.vmap(scene.accused, in_dims=tuple(1 if k % 2 else 0 for k in range(6)))(*given)
    return {name: x.squeeze(-1) for name, x in _answers(values).items()}


def _vmap_last(scene: Scene, inputs: Inputs) -> Answers:
    """The mapped dimension is the last of each operand."""
    values = torch.func.vmap(scene.accused, in_dims=-1)(*(x.movedim(0, -1) for x in as_pair(inputs)))
    return _answers(values)


def _vmap_chunks(scene: Scene, inputs: Inputs) -> Answers:
    return _answers(torch.func.vmap(scene.accused, chunk_size=5)(*as_pair(inputs)))


def _over_queries(scene: Scene, inputs: Inputs) -> Answers:
    """Of a matrix [a, 1] × [b]: mapped over the queries; the keys are of no batch."""
    return _answers(torch.func.vmap(scene.accused, in_dims=QUERY)(*_row_and_column(inputs)))


def _over_keys(scene: Scene, inputs: Inputs) -> Answers:
    return _answers(torch.func.vmap(scene.accused, in_dims=KEY, out_dims=-1)(*_row_and_column(inputs)))


def _over_both(scene: Scene, inputs: Inputs) -> Answers:
    both = torch.func.vmap(torch.func.vmap(scene.accused, in_dims=KEY), in_dims=QUERY)
    return _answers(both(*_row_and_column(inputs)))


def _row_and_column(inputs: Inputs) -> list[Tensor]:
    return [inputs[name].squeeze(1) if name.startswith("q") else inputs[name] for name in OPERANDS]


# --- torch.func -------------------------------------------------------------------------------------------------


def _back_by_vjp(scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]) -> Answers:
    pair = tuple(x.detach() for x in as_pair(leaves))
    values, pull, *_ = torch.func.vjp(lambda *x: tuple(scene.accused(*x)), *pair)
    given = tuple(weights[name].to(value) for name, value in zip(("dist_sq", "log_det"), values, strict=True))
    return {name: slope for name, slope in zip(OPERANDS, pull(given), strict=True) if name in names}


def _back_by_grad(scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]) -> Answers:
    def total(*pair: Tensor) -> Tensor:
        return weighted(_answers(scene.accused(*pair)), weights)

    found = torch.func.grad(total, argnums=tuple(range(6)))(*(x.detach() for x in as_pair(leaves)))
    return {name: slope for name, slope in zip(OPERANDS, found, strict=True) if name in names}


def _back_by_pair(scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]) -> Answers:
    """The gradient of each pair's own term: grad within vmap."""

    def term(by_dist: Tensor, by_log: Tensor, *pair: Tensor) -> Tensor:
        dist_sq, log_det = scene.accused(*pair)
        return dist_sq.double() * by_dist + log_det.double() * by_log

    each = torch.func.vmap(torch.func.grad(term, argnums=tuple(range(2, 8))))
    found = each(weights["dist_sq"], weights["log_det"], *(x.detach() for x in as_pair(leaves)))
    return {name: slope for name, slope in zip(OPERANDS, found, strict=True) if name in names}


# --- forward mode -----------------------------------------------------------------------------------------------


def _back_by_tangents(
    scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]
) -> Answers:
    """Every derivative of every pair by forward mode, one coordinate of all pairs at a time."""
    return _by_coordinates(_tangents, scene, weights, leaves, names)


def _back_by_jvp(scene: Scene, answers: Answers, weights: Answers, leaves: Inputs, names: tuple[str, ...]) -> Answers:
    """The same by torch.func.jvp, which a rule may take another way."""
    return _by_coordinates(_pushed, scene, weights, leaves, names)


Push = Callable[[Scene, Inputs, Inputs], dict[str, Tensor | None]]


def _by_coordinates(push: Push, scene: Scene, weights: Answers, leaves: Inputs, names: tuple[str, ...]) -> Answers:
    found = {name: torch.zeros_like(leaves[name]) for name in names}
    for name in names:
        for k in range(leaves[name][0].numel()):
            tangent = torch.zeros_like(leaves[name])
            tangent.flatten(1)[:, k] = 1
            slope = torch.zeros(len(tangent), dtype=torch.float64)
            for answer, part in push(scene, leaves, {name: tangent}).items():
                if part is not None:
                    slope = slope + part.double() * weights[answer]
            found[name].flatten(1)[:, k] = slope.to(found[name])
    return found


def _tangents(scene: Scene, leaves: Inputs, tangents: Inputs) -> dict[str, Tensor | None]:
    with _refusing(), warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore")  # torch's own rules for forward mode warn when they load
        given = {
            name: forward_ad.make_dual(x.detach(), tangents[name]) if name in tangents else x.detach()
            for name, x in leaves.items()
        }
        answers = _answers(scene.accused(*as_pair(given)))
        return {name: forward_ad.unpack_dual(x).tangent for name, x in answers.items()}


def _pushed(scene: Scene, leaves: Inputs, tangents: Inputs) -> dict[str, Tensor | None]:
    (name,), (tangent,) = tangents, tangents.values()

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        dist_sq, log_det = scene.accused(*as_pair({key: x if key == name else y.detach() for key, y in leaves.items()}))
        return dist_sq, log_det

    with _refusing(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, slopes, *_ = torch.func.jvp(function, (leaves[name].detach(),), (tangent,))
        return dict(_answers(slopes))


@contextmanager
def _refusing() -> Iterator[None]:
    """What has no forward mode says so: that is declining."""
    try:
        yield
    except (NotImplementedError, RuntimeError) as error:
        said = str(error).lower()
        if "jvp" in said or "forward" in said or "setup_context" in said:
            raise Refused from error
        raise


# --- compile, export --------------------------------------------------------------------------------------------


def _compiled(**options: Any) -> Callable[[Scene, Inputs], Answers]:
    def run(scene: Scene, inputs: Inputs) -> Answers:
        try:
            with quiet():
                compiled = torch.compile(scene.accused, fullgraph=True, **options)
                if options.get("dynamic") is not False:
                    compiled(*as_pair(scene.other))
                return _answers(compiled(*as_pair(inputs)))
        finally:
            torch.compiler.reset()

    return run


def _exported(scene: Scene, inputs: Inputs) -> Answers:
    class Module(torch.nn.Module):
        def forward(self, *pair: Tensor) -> tuple[Tensor, Tensor]:
            return tuple(scene.accused(*pair))

    try:
        with quiet(), torch.no_grad():
            pair = tuple(x.detach() for x in as_pair(inputs))
            return _answers(torch.export.export(Module(), pair).module()(*pair))
    finally:
        torch.compiler.reset()


MAPPED: tuple[Way, ...] = (
    Way(name="vmap over queries", claim="vmap", run=_over_queries),
    Way(name="vmap over keys", claim="vmap", run=_over_keys),
    Way(name="vmap within vmap", claim="vmap", run=_over_both),
)

TRANSFORMS: tuple[Way, ...] = (
    Way(name="vmap", claim="vmap", run=_vmap),
    Way(name="vmap over the second dimension", claim="vmap", run=_vmap_inner),
    Way(name="vmap over dimensions of each operand's own", claim="vmap", run=_vmap_mixed_dims),
    Way(name="vmap over the last dimension", claim="vmap", run=_vmap_last),
    Way(name="vmap in chunks", claim="vmap", run=_vmap_chunks),
    Way(name="torch.func.vjp", claim="functional", excused=("vmap",), run=plainly, back=_back_by_vjp),
    Way(name="torch.func.grad", claim="functional", excused=("vmap",), run=plainly, back=_back_by_grad),
    Way(name="grad within vmap", claim="vmap", excused=("functional",), run=plainly, back=_back_by_pair),
    Way(name="forward mode", claim="forward_ad", run=plainly, back=_back_by_tangents),
    Way(name="torch.func.jvp", claim="forward_ad", excused=("functional", "vmap"), run=plainly, back=_back_by_jvp),
)

# A compiler's: what makes a graph of the call first.
TRACED: tuple[Way, ...] = (
    Way(name="compiled, the graph alone", claim="compile", run=_compiled(backend="aot_eager", dynamic=False)),
    Way(name="compiled", claim="compile", run=_compiled(dynamic=False), profiles=THOROUGH),
    Way(name="compiled, sizes left open", claim="compile", run=_compiled(backend="aot_eager"), profiles=THOROUGH),
)
EXPORTED = Way(name="exported", claim="export", run=_exported, gradients=False)
