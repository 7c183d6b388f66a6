"""Layouts of an overlap's operands: leading shapes that broadcast, each operand's in its own way, and shared memory.

`LAYOUTS` are leading shapes of the six operands, which the ways of `SHAPED` hand over as they are, expanded, in full,
and with dimensions of one. `SHARED` are operands that lie in one another's memory. None has a dimension that means
alone have: log_det knows of none, right functions give it the shape of frames and scales, and no layer has means
without scales of their own (docs/verification.md).
"""

from collections.abc import Callable, Iterator

import torch

from iga._typing import Tensor
from iga.testing.overlap.scenes import CORES, OPERANDS, Shapes, leading
from iga.testing.overlap.subject import Pair
from iga.testing.ways import Answers, Inputs, Scene, Way
from iga.testing.ways_back import plainly

__all__ = ["LAYOUTS", "SET", "SHAPED", "SHARED", "SHARING"]


def _both(queries: tuple[int, ...], keys: tuple[int, ...]) -> Shapes:
    return (queries,) * 3 + (keys,) * 3


def _alone(name: str, shape: tuple[int, ...], others: tuple[int, ...]) -> Shapes:
    return tuple(shape if operand == name else others for operand in OPERANDS)


SHAPES = ((1,), (3,), (1, 1), (3, 3), (1, 6), (6, 1), (4, 3, 2), (2, 9, 1), (11, 1, 2), (2, 1, 3, 2), (5, 1, 1, 3))
MATRICES = (
    ((7, 1), (9,)),
    ((9,), (7, 1)),
    ((7, 1), (1, 9)),
    ((2, 5, 1), (2, 1, 3)),
    ((1, 5, 1), (2, 1, 3)),
    ((2, 3, 1, 4), (2, 1, 5, 4)),
    ((11,), ()),
    ((), (11,)),
    ((11,), (1,)),
    ((3, 11), (11,)),
)
# Of more pairs than a block has, whose operands are shared by all blocks: their gradients are sums over these.
MANY = (((261, 1), (5,)), ((5, 1), (261,)), ((1031,), (1,)), ((), (1031,)))


def _layouts() -> Iterator[tuple[str, Shapes]]:
    yield "no leading dimensions", _both((), ())
    for shape in SHAPES:
        yield f"pairs of shape {list(shape)}", _both(shape, shape)
    for queries, keys in (*MATRICES, *MANY):
        yield f"queries of shape {list(queries)}, keys of {list(keys)}", _both(queries, keys)
    for name in OPERANDS:
        yield f"{name} of shape [1], others [11]", _alone(name, (1,), (11,))
        yield f"{name} of shape [], others [11]", _alone(name, (), (11,))
        if not name.endswith("mean"):
            yield f"{name} of shape [11], others [1]", _alone(name, (11,), (1,))
            yield f"{name} of shape [5, 1], others [3]", _alone(name, (5, 1), (3,))
    yield "each of its own shape", ((2, 1, 1, 1), (3, 1, 1), (2, 1, 4, 1), (5,), (1, 3, 1, 5), (3, 1, 1))


LAYOUTS: tuple[tuple[str, Shapes], ...] = tuple(_layouts())


def _moved(change: Callable[[str, Tensor, torch.Size], Tensor]) -> Callable[[Scene, Inputs], Answers]:
    """The run of a way that changes each operand, of which it is told the pairs' shape."""

    def run(scene: Scene, inputs: Inputs) -> Answers:
        shape = torch.broadcast_shapes(*(leading(name, x) for name, x in inputs.items()))
        return scene.call({name: change(name, x, shape) for name, x in inputs.items()})

    return run


def _expanded(name: str, x: Tensor, shape: torch.Size) -> Tensor:
    return x.expand(*shape, *x.shape[x.ndim - CORES[name] :])


def _in_full(name: str, x: Tensor, shape: torch.Size) -> Tensor:
    return _expanded(name, x, shape).clone(memory_format=torch.contiguous_format)


def _by_columns(name: str, x: Tensor, shape: torch.Size) -> Tensor:
    """In full, the pairs' dimensions in the other order in memory."""
    full, core = _in_full(name, x, shape), CORES[name]
    order = [*reversed(range(len(shape))), *range(len(shape), len(shape) + core)]
    return full.permute(order).contiguous().permute(order)


def _one_first(scene: Scene, inputs: Inputs) -> Answers:
    shape = torch.broadcast_shapes(*(leading(name, x) for name, x in inputs.items()))
    answers = scene.call({name: _expanded(name, x, shape)[None] for name, x in inputs.items()})
    return {name: x.squeeze(0) for name, x in answers.items()}


def _one_last(scene: Scene, inputs: Inputs) -> Answers:
    shape = torch.broadcast_shapes(*(leading(name, x) for name, x in inputs.items()))
    one = {name: _expanded(name, x, shape).unsqueeze(len(shape)) for name, x in inputs.items()}
    return {name: x.squeeze(-1) for name, x in scene.call(one).items()}


def _queries_in_full(name: str, x: Tensor, shape: torch.Size) -> Tensor:
    return _in_full(name, x, shape) if name.startswith("q") else x


def _keys_expanded(name: str, x: Tensor, shape: torch.Size) -> Tensor:
    return _expanded(name, x, shape) if name.startswith("k") else x


SHAPED: tuple[Way, ...] = (
    Way(name="broadcast", claim="broadcasting", run=plainly),
    Way(name="expanded", claim="expanded", run=_moved(_expanded)),
    Way(name="in full", claim="leading_dimensions", run=_moved(_in_full)),
    Way(name="in full, dimensions exchanged in memory", claim="strided", run=_moved(_by_columns)),
    Way(name="keys expanded", claim="expanded", run=_moved(_keys_expanded)),
    Way(name="queries in full", claim="broadcasting", run=_moved(_queries_in_full)),
    Way(name="a first dimension of one", claim="leading_dimensions", run=_one_first),
    Way(name="a last dimension of one", claim="leading_dimensions", run=_one_last),
)

# --- shared memory ----------------------------------------------------------------------------------------------

SET = ("rot", "mean", "sigma")  # of one set of Gaussians, [n, …]
CUT = {
    "a set with itself": (lambda x: x[:, None], lambda x: x[None]),
    "each with itself": (lambda x: x, lambda x: x),
    "each with itself, as a view": (lambda x: x, lambda x: x.view_as(x)),
    "each with the next": (lambda x: x[:-1], lambda x: x[1:]),
    "each with the next but one": (lambda x: x[:-2:2], lambda x: x[2::2]),
    "the first half with the second": (lambda x: x[: len(x) // 2], lambda x: x[len(x) // 2 : len(x) // 2 * 2]),
    "all with the first": (lambda x: x, lambda x: x[:1]),
    "the first with all": (lambda x: x[0], lambda x: x),
}


def _cut(queries: Callable[[Tensor], Tensor], keys: Callable[[Tensor], Tensor]) -> Callable[[Inputs], Pair]:
    def assign(inputs: Inputs) -> Pair:
        return tuple(take(inputs[name]) for take in (queries, keys) for name in SET)  # pyright: ignore[reportReturnType]

    return assign


def _one_operand(shared: str, queries: Callable[[Tensor], Tensor], keys: Callable[[Tensor], Tensor]):
    """Only that operand of queries and keys is of one memory; the others are copies in another order."""

    def assign(inputs: Inputs) -> Pair:
        own = {name: x if name == shared else x.flip(0) * 1 for name, x in inputs.items()}
        return tuple(take(given[name]) for take, given in ((queries, inputs), (keys, own)) for name in SET)  # pyright: ignore[reportReturnType]

    return assign


def _with_transposed(inputs: Inputs) -> Pair:
    """Keys that are turned the other way round: the transpose is a view of the same memory."""
    rot, mean, sigma = (inputs[name] for name in SET)
    return rot, mean, sigma, rot.mT, mean.flip(0), sigma.flip(0)


def _packed(inputs: Inputs) -> Pair:
    """All numbers of a Gaussian side by side in one buffer."""
    rot, mean, sigma = (inputs[name] for name in SET)
    buffer = torch.cat([rot.flatten(-2), mean, sigma], dim=-1)

    def parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x[..., :9].unflatten(-1, (3, 3)), x[..., 9:12], x[..., 12:]

    return *parts(buffer[:-1]), *parts(buffer[1:])


SHARED: dict[str, Callable[[Inputs], Pair]] = {
    **{label: _cut(*cuts) for label, cuts in CUT.items()},
    **{f"{name} of a set with itself": _one_operand(name, *CUT["a set with itself"]) for name in SET},
    **{f"{name} of each with itself": _one_operand(name, *CUT["each with itself"]) for name in SET},
    "frames with their transposes": _with_transposed,
    "one buffer": _packed,
}
SHARING = Way(name="in one memory", claim="shared_storage", run=plainly)
