"""The places where a tensor program branches, and each example's distance from the side that it did not take.

`watch_branches` calls a function on n examples under a `TorchFunctionMode`, which sees the function's own comparisons,
logic, `where`, `clamp`, `maximum`, `relu`, `abs`, `sign`, `floor`, `bucketize`, casts to integers and `sort` with their
operands still on the autograd graph: conditions are often made under `no_grad` or `inference_mode`, or of what `detach`
and `.data` give, which stay on it here. What is made of conditions as numbers is followed too (`iga.fuzz.weights`), as
are factors that are next to nothing but in a small place (`iga.fuzz.bells`) and what is asked of picked rows alone
(`iga.fuzz.picks`).
A site is where the operation stands in the code, with its place among those of that line, and the column where it has
several. What torch does not see is not seen: compiled kernels, numba, numbers that Python took out of a tensor;
`Seen.blind` says so.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from iga._typing import Float, Tensor
from iga.fuzz import bells, distances, weights
from iga.fuzz.calls import differentiate, of_all_samples, on_the_graph, place, recorded
from iga.fuzz.digits import CODES, LOOKUPS, Digits
from iga.fuzz.distances import Distances
from iga.fuzz.picks import Picks

__all__ = ["BACKWARD", "Seen", "watch_branches"]

BACKWARD = ", backward"  # in the name of a site that is met in differentiating
MOST_COLUMNS = 9  # of a site: those of a 3 × 3 matrix; of what has more the nearest counts

_GREATER = {"gt", "ge", "greater", "greater_equal"}
_LESS = {"lt", "le", "less", "less_equal"}
_EQUAL, _UNEQUAL = {"eq"}, {"ne", "not_equal"}
_AND, _OR = {"and", "iand", "bitwise_and", "logical_and"}, {"or", "ior", "bitwise_or", "logical_or"}
_XOR = {"xor", "bitwise_xor", "logical_xor"}
_NOT = {"invert", "bitwise_not", "logical_not"}
_SHAPE = {
    *("getitem", "view", "reshape", "unsqueeze", "squeeze", "expand", "flatten", "unflatten", "permute", "transpose"),
    *("swapaxes", "movedim", "clone", "contiguous", "select", "narrow", "expand_as", "view_as", "broadcast_to"),
}
_SEVERAL = {"stack", "cat", "concat", "hstack", "vstack"}
_PAIRS = {"maximum", "minimum", "fmax", "fmin"}
_ROUNDED = {"floor", "ceil", "round", "trunc", "long", "int"}
_BOUNDS = {"clamp", "clip", "clamp_min", "clamp_max", "relu", "abs", "absolute", "sign", "threshold"}
_IN_PLACE = _BOUNDS | _ROUNDED | bells.FACTORS
_OFF_THE_GRAPH = (torch.Tensor.detach, torch.detach, torch.Tensor.data.__get__)  # pyright: ignore[reportAttributeAccessIssue]
_PYTHON = {"item", "tolist", "numpy", "array", "float", "int", "index"}


@dataclass
class Seen:
    """What one call showed. sites: name → Distances of shape [n]; cells: name → the numbers [n] before they were cut
    to integers; constants: numbers that something was compared with; blind: what could not be followed."""

    sites: dict[str, Distances] = field(default_factory=dict)
    cells: dict[str, Float[Tensor, " n"]] = field(default_factory=dict)
    constants: set[float] = field(default_factory=set)
    blind: set[str] = field(default_factory=set)


def watch_branches(
    function: Callable[..., Any], *arguments: Tensor, rows: int, columns: int = MOST_COLUMNS, backward: bool = False
) -> tuple[Any, Seen]:
    """(what function(*arguments) returns, what was seen); the examples are the first dimension, of length `rows`, or
    lie flat with others there. Of a site with more than `columns` numbers an example the nearest counts.

    backward  what the function's own rules of differentiation look at is watched too; the names of its sites have
              BACKWARD in them
    """
    for kept in (True, False):
        mode = _Watch(rows, columns, kept=kept and torch.is_grad_enabled())
        try:
            with mode:
                result = function(*arguments)
                if not mode.heard:
                    mode.seen.blind.add(
                        "all of it: no operation of torch was heard, as of what is scripted or compiled"
                    )
                if backward and mode.kept:
                    mode.where = BACKWARD
                    differentiate(result, arguments)
                return result, mode.seen
        except Exception:  # whatever somebody's function raises: as it stands it may not
            if not mode.kept:
                raise
    raise AssertionError("the second call is made as it stands")


class _Watch(TorchFunctionMode):
    def __init__(self, rows: int, columns: int, *, kept: bool) -> None:
        super().__init__()
        self.kept = kept  # on the graph, what the function takes off it
        self.rows, self.columns, self.seen = rows, columns, Seen()
        self._known: dict[int, tuple[Tensor, Distances]] = {}  # the tensor is kept, so that its id stays its own
        self._whole: dict[int, tuple[Tensor, Tensor]] = {}  # integers, with the same numbers on the autograd graph
        self._paths: dict[int, tuple[Tensor, list[Distances]]] = {}  # of results of where, the branches gone through
        self._bells: dict[int, tuple[Tensor, Distances]] = {}
        self._picks, self._digits = Picks(rows), Digits()
        self.heard = False  # any operation at all
        self.where = ""  # ends the names of what is seen
        self._count: dict[str, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, self.heard = kwargs or {}, True
        if self.kept and func is torch._C._set_grad_enabled:
            return None
        if self.kept and func in _OFF_THE_GRAPH:
            return args[0].view_as(args[0])
        name, before = getattr(func, "__name__", "").strip("_"), args
        if name in _IN_PLACE and func.__name__ == f"{name}_" and isinstance(args[0], Tensor):
            before = (args[0].clone(), *args[1:])  # the call writes its result over it
        out = recorded(func, args, kwargs) if self.kept and name not in _PYTHON else func(*args, **kwargs)
        try:
            with on_the_graph() if self.kept else contextlib.nullcontext():
                self._look(name, func, before, kwargs, out)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:  # a form of the call that is not known here
            self.seen.blind.add(f"{name}: {str(error).splitlines()[0][:80]}")
        return out

    def _look(self, name: str, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        self._picks.note(name, args, out, self._known_of)
        if self._whole or self._known:
            self._digits.join(name, args, out, self._known_of, self._whole_of)
        if name in LOOKUPS and self._whole:
            for of, found in self._digits.sides(name, args, self._known_of, self._whole_of):
                self._site(of, found)
        if name in _PYTHON and args and isinstance(args[0], Tensor) and not isinstance(out, Tensor):
            self.seen.blind.add(f"a number that Python took by {name}(), {place()}")
        elif isinstance(out, Tensor) and out.dtype == torch.bool:
            self._condition(name, func, args, kwargs, out)
        elif isinstance(out, Tensor) and self._weight(name, func, args, kwargs, out):
            return
        elif isinstance(out, Tensor) and self._bell(name, func, args, kwargs, out):
            return
        elif name in _BOUNDS:
            self._bounds(name, args, kwargs, out)
        elif name in _PAIRS or (name in ("max", "min") and len(args) > 1 and isinstance(args[1], Tensor)):
            self._site(name, distances.at_least(args[0], args[1], args[0] > args[1]))
        elif name in ("max", "min", "amax", "amin", "argmax", "argmin", "sort", "argsort", "topk"):
            self._order(name, args)
        elif name in ("bucketize", "searchsorted"):
            self._bucket(name, args, out)
        elif name in _ROUNDED or (name in ("to", "type") and isinstance(out, Tensor) and self._cut(args, out)):
            self._cell(name, args[0], out)
        elif isinstance(out, Tensor) and self._whole and (name in CODES or not out.dtype.is_floating_point):
            self._count_on(func, args, kwargs, out)

    # conditions

    def _condition(self, name: str, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
        if self._shaped(name, func, args, kwargs, out):
            return
        found = self._distances(name, args, kwargs, out.clone())  # `&=` may write over it later
        if found is not None:
            self._remember(out, found)
            self._site(name, found)

    def _shaped(self, name: str, func: Any, args: Any, kwargs: Any, out: Tensor) -> bool:
        """True if the call only moves or joins conditions; `out` has theirs then."""
        if name in _SHAPE:
            if (known := self._known_of(args[0])) is not None:
                self._remember(out, known.mapped(lambda x: func(x, *args[1:], **kwargs)))
            return known is not None
        if name not in _SEVERAL or not (out.dtype == torch.bool or all(self._known_of(x) for x in args[0])):
            return False
        parts, rest = [self._of(x) for x in args[0]], args[1:]
        to_true = func([x.to_true for x in parts], *rest, **kwargs)
        self._remember(out, Distances(to_true, func([x.to_false for x in parts], *rest, **kwargs)))
        return True

    def _weight(self, name: str, func: Any, args: Any, kwargs: Any, out: Tensor) -> bool:
        """True if `out` is a condition as a number, or a count of some."""
        if name == "where" and len(args) == 3 and (condition := self._known_of(args[0])) is not None:
            gone = [self._paths.get(id(x), (None, []))[1] for x in args[1:]]
            paths, new = weights.nested(condition, *gone)
            self._paths[id(out)] = (out, paths)
            for found in new:
                self._site("branch within a branch", found)
        if name in _SHAPE or name in _SEVERAL:
            return bool(self._known) and self._shaped(name, func, args, kwargs, out)
        if args and not out.dtype.is_floating_point and self._cut(args, out) and not weights.two_valued(args[0]):
            return False  # a number cut to an integer, of which `_cell` knows
        found = weights.weight(name, args, kwargs, self._known_of, lambda: self._dims(args, kwargs))
        if found is not None:
            self._remember(out, found[0])
            if found[1]:
                self._site(name, found[0])
            return True
        if not self._known:
            return False
        shadow = weights.counted(name, func, args, kwargs, self._counted)
        if shadow is not None:
            self._whole[id(out)] = (out, out.double() + (shadow - shadow.detach()))
        return shadow is not None

    def _bell(self, name: str, func: Any, args: Any, kwargs: Any, out: Tensor) -> bool:
        """True if `out` is a factor that is next to nothing but in a small place, or a product of some."""

        def soft(x: Any) -> Distances | None:
            known = self._bells.get(id(x)) if isinstance(x, Tensor) else None
            return None if known is None else known[1]

        if (one := bells.bell(name, args)) is not None:
            self._bells[id(out)] = (out, one)
            self._site(name, one)
            return True
        if not self._bells:
            return False
        if name in _SHAPE | _SEVERAL:
            parts = [soft(x) for x in ([args[0]] if name in _SHAPE else args[0])]
            if any(x is None for x in parts):
                return False
            true, false = ([getattr(x, side) for x in parts] for side in ("to_true", "to_false"))
            one, other = (func(x[0] if name in _SHAPE else x, *args[1:], **kwargs) for x in (true, false))
            self._bells[id(out)] = (out, Distances(one, other))
            return True
        found = bells.joined(name, args, soft, self._known_of, lambda: self._dims(args, kwargs))
        if found is not None:
            self._bells[id(out)] = (out, found[0])
            if found[1]:
                self._site(name, found[0])
        return found is not None

    def _counted(self, x: Tensor) -> Tensor | None:
        """The number on the graph that stands for a weight or a count; None of other numbers."""
        if (whole := self._whole.get(id(x))) is not None:
            return whole[1]
        known = self._known_of(x)
        return None if known is None or not weights.two_valued(x) else x.double() - known.to_true.double()

    def _known_of(self, x: Any) -> Distances | None:
        known = self._known.get(id(x)) if isinstance(x, Tensor) else None
        return None if known is None else known[1]

    def _whole_of(self, x: Any) -> Tensor | None:
        whole = self._whole.get(id(x))
        return None if whole is None else whole[1]

    def _distances(self, name: str, args: Any, kwargs: Any, out: Tensor) -> Distances | None:
        if name in _GREATER | _LESS | _EQUAL | _UNEQUAL:
            a, b = (self._value(x) if isinstance(x, Tensor) else self._number(x, out) for x in (args[0], args[1]))
            weighed = self._known_of(args[0])
            if weighed is not None and not isinstance(args[1], Tensor):
                if (found := weights.compared(weighed, out)) is not None:
                    return found
            if a.dtype == torch.bool or b.dtype == torch.bool:
                return distances.constant(out)
            if name in _EQUAL:
                return distances.equal(a, b, out)
            if name in _UNEQUAL:
                return distances.negated(distances.equal(a, b, ~out))
            return distances.at_least(a, b, out) if name in _GREATER else distances.at_least(b, a, out)
        if name in _AND or name == "mul":
            return distances.both(self._of(args[0]), self._of(args[1]))
        if name in _OR:
            return distances.either(self._of(args[0]), self._of(args[1]))
        if name in _NOT:
            return distances.negated(self._of(args[0]))
        if name in _XOR:
            a, b = self._of(args[0]), self._of(args[1])
            return distances.either(distances.both(a, distances.negated(b)), distances.both(distances.negated(a), b))
        if name in ("bool", "to", "type"):  # of a number: whether it is not 0
            return self._known_of(args[0])
        if name == "isclose":
            near = {"rtol": 1e-5, "atol": 1e-8} | dict(zip(("rtol", "atol"), args[2:4], strict=False)) | kwargs
            a, b = args[0], torch.as_tensor(args[1])
            return distances.at_least(near["atol"] + near["rtol"] * b.abs(), (a - b).abs(), out)
        if name in ("all", "any"):
            dims, keep = self._dims(args, kwargs)
            return (distances.all_of if name == "all" else distances.any_of)(self._of(args[0]), dims, keep)
        if name == "isfinite" or name in ("isnan", "isinf"):
            return distances.constant(out)
        return None

    def _dims(self, args: Any, kwargs: Any) -> tuple[list[int], bool]:
        """The dimensions that all or any goes over; of the whole tensor all but the rows, each of which is its own."""
        x = args[0]
        given = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
        keep = bool(kwargs.get("keepdim", args[2] if len(args) > 2 else False))
        if given is None:
            return list(range(1 if x.ndim and x.shape[0] == self.rows else 0, x.ndim)), False
        return [d % x.ndim for d in (given if isinstance(given, tuple | list) else (given,))], keep

    def _of(self, x: Any) -> Distances:
        known = self._known_of(x)
        return known if known is not None else distances.constant(torch.as_tensor(x) != 0)

    def _number(self, x: Any, like: Tensor) -> Tensor:
        value = float(x)
        if len(self.seen.constants) < 256:
            self.seen.constants.add(value)
        return torch.full((), value, dtype=torch.float64, device=like.device)

    def _remember(self, out: Tensor, found: Distances) -> None:
        self._known[id(out)] = (out, found)

    # operations that branch without a condition

    def _bounds(self, name: str, args: Any, kwargs: Any, out: Tensor) -> None:
        x = args[0]
        if (whole := self._whole_of(x)) is not None:
            self._whole[id(out)] = (out, out.double() + (whole - whole.detach()))
            self._digits.same(x, out)
        if not x.dtype.is_floating_point:
            return
        low = kwargs.get("min", args[1] if len(args) > 1 and name not in ("clamp_max",) else None)
        high = kwargs.get(
            "max", args[2] if len(args) > 2 else args[1] if len(args) > 1 and name == "clamp_max" else None
        )
        if name in ("relu", "abs", "absolute", "sign"):
            low, high = 0.0, None
        for side, bound in (("min", low), ("max", high)):
            if bound is not None:
                other = bound if isinstance(bound, Tensor) else self._number(bound, x)
                found = distances.at_least(x, other, x > other)
                self._site(f"{name} {side}", found)
                if side == "min" and name not in ("abs", "absolute", "sign") and bool((other == 0).all()):
                    self._remember(out, found)  # a weight: not 0 where x is over it

    def _order(self, name: str, args: Any) -> None:
        """Which of the last dimension's entries is the largest."""
        x = args[0]
        if x.ndim < 2 or x.shape[0] != self.rows or not 2 <= x.shape[-1] <= 6 or not x.dtype.is_floating_point:
            return
        largest = x.argmax(-1)
        for column in range(x.shape[-1]):
            one = x[..., column : column + 1]
            short = (-distances.margin(one, x)).clamp(min=0.0).sum(-1)
            self._site(f"{name} {column}", Distances(short, 1.0 - (largest != column).double() + 0.0 * short))

    def _cut(self, args: Any, out: Tensor) -> bool:
        before = args[0]
        return isinstance(before, Tensor) and before.dtype.is_floating_point and not out.dtype.is_floating_point

    def _value(self, x: Tensor) -> Tensor:
        counted = self._counted(x) if x.dtype != torch.bool else None
        return x if counted is None else counted

    def _count_on(self, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
        """Integers made of integers: the same sum or product of what stands for them on the graph."""
        if not any(isinstance(x, Tensor) and id(x) in self._whole for x in args):
            return
        shadow = func(*(self._value(x) if isinstance(x, Tensor) else x for x in args), **kwargs)
        self._whole[id(out)] = (out, out.double() + (shadow - shadow.detach()))

    def _bucket(self, name: str, args: Any, out: Tensor) -> None:
        """The place among boundaries that grow, as a number that grows from each to the next."""
        x, ends = (args[0], args[1]) if name == "bucketize" else (args[1], args[0])
        if ends.ndim != 1 or not isinstance(x, Tensor) or not x.dtype.is_floating_point:
            return
        self._digits.place(x, ends, out)
        low, high = (ends[(out - k).clamp(0, len(ends) - 1)] for k in (1, 0))
        self._cell(name, out - 1 + (x - low) / torch.where(high > low, high - low, 1.0), out)

    def _cell(self, name: str, x: Tensor, out: Tensor) -> None:
        if not x.dtype.is_floating_point:
            return
        known = self._whole.get(id(x))  # floor() before long() is one cut, not two
        line = x if known is None else known[1]
        self._whole[id(out)] = (out, out.double() + (line - line.detach()).double())
        self._digits.same(x, out)
        x = of_all_samples(x)
        if known is None and self._of_rows(x):
            site = self._named(name)
            for column, values in enumerate(x.reshape(self.rows, -1).unbind(-1)[:MOST_COLUMNS]):
                self.seen.cells[f"{site}[{column}]"] = values.double()

    # places

    def _site(self, name: str, found: Distances) -> None:
        found = self._picks.lifted(found.mapped(of_all_samples))
        if not self._of_rows(found.to_true):
            return
        columns = found.mapped(lambda x: x.reshape(self.rows, -1))
        count = columns.to_true.shape[-1]
        site = self._named(name)
        if count > self.columns:
            nearest = columns.mapped(lambda x: x.amin(-1))
            self.seen.sites[site] = nearest
            return
        for column in range(count):
            of = site if count == 1 else f"{site}[{column}]"
            self.seen.sites[of] = columns.mapped(lambda x, column=column: x[:, column])

    def _of_rows(self, x: Tensor) -> bool:
        """Whether the first dimension is that of the examples, alone or with others that vary faster."""
        return x.ndim > 0 and 0 < x.shape[0] and x.shape[0] % self.rows == 0

    def _named(self, name: str) -> str:
        site = f"{place()} {name}{self.where}"
        number = self._count[site] = self._count.get(site, 0) + 1
        return site if number == 1 else f"{site} ({number})"
