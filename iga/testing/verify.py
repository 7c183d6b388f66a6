"""The run behind `iga verify`: a preset, a config, a layer or an overlap function against the product's contract.

`verify` is the command as a function; the command line only formats what it returns. `prepare` does everything that
misuse can stop; what it returns runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from iga._runtime import Progress, check_room
from iga.attention import InvariantGaussianAttention
from iga.kernels import choose
from iga.presets import DEFAULT_PRESET, IGAConfig, preset
from iga.structure import Structure, read_structures, record
from iga.structure.synthetic import synthetic_structures
from iga.testing.checks import INVARIANTS, not_applicable
from iga.testing.contract import DEFAULT_POINTS, PROFILES, Contract, Profile, check_seed
from iga.testing.layer.cases import make_case
from iga.testing.layer.subject import LayerFactory, Subject, layer_subject
from iga.testing.overlap.checks import OVERLAP_INVARIANTS
from iga.testing.overlap.subject import overlap_subject
from iga.testing.result import Report
from iga.testing.run import LayerPlan, OverlapPlan
from iga.testing.targets import DTYPES, Target, as_target, load_target

__all__ = ["Plan", "Report", "prepare", "verify"]

Plan = LayerPlan | OverlapPlan
DEFAULT_SIGMA_MIN = 0.03  # nm


def verify(
    target: str | IGAConfig | Target | Callable[..., Any] = DEFAULT_PRESET,
    *,
    kind: str | None = None,
    layer: LayerFactory = InvariantGaussianAttention,
    structures: Sequence[str | Path] | None = None,
    points: Sequence[int] | None = None,
    sigma_min: float | None = None,
    digits: int = 2,
    profile: str | Profile = "fast",
    seed: int = 0,
    only: Sequence[str] | None = None,
    implementation: str | None = None,
    on_progress: Progress | None = None,
) -> Report:
    """Judge a preset, a config, a layer or an overlap function against the product's contract.

    target       a preset's name, an IGAConfig, a function or Target (`iga.testing.target` says what it claims), or
                 where one is: "package.module:attribute", "path/to/file.py:attribute"
    kind         "overlap" or "layer", for a function that does not say it itself
    layer        with a preset or config: called as layer(c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points,
                 config=config); must offer `trace` as InvariantGaussianAttention does
    structures   files, folders or globs; None: synthetic structures drawn from the seed
    points       the numbers of points P to examine, of a layer; growth with P always looks at 1 and 64 as well
    sigma_min    the floor (nm) of the contract (0.03 unless the target claims another), and of a preset that has the
                 product's floor
    digits       significant digits asked for: pairs that their own rounding leaves open by more are counted, not judged
    profile      "fast", "ci", "nightly", or a Profile
    only         names of invariants; None: all that apply
    implementation  of `iga.kernels`, for a preset or config: "reference", "cpu", "fused" or "auto"; None: "reference"
                 in the fast profile, "auto" in the others
    on_progress  called as on_progress(what, done, total)

    Raises ValueError for misuse: an unknown preset, profile or invariant, no readable structure, a bad number, a target
    that does not import or has the wrong signature or shapes.
    """
    plan = prepare(
        target,
        kind=kind,
        layer=layer,
        structures=structures,
        points=points,
        sigma_min=sigma_min,
        digits=digits,
        profile=profile,
        seed=seed,
        only=only,
        implementation=implementation,
    )
    return plan.run(on_progress)


def prepare(
    target: str | IGAConfig | Target | Callable[..., Any] = DEFAULT_PRESET,
    *,
    kind: str | None = None,
    layer: LayerFactory = InvariantGaussianAttention,
    structures: Sequence[str | Path] | None = None,
    points: Sequence[int] | None = None,
    sigma_min: float | None = None,
    digits: int = 2,
    profile: str | Profile = "fast",
    seed: int = 0,
    only: Sequence[str] | None = None,
    implementation: str | None = None,
) -> Plan:
    """Everything that misuse can stop, before anything is measured: arguments as for `verify`, ValueError likewise."""
    if isinstance(profile, str):
        if profile not in PROFILES:
            raise ValueError(f"unknown profile {profile!r}; profiles: {', '.join(PROFILES)}")
        profile = PROFILES[profile]
    check_seed(seed)
    _check_room(points, profile)
    if isinstance(target, IGAConfig) or (isinstance(target, str) and ":" not in target):
        if kind is not None:
            raise ValueError(f"kind {kind!r} is for a target of yours: a preset is a layer")
        contract = _contract(points, digits, DEFAULT_SIGMA_MIN if sigma_min is None else sigma_min)
        name, config = _config(target, contract)
        entries, records = _structures(structures, profile, seed)
        if layer is InvariantGaussianAttention:
            implementation = _implementation(
                profile.implementation if implementation is None else implementation, config
            )
            layer = partial(layer, implementation=implementation)
        elif implementation is not None:
            raise ValueError(f"implementation {implementation!r} is for iga's own layer: one of yours chooses its own")
        subject = Subject(name, config, profile, layer, implementation=implementation)
        return _layer_plan(subject, contract, profile, seed, only, entries, records)
    if implementation is not None:
        raise ValueError(f"implementation {implementation!r} is for a preset: a target of yours chooses its own")
    found = load_target(target, kind=kind) if isinstance(target, str) else as_target(target, kind=kind)
    low, high = found.sigma_range
    contract = _contract(points, digits, low if sigma_min is None else sigma_min, high)
    _known(found.expected_broken, INVARIANTS if found.kind == "layer" else OVERLAP_INVARIANTS, "expected_broken: ")
    if found.kind == "overlap":
        if points is not None:
            raise ValueError("points are a layer's: an overlap function has none")
        overlap = overlap_subject(replace(found, sigma_range=(contract.sigma_min, contract.sigma_max)))
        entries, records = _structures(structures, profile, seed)
        chosen, skipped = _choice(OVERLAP_INVARIANTS, only, lambda one: one.not_applicable(overlap, profile.name))
        return OverlapPlan(overlap, contract, profile, seed, chosen, entries, records, skipped, found.expected_broken)
    entries, records = _structures(structures, profile, seed)
    probe = make_case(synthetic_structures(1, seed=seed)[0], profile, residues=6, seed=seed)
    subject = layer_subject(found, profile, probe)
    return _layer_plan(subject, contract, profile, seed, only, entries, records, found)


def _check_room(points: Sequence[int] | None, profile: Profile) -> None:
    """Raises ValueError for points whose scores don't fit: h N² P pairs, each of about a hundred float64 numbers where
    gradients are taken."""
    if points:
        residues = max(profile.residues, profile.degenerate, profile.focus_residues)
        needed = 800.0 * profile.no_heads * residues**2 * max(points)
        check_room(f"points {max(points)} with {residues} residues", needed)


def _implementation(name: str, config: IGAConfig) -> str:
    """The one that runs; ValueError, with the reason, for one that cannot judge both dtypes on a CPU."""
    chosen = {choose(name, torch.device("cpu"), dtype, config) for dtype in DTYPES}
    assert len(chosen) == 1
    return chosen.pop()


def _layer_plan(
    subject: Subject,
    contract: Contract,
    profile: Profile,
    seed: int,
    only: Sequence[str] | None,
    structures: list[Structure],
    records: list[dict[str, object]],
    target: Target | None = None,
) -> LayerPlan:
    chosen, skipped = _choice(INVARIANTS, only, lambda one: not_applicable(one, subject, profile.name))
    expected = {} if target is None else target.expected_broken
    return LayerPlan(subject, contract, profile, seed, chosen, structures, records, skipped, expected)


def _choice(registry: dict[str, Any], only: Sequence[str] | None, why_not: Callable[[Any], str]):
    """(names to run, name → why it does not apply); what was asked for by name is refused rather than left out."""
    _known(only or [], registry, "")
    skipped = {name: reason for name in only or registry if (reason := why_not(registry[name]))}
    if only is not None and skipped:
        name, reason = next(iter(skipped.items()))
        raise ValueError(f"{name} does not apply: {reason}")
    return [name for name in only or registry if name not in skipped], skipped


def _known(names: Any, registry: dict[str, Any], where: str) -> None:
    for name in names:
        if name not in registry:
            raise ValueError(f"{where}unknown invariant {name!r}; invariants: {', '.join(registry)}")


def _contract(points: Sequence[int] | None, digits: int, sigma_min: float, sigma_max: float = 150.0) -> Contract:
    chosen = tuple(DEFAULT_POINTS if points is None else points)
    return Contract(sigma_min=sigma_min, sigma_max=sigma_max, points=chosen, digits=digits)


def _structures(
    paths: Sequence[str | Path] | None, profile: Profile, seed: int
) -> tuple[list[Structure], list[dict[str, object]]]:
    if paths is not None:
        return read_structures(list(paths))
    entries = synthetic_structures(profile.synthetic, seed=seed)
    return entries, [record(structure) for structure in entries]


def _config(target: str | IGAConfig, contract: Contract) -> tuple[str, IGAConfig]:
    """The config under test. The contract's floor becomes that of every preset that has the product's floor."""
    if isinstance(target, IGAConfig):
        return "config", target
    config = preset(target)
    if config.sigma_min == IGAConfig().sigma_min:
        config = replace(config, sigma_min=contract.sigma_min)
    return target, config
