"""The softmaxes of a call, caught below autograd, where all spellings of softmax are one operator.

    softmax, log_softmax              logits as they came, and what became of them
    scaled_dot_product_attention      logits made again: q·k · scale + mask
    by hand                           exp(x) over its sums over the keys, or exp(x − log Σ exp x); logits: that x

What has two dimensions of N residues is attention, and the one that softmax runs over are the keys. Not seen is what
one kernel computes as a whole (of Triton, CUDA, numba, nn.MultiheadAttention's fast path), rows in chunks, and weights
that are normalised only after the values were summed.
"""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from iga._softmax import SOFTMAX, arranged, dot_product_logits, is_dot_product, named, operator_name
from iga._typing import Tensor

__all__ = ["NORMALISED", "SoftmaxCatcher"]

# What may stand between exp and its division: masks, and casts.
PASSING = ("masked_fill", "masked_fill_", "mul", "mul_", "where", "clone", "_to_copy", "nan_to_num")
DIVISIONS = ("div", "div_", "mul", "mul_")
NORMALISED = 1e-3  # weights of a row sum to 1 but for so much, in any dtype: a definition of what is looked at


class SoftmaxCatcher(TorchDispatchMode):
    """While it is entered, every attention over `residues` residues is kept, `found`: (logits, weights), [h, q, k].

    Logits are None where a softmax by hand hides them. h is all that stands before residues, batch and heads.
    """

    def __init__(self, residues: int) -> None:
        super().__init__()
        self.residues = residues
        # By the tensor of the logits: an exp that is one-hot sums to 1 before it is divided, and is caught twice.
        self._found: dict[int, tuple[Tensor | None, Tensor]] = {}
        self._kept: list[Tensor] = []
        self._exponents: dict[int, tuple[Tensor, Tensor]] = {}  # of exp's results: (the result, so that it stays; x)

    @property
    def found(self) -> list[tuple[Tensor | None, Tensor]]:
        return list(self._found.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = operator_name(func)
        before = args[0].detach().clone() if name == "exp_" else None  # what is overwritten
        divisor = self._divisor(name, args)
        out = func(*args, **kwargs)
        if name in SOFTMAX:
            self._keep(args[0], out.exp() if name == "_log_softmax" else out, args[1])
        elif is_dot_product(name):
            logits = dot_product_logits(named(func, args, kwargs))
            self._keep(logits, logits.softmax(dim=-1), -1)
        elif isinstance(out, Tensor) and out.is_floating_point() and out.shape.count(self.residues) >= 2:
            self._by_hand(name, out, args, before, divisor)
        return out

    def _divisor(self, name: str, args: Any) -> Tensor | None:
        """The operand that has a number a row, where the other has a number a pair."""
        if name not in DIVISIONS or len(args) < 2 or not all(isinstance(one, Tensor) for one in args[:2]):
            return None
        for one in reversed(args[:2]):
            if one.shape.count(self.residues) < max(x.shape.count(self.residues) for x in args[:2]):
                return one
        return None

    def _by_hand(self, name: str, out: Tensor, args: Any, before: Tensor | None, divisor: Tensor | None) -> None:
        if name in ("exp", "exp_"):
            x = args[0] if before is None else before
            self._exponents[id(out)] = (out, x)
            for keys in (out.ndim - 1, out.ndim - 2):
                if out.shape[keys] == self.residues and _stochastic(out, keys):
                    self._keep(x, out, keys)
                    break
            return
        known = next((self._exponents[id(one)][1] for one in args if id(one) in self._exponents), None)
        if divisor is not None:
            shape = (1,) * (out.ndim - divisor.ndim) + tuple(divisor.shape)
            ones = [d for d in range(out.ndim) if out.shape[d] == self.residues and shape[d] == 1]
            if len(ones) == 1 and _stochastic(out, ones[0]):
                self._keep(known, out, ones[0])
                return
        if known is not None and name in PASSING:
            self._exponents[id(out)] = (out, known)

    def _keep(self, logits: Tensor | None, weights: Tensor, keys: int) -> None:
        keys %= weights.ndim
        n = self.residues
        queries = [d for d in range(weights.ndim) if d != keys and weights.shape[d] == n]
        if weights.shape[keys] != n or not queries:
            return
        rows = min(queries, key=lambda d: abs(d - keys))

        def kept(x: Tensor) -> Tensor:
            return arranged(x, weights.shape, rows, keys).clone()  # what becomes of them later, in place, is another

        self._kept.append(weights if logits is None else logits)  # as long as it is here its id is its own
        self._found[id(self._kept[-1])] = (None if logits is None else kept(logits), kept(weights))


def _stochastic(weights: Tensor, keys: int) -> bool:
    """Whether they lie in [0, 1] and sum to 1 over the keys, or are all 0, and do so in some row."""
    rows = weights.detach().movedim(keys, -1)
    first = float(rows[(0,) * (rows.ndim - 1)].double().sum())
    if abs(first - 1) > NORMALISED and first != 0:  # most of what is no softmax is known by a row
        return False
    total = rows.double().sum(dim=-1)
    one = (total - 1).abs() <= NORMALISED
    return bool((one | (total == 0)).all()) and bool(one.any()) and bool((weights >= 0).all())
