"""The loop behind `probe`: fused multiply-adds on numbers that stay in the nearest cache, on every thread.

Eight chains side by side, since a unit takes four cycles for a result and begins one every cycle, and there are two;
in the full width of the vectors, as the kernels are compiled.
"""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from iga.kernels.cpu._compile import full_width

__all__ = ["run_chains"]

_LANES = 256
_CHAINS = 8
_LENGTH = 16


@numba.njit(nogil=True, fastmath={"contract"}, forceinline=True)
def _twice(x: np.float32) -> np.float32:
    """Two multiply-adds. A product with itself: a chain of multiplications by constants would be folded into one. All
    stay in (0, 1], far from numbers that slow the units down."""
    y = x * np.float32(0.999) + np.float32(0.001)
    return y * y + np.float32(0.001)


@numba.njit(nogil=True, fastmath={"contract"}, cache=True)
def _chains(x: np.ndarray, rounds: int) -> None:
    full_width()  # pyright: ignore[reportCallIssue] - numba passes the context
    for _ in range(rounds):
        for i in range(_LANES):
            a, b, c, d = x[i], x[_LANES + i], x[2 * _LANES + i], x[3 * _LANES + i]
            e, f, g, h = x[4 * _LANES + i], x[5 * _LANES + i], x[6 * _LANES + i], x[7 * _LANES + i]
            for _ in range(_LENGTH // 2):
                a, b, c, d = _twice(a), _twice(b), _twice(c), _twice(d)
                e, f, g, h = _twice(e), _twice(f), _twice(g), _twice(h)
            x[i], x[_LANES + i], x[2 * _LANES + i], x[3 * _LANES + i] = a, b, c, d
            x[4 * _LANES + i], x[5 * _LANES + i], x[6 * _LANES + i], x[7 * _LANES + i] = e, f, g, h


def run_chains(pool: ThreadPoolExecutor, threads: int, rounds: int) -> float:
    """Runs `rounds` on each of `threads` threads; returns the multiply-adds done."""
    rows = [np.full(_CHAINS * _LANES, 0.5, dtype=np.float32) for _ in range(threads)]
    list(pool.map(_chains, rows, [rounds] * threads))
    return float(threads * _CHAINS * _LANES * _LENGTH * rounds)
