"""The arms of the sweep as rows of a table, each as an arm's YAML file would be: history and default taken apart.

Around `logdet_clamp`, the state before any cure: the floor of σ × the scaling of points × the form, every combination
(`logdet_clamp` and `sigma_floor` are two of the twelve). Each part of `bounded` alone on that state, and `bounded`
without it. Cures that are public and none of this package's, on IPA and on that state (`iga.experiment.model.cures`).
"""

from typing import Any

__all__ = ["ARMS_APART", "LAYER_CURES"]

# What a layer does beside its config (`iga.experiment.model.cures`).
LAYER_CURES = ("qk_norm", "soft_cap", "spectral", "softplus")

_FLOOR = {"sigma_min": 0.03}
_CLOSED = {"form": "closed", "jitter": 0.0}  # the closed form needs no jitter, and takes none
_RSQRT, _MEAN = {"point_scaling": "rsqrt"}, {"point_scaling": "mean"}


def _row(name: str, label: str, note: str, attention: dict[str, Any], **rest: Any) -> tuple[str, dict[str, Any]]:
    return name, {"arm": {"name": name, "label": label, "note": note, "attention": attention}, **rest}


def _clamp(name: str, note: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    rest = {"training": fields.pop("training")} if "training" in fields else {}
    label = "_clamp_" + name
    return _row(name, label, f"logdet_clamp, {note}", {"layer": "iga", "preset": "logdet_clamp", **fields}, **rest)


def _without(name: str, note: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    return _row(name, f"_{name}", f"bounded, {note}", {"layer": "iga", "preset": "bounded", **fields})


def _ipa(name: str, note: str, training: dict[str, Any] | None = None, **fields: Any) -> tuple[str, dict[str, Any]]:
    rest = {} if training is None else {"training": training}
    return _row(name, f"_{name}", f"ipa, {note}", {"layer": "ipa", **fields}, **rest)


_CLIP = {"clip_grad": 1.0}

ARMS_APART: dict[str, dict[str, Any]] = dict(
    (
        # floor × scaling × form, without the two that have files
        _clamp("floor", "σ ≥ 0.03 nm", **_FLOOR),
        _clamp("rsqrt", "points scaled by 1/√P", **_RSQRT),
        _clamp("mean", "mean over points", **_MEAN),
        _clamp("closed", "closed form", **_CLOSED),
        _clamp("floor_mean", "σ ≥ 0.03 nm, mean over points", **_FLOOR, **_MEAN),
        _clamp("floor_closed", "σ ≥ 0.03 nm, closed form", **_FLOOR, **_CLOSED),
        _clamp("rsqrt_closed", "points scaled by 1/√P, closed form", **_RSQRT, **_CLOSED),
        _clamp("mean_closed", "mean over points, closed form", **_MEAN, **_CLOSED),
        _clamp("floor_rsqrt_closed", "σ ≥ 0.03 nm, points scaled by 1/√P, closed form", **_FLOOR, **_RSQRT, **_CLOSED),
        _clamp("floor_mean_closed", "σ ≥ 0.03 nm, mean over points, closed form", **_FLOOR, **_MEAN, **_CLOSED),
        # the parts of bounded, each alone and each away
        _clamp("weight", "weight softplus(−1) at the start", geo_scale_init=-1.0),
        _clamp("cap", "geometry logit capped at 50", logit_cap=50.0),
        _clamp("student_t", "Student-t overlap, ν = 4", score="student_t"),
        _without("bounded_weight1", "weight softplus(1) at the start", geo_scale_init=1.0),
        _without("bounded_uncapped", "without its cap", logit_cap=None),
        _without("bounded_gaussian", "with the Gaussian score", score="gaussian"),
        _without("bounded_unfloored", "with the σ_min of logdet_clamp, 10⁻⁶ nm", sigma_min=1e-6),
        _without("bounded_hard", "with a hard floor", floor="hard"),
        _without("bounded_sum", "with a sum over points", point_scaling="sum"),
        _without("bounded_nu1", "ν = 1", dof=1.0),
        # public cures
        _clamp("qk_norm", "queries and keys normalised, content and geometry", cure="qk_norm"),
        _clamp("soft_cap", "whole logit capped at 50 by tanh", cure="soft_cap"),
        _clamp("spectral", "σReparam on the projections of queries and keys", cure="spectral"),
        _clamp("clip", "gradient clipped to norm 1", training=_CLIP),
        _clamp("softplus", "σ = 0.03 nm + softplus in place of the exponential", cure="softplus", **_FLOOR),
        _ipa("ipa_qk_norm", "queries and keys normalised, content and points", cure="qk_norm"),
        _ipa("ipa_soft_cap", "whole logit capped at 50 by tanh", cure="soft_cap"),
        _ipa("ipa_spectral", "σReparam on the projections of queries and keys", cure="spectral"),
        _ipa("ipa_clip", "gradient clipped to norm 1", training=_CLIP),
    )
)
