"""What the geometry of an IGA layer may be set to, and the presets.

Four presets retrace the history that shared the blow-up of training (each adds one remedy to the one before);
`bounded` is the default of this package. docs/presets.md says which to take, and why.
"""

from dataclasses import dataclass, fields, replace
from typing import Literal

from iga._float_range import sigma_limits

__all__ = ["DEFAULT_PRESET", "PRESETS", "IGAConfig", "preset"]

Form = Literal["closed", "textbook"]
Score = Literal["gaussian", "student_t"]
Floor = Literal["hard", "smooth"]
Scaling = Literal["sum", "rsqrt", "mean"]


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}")


def _positive(name: str, value: float) -> None:
    if not (0 < value < float("inf")):
        raise ValueError(f"{name} must be a positive finite number, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class IGAConfig:
    """The geometry of an InvariantGaussianAttention layer. Lengths in nm; formulas in docs/theory.md.

    form               "closed" (no cancellation in the sums) or "textbook" (Σ built and factored; historical)
    score              "gaussian": −½ dist_sq − ½ log_det; "student_t": logarithmic in dist_sq, with `dof` = ν
    sigma_min          floor of every σ, both where it scales the offset u and in the covariance
    sigma_max          ceiling of σ before the floor, or None: then the scales themselves must stay in float32's range
    floor              "hard": max(σ, σ_min), no gradient below; "smooth": √(σ² + σ_min²), gradient everywhere
    jitter             nm², added to the diagonal of each covariance (textbook form only)
    log_det_min        the score uses max(log_det, log_det_min); None: no clamp
    point_scaling      G = sum over points, times 1 ("sum"), P^(−1/2) ("rsqrt") or 1/P ("mean")
    geo_scale_init     initial value of the per-head geo_scale; its weight is softplus(geo_scale)
    temperature        divides the weighted geometry logit
    logit_cap          c: the weighted geometry logit x becomes c·tanh(x/c); None: no cap
    time_gate          exponent γ: the weight is multiplied by t^γ, t the flow time in [0, 1]; None: no gate
    offset_max         u = offset_max · tanh(raw), in units of σ
    log_scale_max      d = log_scale_max · tanh(raw), added to log s
    default_sigma      nm; the isotropic Gaussian at CA used where the caller gives no local_mean and log_scale
    pair_value_dim     channels of the pair values; None: c_z // 4
    """

    form: Form = "closed"
    score: Score = "student_t"
    dof: float = 4.0
    sigma_min: float = 0.03
    sigma_max: float | None = 150.0
    floor: Floor = "smooth"
    jitter: float = 0.0
    log_det_min: float | None = None
    point_scaling: Scaling = "mean"
    geo_scale_init: float = -1.0
    temperature: float = 1.0
    logit_cap: float | None = 50.0
    time_gate: float | None = None
    offset_max: float = 3.0
    log_scale_max: float = 2.0
    default_sigma: float = 0.1
    pair_value_dim: int | None = None

    def __post_init__(self) -> None:
        _choice("form", self.form, ("closed", "textbook"))
        _choice("score", self.score, ("gaussian", "student_t"))
        _choice("floor", self.floor, ("hard", "smooth"))
        _choice("point_scaling", self.point_scaling, ("sum", "rsqrt", "mean"))
        for name in ("dof", "sigma_min", "temperature", "offset_max", "log_scale_max", "default_sigma"):
            _positive(name, getattr(self, name))
        for name in ("sigma_max", "logit_cap", "time_gate"):
            if getattr(self, name) is not None:
                _positive(name, getattr(self, name))
        if self.sigma_max is not None and self.sigma_max <= self.sigma_min:
            raise ValueError(
                f"sigma_max must exceed sigma_min = {self.sigma_min} nm, got {self.sigma_max} nm; "
                "lengths are nm (1 Å = 0.1 nm)"
            )
        if self.form == "closed":
            low, high = sigma_limits(0.0, self.offset_max)
            largest = self.sigma_min if self.sigma_max is None else self.sigma_max
            if not low <= self.sigma_min <= largest <= high:
                raise ValueError(
                    f"sigma_min and sigma_max must lie in [{low:.2g}, {high:.2g}] nm: outside, products of six σ leave "
                    f"float32 (docs/theory.md, section 5); got {self.sigma_min!r} and {self.sigma_max!r} nm"
                )
        if not self.jitter >= 0:
            raise ValueError(f"jitter must be at least 0 nm², got {self.jitter!r}")
        if self.jitter and self.form != "textbook":
            raise ValueError('jitter belongs to form="textbook"; the closed form needs none: set jitter=0')
        if self.pair_value_dim is not None and self.pair_value_dim < 1:
            raise ValueError(f"pair_value_dim must be at least 1 or None (c_z // 4), got {self.pair_value_dim!r}")


_PRE_FIX = IGAConfig(
    form="textbook",
    score="gaussian",
    sigma_min=1e-6,
    sigma_max=None,
    floor="hard",
    jitter=1e-6,
    log_det_min=None,
    point_scaling="sum",
    geo_scale_init=1.0,
    logit_cap=None,
)
_LOGDET_CLAMP = replace(_PRE_FIX, log_det_min=-20.0)
_SIGMA_FLOOR = replace(_LOGDET_CLAMP, sigma_min=0.03, point_scaling="rsqrt")
_SOFT_START = replace(_SIGMA_FLOOR, geo_scale_init=-4.0)

DEFAULT_PRESET = "bounded"

PRESETS: dict[str, IGAConfig] = {
    "pre_fix": _PRE_FIX,
    "logdet_clamp": _LOGDET_CLAMP,
    "sigma_floor": _SIGMA_FLOOR,
    "soft_start": _SOFT_START,
    "bounded": IGAConfig(),
}


def preset(name: str, **changes: object) -> IGAConfig:
    """The preset `name`, with fields changed: `preset("bounded", sigma_min=0.05)`.

    Raises ValueError for an unknown preset or field, naming those that exist.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; presets: {', '.join(PRESETS)}")
    unknown = sorted(set(changes) - {field.name for field in fields(IGAConfig)})
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}; fields: {', '.join(f.name for f in fields(IGAConfig))}")
    return replace(PRESETS[name], **changes)  # pyright: ignore[reportArgumentType] - checked in __post_init__
