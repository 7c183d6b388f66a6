"""The way in which CPU kernels are compiled: one set of options, and the one signature of each for a dtype."""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

__all__ = ["FAST", "INLINE", "KERNELS", "aligned", "compiled", "full_width", "signature"]

# name → (the kernel, its arguments: T a number of the dtype, i an integer, b a bool; T3 a contiguous array of three
# dimensions; T*5 a tuple of five)
KERNELS: dict[str, tuple[Any, str]] = {}

# Contraction to fused multiply-adds only: sums keep their order, NaN and infinity their meaning.
FAST = {"contract"}
# For functions that must become part of the loop that calls them: or it has no vectors, or every call counts references
# to its arrays, atomically, in memory that all threads share. The same count is taken where a condition picks an array.
# They are called from compiled code alone, and need no door for Python.
INLINE = {
    "fastmath": FAST,
    "error_model": "numpy",
    "forceinline": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}


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


def compiled(signature: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes of a function machine code that releases the GIL; it is compiled, or read where it is kept, when it is
    first needed for a dtype: `iga.kernels.cpu.ready`. `signature` is as in KERNELS."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        kernel: Any = njit(nogil=True, fastmath=FAST, error_model="numpy", no_cfunc_wrapper=True)(function)
        KERNELS[function.__name__.lstrip("_")] = kernel, signature
        return kernel

    return decorate


def signature(name: str, dtype: str) -> tuple[types.Type, ...]:
    """The types of the arguments of kernel `name` for "float32" or "float64"."""
    numbers = {"T": getattr(types, dtype), "i": types.int64, "b": types.boolean}

    def of(word: str) -> types.Type:
        number = numbers[word[0]]
        if "*" in word:
            return types.UniTuple(number, int(word[2:]))
        return types.Array(number, int(word[1:]), "C") if word[1:] else number

    return tuple(of(word) for word in KERNELS[name][1].split())
