"""Targets: what may be judged, what it claims, and how it is found by name.

    overlap   f(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma) -> (dist_sq, log_det)
    layer     f(*, c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points) -> torch.nn.Module,
              called as module(s, z, r, mask) with r a GaussianRigid

A target says what it is by `@target(kind=…)`, or `--kind` does. This package's own layer, by a preset's name or a
config, is judged as well. Misuse is a ValueError with one line that names it.
"""

import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

from iga.presets import IGAConfig, preset
from iga.taps import NAMES
from iga.testing.state.watch import unchanged

__all__ = [
    "KINDS",
    "Claims",
    "OwnLayer",
    "Target",
    "TargetError",
    "Unloadable",
    "as_target",
    "load_target",
    "one_line",
    "own_layer",
    "place_of",
    "resolve",
    "staying",
    "target",
]

KINDS = ("overlap", "layer")
DTYPES = (torch.float32, torch.float64)
SIGMA_RANGE = (0.03, 150.0)  # nm, of the product's contract
SIZES = ("c_s", "c_z", "c_hidden", "no_heads", "no_v_points")  # that a layer is built with, beside its points
LIBRARIES = (sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
INSTALLED = (str(Path(__file__).parents[1]), *LIBRARIES, "<")  # files that are not the accused's

F = TypeVar("F", bound=Callable[..., Any])


class TargetError(Exception):
    """A target raised, or returned what cannot be judged, on an input within its claim."""


class Unloadable(ValueError):
    """A target that is wrong, not misused, as it is loaded or first called: it ends the process, fills the memory, or
    can be called in one shape and not in another. What can be called in none is misuse, a plain ValueError."""


@contextmanager
def staying(what: str) -> Iterator[None]:
    """Raises Unloadable, one line that begins with `what`, where the block calls sys.exit or has no memory left."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, MemoryError):
            raise
        raise Unloadable(f"{what}: it raised {one_line(error)}{place_of(error)}") from error


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a target says of itself beside its σ and dtypes: what it cannot do, and what helps to judge it.

    unsupported     ways of calling that it does not support, by the names of docs/verification.md: "vmap", "compile",
                    "double_backward", …; they are not run, and their verdict is "not supported"
    inference_only  it has no gradients
    max_points      the largest number of points of a layer
    max_residues    the largest number of residues N of a layer
    multiple_of     of a layer's sizes: {"no_v_points": 2} has it built with even numbers of value points only
    taps            tap → submodule whose output it is: {"log_det": "attn.log_det"}, or with its dimensions, as
                    `iga.taps.show` takes them: "attn.log_det: b h p q k"
    tie_points      tie_points(layer, single, points): gives all points of `layer` the parameters of `single`, in place
    reference       what a layer has to equal with the same weights: "iga:PRESET", "ipa", or "file.py:factory"
    growth          largest exponent of P that it claims for its logits: 0 does not grow, 0.5 grows as AlphaFold's IPA
    """

    unsupported: tuple[str, ...] = ()
    inference_only: bool = False
    max_points: int | None = None
    max_residues: int | None = None
    multiple_of: Mapping[str, int] = field(default_factory=dict)
    taps: Mapping[str, str] = field(default_factory=dict)
    tie_points: Callable[..., None] | None = None
    reference: str | Callable[..., Any] | None = None
    growth: float | None = None

    @property
    def lacking(self) -> frozenset[str]:
        """All that it claims not to support, by name; without gradients that is "gradients" too."""
        return frozenset((*self.unsupported, *(("gradients",) if self.inference_only else ())))

    def __post_init__(self) -> None:
        if isinstance(self.unsupported, str):
            raise ValueError(f"unsupported must be a tuple of names, got {self.unsupported!r}; write (…,)")
        for name in ("max_points", "max_residues"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number from 1 up, got {value!r}")
        for name, value in self.multiple_of.items():
            if name not in SIZES:
                raise ValueError(f"multiple_of: no size {name!r}; sizes: {', '.join(SIZES)}")
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"multiple_of: {name} must be a whole number from 1 up, got {value!r}")
        for name, place in self.taps.items():
            if name not in NAMES:
                raise ValueError(f"taps: no tap {name!r}; taps: {', '.join(NAMES)}")
            if not isinstance(place, str):
                raise ValueError(f"taps: {name} must name a submodule, got {type(place).__name__}")
        if self.growth is not None and not 0 <= self.growth <= 1:
            raise ValueError(f"growth must be an exponent of P from 0 to 1, got {self.growth!r}")
        if self.tie_points is not None and not callable(self.tie_points):
            raise ValueError(f"tie_points must be a function, got {type(self.tie_points).__name__}")
        if self.reference is not None and not isinstance(self.reference, str) and not callable(self.reference):
            raise ValueError(f"reference must be a name or a factory, got {type(self.reference).__name__}")


@dataclass(frozen=True)
class Target:
    """What is judged and what it claims.

    sigma_range      (smallest, largest) σ in nm over which it claims to be correct
    dtypes           of float32 and float64, those it claims
    pair_features    whether a layer takes z; if not, z is None
    expected_broken  invariant → reason: failures that are known; one that holds after all fails the gate
    claims           what else it claims
    place            where it was loaded from, as the command line names it
    changed          what loading it did to the process (`iga.testing.state`); it was put back

    Made by `target` and by the command line, which raise ValueError for claims that make no sense. Source:
    docs/verification.md.
    """

    name: str
    kind: str
    function: Callable[..., Any]
    sigma_range: tuple[float, float] = SIGMA_RANGE
    dtypes: tuple[torch.dtype, ...] = DTYPES
    pair_features: bool = True
    expected_broken: Mapping[str, str] = field(default_factory=dict)
    claims: Claims = field(default_factory=Claims)
    place: str | None = None
    changed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        low, high = self.sigma_range
        if not 0 < low < high:
            raise ValueError(f"sigma_range must be (smallest, largest) in nm, 0 < smallest < largest, got {low, high}")
        if not self.dtypes or any(dtype not in DTYPES for dtype in self.dtypes):
            raise ValueError(f"dtypes must be of torch.float32 and torch.float64, got {self.dtypes!r}")


@dataclass(frozen=True)
class OwnLayer:
    """This package's layer as what is judged: by the name of a preset, or a config of the user's."""

    name: str
    config: IGAConfig
    preset: bool = True
    kind: ClassVar[str] = "layer"
    sigma_range: ClassVar[tuple[float, float]] = SIGMA_RANGE
    expected_broken: ClassVar[Mapping[str, str]] = {}
    claims: ClassVar[Claims] = Claims()


def target(
    *,
    kind: str,
    sigma_range: tuple[float, float] = SIGMA_RANGE,
    dtypes: tuple[torch.dtype, ...] = DTYPES,
    pair_features: bool = True,
    expected_broken: Mapping[str, str] | None = None,
    **claims: Any,
) -> Callable[[F], F]:
    """Decorator that says what a function is, and what it claims: arguments as the fields of `Target` and of `Claims`.

    The function itself is unchanged. Raises ValueError for a claim that makes no sense. Source: docs/verification.md.
    """
    known = [one.name for one in fields(Claims)]
    for name in claims:
        if name not in known:
            raise ValueError(f"no claim {name!r}; beside sigma_range, dtypes, … there are {', '.join(known)}")
    others = Claims(**claims)

    def claim(function: F) -> F:
        name = getattr(function, "__qualname__", type(function).__name__)
        broken = dict(expected_broken or {})
        function.__iga_target__ = Target(
            name, kind, function, sigma_range, tuple(dtypes), pair_features, broken, others
        )  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return claim


def resolve(
    target: str | IGAConfig | Target | OwnLayer | Callable[..., Any], *, kind: str | None = None
) -> Target | OwnLayer:
    """What TARGET is: a preset's name or a config, a function, a Target, or the place of one ("module:attribute").

    Raises ValueError, one line, for what is none of them, or whose kind is not said.
    """
    if isinstance(target, str) and ":" in target:
        return load_target(target, kind=kind)
    if not isinstance(target, str | IGAConfig | OwnLayer):
        return as_target(target, kind=kind)
    if kind is not None:
        raise ValueError(f"kind {kind!r} is for a target of yours: a preset is a layer")
    return target if isinstance(target, OwnLayer) else own_layer(target)


def own_layer(which: str | IGAConfig) -> OwnLayer:
    """This package's layer of a preset's name or of a config. Raises ValueError for a name that no preset has."""
    return OwnLayer("config", which, preset=False) if isinstance(which, IGAConfig) else OwnLayer(which, preset(which))


def as_target(function: Any, *, kind: str | None = None, name: str | None = None) -> Target:
    """The Target of a function: its own claim if it is decorated, else a plain one of `kind`.

    Raises ValueError if the kind is not said, or said twice and differently.
    """
    declared: Any = function if isinstance(function, Target) else getattr(function, "__iga_target__", None)
    own = declared if isinstance(declared, Target) else None
    if name is None:
        name = str(getattr(function, "__qualname__", type(function).__name__)) if own is None else own.name
    if own is not None:
        if kind is not None and kind != own.kind:
            raise ValueError(f"{name} is declared as kind {own.kind!r}, but kind {kind!r} was asked for")
        return replace(own, name=name)
    if not callable(function):
        raise ValueError(f"{name} is not callable: it is a {type(function).__name__}")
    if kind is None:
        raise ValueError(f"{name}: say what it is, --kind overlap or --kind layer, or decorate it with @target(kind=…)")
    return Target(name, kind, function)


def load_target(spec: str, *, kind: str | None = None) -> Target:
    """The target that "package.module:attribute" or "path/to/file.py:attribute" names.

    Raises ValueError, one line, where the file, the module or the attribute is not there or does not import.
    """
    place, colon, attribute = spec.rpartition(":")
    if not colon or not place or not attribute:
        raise ValueError(f"{spec!r} names no target: expected package.module:attribute or path/to/file.py:attribute")
    changed: list[str] = []
    with unchanged(changed):
        module = _from_file(place) if place.endswith(".py") else _from_package(place)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{place} has no attribute {attribute!r}")
        found = getattr(found, part)
    return replace(as_target(found, kind=kind, name=spec), place=spec, changed=tuple(changed))


def one_line(error: BaseException) -> str:
    """An exception's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return type(error).__name__ + (f": {lines[0].strip()}" if lines else "")


def place_of(error: BaseException) -> str:
    """The line that raised it: the deepest one of neither this package nor an installed one, or else the deepest."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(INSTALLED)]
    frame = (theirs or frames)[-1]
    return f" ({Path(frame.filename).name}:{frame.lineno}, in {frame.name})"


def _from_file(place: str) -> Any:
    path = Path(place)
    if not path.is_file():
        raise ValueError(f"no file {place}")
    name = f"_iga_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{place} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look a module up by its name
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # as `python file.py` does, so that a file may import its neighbours
    try:
        with staying(f"importing {place}"):
            spec.loader.exec_module(module)
    except Unloadable:
        raise
    except Exception as error:  # whatever a user's module raises is the user's to read
        raise ValueError(f"{place} does not import: {one_line(error)}") from error
    finally:
        sys.path.remove(folder)
    return module


def _from_package(place: str) -> Any:
    sys.path.insert(0, "")  # a package in the current folder, as `python -m` finds it
    try:
        with staying(f"importing {place}"):
            return importlib.import_module(place)
    except Unloadable:
        raise
    except Exception as error:  # whatever a user's module raises is the user's to read
        raise ValueError(f"{place} does not import: {one_line(error)}") from error
    finally:
        sys.path.remove("")
