"""The comparison, within a stated budget, by which laws of this package's own functions are judged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from iga._typing import Tensor
from iga.testing.judges.rotations import U64, Amount
from iga.testing.tally import Tally

__all__ = ["Comparison", "judge_laws"]


@dataclass(frozen=True)
class Comparison:
    """Where values of one dtype meet the judge: every difference is handed over in units of its own budget.

    Failures of type, shape and finiteness reach the tally at once, differences at `flush`.
    """

    tally: Tally
    dtype: torch.dtype
    held: list[tuple[np.ndarray, np.ndarray, str]] = field(default_factory=list)

    @property
    def u(self) -> float:
        """The unit roundoff of the dtype."""
        return torch.finfo(self.dtype).eps / 2

    @property
    def name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def tensor(self, x: np.ndarray) -> Tensor:
        """`x` rounded to the dtype."""
        return torch.from_numpy(np.ascontiguousarray(x)).to(self.dtype)

    def budget(self, units: Amount, size: Amount = 1.0, *, judge: Amount) -> np.ndarray:
        """`units` u of the dtype and `judge` u of float64, times `size`."""
        return np.asarray((units * self.u + judge * U64) * size)

    def number(self, found: object, shape: tuple[int, ...], where: str) -> np.ndarray | None:
        """`found` as float64, or a failure that says what is wrong with its type, shape, dtype or values."""
        if not isinstance(found, torch.Tensor) or tuple(found.shape) != shape or found.dtype != self.dtype:
            kind = f"{list(found.shape)} {found.dtype}" if isinstance(found, torch.Tensor) else type(found).__name__
            self.tally.fail(f"{where}, {self.name}", f"{where}: expected {list(shape)} {self.dtype}, got {kind}")
            return None
        if not bool(found.isfinite().all()):
            self.tally.fail(f"{where}, {self.name}", f"{where}: not finite")
            return None
        return found.detach().double().numpy()

    def near(
        self,
        found: object,
        expected: np.ndarray,
        budget: np.ndarray,
        where: str,
        *,
        scale: float | None = None,
        able: np.ndarray | bool = True,
    ) -> np.ndarray | None:
        """Judge |found − expected| ≤ budget; returns `found` as float64 if it is a finite tensor of the right kind.

        An example whose budget is as large as `scale` (by default the largest |expected|) excuses anything, so it is
        counted as unable to fail, as are those that `able` names.
        """
        value = self.number(found, expected.shape, where)
        if value is not None:
            size = float(abs(expected).max()) if scale is None else scale
            self.judge(np.asarray(abs(value - expected)), budget, where, scale=size, able=able)
        return value

    def judge(
        self,
        error: np.ndarray,
        budget: np.ndarray,
        where: str,
        *,
        scale: float | None = None,
        able: np.ndarray | bool = True,
    ) -> None:
        """Hold `error` over its budget for `flush`; a budget of 0 asks for exactly 0."""
        budget = np.broadcast_to(budget, error.shape)
        exact = budget == 0
        ratio = np.where(exact, np.where(error == 0, 0.0, np.inf), error / np.where(exact, 1.0, budget))
        could_fail = np.asarray(able & (budget < (np.inf if scale is None else scale)))
        self.held.append((ratio, could_fail, where))

    def flush(self) -> None:
        """Give the tally what was judged since the last time, at once: there are many small arrays."""
        if not self.held:
            return
        ratios, able, names = zip(*self.held, strict=True)
        self.held.clear()
        ends = np.cumsum([ratio.size for ratio in ratios])

        def where(index: tuple[int, ...]) -> str:
            law = int(np.searchsorted(ends, index[0], side="right"))
            shape = ratios[law].shape
            example = int(np.unravel_index(index[0] - ends[law] + ratios[law].size, shape)[0]) if shape else 0
            return f"{names[law]}, {self.name}, example {example}"

        value, could_fail = (torch.from_numpy(np.concatenate([x.ravel() for x in part])) for part in (ratios, able))
        self.tally.add(value, 1.0, where, could_fail=could_fail)


Law = Callable[[Any, np.random.Generator, Comparison], None]


def judge_laws(laws: Sequence[Law], library: Any, seed: int, tally: Tally) -> None:
    """Each law on the library in float32 and float64, with its own draws from `seed`; a refusal is a failure.

    Every input is a valid one, and a result is looked at before it is handed on: nothing may refuse it.
    """
    for dtype in (torch.float32, torch.float64):
        compare = Comparison(tally, dtype)
        for law in laws:
            name = getattr(law, "__name__", "law").strip("_")
            try:
                law(library, np.random.default_rng(seed), compare)
            except (ValueError, RuntimeError) as error:
                tally.fail(f"{name}, {compare.name}", f"{name}: {error}"[:200])
        compare.flush()
