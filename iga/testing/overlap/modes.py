"""`reduced_precision`: the modes that a training run sets around an overlap function.

Under autocast to bf16 and fp16, and with TF32 matrix products (simulated: operands cut to 10 bits), float32 pairs have
to be as accurate as without.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from iga.testing.check import check
from iga.testing.judges import overlap as oracle
from iga.testing.modes import ShortProducts
from iga.testing.overlap.accuracy import judge_values
from iga.testing.overlap.pairs import PairSource
from iga.testing.overlap.subject import OverlapSubject
from iga.testing.tally import Tally
from iga.testing.targets import TargetError

__all__ = ["reduced_precision"]

TF32_BITS = 10


@check("overlap", "of the budget", dtype=torch.float32)
def reduced_precision(function: OverlapSubject, inputs: PairSource, seed: int, tally: Tally) -> None:
    """The errors of `accuracy`, float32, inside each mode."""
    pair = inputs.few(torch.float32, seed)
    reference = oracle.overlap_reference(*pair)
    modes: dict[str, Callable[[], AbstractContextManager[object]]] = {
        "autocast to bf16": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        "autocast to fp16": lambda: torch.autocast("cpu", dtype=torch.float16),
        "TF32 matrix products": lambda: ShortProducts(TF32_BITS),
    }
    for name, mode in modes.items():
        try:
            with torch.no_grad(), mode():
                values = function.on_copies(*pair)
        except TargetError as error:
            tally.fail(name, str(error))
            continue
        judge_values(pair, values, reference, torch.float32, name, tally)
