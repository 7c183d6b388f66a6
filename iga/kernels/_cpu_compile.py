"""How the CPU kernels are compiled: one set of options, and numba's cache wherever there is a place for it."""

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

__all__ = ["FAST", "INLINE", "aligned", "compiled", "full_width"]

# Contraction to fused multiply-adds only: sums keep their order, NaN and infinity their meaning.
FAST = {"contract"}
# For functions that must become part of the loop that calls them: or it has no vectors, or every call counts references
# to its arrays, atomically, in memory that all threads share. The same count is taken where a condition picks an array.
INLINE = {"fastmath": FAST, "error_model": "numpy", "forceinline": True}


@intrinsic
def full_width(typingctx):
    """In a function with a loop: its vectors may be as wide as the machine has them.

    LLVM takes half of AVX-512 on Intel's processors for fear of their clock, which loops of nothing but arithmetic need
    not share: there the wide units do twice as much.
    """

    def codegen(context, builder, signature, args):
        # A set that refuses what LLVM does not know by a bare name; this attribute is a pair of strings.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return ir.Constant(ir.IntType(8).as_pointer(), None)

    return types.none(), codegen


@njit(nogil=True)
def aligned(size, dtype):
    """An empty array that begins with a cache line: a vector that straddles two lines is loaded twice."""
    x = np.empty(size + 16, dtype)
    first = (-x.ctypes.data % 64) // x.itemsize
    return x[first : first + size]


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """The machine code of `function`, which releases the GIL, compiled at its first call for each dtype.

    The code is kept beside the package or, where that is read-only, in the user's cache folder (NUMBA_CACHE_DIR); where
    no folder can be written to, every process compiles its own.
    """
    options = {"nogil": True, "fastmath": FAST, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # numba: "no locator available"
        return njit(**options)(function)
