"""`reduced_precision` and `transforms`: the ways in which a training run calls an overlap function.

reduced_precision   under autocast to bf16 and fp16, and with TF32 matrix products (simulated: operands cut to 10 bits),
                    float32 pairs have to be as accurate as without
transforms          torch.func.vmap, torch.compile(fullgraph=True) and torch.export agree with a plain call
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from iga._typing import Tensor
from iga.testing.check import THOROUGH, check
from iga.testing.judges import overlap as oracle
from iga.testing.modes import ShortProducts, quiet
from iga.testing.overlap import budgets
from iga.testing.overlap.accuracy import judge_values
from iga.testing.overlap.pairs import PairSource
from iga.testing.overlap.subject import OverlapSubject, require_answers
from iga.testing.tally import Tally
from iga.testing.targets import TargetError, one_line

__all__ = ["reduced_precision", "transforms"]

TF32_BITS = 10


@check("overlap", "of the budget", profiles=THOROUGH, dtype=torch.float32)
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
                values = function(*pair)
        except TargetError as error:
            tally.fail(name, str(error))
            continue
        judge_values(pair, values, reference, torch.float32, name, tally)


@check("overlap", "of the budget", profiles=THOROUGH, seen_faults=("control flow",), every=1000)
def transforms(function: OverlapSubject, inputs: PairSource, seed: int, tally: Tally) -> None:
    """Each way over twice the budget of one call; one that raises is broken, and named."""
    dtype = function.dtypes[0]
    pair = inputs.few(dtype, seed, spread=10.0)
    answers = function(*pair)
    require_answers(answers, tally)
    plain = tuple(x.detach().double() for x in answers)
    limits = budgets.value_budgets(plain[0], plain[1], oracle.condition(pair[2], pair[5]), dtype)

    class Module(torch.nn.Module):
        def forward(self, *arguments: Tensor) -> tuple[Tensor, Tensor]:
            return function.function(*arguments)

    ways: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
        "vmap": lambda: torch.func.vmap(function.function)(*pair),
        "compile": lambda: torch.compile(function.function, fullgraph=True, backend="aot_eager")(*pair),
        "export": lambda: torch.export.export(Module(), pair).module()(*pair),
    }
    for way, call in ways.items():
        try:
            with torch.no_grad(), quiet():
                values = call()
        except Exception as error:  # each tool raises errors of its own; all of them mean that it does not work
            tally.fail(way, f"{way} raised {one_line(error)}")
            continue
        finally:
            torch.compiler.reset()
        for value, expected, name in zip(values, plain, ("dist_sq", "log_det"), strict=True):
            error, limit = (value.double() - expected).abs(), 2 * limits[name]
            ratio = budgets.share(error, limit)
            tally.add(ratio, 1.0, f"{way}: {name}", could_fail=expected != 0)
