"""Right layers that make one slip: in a plain Module around this package's layer, or in its trace.

A slip is `wrong(call, layer, s, z, r, mask) -> output`. `call` is the right layer, called in the same way; `layer` has
the parameters. Without a trace `layer` is the Module inside; with one it is the accused itself, whose trace then says
what comes of the slip. Both are found by name, so that a copy or a pickle makes the same slip.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils.stateless import _reparametrize_module

from iga._layers import masked_softmax, value_points_out
from iga._typing import Tensor
from iga.attention import InvariantGaussianAttention
from iga.functional import Trace, joined
from iga.structure.synthetic import synthetic_structures
from iga.testing.faults.fault import Fault
from iga.testing.layer.cases import make_case
from iga.testing.layer.reference_agrees import with_reference
from iga.testing.layer.subject import Subject, layer_subject
from iga.testing.targets import Claims, Target

__all__ = [
    "CALLS",
    "Accused",
    "Slip",
    "TracedAccused",
    "bare_layer",
    "layer_slip",
    "layer_slips",
    "of_logits",
    "swapped",
]

Wrong = Callable[..., Tensor]
SWAPPING = threading.RLock()
CALLS = ("calls_agree",)


@dataclass(frozen=True)
class Slip:
    """`wrong`, or `logits(layer, trace, s, z, r, mask)`, what softmax takes instead; `preset`, of the layer inside;
    `loads(state_dict, prefix, metadata)`, what it does to a state that is loaded."""

    wrong: Wrong | None = None
    logits: Callable[..., Tensor] | None = None
    preset: str = "bounded"
    claims: Claims = field(default_factory=Claims)
    loads: Callable[[dict[str, Any], str, Mapping[str, Any]], None] | None = None
    caught: bool = False  # judged as a user's layer is: by what is seen of its calls


BOUNDED = Claims(reference="iga:bounded")
SLIPS: dict[str, Slip] = {"none": Slip(wrong=lambda call, layer, *inputs: call(*inputs), claims=BOUNDED)}


class Accused(nn.Module):
    """A right layer inside, and no trace."""

    def __init__(
        self,
        c_s: int,
        c_z: int,
        c_hidden: int,
        no_heads: int,
        no_qk_points: int,
        no_v_points: int,
        *,
        slip: str,
    ) -> None:
        super().__init__()
        sizes = (c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points)
        self.inner = InvariantGaussianAttention(*sizes, config=SLIPS[slip].preset, implementation="reference")
        self.slip = slip
        self.memory: dict[Any, Any] = {}  # of slips that remember

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Mapping[str, Any], *rest: Any
    ) -> None:
        loads = SLIPS[self.slip].loads
        if loads is not None:
            loads(state_dict, prefix, local_metadata)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def forward(self, s: Tensor, z: Tensor | None, r: Any, mask: Tensor) -> Tensor:
        slip, layer = SLIPS[self.slip], self.inner
        if slip.wrong is not None:
            return slip.wrong(layer, self, s, z, r, mask)
        assert slip.logits is not None
        output = _reweighted(layer, layer.trace(s, z, r, mask), slip.logits, (s, z, r, mask)).output
        assert output is not None
        return output


class TracedAccused(InvariantGaussianAttention):
    """A layer whose trace, and with it the output, makes the slip."""

    def __init__(self, *sizes: Any, slip: str, **options: Any) -> None:
        super().__init__(*sizes, **{**options, "implementation": "reference"})
        self.slip = slip
        self.memory: dict[Any, Any] = {}

    def trace(self, s: Tensor, z: Tensor | None, r: Any, mask: Tensor, **options: Any) -> Trace:
        slip, kept = SLIPS[self.slip], []

        def call(*inputs: Any) -> Tensor:
            trace = super(TracedAccused, self).trace(*inputs, **options)
            kept.append(trace)
            assert trace.output is not None
            return trace.output

        if slip.wrong is None:
            assert slip.logits is not None
            call(s, z, r, mask)
            return _reweighted(self, kept[-1], slip.logits, (s, z, r, mask))
        output = slip.wrong(call, self, s, z, r, mask)
        return replace(kept[-1], output=output)


def _reweighted(
    layer: InvariantGaussianAttention, trace: Trace, change: Callable[..., Tensor], inputs: tuple[Any, ...]
) -> Trace:
    """The trace with other logits, and all that comes of them."""
    logits = change(layer, trace, *inputs)
    weights = masked_softmax(logits, trace.mask[..., None, None, :]) if logits.ndim else trace.weights
    v, value_points, pair_values = trace.values
    pair = None if pair_values is None else weights.transpose(-3, -2).to(pair_values.dtype) @ pair_values
    points = value_points_out(weights, trace.rigid.frame, value_points.to(weights.dtype))
    features = joined(weights.to(v.dtype) @ v, points, pair, layer.eps)
    output = layer._projected_out(features, trace.mask)
    return replace(trace, logits=logits, weights=weights, features=features, output=output)


def swapped(call: Any, layer: nn.Module, change: Callable[[Any], Mapping[str, Tensor]], *inputs: Any) -> Tensor:
    """The call with other numbers in some of the layer's parameters: name → tensor, made by change(right layer)."""
    if torch.compiler.is_compiling():
        return functional_call(call, dict(change(call)), inputs)
    with SWAPPING:  # the module holds them for the length of the call
        if isinstance(call, nn.Module):
            return functional_call(call, dict(change(call)), inputs)
        with _reparametrize_module(layer, dict(change(layer))):
            return call(*inputs)


def layer_slip(
    kind: str,
    name: str,
    region: str,
    wrong: Wrong | None,
    *expected: str,
    logits: Callable[..., Tensor] | None = None,
    preset: str = "bounded",
    traced: bool = False,
    claims: Claims | None = None,
    missed: str = "",
    loads: Callable[[dict[str, Any], str, Mapping[str, Any]], None] | None = None,
    caught: bool = False,
) -> Fault:
    """A layer that makes the slip: in a Module without a trace, or, if `traced`, in a subclass that has one."""
    expected = () if missed else expected or CALLS
    named = BOUNDED if "reference_agrees" in expected else Claims()
    SLIPS[name] = Slip(wrong, logits, preset, claims or named, loads, caught)
    return Fault(name, kind, partial(_planted, name, traced), expected, region=region, traced=traced, missed=missed)


def layer_slips(kind: str, rows: Iterable[Any]) -> tuple[Fault, ...]:
    """Each row the arguments of `layer_slip` behind the kind."""
    return tuple(layer_slip(kind, *row) for row in rows)


def of_logits(
    kind: str, name: str, region: str, logits: Callable[..., Tensor], *expected: str, **options: Any
) -> Fault:
    """A slip in what softmax takes."""
    return layer_slip(kind, name, region, None, *expected, logits=logits, **options)


def bare_layer(clean: Subject) -> Subject:
    """The right layer in a plain Module, without a trace."""
    return _planted("none", False, clean, 1.0)


def _planted(name: str, traced: bool, clean: Subject, size: float) -> Subject:
    claims = SLIPS[name].claims
    if traced:
        shown = replace(clean, layer=partial(TracedAccused, slip=name), claims=claims)
        return shown if claims.reference is None else with_reference(shown)
    bare = replace(clean, config=None, layer=partial(Accused, slip=name), foreign=True, claims=claims)
    if SLIPS[name].caught:
        probe = make_case(synthetic_structures(1, seed=0)[0], clean.profile, residues=6, seed=0)
        bare = layer_subject(Target(name, "layer", bare.layer, claims=claims), clean.profile, probe)
    return bare if claims.reference is None else with_reference(bare)
