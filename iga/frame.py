"""Frames: rigid motions x = R x_loc + t from a residue's own axes to the global ones.

Lengths are nm; functions that touch the outside take `unit="nm"` or `"angstrom"`. float32 and float64 stay what they
are; float16 and bfloat16 become float32. Two conventions for backbone frames are in use, both with CA as origin and
both with N, CA, C in the xy-plane and the same e3 along (C − CA) × (N − CA):

    alphafold   e1 along C − CA, N at y > 0       AlphaFold 2, supplementary algorithm 21
    openfold    e1 along CA − N, C at y > 0       OpenFold's from_3_points(p_neg_x_axis=N, origin=CA, p_xy_plane=C)

They differ by a turn about e3: with τ the angle N–CA–C (about 111°),  R_openfold = R_alphafold · R_z(τ − π).
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, overload

import torch

from iga import rotation
from iga._arguments import holds
from iga._backbone import check_atoms, check_trans_unit, check_unit, points_to_frame, refuse_degenerate, units_per_nm
from iga._pytree import as_pytree
from iga._rigid_verbs import RigidVerbs, identity_shape
from iga._rotations import Rotations
from iga._typing import Float, Tensor

__all__ = ["Frame", "Rotations", "check_trans_unit", "check_unit", "rigid_to_frame"]


@dataclass(frozen=True, eq=False)
class Frame(RigidVerbs):
    """Rigid motions x = R x_loc + t: `rot` [..., 3, 3] (det +1), `trans` [..., 3] in nm.

    `rot` may be given as an object with get_rot_mats() (OpenFold's Rotation); float16 and bfloat16 are promoted. The
    verbs of OpenFold's Rigid are those of `iga._rigid_verbs`, and docs/swap.md lists them.
    Shapes, dtypes and devices are checked at construction (ValueError), values are not: that would stall a GPU.
    """

    rot: Float[Tensor, "*b 3 3"]
    trans: Float[Tensor, "*b 3"]

    def __post_init__(self) -> None:
        rot: Any = self.rot
        rot = rot.get_rot_mats() if hasattr(rot, "get_rot_mats") else rot
        if (promoted := rotation.promoted(rot, self.trans)) is not self.rot:
            object.__setattr__(self, "rot", promoted)
        if (promoted := rotation.promoted(self.trans, self.rot)) is not self.trans:
            object.__setattr__(self, "trans", promoted)
        rotation.check_geometry("rot", self.rot, 3, 3)
        rotation.check_geometry("trans", self.trans, 3)
        if self.rot.shape[:-2] != self.trans.shape[:-1]:
            raise ValueError(
                f"rot [..., 3, 3] and trans [..., 3] must have the same leading dimensions, got {list(self.rot.shape)} "
                f"and {list(self.trans.shape)}; expand one to the other"
            )
        rotation.check_alike("trans", self.trans, "rot", self.rot)

    def _tensors(self) -> tuple[tuple[Tensor, int], ...]:
        return (self.rot, 2), (self.trans, 1)

    @classmethod
    def _made(cls, *tensors: Tensor) -> "Frame":
        return Frame(*tensors)

    @classmethod
    def identity(
        cls,
        *shape: Any,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        requires_grad: bool = False,
        fmt: str = "rot_mat",
    ) -> "Frame":
        """Frames [*shape] that change nothing; OpenFold's `identity((2, 5), dtype, device, requires_grad, fmt)` too."""
        sizes, dtype, device, requires_grad = identity_shape(shape, dtype, device, requires_grad, fmt)
        rot = torch.eye(3, dtype=dtype, device=device).repeat(*sizes, 1, 1)
        trans = torch.zeros(*sizes, 3, dtype=dtype, device=device)
        return cls(rot.requires_grad_(requires_grad), trans.requires_grad_(requires_grad))

    @classmethod
    def random(
        cls,
        *shape: int,
        generator: torch.Generator | None = None,
        extent_nm: float = 4.0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> "Frame":
        """Frames [*shape]: Haar-uniform rotations, origins uniform in a cube of edge `extent_nm` about 0."""
        rot = rotation.random(*shape, generator=generator, dtype=dtype, device=device)
        uniform = torch.rand(*shape, 3, generator=generator, dtype=rot.dtype, device=rot.device)
        return cls(rot, (uniform - 0.5) * extent_nm)

    @overload
    @classmethod
    def from_backbone(
        cls,
        n: Tensor,
        ca: Tensor,
        c: Tensor,
        *,
        convention: str = ...,
        unit: str = ...,
        return_valid: Literal[False] = ...,
    ) -> "Frame": ...

    @overload
    @classmethod
    def from_backbone(
        cls, n: Tensor, ca: Tensor, c: Tensor, *, convention: str = ..., unit: str = ..., return_valid: Literal[True]
    ) -> "tuple[Frame, Tensor]": ...

    @classmethod
    def from_backbone(
        cls,
        n: Float[Tensor, "*b 3"],
        ca: Float[Tensor, "*b 3"],
        c: Float[Tensor, "*b 3"],
        *,
        convention: str = "alphafold",
        unit: str = "nm",
        return_valid: bool = False,
    ) -> "Frame | tuple[Frame, Tensor]":
        """Backbone frames of atoms N, CA, C, each [..., residues, 3]; the convention is the module's.

        A residue is degenerate where an atom is not finite, where atoms coincide or lie on a line (the sine of
        N–CA–C under √eps of the dtype; real ones are near 0.93), or where the triangle is no larger than the rounding
        of its coordinates. Such residues raise a ValueError with their indices; with `return_valid` the result is
        (Frame, valid [...]) and they have the identity rotation and a zero gradient, and the origin at CA (at 0 where
        CA is not finite). Coordinates in the wrong unit raise a ValueError, see `check_unit`.
        """
        if convention not in ("alphafold", "openfold"):
            raise ValueError(f'convention must be "alphafold" or "openfold", got {convention!r}')
        check_unit(n, ca, c, unit)
        edges = (c - ca, n - ca) if convention == "alphafold" else (ca - n, c - ca)
        rot, trans, valid = points_to_frame(ca, *edges, (n, ca, c))
        frame = cls(rot, trans / units_per_nm(unit))
        if return_valid:
            return frame, valid
        refuse_degenerate(valid, "N, CA, C", "pass return_valid=True and mask those residues out")
        return frame

    @classmethod
    def from_3_points(
        cls,
        p_neg_x_axis: Float[Tensor, "*b 3"],
        origin: Float[Tensor, "*b 3"],
        p_xy_plane: Float[Tensor, "*b 3"],
        eps: float = 0.0,
    ) -> "Frame":
        """OpenFold's constructor: e1 from `p_neg_x_axis` to `origin`, `p_xy_plane` in the plane at y > 0, all in nm.

        OpenFold's eps, which keeps a length of 0 from dividing, is taken and not needed: such points are refused.
        Raises ValueError with the indices of points that coincide, lie on a line or are not finite.
        """
        corners = (p_neg_x_axis, origin, p_xy_plane)
        check_atoms(*corners)
        rot, trans, valid = points_to_frame(origin, origin - p_neg_x_axis, p_xy_plane - origin, corners)
        refuse_degenerate(valid, "the three points", "mask them out with from_backbone(…, return_valid=True)")
        return cls(rot, trans)

    def compose(self, other: Any) -> "Frame":
        """self ∘ other: first `other` (any rigid object), then `self`; R = R₁R₂, t = R₁t₂ + t₁. Leading dimensions
        broadcast. In float32 R is kept a rotation to its rounding (`iga.rotation.compose`), however long the chain."""
        other = rigid_to_frame(other)
        rot = rotation.compose(self.rot, other.rot)
        return Frame(rot.contiguous(), self.apply(other.trans))

    def invert(self) -> "Frame":
        """The inverse motion: Rᵀ, −Rᵀt."""
        shift = -rotation.rotate_inverse(self.rot, self.trans)
        return Frame(rotation.transpose(self.rot).contiguous(), shift.contiguous())

    def apply(self, x: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
        """R x + t: local points to global, nm; leading dimensions broadcast (frame[..., None] for points).

        float16 and bfloat16 points, as autocast makes them, become the frame's dtype, as with OpenFold's Rigid.
        """
        return (rotation.rotate(self.rot, rotation.points("x", x, self.rot)) + self.trans).contiguous()

    def invert_apply(self, x: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
        """Rᵀ(x − t): global points to local, nm; broadcast and promoted as `apply` does. The difference comes first."""
        return rotation.rotate_inverse(self.rot, rotation.points("x", x, self.rot) - self.trans).contiguous()

    def scaled(self, c: float) -> "Frame":
        """Lengths times c > 0 (a change of unit): translations scale, rotations stay."""
        return Frame(self.rot, self.trans * positive("c", c))

    def to_4x4(self, *, unit: str = "nm") -> Float[Tensor, "*b 4 4"]:
        """Homogeneous matrices [..., 4, 4]: R and t in the top rows, (0, 0, 0, 1) below."""
        top = torch.cat([self.rot, (self.trans * units_per_nm(unit))[..., None]], dim=-1)
        bottom = torch.eye(4, dtype=top.dtype, device=top.device)[3:].expand(*self.shape, 1, 4)
        return torch.cat([top, bottom], dim=-2)

    @classmethod
    def from_4x4(cls, matrix: Float[Tensor, "*b 4 4"], *, unit: str = "nm") -> "Frame":
        """From homogeneous matrices [..., 4, 4] for column vectors; ValueError if the last row isn't (0, 0, 0, 1) (not
        looked at on a GPU, which would stall)."""
        matrix = rotation.promoted(matrix)
        rotation.check_geometry("matrix", matrix, 4, 4)
        if not holds(lambda row: row == row.new_tensor([0.0, 0.0, 0.0, 1.0]), matrix[..., 3, :]):
            raise ValueError(
                "matrix must have the last row (0, 0, 0, 1): columns are vectors here; a matrix for row vectors must "
                "be transposed first (matrix.mT)"
            )
        return cls(matrix[..., :3, :3].contiguous(), (matrix[..., :3, 3] / units_per_nm(unit)).contiguous())

    def to_7(self, *, unit: str = "nm") -> Float[Tensor, "*b 7"]:
        """[..., 7]: unit quaternion (w first, w ≥ 0), then the translation."""
        return torch.cat([rotation.to_quaternion(self.rot), self.trans * units_per_nm(unit)], dim=-1)

    @classmethod
    def from_7(cls, vector: Float[Tensor, "*b 7"], *, unit: str = "nm") -> "Frame":
        """From [..., 7]: quaternion (w first, normalised here; zero raises ValueError), then the translation."""
        vector = rotation.promoted(vector)
        rotation.check_geometry("vector", vector, 7)
        rot, trans = rotation.from_quaternion(vector[..., :4]), vector[..., 4:] / units_per_nm(unit)
        return cls(rot.contiguous(), trans.contiguous())

    def scale_translation(self, c: float) -> "Frame":
        """OpenFold's name for `scaled`."""
        return self.scaled(c)

    def to_tensor_4x4(self) -> Float[Tensor, "*b 4 4"]:
        """OpenFold's name for `to_4x4`, nm."""
        return self.to_4x4()

    def to_tensor_7(self) -> Float[Tensor, "*b 7"]:
        """OpenFold's name for `to_7`, nm."""
        return self.to_7()

    @classmethod
    def from_tensor_4x4(cls, matrix: Float[Tensor, "*b 4 4"]) -> "Frame":
        """OpenFold's name for `from_4x4`, nm. As in Rigid, the corner that should be 1 isn't read (OpenFold's own
        tables have zeros there), and zeros stay zeros: absent groups, padding."""
        rotation.check_geometry("matrix", matrix := rotation.promoted(matrix), 4, 4)
        bottom = torch.cat([matrix[..., 3:, :3], torch.ones_like(matrix[..., 3:, 3:])], dim=-1)
        return cls.from_4x4(torch.cat([matrix[..., :3, :], bottom], dim=-2))

    @classmethod
    def from_tensor_7(cls, vector: Float[Tensor, "*b 7"], normalize_quats: bool = True) -> "Frame":
        """OpenFold's name for `from_7`, nm; zeros (padding) give zeros, as in Rigid, and any other quaternion is
        normalised whatever `normalize_quats` says."""
        rotation.check_geometry("vector", vector := rotation.promoted(vector), 7)
        present = (vector != 0).any(dim=-1)
        return cls.from_7(torch.where(present[..., None], vector, torch.eye(7)[0].to(vector))) * present


as_pytree(Frame)


def rigid_to_frame(r: Any) -> Frame:
    """The frame of a rigid object, nm.

    A Frame is returned as it is, an object whose `frame` is one (GaussianRigid) gives that, and any object with
    get_rots().get_rot_mats() [..., 3, 3] and get_trans() [..., 3] (OpenFold's Rigid) is read by those verbs; one with
    `rotation` (xx, xy, … zz) and `translation` (x, y, z) (Rigid3Array) by its components. float16 and bfloat16 become
    float32. Anything else raises TypeError.
    """
    frame: Any = r if isinstance(r, Frame) else getattr(r, "frame", None)
    if isinstance(frame, Frame):
        # What casts every tensor of a call (a pytree does not pass the constructor) may have shortened these too.
        return frame if frame.dtype in (torch.float32, torch.float64) else Frame(frame.rot, frame.trans)
    if hasattr(r, "get_rots") and hasattr(r, "get_trans"):
        return Frame(r.get_rots().get_rot_mats(), r.get_trans())
    turn, shift = getattr(r, "rotation", None), getattr(r, "translation", None)
    if hasattr(turn, "xx") and hasattr(shift, "x"):
        rows = [torch.stack([getattr(turn, i + j) for j in "xyz"], dim=-1) for i in "xyz"]
        return Frame(torch.stack(rows, dim=-2), torch.stack([getattr(shift, i) for i in "xyz"], dim=-1))
    raise TypeError(
        "r must be a Frame, a GaussianRigid, or a rigid object with get_rots().get_rot_mats() and get_trans(), got "
        f"{type(r).__name__}; build one with Frame(rot, trans), Frame.from_4x4 or Frame.from_7"
    )


def positive(name: str, c: float) -> float:
    """`c`, or ValueError unless it is a finite number > 0."""
    if not 0 < c < math.inf:
        raise ValueError(f"{name} must be a finite number > 0, got {c}")
    return c
