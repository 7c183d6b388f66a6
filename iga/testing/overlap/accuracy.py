"""`accuracy`: dist_sq and log_det of every pair against a float64 QR that shares no code with the function.

In each claimed dtype, on pairs of structures and on degenerate ones; float64 also against 50 digits. Pairs whose answer
the rounded inputs themselves leave open by more than the required digits are counted and left out
(`iga.testing.judges.rigorous`).
"""

from dataclasses import dataclass

import torch

from iga._typing import Tensor
from iga.testing.check import check
from iga.testing.figures import half_decades
from iga.testing.judges import overlap as oracle
from iga.testing.overlap import budgets
from iga.testing.overlap.pairs import PairSource
from iga.testing.overlap.subject import ARGUMENTS, OverlapSubject, Pair
from iga.testing.tally import Tally

__all__ = ["accuracy", "batch_of", "judge_values", "label_of"]


@check("overlap", "of the budget")
def accuracy(function: OverlapSubject, inputs: PairSource, seed: int, tally: Tally) -> None:
    """Errors over their budgets; dtype in is dtype out."""
    for dtype in function.dtypes:
        for label, pair in inputs.sampled(dtype, seed):
            with torch.no_grad():
                dist_sq, log_det = function.on_copies(*pair)
            where = f"{label}, {name_of(dtype)}"
            if torch.finfo(dist_sq.dtype).eps > torch.finfo(dtype).eps:
                tally.fail(where, f"{name_of(dtype)} in, {name_of(dist_sq.dtype)} out")
            reference = oracle.overlap_reference(*pair)
            judge_values(pair, (dist_sq, log_det), reference, dtype, where, tally, digits=inputs.digits)
        if dtype == torch.float64:
            few = inputs.exact(dtype, seed + 1)
            with torch.no_grad():
                values = function.on_copies(*few)
            judge_values(few, values, oracle.overlap_digits(*few), dtype, "float64 against 50 digits", tally)


def judge_values(
    pair: Pair,
    values: tuple[Tensor, ...],
    reference: tuple[Tensor, ...],
    dtype: torch.dtype,
    where: str,
    tally: Tally,
    *,
    digits: int | None = None,
) -> None:
    """Hand the errors of `values` to the tally, in units of their budgets; ill-conditioned pairs are left out."""
    kappa = oracle.condition(pair[2], pair[5])
    allowed = budgets.value_budgets(reference[0], reference[1], kappa, dtype)
    size = {"dist_sq": reference[0], "log_det": reference[1].abs().clamp(min=1.0)}
    excused = _excused(pair, dtype, digits, kappa)
    for index, name in enumerate(("dist_sq", "log_det")):
        value, limit = values[index].double(), allowed[name]
        error = (value - reference[index]).abs()
        # with a budget above half of the value the example cannot fail: it counts as vacuous
        able = limit <= 0.5 * size[name]
        ratio = budgets.share(error, limit)
        left_out = excused[index]
        # equal means are `coincident_means`'s: there a relative error has no meaning
        keep = ~left_out & ((reference[0] > 0) | (name == "log_det"))
        label = label_of(pair, f"{where}: {name}", keep)
        tally.add(ratio[keep], 1.0, label, could_fail=able[keep], says=(value[keep], reference[index][keep]))
        figure, unit = f"{name}, {name_of(dtype)}", "absolute error" if name == "dist_sq" else "error, ln nm⁶"
        tally.figures.curve(figure, "κ", unit, half_decades(kappa[keep]), error[keep], limit[keep])
        tally.leave_out(int(left_out.sum()))
    if dtype == torch.float64:
        error, strict = (values[0].double() - reference[0]).abs(), 2 * budgets.BACKWARD * kappa * 2.0**-53
        over = error > strict * reference[0]
        if bool(over.any()) and bool((error <= allowed["dist_sq"]).all()):
            tally.note("float64: loses κ², not κ, digits")


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True, eq=False)
class label_of:  # noqa: N801 - called like a function
    """Names a pair by what makes it hard, for the report; `keep` says which pairs are judged, if not all."""

    pair: Pair
    where: str
    keep: Tensor | None = None

    def __call__(self, index: tuple[int, ...]) -> str:
        k, pair = self._row(index), self.pair
        sigma = " ".join(f"{x:.3g}" for x in (*pair[2][k].tolist(), *pair[5][k].tolist()))
        delta = float((pair[1][k].double() - pair[4][k].double()).norm())
        return f"{self.where}, pair {k}: sigma {sigma}, |delta| {delta:.3g} nm"

    def inputs(self, index: tuple[int, ...]) -> dict[str, Tensor]:
        """The pair itself, by the names of the function's arguments."""
        k = self._row(index)
        return {name: x[k] for name, x in zip(ARGUMENTS, self.pair, strict=True)}

    def rows(self, count: int) -> Tensor:
        """The judged pairs' places in the batch."""
        return torch.arange(count) if self.keep is None else self.keep.nonzero().flatten()

    def _row(self, index: tuple[int, ...]) -> int:
        return index[0] if self.keep is None else int(self.keep.nonzero().flatten()[index[0]])


@dataclass(frozen=True, eq=False)
class batch_of:  # noqa: N801 - called like a function
    """Names a whole batch, and keeps the pairs as they are now, whatever the accused makes of them later."""

    pair: Pair
    where: str

    def __call__(self, index: tuple[int, ...]) -> str:
        return self.where

    def inputs(self, index: tuple[int, ...]) -> dict[str, Tensor]:
        return dict(zip(ARGUMENTS, self.pair, strict=True))

    def rows(self, count: int) -> Tensor:
        """Every pair of it, if each is judged."""
        return torch.arange(count)


def _excused(pair: Pair, dtype: torch.dtype, digits: int | None, kappa: Tensor) -> tuple[Tensor, Tensor]:
    nothing = torch.zeros_like(kappa, dtype=torch.bool)
    if digits is None:
        return nothing, nothing
    from iga.testing.judges.rigorous import conditioning  # flint loads only where it may be needed

    return conditioning(pair, dtype, digits)
