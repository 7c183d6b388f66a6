"""Other people's weights in InvariantPointAttention: the names and layouts in which they are stored.

    linear_q_points.linear.weight     OpenFold since 2: the projection within a PointProjection
    linear_k, linear_v, linear_k_points, linear_v_points
                                      OpenFold's multimer: keys and values apart, q, k, v without bias, point rows
                                      ordered head, space, point instead of space, head, point
    down_z                            se3_diffusion, FrameFlow: pair values of c_z // 4 channels (`pair_value_dim`)
    linear_rbf                        se3_diffusion: in its checkpoints, and used by nothing

Sources: openfold/model/structure_module.py; model/ipa_pytorch.py of se3_diffusion; models/ipa_pytorch.py of FrameFlow.
"""

from typing import Any

import torch
from torch import Tensor, nn

from iga._layers import Attached, linear

__all__ = ["accept_spellings", "point_projection"]

_POINTS = ("linear_q_points", "linear_k_points", "linear_v_points", "linear_kv_points")


def point_projection(in_features: int, out_features: int) -> nn.Linear:
    """An nn.Linear that is also its own `linear`: what reads OpenFold's PointProjection (its importer of AlphaFold's
    parameters) looks for that. No submodule, so it has no part in names, state_dict or named_modules."""
    layer = linear(in_features, out_features)
    vars(layer)["linear"] = _Itself(layer)
    return layer


class _Itself(Attached):
    """The layer that carries it, under another name: reading, writing and calling reach the layer."""

    @property
    def __class__(self) -> type:  # isinstance(…, nn.Module) is what get_submodule asks
        return nn.Linear

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._layer(), name, value)

    def __call__(self, *args: Any) -> Any:
        return self._layer()(*args)


def accept_spellings(module: Any, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
    """Rename and reorder what the layer spells differently, in `state_dict`, in place, before it is read."""
    for name in _POINTS:
        for part in ("weight", "bias"):
            if f"{prefix}{name}.linear.{part}" in state_dict:
                state_dict[f"{prefix}{name}.{part}"] = state_dict.pop(f"{prefix}{name}.linear.{part}")
    if f"{prefix}linear_k_points.weight" in state_dict and not module.is_multimer:
        _from_multimer(module.no_heads, state_dict, prefix)
    if not hasattr(module, "linear_rbf"):
        for part in ("weight", "bias"):
            state_dict.pop(f"{prefix}linear_rbf.{part}", None)
    down = state_dict.get(f"{prefix}down_z.weight")
    if down is not None and not hasattr(module, "down_z"):
        rest[-1].append(f"the weights hold {prefix}down_z: build the layer with pair_value_dim={down.shape[0]}")


def _from_multimer(heads: int, state_dict: dict[str, Tensor], prefix: str) -> None:
    """Merge keys and values per head, add the zero biases, and turn the point rows from [h, 3, p] to [3, h, p]."""

    def pop(name: str, *rows: int) -> Tensor:
        return state_dict.pop(f"{prefix}{name}").unflatten(0, (heads, *rows))

    for part in ("weight", "bias"):
        if f"{prefix}linear_k.{part}" in state_dict:
            kv = torch.cat([pop(f"linear_k.{part}", -1), pop(f"linear_v.{part}", -1)], dim=1)
            state_dict[f"{prefix}linear_kv.{part}"] = kv.flatten(0, 1)
        q = pop(f"linear_q_points.{part}", 3, -1)
        kv = torch.cat([pop(f"linear_{x}_points.{part}", 3, -1) for x in "kv"], dim=2)
        state_dict[f"{prefix}linear_q_points.{part}"] = q.transpose(0, 1).flatten(0, 2)
        state_dict[f"{prefix}linear_kv_points.{part}"] = kv.transpose(0, 1).flatten(0, 2)
    for name in ("linear_q", "linear_kv"):
        weight = state_dict[f"{prefix}{name}.weight"]
        state_dict.setdefault(f"{prefix}{name}.bias", weight.new_zeros(weight.shape[0]))
