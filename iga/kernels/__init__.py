"""Gaussian attention as one operator, in linear memory where an implementation offers it.

`gaussian_attention` checks its arguments, flattens them and runs one of

    reference   dense torch, any device, any form, twice differentiable: it defines what is right
    cpu         numba, blocks of query rows, float32 and float64
    fused       Triton, float32 geometry, CUDA (or CPU tensors under TRITON_INTERPRET=1)

An implementation that is asked for by name runs or says why it cannot; "auto" takes the first of fused, cpu, reference
that can, and the result says which. Nothing falls back in silence.
"""

from iga.kernels.api import Attended, Statistics, gaussian_attention
from iga.kernels.choice import IMPLEMENTATIONS, choose, obstacle

__all__ = ["IMPLEMENTATIONS", "Attended", "Statistics", "choose", "gaussian_attention", "obstacle"]
