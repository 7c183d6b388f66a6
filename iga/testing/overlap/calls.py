"""`batch_independence` and `determinism`: a pair's answer is its own, whoever stands beside it or came before."""

import torch

from iga._typing import Tensor
from iga.testing.check import check
from iga.testing.judges import overlap as oracle
from iga.testing.overlap import budgets, pairs
from iga.testing.overlap.accuracy import name_of
from iga.testing.overlap.pairs import PairSource
from iga.testing.overlap.subject import OverlapSubject, require_answers
from iga.testing.tally import Tally

__all__ = ["batch_independence", "determinism"]

COUNT = 240  # pairs
ALONE = 24  # of them one by one


@check("overlap", "of the budget")
def batch_independence(function: OverlapSubject, inputs: PairSource, seed: int, tally: Tally) -> None:
    """Alone, in another order, beside pairs of other sizes, as strided views, and by broadcasting: the same answer.

    Within twice the budget of one call, as vectorised arithmetic rounds a batch's tail differently.
    """
    low, high = function.sigma_range
    for dtype in function.dtypes:
        # κ within 10: where the budget is tightest
        pair = pairs.degenerate(COUNT, (low, min(high, 10 * low)), dtype, seed)
        with torch.no_grad():
            answers = function(*pair)
            require_answers(answers, tally)
            plain = tuple(x.double() for x in answers)
            kappa = oracle.condition(pair[2], pair[5])
            limits = budgets.value_budgets(plain[0], plain[1], kappa, dtype)
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(COUNT, generator=generator)
            back = order.argsort()
            # neighbours far larger, far apart
            extreme = pairs.degenerate(COUNT, (high / 2, high), dtype, seed + 1)
            ways = {
                "in another order": _at(function(*pairs.broken_up(pair, order)), back),
                "beside others": _at(function(*pairs.joined(extreme, pair)), slice(COUNT, None)),
                "half of the batch": function(*pairs.broken_up(pair, slice(0, COUNT // 2))),
                "as strided views": function(*(_strided(x) for x in pair)),
                "with a leading dimension": _at(function(*(x[None] for x in pair)), 0),
            }
            singles = [function(*pairs.broken_up(pair, slice(k, k + 1))) for k in range(ALONE)]
            ways["one by one"] = tuple(torch.cat(column) for column in zip(*singles, strict=True))  # pyright: ignore[reportArgumentType]
            for way, values in ways.items():
                _compare(values, plain, limits, f"{name_of(dtype)}, {way}", tally)
            few = pairs.broken_up(pair, slice(0, 16))
            queries, keys = (x[:, None] for x in few[:3]), (x[None] for x in few[3:])
            full = (x.expand(16, 16, *x.shape[2:]).flatten(0, 1) for x in (*queries, *keys))
            flat = tuple(full)
            together = function(*(x[:, None] for x in few[:3]), *(x[None] for x in few[3:]))
            alone = tuple(x.double() for x in function(*flat))
            limits = budgets.value_budgets(alone[0], alone[1], oracle.condition(flat[2], flat[5]), dtype)
            spread = tuple(x.flatten() for x in together)
            _compare(spread, alone, limits, f"{name_of(dtype)}, by broadcasting", tally)
            empty = function(*pairs.broken_up(pair, slice(0, 0)))
            tally.add(float(sum(x.numel() for x in empty)), 0.0, f"{name_of(dtype)}: values for no pair")


@check("overlap", "entries")
def determinism(function: OverlapSubject, inputs: PairSource, seed: int, tally: Tally) -> None:
    """A repeat is bitwise the same, whatever came in between, which gets answers of its own; no input is changed."""
    for dtype in function.dtypes:
        first = inputs.few(dtype, seed)
        second = inputs.few(dtype, seed + 1)
        kept = tuple(x.clone() for x in first)
        with torch.no_grad():
            before, between, again = function(*first), function(*second), function(*first)
            state = torch.get_rng_state()
            torch.manual_seed(seed + 1)
            seeded = function(*first)
            torch.set_rng_state(state)
        require_answers(before, tally)
        for index, name in enumerate(("dist_sq", "log_det")):
            where = f"{name_of(dtype)}: {name}"
            tally.add(_differs(before[index], again[index]), 0.0, f"{where} on a repeat")
            tally.add(_differs(before[index], seeded[index]), 0.0, f"{where} with another global seed")
            same = torch.equal(before[index], between[index])
            tally.add(float(same), 0.0, f"{where}: other pairs, the same answers")
        for name, x, copy in zip(
            ("q_rot", "q_mean", "q_sigma", "k_rot", "k_mean", "k_sigma"), first, kept, strict=True
        ):
            tally.add(float((x != copy).sum()), 0.0, f"{name_of(dtype)}: {name} changed by the call")


def _compare(
    values: tuple[Tensor, ...], plain: tuple[Tensor, ...], limits: budgets.Budget, where: str, tally: Tally
) -> None:
    for value, expected, name in zip(values, plain, ("dist_sq", "log_det"), strict=True):
        limit = 2 * limits[name][: len(value)]
        error = (value.double() - expected[: len(value)]).abs()
        ratio = budgets.share(error, limit)
        tally.add(ratio, 1.0, f"{where}: {name}", could_fail=expected[: len(value)] != 0)


def _differs(a: Tensor, b: Tensor) -> Tensor:
    """1 where two results differ in a bit; NaN where one is not finite."""
    return torch.where(a.isfinite() & b.isfinite(), (a != b).double(), torch.nan)


def _at(values: tuple[Tensor, Tensor], index: Tensor | slice | int) -> tuple[Tensor, Tensor]:
    return values[0][index], values[1][index]


def _strided(x: Tensor) -> Tensor:
    """The same numbers, every second one of a larger tensor and with the last dimension outermost in memory."""
    wide = x.new_empty(*x.shape[:-1], 2 * x.shape[-1])
    wide[..., ::2] = x
    return wide.movedim(-1, 0).contiguous().movedim(0, -1)[..., ::2]
