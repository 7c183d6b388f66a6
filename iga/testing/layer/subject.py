"""A layer under test: built with any number of points, fresh, with random parameters or equal points, and called."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import nn

from iga._typing import Tensor
from iga.attention import InvariantGaussianAttention
from iga.functional import Trace
from iga.gaussian import GaussianRigid
from iga.presets import IGAConfig
from iga.taps import NAMES
from iga.testing import latest
from iga.testing.contract import Contract, Profile
from iga.testing.layer.cases import Case
from iga.testing.layer.references import Reference
from iga.testing.layer.seen import Hook, Seen, hooks_of, watched
from iga.testing.state.watch import left_alone
from iga.testing.steady import require_steady_dtype
from iga.testing.targets import DTYPES, Claims, Target, TargetError, Unloadable, one_line

__all__ = ["Observation", "Subject", "TracedLayer", "lacking", "layer_subject", "randomise", "tie_points"]

LayerFactory = Callable[..., nn.Module]


def randomise(layer: nn.Module, seed: int, *, gain: float = 1.0) -> nn.Module:
    """Draw every parameter anew, in place: a zero-initialised projection hides everything behind it.

    Matrices are normal with variance gain²/fan-in, so that unit features give outputs of size `gain`; vectors (biases,
    geo_scale) move from where they are by a normal of a quarter, resp. one half for the per-head scales. At a gain of 0
    matrices are 0 and vectors as the layer has them at first, for calls that a person is to read.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
            if parameter.ndim >= 2:
                parameter.copy_(draw * gain * parameter.shape[-1] ** -0.5)
            elif gain:
                parameter.add_(draw * (0.25 if name.endswith("bias") else 0.5))
    return layer


def tie_points(layer: nn.Module, single: nn.Module, points: int) -> nn.Module:
    """Give `layer` (P points) the parameters of `single` (one point), every point a copy of that one, in place.

    Point parameters are those whose first dimension is [h · P · 3] where `single` has [h · 3], heads outermost. Raises
    TargetError for a layer whose parameters are others.
    """
    source = dict(single.named_parameters())
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            one = source.get(name)
            if one is not None and one.shape == parameter.shape:
                parameter.copy_(one)
                continue
            rows, *rest = (0,) if one is None or one.ndim == 0 else one.shape
            if one is None or not rows or rows % 3 or parameter.shape != (rows * points, *rest):
                raise TargetError(
                    f"points cannot be made equal: parameter {name} has shape {list(parameter.shape)} with {points} "
                    f"points and {'is missing' if one is None else list(one.shape)} with one, not [h · P · 3, …]"
                )
            parameter.copy_(one.reshape(-1, 1, 3, *rest).expand(-1, points, 3, *rest).reshape(parameter.shape))
    return layer


class TracedLayer(Protocol):
    """What the checks of scores read of a layer that shows them, beside its forward(s, z, r, mask).

    config      what its scores follow; with a time gate, forward and trace take t=[*b] as well
    geo_scale   [h], of which softplus is the weight of the geometry
    linear_out  the last projection: an affine module from `Trace.features` to the output
    """

    config: IGAConfig
    geo_scale: Tensor
    linear_out: nn.Module

    def trace(self, s: Tensor, z: Tensor | None, r: GaussianRigid, mask: Tensor) -> Trace:
        """Every intermediate of the same call of forward."""
        ...


def lacking(layer: nn.Module, heads: int) -> list[str]:
    """What a layer lacks of a TracedLayer, named with what was expected."""
    scale = getattr(layer, "geo_scale", None)
    there = {
        "trace, a method that returns an iga.functional.Trace": callable(getattr(layer, "trace", None)),
        "config, an IGAConfig": isinstance(getattr(layer, "config", None), IGAConfig),
        f"geo_scale, a tensor of shape [{heads}]": isinstance(scale, Tensor) and scale.shape == (heads,),
        "linear_out, a torch.nn.Module": isinstance(getattr(layer, "linear_out", None), nn.Module),
    }
    return [name for name, found in there.items() if not found]


@dataclass(frozen=True)
class Subject:
    """A layer under test.

    layer          builds it: layer(c_s, c_z, …, config=config); if `foreign`, layer(c_s=…, c_z=…, …) by keyword
    config         its IGAConfig; None for a foreign layer that offers no trace
    dtypes         those it claims
    pair_features  whether it takes z
    foreign        somebody else's: what it raises is a finding (TargetError), not an error of the suite
    implementation  which of `iga.kernels` runs, for the report; None: the layer's own affair
    claims         what else it claims
    reference      what it has to equal with the same weights, if it names it
    taps           of a foreign layer: tap → "shown" or "caught", what a call of it lets see
    hooks          submodules whose outputs are taps, as it claims
    catches        whether its softmax may be caught: a call under the catcher is as good as one without
    """

    name: str
    config: IGAConfig | None
    profile: Profile
    layer: LayerFactory = InvariantGaussianAttention
    dtypes: tuple[torch.dtype, ...] = DTYPES
    pair_features: bool = True
    foreign: bool = False
    implementation: str | None = None
    claims: Claims = field(default_factory=Claims)
    reference: Reference | None = None
    taps: Mapping[str, str] = field(default_factory=dict)
    hooks: tuple[Hook, ...] = ()
    catches: bool = True

    @property
    def traced(self) -> bool:
        """Whether the layer shows its scores: `trace`, and the IGAConfig that they follow."""
        return self.config is not None

    @property
    def all_taps(self) -> dict[str, str]:
        """Each tap with how it is seen: "shown", "caught" or "missing". A trace shows all."""
        return {name: "shown" if self.traced else self.taps.get(name, "missing") for name in NAMES}

    @property
    def iga_config(self) -> IGAConfig:
        """The config of a traced layer."""
        assert self.config is not None, "only traced layers have one"
        return self.config

    def fresh(self, points: int, seed: int) -> nn.Module:
        """The layer as it is at the start of a training run."""
        sizes = self._sizes(points)
        with torch.random.fork_rng(devices=[]), self._named("building it", draws=True):
            torch.manual_seed(seed)
            built = self.layer(**sizes) if self.foreign else self.layer(*sizes.values(), config=self.config)
        if not isinstance(built, nn.Module):
            raise TargetError(f"the factory must return a torch.nn.Module, got {type(built).__name__}")
        self._note("fresh", points, seed)
        return built.eval()

    def random(self, points: int, seed: int, *, gain: float = 1.0) -> nn.Module:
        """The layer with all parameters re-randomised; a large gain drives every bounded amount to its bound."""
        layer = randomise(self.fresh(points, seed), seed, gain=gain)
        self._note("random", points, seed, gain)
        return layer

    def tied(self, layer: nn.Module, single: nn.Module, points: int) -> nn.Module:
        """`layer` with all points equal to that of `single`, as the target says or by `tie_points`, in place."""
        if self.claims.tie_points is None:
            return tie_points(layer, single, points)
        self.claims.tie_points(layer, single, points)
        return layer

    def coherent(self, points: int, seed: int) -> nn.Module:
        """The layer with all points equal, and the same for every number of points."""
        layer = tie_points(self.fresh(points, seed), self.fresh(1, seed), points)
        self._note("coherent", points, seed)
        return layer

    def _sizes(self, points: int) -> dict[str, int]:
        p = self.profile
        sizes = {"c_s": p.c_s, "c_z": p.c_z, "c_hidden": p.c_hidden, "no_heads": p.no_heads}
        return sizes | {"no_qk_points": points, "no_v_points": p.no_v_points}

    def _note(self, made: str, points: int, seed: int, gain: float = 1.0) -> None:
        """What builds the layer again, for a finding's inputs."""
        latest.built(self.name, {**self._sizes(points), "made": made, "seed": seed, "gain": gain})

    def _called(self, case: Case) -> None:
        r = case.rigid
        inputs = {"s": case.s, "z": case.z if self.pair_features else None, "mask": case.mask, **self.inputs(case)}
        geometry = {"rot": r.rot, "trans": r.trans, "local_mean": r.local_mean, "log_scale": r.log_scale}
        latest.called("layer", inputs | geometry, self.name)

    def inputs(self, case: Case) -> dict[str, Any]:
        """What forward needs beyond the case: the flow time, late, where a time gate asks for it."""
        if self.config is None or self.config.time_gate is None:
            return {}
        return {"t": torch.ones(case.s.shape[:-2], dtype=case.s.dtype)}

    def call(self, case: Case) -> tuple[Any, ...]:
        """The positional arguments of forward: z is None for a layer without pair features."""
        return (case.s, case.z if self.pair_features else None, case.rigid, case.mask)

    def trace(self, layer: nn.Module, case: Case) -> Trace:
        """The layer's trace of the case."""
        self._called(case)
        with self._named(case.label):
            return layer.trace(*self.call(case), **self.inputs(case))  # pyright: ignore[reportCallIssue]

    def output(self, layer: nn.Module, case: Case) -> Tensor:
        """The layer's output on the case, [*b, n, c_s]."""
        self._called(case)
        with self._named(case.label, draws=layer.training):
            output = layer(*self.call(case), **self.inputs(case))
        if not isinstance(output, Tensor) or output.shape != case.s.shape:
            got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise TargetError(f"{case.label}: expected an output of shape {list(case.s.shape)}, got {got}")
        if output.device != case.s.device:
            raise TargetError(f"{case.label}: inputs on {case.s.device}, output on {output.device}")
        r = case.rigid
        inputs = (case.s, case.z, r.rot, r.trans, r.local_mean, r.log_scale, case.mask)
        own = sorted({x.dtype for x in layer.parameters()}, key=str)
        require_steady_dtype(self.layer, [*(x.dtype for x in inputs), *own], "the output", output)
        return output

    def seen(self, layer: nn.Module, case: Case) -> Seen:
        """The layer's output on the case with what it shows, and what is caught, of the call."""
        with watched(layer, case.s.shape[-2], self.hooks, catch=self.catches) as made:
            return made(self.output(layer, case))

    @contextmanager
    def _named(self, doing: str, *, draws: bool = False) -> Iterator[None]:
        try:
            with left_alone(doing, draws=draws):
                yield
        except TargetError:
            raise
        except Exception as error:  # whatever somebody else's layer raises is a finding about that layer
            # torch.utils.checkpoint stops a recomputation by an exception of its own
            if not self.foreign or type(error).__module__ == "torch.utils.checkpoint":
                raise
            raise TargetError(f"{doing}: it raised {one_line(error)}") from error


@dataclass(frozen=True, eq=False)
class Observation:
    """One call of a layer, with what it is the call of: what the checks of each trace are given.

    A traced layer gives its `trace`. Of another there is what it shows, `seen`.
    """

    subject: Subject
    layer: nn.Module
    case: Case
    shown: Trace | Seen
    contract: Contract
    label: str

    @property
    def trace(self) -> Trace:
        """The trace of a traced layer."""
        assert isinstance(self.shown, Trace), "only traced layers have one"
        return self.shown

    @property
    def seen(self) -> Seen | None:
        """What a layer without trace shows."""
        return self.shown if isinstance(self.shown, Seen) else None


def layer_subject(target: Target, profile: Profile, probe: Case) -> Subject:
    """The Subject of a layer target, after one call on an ordinary case.

    Raises ValueError, one line, for what is not a layer: a wrong signature, a wrong shape, a wrong device. Unloadable
    for one that can be called on another batch, or on more residues, all the same.
    """
    claims = target.claims
    subject = Subject(
        target.name, None, profile, target.function, target.dtypes, target.pair_features, foreign=True, claims=claims
    )
    dtype = torch.float32 if torch.float32 in target.dtypes else torch.float64
    probe = replace(probe, rigid=probe.rigid.to(dtype=dtype), s=probe.s.to(dtype), z=probe.z.to(dtype))
    call = "f(*, c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points) -> Module; forward(s, z, r, mask)"
    words = f"{target.name} cannot be called as a layer, {call}"
    try:
        layer = subject.fresh(2, seed=0).to(dtype)
    except TargetError as error:
        raise ValueError(f"{words}: {error}") from error
    try:
        with torch.no_grad():
            subject.output(layer, probe)
    except TargetError as error:
        kind = Unloadable if _called_otherwise(subject, layer, probe) else ValueError
        raise kind(f"{words}: {error}") from error
    try:
        with torch.no_grad():
            subject = _with_taps(subject, layer, probe)
    except TargetError as error:  # a tap that is claimed and is not there
        raise ValueError(f"{words}: {error}") from error
    if dtype != torch.float32:  # the checks of scores are made in float32
        return subject
    missing = lacking(layer, profile.no_heads)
    if any(name.startswith(("trace", "config")) for name in missing):
        return subject
    traced = replace(subject, config=layer.config)
    try:
        with torch.no_grad():
            shown = traced.trace(layer, probe)
    except TargetError as error:
        raise ValueError(f"{target.name} offers a trace that cannot be called: {error}") from error
    if not isinstance(shown, Trace):
        return subject
    require_parts(target.name, missing)
    return traced


def _called_otherwise(subject: Subject, layer: nn.Module, probe: Case) -> bool:
    """Whether it answers as it should to two samples, or to five times the residues."""
    n = probe.s.shape[-2]
    for batch, residues in ((2, n), (1, 5 * n), (2, 5 * n)):
        sample, place = torch.zeros(batch, dtype=torch.long), torch.arange(residues) % n
        z = probe.z[sample][:, place][:, :, place]
        s, mask, rigid = (x[sample][:, place] for x in (probe.s, probe.mask, probe.rigid))
        with suppress(TargetError), torch.no_grad():
            subject.output(layer, replace(probe, s=s, z=z, mask=mask, rigid=rigid))
            return True
    return False


def _with_taps(subject: Subject, layer: nn.Module, probe: Case) -> Subject:
    """The subject with what a call of it, with two points, lets see; TargetError for what it shows wrongly."""
    sizes = {"n": probe.s.shape[-2], "h": subject.profile.no_heads, "p": 2, "c": subject.profile.c_hidden}
    hooks = hooks_of(subject.claims.taps, layer, sizes, lambda: subject.output(layer, probe))
    subject = replace(subject, hooks=hooks)
    plain = replace(subject, catches=False)
    try:
        taps = subject.seen(layer, probe).sources
    except TargetError:  # some operators run under no mode (FlexAttention's): then what is shown is all there is
        return replace(plain, taps=plain.seen(layer, probe).sources)
    return replace(subject, taps=taps, catches="caught" in taps.values())


def require_parts(name: str, missing: list[str]) -> None:
    """Raises ValueError, one line, if a layer that shows its scores lacks anything."""
    if missing:
        raise ValueError(f"{name} lacks what the checks of scores read: {'; '.join(missing)}")
