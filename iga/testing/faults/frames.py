"""Faults of rotations and frames, planted in a FrameLibrary by replacing one of its functions.

Each is written out here, apart from what it replaces, unless the fault is in how a right function is used.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from iga import rotation
from iga._typing import Tensor
from iga.frame import Frame
from iga.testing.faults.fault import Fault, powers
from iga.testing.library.frames import FrameLibrary

__all__ = ["FAULTS"]

LAWS, SIGN = ("frame_laws",), ("quaternion_sign",)
TENTHS = powers(0, -16)


def _fault(
    name: str,
    field: str,
    wrong: Callable[..., Any],
    expected: tuple[str, ...] = LAWS,
    *,
    size: float = 1.0,
    sizes: tuple[float, ...] = (),
) -> Fault:
    """`wrong(clean, size, *args)` takes the place of `field`; `clean` is the library without the fault."""

    def plant(clean: FrameLibrary, size: float) -> FrameLibrary:
        return replace(clean, **{field: lambda *args, **options: wrong(clean, size, *args, **options)})

    return Fault(name, "frames", plant, expected, size, sizes)


def _matrix(q: Tensor) -> Tensor:
    """R(q) for |q| = 1, and no rotation for another length."""
    w, x, y, z = q.unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _trace(rot: Tensor) -> Tensor:
    return rot.diagonal(dim1=-2, dim2=-1).sum(dim=-1)


def _skew_part(rot: Tensor) -> Tensor:
    """The vector of R − Rᵀ, 2 sin θ n."""
    (_, xy, xz), (yx, _, yz), (zx, zy, _) = (row.unbind(-1) for row in rot.unbind(-2))
    return torch.stack([zy - yz, xz - zx, yx - xy], dim=-1)


def _exp_with_sine(clean: FrameLibrary, size: float, v: Tensor) -> Tensor:
    """sin θ K + ((1 − size)(1 − cos θ) + size sin θ) K²."""
    theta = v.norm(dim=-1)[..., None, None]
    safe = torch.where(theta > 0, theta, 1.0)
    x, y, z = (v / safe[..., 0]).unbind(-1)
    zero = torch.zeros_like(x)
    k = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    return clean.exp(v) + size * (safe.sin() - 2 * (safe / 2).sin().square()) * rotation.multiply(k, k)


def _exp_with_a_detached_angle(clean: FrameLibrary, size: float, v: Tensor) -> Tensor:
    half = v.detach().square().sum(dim=-1, keepdim=True).sqrt() / 2
    factor = torch.where(half > 0, half.sin() / (2 * half), 0.5)
    return _matrix(torch.cat([half.cos(), factor * v], dim=-1))


def _exp_with_a_norm(clean: FrameLibrary, size: float, v: Tensor) -> Tensor:
    """The value is right; at v = 0 the unused branch of `where` is 0/0."""
    half = v.square().sum(dim=-1, keepdim=True).sqrt() / 2
    factor = torch.where(half > 0, half.sin() / (2 * half), 0.5)
    return _matrix(torch.cat([half.cos(), factor * v], dim=-1))


def _log_by_the_trace(clean: FrameLibrary, size: float, rot: Tensor) -> Tensor:
    """θ/(2 sin θ) times the vector of R − Rᵀ, θ = acos((tr R − 1)/2): both lose their digits near π."""
    theta = ((_trace(rot) - 1) / 2).clamp(-1, 1).acos()
    factor = torch.where(theta.sin() > 0, theta / (2 * theta.sin()), 0.5)
    return factor[..., None] * _skew_part(rot)


def _quaternion_by_the_trace(clean: FrameLibrary, size: float, rot: Tensor) -> Tensor:
    """w = √(1 + tr R)/2, the vector over 4w."""
    w = (1 + _trace(rot)).clamp(min=torch.finfo(rot.dtype).tiny).sqrt() / 2
    return torch.cat([w[..., None], _skew_part(rot) / (4 * w[..., None])], dim=-1)


def _quaternion_by_roots(clean: FrameLibrary, size: float, rot: Tensor) -> Tensor:
    """The clean value, with the gradient of √(1 + …)/2 and a copied sign: infinite where a root is 0."""
    value = clean.to_quaternion(rot)
    xx, yy, zz = rot.diagonal(dim1=-2, dim2=-1).unbind(-1)
    squares = torch.stack([1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz], dim=-1)
    roots = squares.clamp(min=0).sqrt() / 2
    return torch.copysign(roots, value.detach()) + (value - roots.copysign(value)).detach()


def _with_random_sign(clean: FrameLibrary, size: float, rot: Tensor) -> Tensor:
    """The pivot component is positive, whatever that makes of w."""
    q = clean.to_quaternion(rot)
    pivot = torch.take_along_dim(q, q.detach().abs().argmax(dim=-1, keepdim=True), dim=-1)
    return torch.where(pivot < 0, -q, q)


def _sign_with_a_seam(clean: FrameLibrary, size: float, q: Tensor) -> Tensor:
    """q with w < 0 gets its w turned, not the whole: right for w ≥ 0 alone."""
    return clean.from_quaternion(torch.cat([q[..., :1].abs(), q[..., 1:]], dim=-1))


def _one_pass(clean: FrameLibrary, size: float, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """e2 of one pass; where the size is below 1, only that share of what the second pass would have removed."""
    rot, valid = clean.gram_schmidt(x, y)
    e1 = x / x.norm(dim=-1, keepdim=True)
    unit = y / y.norm(dim=-1, keepdim=True)
    once = unit - (unit * e1).sum(dim=-1, keepdim=True) * e1
    once = once / once.norm(dim=-1, keepdim=True)
    e2 = rot[..., 1] + size * (once - rot[..., 1])
    return torch.stack([rot[..., 0], e2, rotation.cross(rot[..., 0], e2)], dim=-1), valid


def _distance_by_the_trace(clean: FrameLibrary, size: float, a: Tensor, b: Tensor) -> Tensor:
    return (((a * b).sum(dim=(-1, -2)) - 1) / 2).clamp(-1, 1).acos()


def _distance_by_the_chord(clean: FrameLibrary, size: float, a: Tensor, b: Tensor) -> Tensor:
    """‖a − b‖/√2 in place of the angle: equal to third order, so that small turns do not tell."""
    chord = (a - b).square().sum(dim=(-1, -2))
    return torch.where(chord > 0, torch.where(chord > 0, chord, 1.0).sqrt(), 0.0) / math.sqrt(2)


def _uniform_angles(
    clean: FrameLibrary, size: float, *shape: int, generator: torch.Generator, dtype: torch.dtype
) -> Tensor:
    """Axis and angle uniform; Haar has the density 1 − cos θ."""
    axis = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    angle = torch.rand(*shape, 1, generator=generator, dtype=torch.float64) * math.pi
    return clean.exp(angle * axis / axis.norm(dim=-1, keepdim=True)).to(dtype)


def _short_mantissa(x: Tensor, size: float) -> Tensor:
    """x rounded to steps of `size` of its leading digit's place; 2⁻¹⁰ is what TF32 keeps."""
    fraction, exponent = torch.frexp(x)
    return torch.ldexp((fraction / size).round() * size, exponent)


def _left_handed(clean: FrameLibrary, size: float, *atoms: Tensor, **options: Any) -> Frame:
    frame = clean.from_backbone(*atoms, **options)
    return Frame(torch.cat([frame.rot[..., :2], -frame.rot[..., 2:]], dim=-1), frame.trans)


def _by_single(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda clean, size, *args: function(clean, *(x.float() for x in args)).to(args[0].dtype)


FAULTS: tuple[Fault, ...] = (
    _fault(
        "rotations transposed in apply", "apply", lambda clean, size, f, x: clean.rotate_inverse(f.rot, x) + f.trans
    ),
    _fault("rotate acts with the transpose", "rotate", lambda clean, size, rot, x: clean.rotate_inverse(rot, x)),
    _fault("backbone frames are left-handed", "from_backbone", _left_handed),
    _fault(
        "N and C swapped in from_backbone",
        "from_backbone",
        lambda clean, size, n, ca, c, **options: clean.from_backbone(c, ca, n, **options),
    ),
    _fault(
        "OpenFold's convention whatever was asked for",
        "from_backbone",
        lambda clean, size, n, ca, c, unit="nm", **_: clean.from_backbone(n, ca, c, convention="openfold", unit=unit),
    ),
    _fault(
        "inverse without the rotation of its translation",
        "invert",
        lambda clean, size, f: Frame(rotation.transpose(f.rot), -f.trans),
    ),
    _fault("compose in the wrong order", "compose", lambda clean, size, a, b: clean.compose(b, a)),
    _fault(
        "translations added in compose, not rotated",
        "compose",
        lambda clean, size, a, b: Frame(clean.multiply(a.rot, b.rot), a.trans + b.trans),
    ),
    _fault(
        "invert_apply rotates before it subtracts",
        "invert_apply",
        lambda clean, size, f, x: clean.rotate_inverse(f.rot, x) - clean.rotate_inverse(f.rot, f.trans),
    ),
    _fault("exp with sin θ for 1 − cos θ", "exp", _exp_with_sine, sizes=TENTHS),
    _fault("exp turns too far", "exp", lambda clean, size, v: clean.exp(v * (1 + size)), size=1e-3, sizes=TENTHS),
    _fault("exp holds its angle constant in the gradient", "exp", _exp_with_a_detached_angle),
    _fault("gradient of exp is NaN at the identity", "exp", _exp_with_a_norm),
    _fault("exp computed in float32 for float64", "exp", _by_single(lambda clean, v: clean.exp(v))),
    _fault("log by the trace, wrong near π", "log", _log_by_the_trace),
    _fault("geodesic distance by acos of the trace, wrong near 0", "geodesic_distance", _distance_by_the_trace),
    _fault("geodesic distance is the chord", "geodesic_distance", _distance_by_the_chord),
    _fault("Gram–Schmidt in one pass", "gram_schmidt", _one_pass, sizes=TENTHS[:12]),
    _fault("random turns by angles uniform in (0, π)", "random", _uniform_angles),
    _fault(
        "products of rotations with a short mantissa",
        "multiply",
        lambda clean, size, a, b: clean.multiply(_short_mantissa(a, size), _short_mantissa(b, size)),
        size=2.0**-10,
        sizes=tuple(2.0**-k for k in range(4, 54, 2)),
    ),
    _fault(
        "from_7 reads the quaternion w last",
        "from_7",
        lambda clean, size, v: clean.from_7(torch.cat([v[..., 3:4], v[..., :3], v[..., 4:]], dim=-1)),
    ),
    _fault(
        "quaternion not normalised in from_quaternion",
        "from_quaternion",
        lambda clean, size, q: _matrix(q),
        LAWS + SIGN,
    ),
    _fault("from_quaternion takes |w| for w", "from_quaternion", _sign_with_a_seam, SIGN),
    _fault("to_quaternion returns w < 0", "to_quaternion", _with_random_sign, SIGN),
    _fault("to_quaternion by the trace, wrong near π", "to_quaternion", _quaternion_by_the_trace, SIGN),
    _fault(
        "gradient of to_quaternion not finite at the identity and at π", "to_quaternion", _quaternion_by_roots, SIGN
    ),
    _fault(
        "to_quaternion passes no gradient",
        "to_quaternion",
        lambda clean, size, rot: clean.to_quaternion(rot.detach()),
        SIGN,
    ),
)
