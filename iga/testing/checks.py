"""The checks of everything that is judged, in the order of the report's table: the one list that names them."""

from collections.abc import Iterable, Sequence
from typing import Any

from iga.testing.check import Check
from iga.testing.layer import (
    accuracy,
    agreement,
    alive,
    calls,
    features,
    gradient_values,
    gradients,
    growth,
    lipschitz,
    masks,
    modes,
    reference_agrees,
    scores,
    second_derivatives,
    sizes,
    symmetry,
    weights,
)
from iga.testing.layer import state as layer_state
from iga.testing.library.diagnostics import DIAGNOSTICS, diagnostics_agree
from iga.testing.library.frame_laws import FRAMES, frame_laws
from iga.testing.library.quaternion_sign import quaternion_sign
from iga.testing.overlap import accuracy as overlap_accuracy
from iga.testing.overlap import agreement as overlap_agreement
from iga.testing.overlap import calls as overlap_calls
from iga.testing.overlap import gradients as overlap_gradients
from iga.testing.overlap import laws as overlap_laws
from iga.testing.overlap import modes as overlap_modes
from iga.testing.overlap import state as overlap_state

__all__ = [
    "CHECKS",
    "LAST",
    "LIBRARIES",
    "SIDE_BY_SIDE",
    "TRACES",
    "checks_of",
    "choose",
    "require_claims",
    "require_known",
    "share_of",
]

CHECKS: tuple[Check, ...] = (
    scores.log_det_floor,
    scores.dist_sq_bound,
    scores.geometry_logit_bound,
    growth.growth_with_points,
    growth.point_scaling_law,
    alive.geometry_is_alive,
    symmetry.se3_invariance,
    masks.mask_inertness,
    gradients.gradient_finiteness,
    accuracy.accuracy,
    weights.attention_weights,
    calls.permutations,
    features.feature_laws,
    agreement.calls_agree,
    agreement.compiled_calls,
    calls.determinism,
    calls.small_sizes,
    sizes.large_sizes,
    gradient_values.gradient_values,
    reference_agrees.reference_agrees,
    gradients.gradient_bounds,
    lipschitz.score_slopes,
    modes.reduced_precision,
    second_derivatives.second_derivatives,
    layer_state.process_state,
    frame_laws,
    quaternion_sign,
    diagnostics_agree,
    overlap_accuracy.accuracy,
    overlap_laws.coincident_means,
    overlap_laws.score_laws,
    overlap_gradients.gradient_values,
    overlap_gradients.gradient_finiteness,
    overlap_agreement.calls_agree,
    overlap_calls.determinism,
    overlap_gradients.second_derivatives,
    overlap_modes.reduced_precision,
    overlap_state.process_state,
)
# This package's own functions, by the kind of their checks. They are judged beside its layer.
LIBRARIES: dict[str, Any] = {"frames": FRAMES, "diagnostics": DIAGNOSTICS}

# Checks are judged in three shares, each by a process of its own (`gate`): two side by side, of about equal work, the
# first with the checks of traces, which share their traces, and then the one of what all calls did to the process.
TRACES, OTHERS, LAST = 0, 1, 2
SIDE_BY_SIDE = (TRACES, OTHERS)
IN_OTHERS = frozenset(
    one.name
    for one in (
        masks.mask_inertness,
        calls.permutations,
        agreement.calls_agree,
        agreement.compiled_calls,
        calls.determinism,
        calls.small_sizes,
        sizes.large_sizes,
        reference_agrees.reference_agrees,
        gradients.gradient_bounds,
        lipschitz.score_slopes,
        modes.reduced_precision,
        second_derivatives.second_derivatives,
        *(one for one in CHECKS if one.kind in LIBRARIES),
    )
)


def share_of(name: str) -> int:
    """The share of a run that the check `name` belongs to."""
    return LAST if name == layer_state.process_state.name else OTHERS if name in IN_OTHERS else TRACES


def checks_of(kind: str) -> dict[str, Check]:
    """The checks that a run over a "layer", an "overlap" function or a library knows, by name."""
    kinds = {kind, *(LIBRARIES if kind == "layer" else ())}
    return {check.name: check for check in CHECKS if check.kind in kinds}


def choose(kind: str, subject: Any, profile: str, only: Sequence[str] | None) -> tuple[list[Check], dict[str, str]]:
    """(checks to run, name → why it does not apply); what was asked for by name is refused rather than left out."""
    known = checks_of(kind)
    require_known(only or (), kind)
    chosen = [known[name] for name in only or known]
    skipped = {one.name: reason for one in chosen if (reason := one.not_applicable(subject, profile))}
    if only is not None and skipped:
        name, reason = next(iter(skipped.items()))
        raise ValueError(f"{name} does not apply: {reason}")
    return [one for one in chosen if one.name not in skipped], skipped


def require_known(names: Iterable[str], kind: str, where: str = "") -> None:
    """Raises ValueError for a name that no check of this kind has."""
    known = checks_of(kind)
    for name in names:
        if name not in known:
            raise ValueError(f"{where}unknown invariant {name!r}; invariants: {', '.join(known)}")


def require_claims(names: Iterable[str], kind: str) -> None:
    """Raises ValueError for something claimed as unsupported that no check of this kind asks for."""
    known = sorted({name for check in CHECKS if check.kind == kind for name in (*check.requires, *check.claims)})
    for name in names:
        if name not in known:
            raise ValueError(f"unsupported: nothing asks a {kind} for {name!r}; asked for are {', '.join(known)}")
