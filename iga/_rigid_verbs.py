"""The verbs of OpenFold's Rigid, for every rigid object of this package: a tensor of frames, with what they carry.

`Frame` and `GaussianRigid` say what they are made of, `_tensors` and `_made`; the rest is here. Lengths are nm,
quaternions w first. Results of the geometry are contiguous; an index and `unsqueeze` give views, as for tensors.
Verbs and their order of arguments: openfold/utils/rigid_utils.py, and se3_diffusion's fork of it (`update_mask`).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch

from iga import rotation
from iga._rotations import Rotations, map_components, space_dim, with_space
from iga._typing import Float, Tensor

__all__ = ["RigidVerbs", "identity_shape"]

# In place of typing.Self: the shape checker of the tests reads that in decorated classes only.
R = TypeVar("R", bound="RigidVerbs")


class RigidVerbs:
    """What is asked of a tensor of rigid objects. `rot` [..., 3, 3] and `trans` [..., 3] come first in `_tensors`."""

    def _tensors(self) -> tuple[tuple[Tensor, int], ...]:
        """Every tensor, with the number of its space dimensions."""
        raise NotImplementedError

    @classmethod
    def _made(cls: type[R], *tensors: Tensor) -> R:
        """The object of such tensors, in the same order."""
        raise NotImplementedError

    def _map(self: R, function: Callable[[Tensor, int], Tensor]) -> R:
        """An object of `function(tensor, number of its space dimensions)`."""
        return self._made(*(function(x, space) for x, space in self._tensors()))

    @property
    def shape(self) -> torch.Size:
        """The leading dimensions: those of the frames, without space."""
        return self._tensors()[1][0].shape[:-1]

    @property
    def dtype(self) -> torch.dtype:
        return self._tensors()[1][0].dtype

    @property
    def device(self) -> torch.device:
        return self._tensors()[1][0].device

    @property
    def requires_grad(self) -> bool:
        return any(x.requires_grad for x, _ in self._tensors())

    def __getitem__(self: R, index: Any) -> R:
        """What is at an index into the leading dimensions, as for a tensor of that shape."""
        return self._map(lambda x, space: x[with_space(index, space)])

    def __iter__(self: R) -> Iterable[R]:
        """One after another along the first leading dimension."""
        if not self.shape:
            raise TypeError("a single rigid object has no dimension to iterate over")
        return iter([self[i] for i in range(self.shape[0])])

    def unsqueeze(self: R, dim: int) -> R:
        """A new leading dimension, as Tensor.unsqueeze has it."""
        return self._map(lambda x, space: x.unsqueeze(space_dim(dim, space)))

    def reshape(self: R, *shape: Any) -> R:
        """Other leading dimensions, as Tensor.reshape has it."""
        sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return self._map(lambda x, space: x.reshape(*sizes, *x.shape[x.ndim - space :]))

    def expand(self: R, *shape: Any) -> R:
        """Leading dimensions repeated without memory, as Tensor.expand has it."""
        sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return self._map(lambda x, space: x.expand(*sizes, *x.shape[x.ndim - space :]))

    @classmethod
    def cat(cls: type[R], ts: Sequence[R], dim: int = 0) -> R:
        """Rigid objects of one kind joined along a leading dimension, as torch.cat has it."""
        return cls._joined(torch.cat, ts, dim)

    @classmethod
    def stack(cls: type[R], ts: Sequence[R], dim: int = 0) -> R:
        """Rigid objects of one kind joined along a new leading dimension, as torch.stack has it."""
        return cls._joined(torch.stack, ts, dim)

    @classmethod
    def _joined(cls: type[R], join: Callable[..., Tensor], ts: Sequence[R], dim: int) -> R:
        ts = list(ts)
        odd = next((t for t in ts if not isinstance(t, cls)), None)
        if not ts or odd is not None:
            got = "an empty list" if odd is None else f"a {type(odd).__name__} among them"
            raise ValueError(f"ts must be a list of {cls.__name__}, got {got}; convert every item first")
        parts = zip(*(t._tensors() for t in ts), strict=True)
        return cls._made(*(join([x for x, _ in same], dim=space_dim(dim, same[0][1])) for same in parts))

    def map_tensor_fn(self: R, fn: Callable[[Tensor], Tensor]) -> R:
        """`fn`, a function of [...], mapped over every component of every tensor: a sum over one dimension, say."""
        return self._map(lambda x, space: map_components(fn, x, space))

    def apply_trans_fn(self: R, fn: Callable[[Tensor], Tensor]) -> R:
        """`fn` of the translations [..., 3] in their place; nothing else moves (a change of unit is `scaled`)."""
        rot, trans, *others = (x for x, _ in self._tensors())
        return self._made(rot, fn(trans), *others)

    def apply_rot_fn(self: R, fn: Callable[[Rotations], Any]) -> R:
        """`fn` of the rotations in their place: it is given Rotations and returns anything with get_rot_mats()."""
        _, trans, *others = (x for x, _ in self._tensors())
        return self._made(fn(self.get_rots()).get_rot_mats(), trans, *others)

    def compose_q_update_vec(
        self: R, q_update_vec: Float[Tensor, "... 6"], update_mask: Float[Tensor, "... 1"] | None = None
    ) -> R:
        """self ∘ (R(1, x, y, z), t) for [..., 6], (x, y, z) then t in nm: AlphaFold 2's algorithm 23.

        update_mask [..., 1] multiplies the update: 0 keeps the frame. What a frame carries keeps its place in it.
        """
        if q_update_vec.shape[-1:] != (6,):
            raise ValueError(f"q_update_vec must be [..., 6], three of a quaternion and t, got {[*q_update_vec.shape]}")
        rots, (_, (trans, _), *others) = self.get_rots(), self._tensors()
        quaternion, shift = q_update_vec[..., :3], rots.apply(q_update_vec[..., 3:])
        if update_mask is not None:
            shift = shift * update_mask.to(shift)
        turned = rots.compose_q_update_vec(quaternion, update_mask=update_mask)
        return self._made(turned.rot, (trans + shift).contiguous(), *(x for x, _ in others))

    def get_rots(self) -> Rotations:
        """The rotations, as an object with the verbs of OpenFold's Rotation."""
        return Rotations(self._tensors()[0][0])

    def get_trans(self) -> Float[Tensor, "*b 3"]:
        """The translations, nm."""
        return self._tensors()[1][0].contiguous()

    def orthonormalised(self: R) -> R:
        """The same, with the rotations nearest to the matrices, which products elsewhere in float32 let drift; their
        gradient stays (`iga.rotation.orthonormalised`)."""
        rot, *others = (x for x, _ in self._tensors())
        return self._made(rotation.orthonormalised(rot).contiguous(), *others)

    def stop_rot_gradient(self: R) -> R:
        """The same, without a gradient through the rotations."""
        return self.apply_rot_fn(lambda rots: rots.detach())

    def detach(self: R) -> R:
        """The same, without a gradient."""
        return self._map(lambda x, _: x.detach())

    def to(self: R, *args: Any, **kwargs: Any) -> R:
        """Another dtype or device, as Tensor.to (itself if nothing changes); float16 and bfloat16 raise ValueError."""
        tensors = [x for x, _ in self._tensors()]
        made = [rotation.converted(x, *args, **kwargs) for x in tensors]
        return self if all(x is y for x, y in zip(made, tensors, strict=True)) else self._made(*made)

    def float(self: R) -> R:
        """In float32."""
        return self.to(torch.float32)

    def double(self: R) -> R:
        """In float64."""
        return self.to(torch.float64)

    def cuda(self: R, device: Any = None) -> R:
        """On the GPU, the current one unless `device` names another."""
        return self.to("cuda" if device is None else device)

    def cpu(self: R) -> R:
        """On the CPU."""
        return self.to("cpu")

    def __mul__(self: R, right: Tensor) -> R:
        """Every number times its own of `right` [...]: a mask of 0 and 1 makes zeros of what is masked."""
        if not isinstance(right, torch.Tensor):
            return NotImplemented
        return self._map(lambda x, space: x * right.to(x.dtype)[(..., *(None,) * space)])

    __rmul__ = __mul__


def identity_shape(
    shape: tuple[Any, ...], dtype: torch.dtype | None, device: torch.device | str | None, requires_grad: bool, fmt: str
) -> tuple[tuple[int, ...], torch.dtype | None, torch.device | str | None, bool]:
    """(sizes, dtype, device, requires_grad) of `identity(2, 5)`, `identity((2, 5))` and OpenFold's positional
    `identity((2, 5), dtype, device, requires_grad, fmt)`; a dtype too short for geometry becomes float32."""
    if shape and not isinstance(shape[0], int):
        shape, *given = shape
        if len(given) > 4:
            raise ValueError("identity takes (shape, dtype, device, requires_grad, fmt), got more; name them")
        dtype, device, requires_grad, fmt = given + [dtype, device, requires_grad, fmt][len(given) :]
    if fmt not in ("quat", "rot_mat"):
        raise ValueError(f'fmt must be "quat" or "rot_mat" (a matrix is kept either way), got {fmt!r}')
    if dtype in (torch.float16, torch.bfloat16):
        dtype = torch.float32
    return tuple(shape), dtype, device, requires_grad
