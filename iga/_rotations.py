"""The rotations that `get_rots` hands out, with the verbs of OpenFold's Rotation.

A matrix is kept, whatever a verb was given: quaternions (w first) are made of it where they are asked for, and a
rotation is always one, so there is nothing to normalise. Results are contiguous. Verbs and their order of arguments:
openfold/utils/rigid_utils.py, and se3_diffusion's fork of it (`update_mask`, `get_rotvec`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from iga import rotation
from iga._typing import Float, Tensor

__all__ = ["Rotations", "map_components", "space_dim", "with_space"]


@dataclass(frozen=True, eq=False)
class Rotations:
    """Rotations `rot` [..., 3, 3] of local column vectors to global ones; float16 and bfloat16 become float32."""

    rot: Float[Tensor, "*b 3 3"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rot", rotation.promoted(self.rot))
        rotation.check_geometry("rot", self.rot, 3, 3)

    @property
    def shape(self) -> torch.Size:
        """The leading dimensions."""
        return self.rot.shape[:-2]

    @property
    def dtype(self) -> torch.dtype:
        return self.rot.dtype

    @property
    def device(self) -> torch.device:
        return self.rot.device

    @property
    def requires_grad(self) -> bool:
        return self.rot.requires_grad

    def get_rot_mats(self) -> Float[Tensor, "*b 3 3"]:
        """The matrices [..., 3, 3]."""
        return self.rot.contiguous()

    def get_cur_rot(self) -> Float[Tensor, "*b 3 3"]:
        """The matrices: they are the form in which rotations are kept here."""
        return self.get_rot_mats()

    def get_quats(self) -> Float[Tensor, "*b 4"]:
        """Unit quaternions [..., 4], w first, w ≥ 0."""
        return rotation.to_quaternion(self.rot).contiguous()

    def get_rotvec(self) -> Float[Tensor, "*b 3"]:
        """Rotation vectors [..., 3], radians, of length at most π."""
        return rotation.log(self.rot).contiguous()

    def apply(self, pts: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
        """R x; leading dimensions broadcast."""
        return rotation.rotate(self.rot, rotation.points("pts", pts, self.rot)).contiguous()

    def invert_apply(self, pts: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
        """Rᵀ x; leading dimensions broadcast."""
        return rotation.rotate_inverse(self.rot, rotation.points("pts", pts, self.rot)).contiguous()

    def compose_r(self, r: Any) -> "Rotations":
        """R₁R₂: first `r` (anything with get_rot_mats()), then self."""
        return Rotations(rotation.compose(self.rot, r.get_rot_mats()).contiguous())

    def compose_q(self, r: Any, normalize_quats: bool = True) -> "Rotations":
        """`compose_r`; products of quaternions and of matrices are one rotation, normalised either way."""
        return self.compose_r(r)

    def compose_q_update_vec(
        self,
        q_update_vec: Float[Tensor, "... 3"],
        normalize_quats: bool = True,
        update_mask: Float[Tensor, "... 1"] | None = None,
    ) -> "Rotations":
        """R · R(1, x, y, z), the update of AlphaFold 2's algorithm 23 (the quaternion normalised).

        update_mask [..., 1] multiplies (x, y, z): 0 keeps the rotation.
        """
        vector = rotation.points("q_update_vec", q_update_vec, self.rot)
        if update_mask is not None:
            vector = vector * update_mask.to(vector)
        return Rotations(rotation.compose(self.rot, rotation.from_vector_part(vector)).contiguous())

    def invert(self) -> "Rotations":
        """Rᵀ."""
        return Rotations(rotation.transpose(self.rot).contiguous())

    def map_tensor_fn(self, fn: Callable[[Tensor], Tensor]) -> "Rotations":
        """`fn`, a function of [...], mapped over the nine components."""
        return Rotations(map_components(fn, self.rot, 2))

    def unsqueeze(self, dim: int) -> "Rotations":
        """A new leading dimension, as Tensor.unsqueeze has it."""
        return Rotations(self.rot.unsqueeze(space_dim(dim, 2)))

    @classmethod
    def cat(cls, rs: Sequence[Any], dim: int = 0) -> "Rotations":
        """Rotations joined along a leading dimension."""
        return cls(torch.cat([r.get_rot_mats() for r in rs], dim=space_dim(dim, 2)))

    def detach(self) -> "Rotations":
        return Rotations(self.rot.detach())

    def to(self, *args: Any, **kwargs: Any) -> "Rotations":
        """Another dtype or device, as Tensor.to; float16 and bfloat16 raise ValueError."""
        return Rotations(rotation.converted(self.rot, *args, **kwargs))

    def cuda(self) -> "Rotations":
        return self.to("cuda")

    def __getitem__(self, index: Any) -> "Rotations":
        return Rotations(self.rot[with_space(index, 2)])

    def __mul__(self, right: Tensor) -> "Rotations":
        """Every matrix times its number of `right` [...]: a mask of 0 and 1 makes zeros of what is masked."""
        return Rotations(self.rot * right[..., None, None])

    __rmul__ = __mul__


def with_space(index: Any, space: int) -> tuple[Any, ...]:
    """An index into leading dimensions, with the last `space` dimensions kept whole."""
    return (*(index if isinstance(index, tuple) else (index,)), *(slice(None),) * space)


def space_dim(dim: int, space: int) -> int:
    """A leading dimension, counted from either end, as a dimension of a tensor with `space` more at the end."""
    return dim if dim >= 0 else dim - space


def map_components(fn: Callable[[Tensor], Tensor], x: Tensor, space: int) -> Tensor:
    """`fn`, a function of the leading dimensions, mapped over the components of the last `space` of `x`."""
    parts = x.flatten(-space).unbind(-1)
    return torch.stack([fn(part) for part in parts], dim=-1).unflatten(-1, x.shape[x.ndim - space :])
