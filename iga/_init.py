"""Initial weights of the layers' projections, as AlphaFold 2 and OpenFold draw them.

Source: Jumper et al. 2021, supplement 1.11.4; LeCun et al. 1998 for the variance 1/fan_in.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["SOFTPLUS_INVERSE_ONE", "lecun_normal_", "linear"]

# ln(e − 1): softplus of it is 1
SOFTPLUS_INVERSE_ONE = 0.541324854612918

# The standard deviation of a standard normal cut off at ±2: √(1 − 4φ(2)/(2Φ(2) − 1)).
_STD_OF_CUT_NORMAL = 0.87962566103423978

Init = Literal["default", "final", "gating"]


def lecun_normal_(weight: Tensor) -> Tensor:
    """Fill `weight` [out, in] in place from a normal cut off at two standard deviations, with variance 1/in.

    The normal before the cut is wider than that, by 1/0.8796, so that the variance after it is 1/in: unit-variance
    inputs give unit-variance outputs. Returns `weight`.
    """
    std = math.sqrt(1.0 / max(weight.shape[-1], 1)) / _STD_OF_CUT_NORMAL
    return nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std)


def linear(in_features: int, out_features: int, *, bias: bool = True, init: Init = "default") -> nn.Linear:
    """An nn.Linear with AlphaFold's initial weights; the bias starts at zero but for "gating".

    init   "default": LeCun's truncated normal; "final": weights 0, so that a residual block starts as the identity;
           "gating": weights 0 and bias 1, so that a sigmoid gate starts open

    Raises ValueError for an unknown `init`.
    """
    if init not in ("default", "final", "gating"):
        raise ValueError(f"init must be 'default', 'final' or 'gating', got {init!r}")
    layer = nn.Linear(in_features, out_features, bias=bias)
    with torch.no_grad():
        if init == "default":
            lecun_normal_(layer.weight)
        else:
            layer.weight.zero_()
        if layer.bias is not None:
            layer.bias.fill_(1.0 if init == "gating" else 0.0)
    return layer
