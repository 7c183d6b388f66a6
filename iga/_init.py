"""Initial weights of the layers' projections, as AlphaFold 2 and OpenFold draw them.

Source: Jumper et al. 2021, supplement 1.11.4; LeCun et al. 1998 for the variance 1/fan_in.
"""

import math
import weakref
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import is_fake

__all__ = ["SOFTPLUS_INVERSE_ONE", "lecun_normal_", "linear", "reset_children"]

# ln(e − 1): softplus of it is 1
SOFTPLUS_INVERSE_ONE = 0.541324854612918

# The standard deviation of a standard normal cut off at ±2: √(1 − 4φ(2)/(2Φ(2) − 1)).
_STD_OF_CUT_NORMAL = 0.87962566103423978

Init = Literal["default", "final", "gating"]


def lecun_normal_(weight: Tensor) -> Tensor:
    """Fill `weight` [out, in] in place from a normal cut off at two standard deviations, with variance 1/in.

    The normal before the cut is wider than that, by 1/0.8796, so that the variance after it is 1/in: unit-variance
    inputs give unit-variance outputs. Returns `weight`; one without values (FakeTensorMode) is left as it is.
    """
    if is_fake(weight):  # torch draws until all lie within the cut, and there is nothing to look at
        return weight
    std = math.sqrt(1.0 / max(weight.shape[-1], 1)) / _STD_OF_CUT_NORMAL
    return nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std)


def linear(in_features: int, out_features: int, *, bias: bool = True, init: Init = "default") -> nn.Linear:
    """An nn.Linear with AlphaFold's initial weights; the bias starts at zero but for "gating".

    init   "default": LeCun's truncated normal; "final": weights 0, so that a residual block starts as the identity;
           "gating": weights 0 and bias 1, so that a sigmoid gate starts open

    Its `reset_parameters` draws them anew, as it is drawn here: the same numbers from the same seed.
    Raises ValueError for an unknown `init`.
    """
    if init not in ("default", "final", "gating"):
        raise ValueError(f"init must be 'default', 'final' or 'gating', got {init!r}")
    layer = nn.Linear(in_features, out_features, bias=bias)
    _fill(layer, init)
    layer.reset_parameters = _Reset(layer, init)
    return layer


def reset_children(module: nn.Module) -> None:
    """`reset_parameters` of every module within `module` that has one, in the order in which they were made."""
    for child in module.modules():
        reset = getattr(child, "reset_parameters", None)
        if child is not module and callable(reset):
            reset()


class _Reset:
    """`reset_parameters` of one nn.Linear, as an attribute: FSDP and others call it on each module, in any order.

    A subclass would say it better; but tools that choose by exact type (torch.ao's quantize_dynamic) would pass it
    over, and so would `iga._plain`. The reference is weak, and made anew in copies and pickles.
    """

    def __init__(self, layer: nn.Linear, init: Init) -> None:
        self._layer = weakref.ref(layer)
        self._init: Init = init

    def __call__(self) -> None:
        layer = self._layer()
        assert layer is not None
        type(layer).reset_parameters(layer)
        _fill(layer, self._init)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Reset, (self._layer(), self._init)


@torch.no_grad()
def _fill(layer: nn.Linear, init: Init) -> None:
    if init == "default":
        lecun_normal_(layer.weight)
    else:
        layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.fill_(1.0 if init == "gating" else 0.0)
