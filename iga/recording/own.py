"""This package's layers, described in words that can be kept, and built again from them."""

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from iga._typing import Tensor
from iga.attention import InvariantGaussianAttention
from iga.ipa import InvariantPointAttention
from iga.presets import IGAConfig

__all__ = ["built", "described", "state_of"]

_SIZES = ("c_s", "c_z", "c_hidden", "no_heads", "no_qk_points", "no_v_points", "inf", "eps", "is_multimer")


def state_of(layer: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by its name. No hook runs, so that no wrapper gathers anything."""
    named = (*layer.named_parameters(remove_duplicate=False), *layer.named_buffers(remove_duplicate=False))
    return {name: x.detach() for name, x in named}


def described(layer: nn.Module) -> dict[str, Any] | None:
    """What `built` makes a layer of with parameters of the same names and shapes; None where it cannot.

    Of a subclass, the layer that it is one of: what is recorded is what that was given. With projections of another
    kind (adapters) it is somebody else's.
    """
    words: dict[str, Any] = {}
    if isinstance(layer, InvariantGaussianAttention):
        options = {"config": asdict(layer.config), "implementation": layer.implementation}
        words = {"layer": "InvariantGaussianAttention"}
    elif type(layer) is InvariantPointAttention:
        options = {"pair_value_dim": layer.down_z.out_features if hasattr(layer, "down_z") else None}
        words = {"layer": "InvariantPointAttention"}
    else:
        return None
    words |= {name: getattr(layer, name) for name in _SIZES} | options
    with torch.device("meta"):
        like = state_of(built(words))
    shapes = {name: x.shape for name, x in state_of(layer).items()}
    return words if shapes == {name: x.shape for name, x in like.items()} else None


def built(words: dict[str, Any]) -> nn.Module:
    """The layer of these words. Raises ValueError for words that make none."""
    options = dict(words)
    name = options.pop("layer", None)
    try:
        if name == "InvariantPointAttention":
            return InvariantPointAttention(**options)
        if name == "InvariantGaussianAttention":
            config = IGAConfig(**options.pop("config"))
            return InvariantGaussianAttention(**options, config=config)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the layer's sizes are damaged: {error}") from error
    raise ValueError(f"no layer {name!r}")
