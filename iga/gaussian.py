"""GaussianRigid: one oriented ellipsoid per residue, and the push-forward of its perturbations.

    x = R x_loc + t          mean = R m + t          covariance = R diag(s²) Rᵀ          s = exp(log_scale)

m is the local mean (nm, in the residue's frame), s the standard deviation along each of the frame's axes (nm). The
layer moves and scales a Gaussian by bounded amounts u (in units of σ) and d, with the floor in both places:

    σ = floor(exp(log_scale + d))          m' = m + u ⊙ σ          docs/theory.md, section 1

Frames follow `iga.frame`: column vectors, nm, float32 or float64 (float16 and bfloat16 are promoted).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from iga import rotation
from iga._arguments import FEATURE_DTYPES, check_dense
from iga._pytree import as_pytree
from iga._rigid_verbs import RigidVerbs
from iga._typing import Float, Tensor
from iga.frame import Frame, positive, rigid_to_frame

__all__ = ["GaussianRigid", "floored_sigma"]


@dataclass(frozen=True, eq=False)
class GaussianRigid(RigidVerbs):
    """Frames [...] with `local_mean` [..., 3] (nm, in the frame) and `log_scale` [..., 3] (log of nm, frame's axes).

    The verbs of OpenFold's Rigid (`iga._rigid_verbs`; docs/swap.md lists them) carry the Gaussians along.
    Shapes, dtypes and devices are checked at construction (ValueError), values are not: that would stall a GPU.
    """

    frame: Frame
    local_mean: Float[Tensor, "*b 3"]
    log_scale: Float[Tensor, "*b 3"]

    def __post_init__(self) -> None:
        if not isinstance(self.frame, Frame):
            raise ValueError(f"frame must be an iga.Frame, got {type(self.frame).__name__}; pass rigid_to_frame(frame)")
        for name in ("local_mean", "log_scale"):
            given = getattr(self, name)
            if (x := rotation.promoted(given, self.frame.trans)) is not given:
                object.__setattr__(self, name, x)
            rotation.check_geometry(name, x, 3)
            if x.shape != self.frame.trans.shape:
                raise ValueError(
                    f"{name} must be {list(self.frame.trans.shape)}, one vector per frame, got {list(x.shape)}; "
                    "expand it, or index the frame"
                )
            rotation.check_alike(name, x, "frame", self.frame.trans)

    def _tensors(self) -> tuple[tuple[Tensor, int], ...]:
        return (self.rot, 2), (self.trans, 1), (self.local_mean, 1), (self.log_scale, 1)

    @classmethod
    def _made(cls, *tensors: Tensor) -> "GaussianRigid":
        rot, trans, local_mean, log_scale = tensors
        return GaussianRigid(Frame(rot, trans), local_mean, log_scale)

    @classmethod
    def around(
        cls, r: Any, local_mean: Tensor | None = None, log_scale: Tensor | None = None, *, sigma: float = 0.1
    ) -> "GaussianRigid":
        """The Gaussians of any rigid object's frames; absent, `local_mean` is 0 (CA) and every σ is `sigma` nm."""
        frame = rigid_to_frame(r)
        if local_mean is None:
            local_mean = torch.zeros_like(frame.trans)
        if log_scale is None:
            log_scale = torch.full_like(frame.trans, positive("sigma", sigma)).log()
        for name, x in (("local_mean", local_mean), ("log_scale", log_scale)):
            check_dense(name, x, FEATURE_DTYPES)  # what .to() would take: integers, the real part of complex numbers
        return cls(frame, local_mean.to(frame.dtype), log_scale.to(frame.dtype))

    @classmethod
    def identity(cls, *shape: Any, sigma: float = 0.1, **options: Any) -> "GaussianRigid":
        """`Frame.identity`, with `around`'s Gaussians."""
        return cls.around(Frame.identity(*shape, **options), sigma=sigma)

    @property
    def rot(self) -> Float[Tensor, "*b 3 3"]:
        """The frames' rotations."""
        return self.frame.rot

    @property
    def trans(self) -> Float[Tensor, "*b 3"]:
        """The frames' origins, nm."""
        return self.frame.trans

    @property
    def mean(self) -> Float[Tensor, "*b 3"]:
        """The global means R m + t, nm."""
        return self.frame.apply(self.local_mean)

    @property
    def sigma(self) -> Float[Tensor, "*b 3"]:
        """exp(log_scale): the standard deviation along each axis of the frame, nm; no floor."""
        return self.log_scale.exp()

    def covariance(self) -> Float[Tensor, "*b 3 3"]:
        """R diag(s²) Rᵀ in global axes, nm², symmetric to the last bit; formed as (R diag s)(R diag s)ᵀ."""
        factor = self.rot * self.sigma[..., None, :]
        return rotation.multiply(factor, rotation.transpose(factor))

    def perturbed(
        self,
        u: Float[Tensor, "..."],
        d: Float[Tensor, "..."],
        *,
        sigma_min: float = 0.03,
        sigma_max: float | None = None,
        floor: str = "hard",
    ) -> "GaussianRigid":
        """The Gaussians moved by u (in units of their new σ) and scaled by e^d, floor and ceiling as `floored_sigma`.

        `u` and `d`, already bounded, are [*residues, *points, 3]: the leading dimensions of `self`, then any others;
        so is the result, whose frames are views. σ here is that of the offset and that of the covariance; the result
        holds log σ, so its `sigma` meets the floor up to the rounding of log and exp (`floored_sigma` meets it
        exactly). Source: docs/theory.md, section 1.
        """
        for name, x in (("u", u), ("d", d)):
            rotation.check_geometry(name, x, 3)
            rotation.check_alike(name, x, "the Gaussians", self.trans)
            if x.shape[: len(self.shape)] != self.shape or x.ndim <= len(self.shape):
                residues = ", ".join(map(str, self.shape))
                raise ValueError(
                    f"{name} must be [{residues}, *points, 3], got {list(x.shape)}; the residues' dimensions come "
                    "first, movedim puts them there"
                )
        if u.shape != d.shape:
            raise ValueError(f"u and d must have one shape, got {list(u.shape)} and {list(d.shape)}; expand one")
        points = u.shape[len(self.shape) : -1]
        whole = self[(..., *(None,) * len(points))]
        sigma = floored_sigma(whole.log_scale + d, sigma_min=sigma_min, sigma_max=sigma_max, floor=floor)
        frame = Frame(whole.rot.expand(*u.shape, 3), whole.trans.expand(u.shape))
        return GaussianRigid(frame, whole.local_mean + u * sigma, sigma.log())

    def scaled(self, c: float) -> "GaussianRigid":
        """Lengths times c > 0 (a change of unit): translations, local means and scales."""
        positive("c", c)
        return GaussianRigid(self.frame.scaled(c), self.local_mean * c, self.log_scale + math.log(c))

    def invert(self) -> Frame:
        """The inverse of the frames; the Gaussians, which belong to the frames' own axes, have no part in it."""
        return self.frame.invert()

    def compose(self, other: Any) -> "GaussianRigid":
        """frame ∘ other, an update in the residue's own axes; the Gaussian keeps its place and scale in the frame."""
        frame = self.frame.compose(other)
        local_mean, log_scale = (x.expand(frame.trans.shape) for x in (self.local_mean, self.log_scale))
        return GaussianRigid(frame, local_mean, log_scale)

    def apply(self, x: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
        """The frames' `Frame.apply`: local points to global, nm."""
        return self.frame.apply(x)

    def invert_apply(self, x: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
        """The frames' `Frame.invert_apply`: global points to local, nm."""
        return self.frame.invert_apply(x)

    def scale_translation(self, c: float) -> "GaussianRigid":
        """OpenFold's name for a change of unit: `scaled`, so that Gaussians and translations keep one unit."""
        return self.scaled(c)

    def to_tensor_7(self) -> Float[Tensor, "*b 7"]:
        """The frames' quaternions and translations, nm."""
        return self.frame.to_tensor_7()

    def to_tensor_4x4(self) -> Float[Tensor, "*b 4 4"]:
        """The frames' homogeneous matrices, nm."""
        return self.frame.to_tensor_4x4()

    @classmethod
    def from_tensor_7(
        cls, vector: Float[Tensor, "*b 7"], normalize_quats: bool = True, **gaussian: Any
    ) -> "GaussianRigid":
        """`Frame.from_tensor_7`, with the Gaussians of `around` (local_mean=, log_scale= or sigma=)."""
        return cls.around(Frame.from_tensor_7(vector, normalize_quats), **gaussian)

    @classmethod
    def from_tensor_4x4(cls, matrix: Float[Tensor, "*b 4 4"], **gaussian: Any) -> "GaussianRigid":
        """`Frame.from_tensor_4x4`, with the Gaussians of `around` (local_mean=, log_scale= or sigma=)."""
        return cls.around(Frame.from_tensor_4x4(matrix), **gaussian)


as_pytree(GaussianRigid)


def floored_sigma(
    log_sigma: Float[Tensor, "*b"], *, sigma_min: float, sigma_max: float | None = None, floor: str
) -> Float[Tensor, "*b"]:
    """σ (nm) from its log, never under `sigma_min`, in the arithmetic of the tensor's dtype.

        hard     σ = max(e, sigma_min)              dσ/dlog = e above the floor, 0 below it
        smooth   σ = √(e² + sigma_min²)             dσ/dlog = e²/σ, so that dlog σ/dlog = e²/(e² + sigma_min²)

    with e = exp(min(log_sigma, ln sigma_max)). The ceiling acts before the exponential, so nothing overflows, and
    above it the gradient is 0: σ ≤ sigma_max (hard) or √(sigma_max² + sigma_min²) (smooth). Both floors are exact:
    sigma_min is rounded up to the dtype, and the root of a rounded square is its argument in IEEE arithmetic.
    Without a ceiling e² overflows at log_sigma = 44 in float32.

    Raises ValueError for a floor that is not positive, a ceiling under it, an unknown kind of floor, and for what is
    neither float32 nor float64.
    """
    rotation.check_geometry("log_sigma", log_sigma)
    info = torch.finfo(log_sigma.dtype)
    if not math.sqrt(info.tiny) <= sigma_min < math.sqrt(info.max):
        raise ValueError(
            f"sigma_min must be a positive length in nm whose square fits in {log_sigma.dtype}, got {sigma_min}"
        )
    if sigma_max is not None and not sigma_min < sigma_max < math.sqrt(info.max):
        raise ValueError(f"sigma_max must be a length in nm above sigma_min = {sigma_min}, or None, got {sigma_max}")
    if floor not in ("hard", "smooth"):
        raise ValueError(f'floor must be "hard" or "smooth", got {floor!r}')
    low = _representable(sigma_min, log_sigma.dtype, up=True)
    if sigma_max is None:
        e = log_sigma.exp()
    else:
        # exp(ln x) may land a bit above x, hence the second clamp.
        e = log_sigma.clamp(max=math.log(sigma_max)).exp()
        e = e.clamp(max=_representable(sigma_max, log_sigma.dtype, up=False))
    if floor == "hard":
        return e.clamp(min=low)
    return (e.square() + low * low).sqrt()


def _representable(x: float, dtype: torch.dtype, *, up: bool) -> float:
    """The nearest number of `dtype` that is ≥ x (`up`) or ≤ x, for normal x > 0."""
    bits = 1 - round(math.log2(torch.finfo(dtype).eps))
    fraction, exponent = math.frexp(x)
    scaled = math.ldexp(fraction, bits)
    return math.ldexp(math.ceil(scaled) if up else math.floor(scaled), exponent - bits)
