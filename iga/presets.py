"""Settings of the geometry of an IGA layer, and the presets.

Four presets retrace the history that shared the blow-up of training (each adds one remedy to the one before);
`bounded` is the default of this package. docs/presets.md says which to take, and why.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

from iga._arguments import check_number, check_whole
from iga._float_range import FLOAT32, sigma_limits

__all__ = ["DEFAULT_PRESET", "PRESETS", "IGAConfig", "check_config", "preset"]

Form = Literal["closed", "textbook"]
Score = Literal["gaussian", "student_t"]
Floor = Literal["hard", "smooth"]
Scaling = Literal["sum", "rsqrt", "mean"]


# What float32 can honour. The square of a number (second derivatives have it at the latest) is a normal number of
# float32; softplus(geo_scale) lies between the least normal number and those; e^d of log_scale_max takes the least
# normal number to the largest, so that every σ is reached; log_det is a sum of three logs of normal numbers.
_TINY, _MOST = FLOAT32
_LOW, _HIGH = _TINY**0.5, _MOST**0.5
_RANGES = {
    "dof": (_LOW, _HIGH, ""),
    "jitter": (0.0, _HIGH, " of nm²"),
    "log_det_min": (3 * math.log(_TINY), 3 * math.log(_MOST), ""),
    "geo_scale_init": (math.log(_TINY), _HIGH, ""),
    "temperature": (_LOW, _HIGH, ""),
    "logit_cap": (_LOW, _HIGH, ""),
    "time_gate": (_LOW, _HIGH, ""),
    "offset_max": (_LOW, _HIGH, " of σ"),
    "log_scale_max": (_LOW, math.log(_MOST / _TINY), ""),
    "default_sigma": (_LOW, _HIGH, " of nm"),
}
_OPTIONAL = ("sigma_max", "log_det_min", "logit_cap", "time_gate")


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

    Raises ValueError for a field that is no number, or outside what float32 can honour, with the range.
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
        for name, kind in (("form", Form), ("score", Score), ("floor", Floor), ("point_scaling", Scaling)):
            value, allowed = getattr(self, name), get_args(kind)
            if not isinstance(value, str) or value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}")
        for name, (low, high, unit) in _RANGES.items():
            self._check(name, low, high, unit)
        closed = self.form == "closed"
        low, high = sigma_limits(0.0, self.offset_max) if closed else (_LOW, _HIGH)
        why = ": outside, products of six σ leave float32 (docs/theory.md, section 5)" if closed else ""
        for name in ("sigma_min", "sigma_max"):
            self._check(name, low, high, " of nm", why)
        if self.sigma_max is not None and self.sigma_max <= self.sigma_min:
            raise ValueError(
                f"sigma_max must exceed sigma_min = {self.sigma_min} nm, got {self.sigma_max} nm; "
                "lengths are nm (1 Å = 0.1 nm)"
            )
        if self.jitter and self.form != "textbook":
            raise ValueError('jitter belongs to form="textbook"; the closed form needs none: set jitter=0')
        if self.pair_value_dim is not None:
            check_whole("pair_value_dim", self.pair_value_dim, 1, " or None (c_z // 4)")

    def _check(self, name: str, low: float, high: float, unit: str, why: str = "") -> None:
        value, optional = getattr(self, name), name in _OPTIONAL
        if value is not None or not optional:
            check_number(name, value, low, high, unit, why + ("; None leaves it out" if optional else ""))


def check_config(config: object) -> IGAConfig:
    """`config`, or ValueError unless it is an IGAConfig."""
    if not isinstance(config, IGAConfig):
        raise ValueError(
            f"config must be an IGAConfig or the name of a preset, got {type(config).__name__}; "
            f"presets: {', '.join(PRESETS)}"
        )
    return config


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

    Raises ValueError for an unknown preset or field, naming those that exist. Units: `IGAConfig`. Source of the
    numbers: docs/presets.md.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; presets: {', '.join(PRESETS)}")
    unknown = sorted(set(changes) - {field.name for field in fields(IGAConfig)})
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}; fields: {', '.join(f.name for f in fields(IGAConfig))}")
    return replace(PRESETS[name], **changes)  # pyright: ignore[reportArgumentType] - checked in __post_init__
