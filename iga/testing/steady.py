"""The dtype of answers: calls of one function on the same dtypes are all answered in that of the first.

Which dtype it is, is the function's own affair. One that changes with what was called before is a switch that somebody
forgot to put back, and whoever calls next is answered in half the digits, or pays for twice as many.
"""

from collections.abc import Iterable
from typing import Any

import torch

from iga._typing import Tensor
from iga.testing.targets import TargetError

__all__ = ["require_steady_dtype"]

FIRST: dict[Any, tuple[object, torch.dtype]] = {}  # by function and dtypes; it is kept, so that no other has its id


def require_steady_dtype(function: object, given: Iterable[torch.dtype], name: str, answer: Tensor) -> None:
    """Raises TargetError if `function` answered in another dtype before, when it got the dtypes of `given`.

    Autocast and torch's default dtype are of what is given.
    """
    if torch.compiler.is_compiling():
        return
    device = answer.device.type
    cast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
    key = (id(function), name, tuple(given), cast, torch.get_default_dtype())
    first = FIRST.setdefault(key, (function, answer.dtype))[1]
    if first != answer.dtype:
        raise TargetError(f"{name} is {answer.dtype}, of an earlier call on the same dtypes {first}")
