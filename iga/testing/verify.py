"""The run behind `iga verify`: a preset, a config, a layer or an overlap function against the product's contract.

`verify` is the command as a function; the command line only formats what it returns. `prepare` does everything that
misuse can stop; what it returns runs.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

from iga._runtime import Progress, check_room
from iga.attention import InvariantGaussianAttention
from iga.kernels import choose as choose_implementation
from iga.presets import DEFAULT_PRESET, IGAConfig
from iga.structure import Structure, read_structures, record
from iga.structure.synthetic import synthetic_structures
from iga.testing.checks import choose, require_claims, require_known
from iga.testing.contract import DEFAULT_POINTS, Contract, Profile, check_seed, the_profile
from iga.testing.layer.cases import make_case
from iga.testing.layer.reference_agrees import with_reference
from iga.testing.layer.subject import LayerFactory, Subject, lacking, layer_subject, require_parts
from iga.testing.overlap.subject import overlap_subject
from iga.testing.result import Report
from iga.testing.run import Run
from iga.testing.state.watch import Watch, left_alone, watching
from iga.testing.targets import DTYPES, Claims, OwnLayer, Target, resolve, staying

__all__ = ["Report", "options_of_prepare", "prepare", "verify"]

P = ParamSpec("P")
R = TypeVar("R")


def prepare(
    target: str | IGAConfig | Target | OwnLayer | Callable[..., Any] = DEFAULT_PRESET,
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
    save: str | Path | None = None,
) -> Run:
    """Everything that misuse can stop, before anything is measured: arguments as for `verify`, ValueError likewise."""
    profile = the_profile(profile)
    check_seed(seed)
    _check_room(points, profile)
    found = resolve(target, kind=kind)
    require_known(found.expected_broken, found.kind, "expected_broken: ")
    claims = found.claims
    if found.kind == "layer":
        require_claims(claims.unsupported, found.kind)
    if claims.reference is not None and found.kind != "layer":
        raise ValueError(f"reference {claims.reference!r} is for a layer: an overlap function has its judge")
    low, high = found.sigma_range
    contract = Contract(
        sigma_min=low if sigma_min is None else sigma_min,
        sigma_max=high,
        points=_points(points, claims),
        digits=digits,
    )
    profile = profile.rounded(claims.multiple_of).within(claims.max_residues)
    watch = Watch()
    for words in getattr(found, "changed", ()):
        watch.note("when it was loaded", words)
    if isinstance(found, OwnLayer):
        subject = _own_subject(found, contract, profile, layer, implementation)
    elif implementation is not None:
        raise ValueError(f"implementation {implementation!r} is for a preset: a target of yours chooses its own")
    elif found.kind == "overlap":
        if points is not None:
            raise ValueError("points are a layer's: an overlap function has none")
        with watching(watch), left_alone("its first calls", whole=True), staying(f"calling {found.name}"):
            subject = overlap_subject(replace(found, sigma_range=(contract.sigma_min, contract.sigma_max)))
    else:
        probe = make_case(synthetic_structures(1, seed=seed)[0], profile, residues=6, seed=seed)
        with watching(watch), left_alone("its first calls", whole=True), staying(f"calling {found.name}"):
            subject = layer_subject(found, profile, probe)
            if claims.reference is not None:
                subject = with_reference(subject, found.place, probe, odd=True)
    entries, records = _structures(structures, profile, seed)
    checks, skipped = choose(found.kind, subject, profile.name, only)
    expected = found.expected_broken
    facts = (records, skipped, expected, on_progress, None if save is None else Path(save))
    run = Run(found.kind, subject, contract, profile, seed, checks, entries, *facts)
    return replace(run, watch=watch)


def options_of_prepare(_: Callable[P, Any]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Decorator that gives a function the signature of `prepare`, for readers, `help` and type checkers."""

    def dressed(function: Callable[..., R]) -> Callable[P, R]:
        result = inspect.signature(function).return_annotation
        function.__signature__ = inspect.signature(prepare).replace(return_annotation=result)  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return dressed


@options_of_prepare(prepare)
def verify(*target: Any, **options: Any) -> Report:
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
    save         a folder: the inputs of each broken check's worst example are written to save/<check>/case.json

    It runs in this process. What the target raises is a finding, SystemExit too; os._exit, signals and hangs cannot be
    contained here: the command `iga verify` judges a target in a process of its own.

    Raises ValueError for misuse: an unknown preset, profile or invariant, no readable structure, a bad number, a target
    that does not import or has the wrong signature or shapes. Source: docs/verification.md.
    """
    return prepare(*target, **options).run()


def _points(asked: Sequence[int] | None, claims: Claims) -> tuple[int, ...]:
    """The numbers of points to examine. Raises ValueError for those asked for that a target claims not to take."""
    most = claims.max_points
    if asked is None:
        return tuple(p for p in DEFAULT_POINTS if most is None or p <= most)
    if most is not None and max(asked) > most:
        raise ValueError(f"points {max(asked)}: the target claims max_points={most}")
    return tuple(asked)


def _check_room(points: Sequence[int] | None, profile: Profile) -> None:
    """Raises ValueError for points whose scores don't fit: h N² P pairs, each of about a hundred float64 numbers where
    gradients are taken."""
    if points:
        residues = max(profile.residues, profile.degenerate, profile.focus_residues)
        needed = 800.0 * profile.no_heads * residues**2 * max(points)
        check_room(f"points {max(points)} with {residues} residues", needed)


def _own_subject(
    found: OwnLayer, contract: Contract, profile: Profile, layer: LayerFactory, implementation: str | None
) -> Subject:
    """The layer of a preset or config. The contract's floor becomes that of a preset that has the product's floor."""
    config = found.config
    if found.preset and config.sigma_min == IGAConfig().sigma_min:
        config = replace(config, sigma_min=contract.sigma_min)
    if layer is InvariantGaussianAttention:
        name = profile.implementation if implementation is None else implementation
        # the one that runs; ValueError, with the reason, for one that cannot judge both dtypes on a CPU
        (implementation,) = {choose_implementation(name, torch.device("cpu"), dtype, config) for dtype in DTYPES}
        layer = partial(layer, implementation=implementation)
    elif implementation is not None:
        raise ValueError(f"implementation {implementation!r} is for iga's own layer: one of yours chooses its own")
    subject = Subject(found.name, config, profile, layer, implementation=implementation)
    require_parts("the layer", lacking(subject.fresh(1, 0), profile.no_heads))
    return subject


def _structures(
    paths: Sequence[str | Path] | None, profile: Profile, seed: int
) -> tuple[list[Structure], list[dict[str, object]]]:
    if paths is not None:
        return read_structures(list(paths))
    entries = synthetic_structures(profile.synthetic, seed=seed)
    return entries, [record(structure) for structure in entries]
