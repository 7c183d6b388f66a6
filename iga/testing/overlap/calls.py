"""`determinism`: the same call gives the same bits, whatever came before, and leaves its inputs as they were."""

import torch

from iga._typing import Tensor
from iga.testing.check import check
from iga.testing.overlap.accuracy import batch_of, name_of
from iga.testing.overlap.pairs import PairSource
from iga.testing.overlap.subject import ARGUMENTS, OverlapSubject, Pair, require_answers
from iga.testing.tally import Tally

__all__ = ["determinism"]


@check("overlap", "entries")
def determinism(function: OverlapSubject, inputs: PairSource, seed: int, tally: Tally) -> None:
    """A repeat is bitwise the same, whatever came in between, which gets answers of its own; no input is changed."""
    for dtype in function.dtypes:
        first = inputs.few(dtype, seed)
        second = inputs.few(dtype, seed + 1)
        kept: Pair = tuple(x.clone() for x in first)  # pyright: ignore[reportAssignmentType] - six of them
        with torch.no_grad():
            before, between, again = function(*first), function(*second), function(*first)
            state = torch.get_rng_state()
            torch.manual_seed(seed + 1)
            seeded = function(*first)
            torch.set_rng_state(state)
        require_answers(before, tally)

        def label(words: str, kept: Pair = kept) -> batch_of:
            return batch_of(kept, words)

        for index, name in enumerate(("dist_sq", "log_det")):
            where = f"{name_of(dtype)}: {name}"
            for value, words in ((again[index], "on a repeat"), (seeded[index], "with another global seed")):
                differs = _differs(before[index], value)
                tally.add(differs, 0.0, label(f"{where} {words}"), says=(value, before[index]))
            same = torch.equal(before[index], between[index])
            tally.add(float(same), 0.0, label(f"{where}: other pairs, the same answers"))
        for name, x, copy in zip(ARGUMENTS, first, kept, strict=True):
            changed = (x != copy).flatten(1).sum(-1)
            tally.add(changed, 0.0, label(f"{name_of(dtype)}: {name} changed by the call"), says=(x, copy))


def _differs(a: Tensor, b: Tensor) -> Tensor:
    """1 where two results differ in a bit; NaN where one is not finite."""
    return torch.where(a.isfinite() & b.isfinite(), (a != b).double(), torch.nan)
