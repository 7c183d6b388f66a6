"""Modes of a process that the checks set for a while: short matrix products, and silence.

Short products show on any machine what TF32 and autocast make of float32. TF32 (NVIDIA, from Ampere on) multiplies
float32 operands with 10 bits of mantissa and adds up in float32; a process switches it on for every product in it. Here
the operands are cut to so many bits before the product.

Silence is for calls that may fail loudly: a compiler logs, and prints, the whole graph of what it cannot take.

An interrupt from the keyboard is told from a KeyboardInterrupt that the accused raises.
"""

import io
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from iga._typing import Tensor

__all__ = ["TF32_BITS", "ShortProducts", "quiet", "real_interrupts"]

TF32_BITS = 10


class ShortProducts(TorchDispatchMode):
    """Every float32 matrix product sees operands of `bits` mantissa bits: 10 is what TF32 makes of them, 7 autocast.

    With `by_switch`, only those that run while the process allows TF32 (torch.backends.cuda.matmul): a layer may
    switch it off around its geometry.
    """

    products = (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm, torch.ops.aten.baddbmm, torch.ops.aten.mv)

    def __init__(self, bits: int, *, by_switch: bool = False) -> None:
        super().__init__()
        self.dropped, self.by_switch = 23 - bits, by_switch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        allowed = not self.by_switch or torch.backends.cuda.matmul.fp32_precision == "tf32"
        if allowed and func.overloadpacket in self.products:
            args = tuple(self.cut(x) if isinstance(x, torch.Tensor) else x for x in args)
        return func(*args, **(kwargs or {}))

    def cut(self, x: Tensor) -> Tensor:
        """`x` with the last bits of its mantissas zero; other dtypes as they are."""
        if x.dtype != torch.float32:
            return x
        return (x.view(torch.int32) & -(1 << self.dropped)).view(torch.float32)


@contextmanager
def quiet() -> Iterator[None]:
    """No log record is handled and nothing reaches Python's standard error; afterwards all is as it was."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


@contextmanager
def real_interrupts() -> Iterator[Callable[[], bool]]:
    """Whether the signal of a Ctrl-C has come meanwhile. Where its handler is not Python's own, every KeyboardInterrupt
    is taken for one."""
    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: True
        return
    came = False

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
