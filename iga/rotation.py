"""SO(3) on tensors: exp, log, quaternions, geodesic distance, Haar samples, Gram–Schmidt.

Convention: a rotation is [..., 3, 3] and maps local column vectors to global ones, x = R x_loc; quaternions are
w first and R(q) = R(−q); a rotation vector is axis times angle in radians.

Everything is elementwise arithmetic, so that TF32, autocast and BLAS cannot reach it; every dtype stays itself, and
float16 and bfloat16 are refused (frames promote them first, `promoted`). Gradients are finite everywhere, at the
identity and at rotations by π too: where a formula is 0/0 its limit takes over, and the unused branch gets an input at
which it is defined.

Sources: Rodrigues' formula by way of the unit quaternion; S. W. Shepperd, "Quaternion from rotation matrix",
J. Guidance and Control 1 (1978), 223 (the largest component is the pivot); K. Shoemake, "Uniform random rotations",
Graphics Gems III (1992) (a normalised Gaussian 4-vector is Haar uniform); N. Higham, "Computing the polar
decomposition", SIAM J. Sci. Stat. Comput. 7 (1986), 1160 (Newton's step, here without an inverse).
"""

import math
from typing import Any

import torch

from iga._arguments import GEOMETRY_DTYPES, check_dense, holds
from iga._typing import Bool, Float, Tensor

__all__ = [
    "check_alike",
    "check_geometry",
    "compose",
    "converted",
    "cross",
    "exp",
    "from_quaternion",
    "from_vector_part",
    "geodesic_distance",
    "gram_schmidt",
    "log",
    "multiply",
    "orthonormalised",
    "points",
    "promoted",
    "random",
    "rotate",
    "rotate_inverse",
    "to_quaternion",
    "transpose",
]


def check_geometry(name: str, x: Tensor, *trailing: int) -> None:
    """Raises ValueError unless `x` is a dense tensor of float32 or float64 whose last dimensions are `trailing`."""
    if isinstance(x, Tensor) and x.dtype not in GEOMETRY_DTYPES:
        raise ValueError(
            f"{name} must be float32 or float64, got {x.dtype}: geometry needs at least float32; "
            "pass it through .float() (or .double()) first"
        )
    check_dense(name, x, GEOMETRY_DTYPES)
    if x.shape[x.ndim - len(trailing) :] != trailing or x.ndim < len(trailing):
        raise ValueError(
            f"{name} must be [..., {', '.join(map(str, trailing))}], got {list(x.shape)}; put space in the last "
            "dimensions (movedim, unflatten)"
        )


def check_alike(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """Raises ValueError unless both tensors have one dtype and one device."""
    if x.dtype != other.dtype or x.device != other.device:
        raise ValueError(
            f"{name} must have the dtype and device of {other_name}, {other.dtype} on {other.device}, got {x.dtype} on "
            f"{x.device}; convert one with .to()"
        )


def promoted(x: Tensor, *beside: Tensor) -> Tensor:
    """`x`, but float16 and bfloat16 as float32, or as the dtype of what stands `beside` it where that is wider."""
    if not isinstance(x, Tensor) or x.dtype not in (torch.float16, torch.bfloat16):
        return x
    dtype = torch.float32
    for other in beside:
        dtype = torch.promote_types(dtype, other.dtype) if isinstance(other, Tensor) else dtype
    return x.to(dtype)


def points(name: str, x: Tensor, rot: Tensor) -> Float[Tensor, "... 3"]:
    """Points as they meet rotations: float16 and bfloat16 promoted, anything else that does not fit a ValueError."""
    x = promoted(x, rot)
    check_geometry(name, x, 3)
    return x


def converted(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """x.to(…), but a ValueError instead of a tensor whose dtype is too short for geometry."""
    x = x.to(*args, **kwargs)
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"dtype must be float32 or float64, got {x.dtype}: geometry stays float32 whatever stands beside it; move "
            "a rigid object to a device with .to(device) alone, or convert with .float() or .double()"
        )
    return x


def multiply(a: Float[Tensor, "... 3 3"], b: Float[Tensor, "... 3 3"]) -> Float[Tensor, "... 3 3"]:
    """The matrix product a b by elementwise arithmetic; leading dimensions broadcast."""
    check_geometry("a", a, 3, 3)
    check_geometry("b", b, 3, 3)
    return (
        a[..., :, 0, None] * b[..., None, 0, :]
        + a[..., :, 1, None] * b[..., None, 1, :]
        + a[..., :, 2, None] * b[..., None, 2, :]
    )


def compose(a: Float[Tensor, "... 3 3"], b: Float[Tensor, "... 3 3"]) -> Float[Tensor, "... 3 3"]:
    """The rotation a b: `multiply`, then `orthonormalised`, so that products of products do not drift off SO(3)."""
    return orthonormalised(multiply(a, b))


def orthonormalised(rot: Float[Tensor, "... 3 3"]) -> Float[Tensor, "... 3 3"]:
    """The rotation nearest to each matrix, for float32 matrices that have drifted off SO(3) by rounding.

        R + R (I − RᵀR)/2        one Newton step, in float64, rounded once

    ‖R − rotation‖_F is at most √3·2⁻²⁴ after it, beside 1.5 times the square of the drift. What is that near already
    keeps its bits; so does what is no rotation by more than 2⁻¹⁰, which no rounding explains, and float64, for which
    there is nothing wider (as on devices without float64). The correction carries no gradient: along SO(3) it moves
    nothing, and the derivative across has no meaning. Source: docs/theory.md, 6.7.
    """
    check_geometry("rot", rot, 3, 3)
    if rot.dtype != torch.float32 or rot.device.type == "mps":
        return rot
    with torch.no_grad():
        wide = rot.detach().double()
        excess = (wide[..., :, :, None] * wide[..., :, None, :]).sum(-3) - torch.eye(
            3, dtype=wide.dtype, device=rot.device
        )
        off_sq = 0.25 * excess.square().sum((-2, -1), keepdim=True)
        drifted = (off_sq > 3.0 * 2.0**-48) & (off_sq < 2.0**-20)
        nearest = (wide - 0.5 * multiply(wide, excess)).to(rot.dtype)
        correction = torch.where(drifted, nearest - rot.detach(), 0.0)
    return rot + correction


def transpose(a: Float[Tensor, "... 3 3"]) -> Float[Tensor, "... 3 3"]:
    """aᵀ, the inverse of a rotation; a view."""
    check_geometry("a", a, 3, 3)
    return a.transpose(-1, -2)


def rotate(rot: Float[Tensor, "... 3 3"], x: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
    """R x: local to global; the leading dimensions of `rot` and `x` broadcast."""
    check_geometry("rot", rot, 3, 3)
    check_geometry("x", x, 3)
    return rot[..., 0] * x[..., 0, None] + rot[..., 1] * x[..., 1, None] + rot[..., 2] * x[..., 2, None]


def rotate_inverse(rot: Float[Tensor, "... 3 3"], x: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
    """Rᵀ x: global to local; the leading dimensions of `rot` and `x` broadcast."""
    check_geometry("rot", rot, 3, 3)
    check_geometry("x", x, 3)
    return rot[..., 0, :] * x[..., 0, None] + rot[..., 1, :] * x[..., 1, None] + rot[..., 2, :] * x[..., 2, None]


def exp(rotvec: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation about `rotvec` by |rotvec| radians.

    q = (cos θ/2, sin(θ/2)/θ · rotvec), then R(q): orthonormal to a few eps at every angle. The error grows as θ·eps,
    which is the rounding of the angle itself.
    """
    check_geometry("rotvec", rotvec, 3)
    theta_sq = rotvec.square().sum(dim=-1, keepdim=True)
    # Under √eps the quaternion is (1, v/2) up to its length: tan θ/2 = θ/2 but for θ²/12 of it.
    small = theta_sq < torch.finfo(rotvec.dtype).eps
    half = torch.where(small, torch.ones_like(theta_sq), theta_sq).sqrt() / 2
    w = torch.where(small, 1.0, half.cos())
    factor = torch.where(small, 0.5, half.sin() / (2 * half))
    return _quaternion_matrix(torch.cat([w, factor * rotvec], dim=-1))


def log(rot: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """The rotation vector of `rot`, |log R| ≤ π; at angle π one of the two axes.

    With q = (w, v), w ≥ 0 and s = |v|:  log R = (2 atan2(s, w)/s) v. Accurate to a few eps at every angle, near π too,
    where the trace has lost half of its digits. Across π the function jumps from an axis to its opposite; the
    gradient there is that of one side.
    """
    quaternion = to_quaternion(rot)
    w, v = quaternion[..., :1], quaternion[..., 1:]
    s_sq = v.square().sum(dim=-1, keepdim=True)
    small = s_sq < torch.finfo(rot.dtype).eps
    s = torch.where(small, torch.ones_like(s_sq), s_sq).sqrt()
    # Under √eps the factor is 2 but for s²/6 of it.
    return torch.where(small, 2.0, 2 * torch.atan2(s, w) / s) * v


def from_quaternion(quaternion: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation of a quaternion (w first) of any length: it is normalised, and q and −q give the same.

    Raises ValueError if a quaternion is zero or not finite: it has no rotation. Where values are not read (on a GPU, in
    a traced call) its matrix is NaN.
    """
    check_geometry("quaternion", quaternion, 4)
    size = quaternion.detach().abs().amax(dim=-1, keepdim=True)
    if not holds(_is_length, size):
        bad = ~_is_length(size)
        raise ValueError(
            f"quaternion must be finite and not zero, got {int(bad.sum())} of {bad.numel()} that are not; a missing "
            "rotation is (1, 0, 0, 0), with the residue masked out"
        )
    # R does not depend on the length, so the scale carries no gradient; it keeps the squares in range.
    return _quaternion_matrix(quaternion / size)


def _is_length(x: Tensor) -> Tensor:
    return (x > 0) & (x < math.inf)


def from_vector_part(xyz: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation of the quaternion (1, x, y, z), normalised: about xyz, by 2 atan |xyz| radians.

    Source: AlphaFold 2, supplementary algorithm 23. Never zero, so no value is looked at, which would stall a GPU.
    """
    quaternion = torch.cat([torch.ones_like(xyz[..., :1]), xyz], dim=-1)
    return _quaternion_matrix(quaternion / quaternion.detach().abs().amax(dim=-1, keepdim=True))


def to_quaternion(rot: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """The unit quaternion of `rot`, w first and w ≥ 0.

    4 q qᵀ is linear in R; its row with the largest diagonal entry, normalised, is ±q. That entry is at least 1, so
    nothing is divided by a small number: accurate to a few eps and with finite gradients at every rotation.
    """
    q = _unsigned_quaternion(rot)
    return torch.where(q[..., :1] < 0, -q, q)


def geodesic_distance(a: Float[Tensor, "... 3 3"], b: Float[Tensor, "... 3 3"]) -> Float[Tensor, "..."]:
    """The angle between two rotations, radians in [0, π]; leading dimensions broadcast.

    θ = 2 atan2(s, w), with s = sin θ/2 = ‖a − b‖_F / √8 from the chord, whose differences are exact where a ≈ b, and
    w = cos θ/2 from the quaternion of aᵀb, which keeps its digits near π. Symmetric in a and b to rounding, 0 if a = b.
    The gradient is 0 at angle 0 and at angle π, the two kinks, where it is one of the subgradients.
    """
    check_geometry("a", a, 3, 3)
    check_geometry("b", b, 3, 3)
    w = _unsigned_quaternion(multiply(transpose(a), b))[..., 0].abs()
    chord = (a - b).flatten(-2)
    size = chord.detach().abs().amax(dim=-1, keepdim=True)
    same = size == 0
    size = torch.where(same, torch.ones_like(size), size)
    norm_sq = (chord / size).square().sum(dim=-1, keepdim=True)
    norm = size * torch.where(same, torch.ones_like(norm_sq), norm_sq).sqrt()
    s = torch.where(same, torch.zeros_like(norm), norm)[..., 0] / math.sqrt(8)
    return 2 * torch.atan2(s, w)


def random(
    *shape: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Float[Tensor, "*shape 3 3"]:
    """Haar-uniform rotations [*shape, 3, 3]. Without `device`, the generator's, else torch's default; ValueError for a
    dtype that is neither float32 nor float64."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if dtype not in GEOMETRY_DTYPES:
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}: geometry needs at least float32")
    if device is None and generator is not None:
        device = generator.device
    gaussian = torch.randn(*shape, 4, generator=generator, dtype=dtype, device=device)
    return from_quaternion(gaussian)


def gram_schmidt(
    x_axis: Float[Tensor, "... 3"], xy_plane: Float[Tensor, "... 3"]
) -> tuple[Float[Tensor, "... 3 3"], Bool[Tensor, "..."]]:
    """(rot, valid): the columns e1 along `x_axis`, e2 in the half-plane of `xy_plane`, e3 = e1 × e2.

        e1 = x/|x|        e2 = y − (y·e1) e1, normalised, twice        e3 = e1 × e2

    The second pass makes the columns orthonormal to a few eps however small the angle; one pass leaves eps/sin.
    `valid` is False, and `rot` the identity with zero gradients, where the two vectors do not fix a frame: a
    coordinate is not finite, a vector is zero (below tiny/eps, where gradients overflow), or the sine of their angle
    is under √eps, where rounding of the inputs has taken more than half of e2's digits.
    Source: AlphaFold 2, supplementary algorithm 21.
    """
    check_geometry("x_axis", x_axis, 3)
    check_geometry("xy_plane", xy_plane, 3)
    x, y = torch.broadcast_tensors(x_axis, xy_plane)
    valid = _spans_a_plane(x.detach(), y.detach())
    axes = torch.eye(3, dtype=x.dtype, device=x.device)
    x = torch.where(valid[..., None], x, axes[0])
    y = torch.where(valid[..., None], y, axes[1])
    e1 = _unit(x)
    e2 = _unit(y)
    for _ in range(2):
        e2 = _unit(e2 - (e2 * e1).sum(dim=-1, keepdim=True) * e1)
    return orthonormalised(torch.stack([e1, e2, cross(e1, e2)], dim=-1)), valid


def _spans_a_plane(x: Tensor, y: Tensor) -> Tensor:
    info = torch.finfo(x.dtype)
    sizes = torch.stack([x, y], dim=-2).abs().amax(dim=-1)
    usable = ((sizes >= info.tiny / info.eps) & (sizes < math.inf)).all(dim=-1)
    one = torch.ones_like(x)
    x, y = torch.where(usable[..., None], x, one), torch.where(usable[..., None], y, one)
    sine_sq = cross(_unit(x), _unit(y)).square().sum(dim=-1)
    return usable & (sine_sq >= info.eps)


def _unit(x: Tensor) -> Tensor:
    """x/|x| for x ≠ 0 of any size: the scale drops out, so it carries no gradient."""
    x = x / x.detach().abs().amax(dim=-1, keepdim=True)
    return x / x.square().sum(dim=-1, keepdim=True).sqrt()


def cross(a: Float[Tensor, "... 3"], b: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
    """a × b by elementwise arithmetic."""
    check_geometry("a", a, 3)
    check_geometry("b", b, 3)
    a0, a1, a2 = a.unbind(-1)
    b0, b1, b2 = b.unbind(-1)
    return torch.stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], dim=-1)


def _quaternion_matrix(quaternion: Tensor) -> Tensor:
    """R(q) for q of moderate length: I + (2/|q|²) (w [v]ₓ + [v]ₓ²), orthonormalised."""
    w, x, y, z = quaternion.unbind(-1)
    c = 2 / quaternion.square().sum(dim=-1)
    rows = [
        [1 - c * (y * y + z * z), c * (x * y - w * z), c * (x * z + w * y)],
        [c * (x * y + w * z), 1 - c * (x * x + z * z), c * (y * z - w * x)],
        [c * (x * z - w * y), c * (y * z + w * x), 1 - c * (x * x + y * y)],
    ]
    return orthonormalised(torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2))


def _unsigned_quaternion(rot: Tensor) -> Tensor:
    """±q, without a rule for the sign."""
    check_geometry("rot", rot, 3, 3)
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in rot.unbind(-2))
    outer = [  # 4 q qᵀ
        [1 + xx + yy + zz, zy - yz, xz - zx, yx - xy],
        [zy - yz, 1 + xx - yy - zz, yx + xy, xz + zx],
        [xz - zx, yx + xy, 1 - xx + yy - zz, zy + yz],
        [yx - xy, xz + zx, zy + yz, 1 - xx - yy + zz],
    ]
    rows = torch.stack([torch.stack(row, dim=-1) for row in outer], dim=-2)
    pivot = rows.detach().diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    row = torch.take_along_dim(rows, pivot[..., None, None], dim=-2)[..., 0, :]
    return row / row.square().sum(dim=-1, keepdim=True).sqrt()
