"""The common part of both attention layers: sizes and options, OpenFold's calls, the scalar and the last projection.

OpenFold adds −inf to masked logits, may overwrite its inputs (`inplace_safe`), and at inference takes z from a list of
one, `_z_reference_list`, so that it can be moved out of the accelerator's memory (`_offload_inference`). Here masked
keys are left out exactly and nothing is overwritten; docs/swap.md says what each argument does.
Source: openfold/model/structure_module.py.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from iga._arguments import check_number, is_dense
from iga._layers import check_sizes, linear, reset_children, sanitise
from iga._plain import with_absent
from iga._rigid_verbs import RigidVerbs
from iga._typing import Bool, Float, Tensor

__all__ = ["EPS", "INF", "AttentionLayer", "aligned", "pair_features"]

INF = 1e5
EPS = 1e-8  # nm²

# exp(−746) is 0 in float64, the subnormal numbers included: a mask of this size leaves nothing of a key.
_LEAST_INF = 746.0

R = TypeVar("R", bound=RigidVerbs)


class AttentionLayer(nn.Module):
    """The base of both layers: sizes and options, scalar projections, the last projection, fresh parameters."""

    linear_q: nn.Linear
    linear_kv: nn.Linear  # of a multimer's IPA linear_k and linear_v
    linear_k: nn.Linear
    linear_v: nn.Linear
    linear_b: nn.Linear
    down_z: nn.Linear
    linear_out: nn.Linear

    def __init__(
        self,
        sizes: tuple[int, int, int, int, int, int],
        inf: float,
        eps: float,
        is_multimer: bool,
        pair_value_dim: int | None,
    ) -> None:
        """sizes: the first six arguments of the layers."""
        super().__init__()
        check_sizes(*sizes, pair_value_dim)
        _check_options(inf, eps, is_multimer)
        self.c_s, self.c_z, self.c_hidden, self.no_heads, self.no_qk_points, self.no_v_points = sizes
        self.inf, self.eps, self.is_multimer = inf, eps, is_multimer

    def _make_output(self, pair_values: int) -> None:
        """`linear_out`, of so many pair values a head; the last projection to be made."""
        self.c_pair_values = pair_values
        self.linear_out = linear(self._features(), self.c_s, init="final")
        self._reset_heads()

    def _features(self) -> int:
        return self.no_heads * (self.c_hidden + 4 * self.no_v_points + self.c_pair_values)

    def reset_parameters(self) -> None:
        """Draws every parameter as the constructor does: the same numbers from the same seed.

        For a layer that was made on the meta device and moved by `to_empty`, whose memory holds anything.
        """
        reset_children(self)
        self._reset_heads()

    def _reset_heads(self) -> None:
        """The parameters that belong to no projection."""
        raise NotImplementedError

    def _scalars(self, s: Float[Tensor, "*b n c_s"]) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v, each [*b, h, n, c]."""

        def by_head(projection: nn.Module) -> Tensor:
            return projection(s).unflatten(-1, (self.no_heads, -1)).transpose(-3, -2)

        if hasattr(self, "linear_kv"):
            k, v = by_head(self.linear_kv).chunk(2, dim=-1)
            return by_head(self.linear_q), k, v
        return by_head(self.linear_q), by_head(self.linear_k), by_head(self.linear_v)

    def _projected_out(
        self, features: Float[Tensor, "*b n features"], valid: Bool[Tensor, "*b n"]
    ) -> Float[Tensor, "*b n c_s"]:
        """The last projection; zeros stand for pair values where a call has no z."""
        absent = self._features() - features.shape[-1]
        if absent:
            features = torch.cat([features, features.new_zeros(*features.shape[:-1], absent)], dim=-1)
            unused = [getattr(self, name) for name in ("linear_b", "down_z") if hasattr(self, name)]
            features = with_absent(features, *unused)
        return sanitise(self.linear_out(features), valid)


def _check_options(inf: float, eps: float, is_multimer: bool) -> None:
    """Raises ValueError for OpenFold's options that would mean something which the layers do not do."""
    why = ": masked keys get weight exactly 0 here, and a smaller one would ask for some; leave it out (default 1e5)"
    check_number("inf", inf, _LEAST_INF, math.inf, remedy=why)
    float32 = torch.finfo(torch.float32)
    check_number("eps", eps, float32.tiny, float32.max, " of nm²", "; its root has to fit in float32")
    if not isinstance(is_multimer, bool):
        raise ValueError(f"is_multimer must be True or False, got {is_multimer!r}")


def pair_features(
    z: Float[Tensor, "..."] | None,
    inplace_safe: Any,
    offload: Any,
    references: Sequence[Tensor] | None,
) -> Float[Tensor, "..."] | None:
    """z, from where OpenFold's callers put it: as it is, or the one tensor of `references`; the list stays as it came.

    Raises ValueError where z is given twice, or nowhere, and for flags that are none.
    """
    for name, flag in (("inplace_safe", inplace_safe), ("_offload_inference", offload)):
        if not isinstance(flag, bool):
            raise ValueError(
                f"{name} must be True or False, got {type(flag).__name__}; local_mean, log_scale and t go by name"
            )
    if references is not None and not offload:
        raise ValueError("_z_reference_list belongs to _offload_inference=True; pass that too, or z alone")
    if references is not None:
        if len(references) != 1 or not isinstance(references[0], torch.Tensor):
            raise ValueError(f"_z_reference_list must hold one tensor, z, got {len(references)} item(s)")
        if z is not None and z is not references[0]:
            raise ValueError("z and _z_reference_list hold different tensors; pass z=None with the list")
        return references[0]
    if offload and z is None:
        raise ValueError("_offload_inference=True takes z from _z_reference_list=[z], or from z itself; got neither")
    return z


def aligned(s: Any, z: Any, r: R, mask: Any) -> tuple[Any, R, Any]:
    """(z, r, mask) whose leading dimensions are those of s, expanded without memory where they are 1 (or absent, in z).

    What does not fit is handed on as it came, for `check_inputs` to name.
    """
    if not is_dense(s) or s.ndim < 3:
        return z, r, mask
    batch, n = s.shape[:-2], s.shape[-2:-1]
    if is_dense(z) and 3 <= z.ndim <= s.ndim + 1 and _broadcasts(z.shape[:-3], batch):
        z = z.expand(*batch, *z.shape[-3:])
    if len(r.shape) == s.ndim - 1 and r.shape[-1:] == n and _broadcasts(r.shape[:-1], batch):
        r = r.expand(*batch, *n)
    if is_dense(mask) and mask.ndim == s.ndim - 1 and _broadcasts(mask.shape[:-1], batch):
        mask = mask.expand(*batch, *mask.shape[-1:])
    return z, r, mask


def _broadcasts(shape: torch.Size, batch: torch.Size) -> bool:
    """Whether `shape` has to be expanded to `batch`, and can be."""
    return shape != batch and all(x in (1, y) for x, y in zip(reversed(shape), reversed(batch), strict=False))
