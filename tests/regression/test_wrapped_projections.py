"""Projections that were changed (adapters, hooks, pruning, quantisation, a module in their place): their call counts.

Origin: the kernels read linear_b's weight, and a LoRA adapter on it had no effect and no gradient, without a word.
Every kind of wrapping is judged by the reference implementation, which calls every projection: values, and the gradient
of every parameter and input. In float64 the two differ by rounding: a relative change of 1e-7 of every number moves the
reference by S · 1e-7, so roundings of 2⁻⁵³ along a chain of LENGTH operations move it by LENGTH · 2⁻⁵³ · S. S is the
largest of all gradients: that of a constant in a row of logits is 0, a sum of terms as large as the others'.
"""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.utils.parametrizations as norms
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from helpers.layers import SIZES, Inputs, layer_inputs, small_layer
from iga._plain import is_plain
from iga.attention import InvariantGaussianAttention
from iga.ipa import InvariantPointAttention
from iga.testing.layer.subject import randomise

# 12 of a projection, 8 of z, 40 of a pair of Gaussians, twice 7 keys, 42 features, and as much backward.
LENGTH = 256
PROJECTIONS = tuple(name for name, _ in small_layer().named_children())


class Adapter(nn.Module):
    """A LoRA adapter that shows nothing of the nn.Linear it wraps."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False, dtype=base.weight.dtype)
        self.up = nn.Linear(2, base.out_features, bias=False, dtype=base.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


class OpenAdapter(Adapter):
    """One that hands on the weight and the bias, as PEFT's do."""

    weight = property(lambda self: self.base.weight)
    bias = property(lambda self: self.base.bias)
    in_features = property(lambda self: self.base.in_features)


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2.0 * super().forward(input)


class Shrunk(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 0.5 * weight


class Quadratic(nn.Sequential):
    """No affine map."""

    def forward(self, input: Tensor) -> Tensor:
        y = super().forward(input)
        return y + 0.25 * y * y


def changed(change: Callable[[Any], object]) -> Callable[[nn.Linear], nn.Module]:
    """The nn.Linear itself after `change`."""

    def wrap(base: nn.Linear) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the older weight_norm
            change(base)
        return base

    return wrap


def replaced_forward(base: nn.Linear) -> None:
    base.forward = lambda x: 0.5 * nn.functional.linear(x, base.weight, base.bias)


def weight_norm(base: Any) -> None:
    norms.weight_norm(base)
    base.parametrizations.weight.original0.data.mul_(1.5)


def older_weight_norm(base: Any) -> None:
    nn.utils.weight_norm(base)
    base.weight_g.data.mul_(1.5)


def quarter_square(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output + 0.25 * output.square()


WRAPPINGS: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "adapter": Adapter,
    "adapter that shows its base": OpenAdapter,
    "module that is not affine": Quadratic,
    "sequence": lambda base: nn.Sequential(base, nn.Tanh()),
    "subclass": changed(lambda base: setattr(base, "__class__", Doubled)),
    "forward of the instance": changed(replaced_forward),
    "forward hook": changed(lambda base: base.register_forward_hook(quarter_square)),
    "forward pre-hook": changed(lambda base: base.register_forward_pre_hook(lambda module, args: (0.5 * args[0],))),
    "backward hook": changed(
        lambda base: base.register_full_backward_hook(lambda module, inner, outer: (2.0 * inner[0],))
    ),
    "backward pre-hook": changed(
        lambda base: base.register_full_backward_pre_hook(lambda module, outer: (3.0 * outer[0],))
    ),
    "weight_norm": changed(weight_norm),
    "weight_norm by a hook": changed(older_weight_norm),
    "spectral_norm": norms.spectral_norm,
    "pruned": changed(lambda base: prune.l1_unstructured(base, "weight", amount=0.4)),
    "parametrised weight": changed(lambda base: parametrize.register_parametrization(base, "weight", Shrunk())),
    "parametrised bias": changed(lambda base: parametrize.register_parametrization(base, "bias", Shrunk())),
    "no bias": changed(lambda base: setattr(base, "bias", None)),
}


def wrapped(wrapping: str, names: tuple[str, ...]) -> InvariantGaussianAttention:
    torch.manual_seed(0)
    layer = small_layer().double()
    for name in names:
        setattr(layer, name, WRAPPINGS[wrapping](getattr(layer, name)))
    return layer.eval()


def inputs(dtype: torch.dtype = torch.float64) -> Inputs:
    given = layer_inputs(dtype=dtype)
    given.mask[0, 2] = False
    return given


def step(layer: nn.Module, given: Inputs, implementation: str, shake: float = 0.0) -> dict[str, Tensor]:
    """Output and gradients by name, after every number has been changed by a relative `shake` of random sign."""
    layer.implementation = implementation
    generator = torch.Generator().manual_seed(1)

    def shaken(x: Tensor) -> Tensor:
        signs = 2.0 * torch.randint(0, 2, x.shape, generator=generator) - 1
        return x.detach() * (1 + shake * signs.to(x))

    parameters = {name: shaken(p).requires_grad_() for name, p in layer.named_parameters()}
    s, z = (shaken(x).requires_grad_() for x in (given.s, given.z))
    output = torch.func.functional_call(layer, parameters, (s, z, given.r, given.mask))
    output.cos().sum().backward()
    found = {name: p.grad for name, p in {**parameters, "s": s, "z": z}.items()}
    return {"output": output.detach(), **{name: x for name, x in found.items() if x is not None}}


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor], moved: dict[str, Tensor], shake: float) -> None:
    assert found.keys() == wanted.keys()
    size = max(float((moved[name] - wanted[name]).abs().max()) for name in wanted) / shake
    for name in wanted:
        error = float((found[name] - wanted[name]).abs().max())
        assert found[name].isfinite().all() and error <= LENGTH * 2.0**-53 * size, (name, error, size)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_the_kernels_take_a_wrapped_projection_as_the_reference_does(wrapping: str) -> None:
    given = inputs()
    plain = step(small_layer().double(), given, "reference")
    for names in (PROJECTIONS, ("linear_b",), ("down_z",)):
        layer = wrapped(wrapping, names)
        wanted, moved = step(layer, given, "reference"), step(layer, given, "reference", shake=1e-7)
        assert_same(step(layer, given, "cpu"), wanted, moved, 1e-7)
        differs = any(not torch.equal(wanted[name], plain[name]) for name in wanted if name in plain)
        assert differs or (wrapping, names) == ("no bias", ("linear_b",))  # which softmax does not see


@pytest.mark.parametrize("scope", ["of the module", "of every module"])
@pytest.mark.parametrize("implementation", ["reference", "cpu"])
def test_a_forward_hook_sees_each_projection_once(scope: str, implementation: str) -> None:
    layer, given = small_layer(), layer_inputs()
    layer.implementation = implementation
    seen: dict[str, list[torch.Size]] = {name: [] for name in PROJECTIONS}

    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        for name, child in layer.named_children():
            if module is child:
                seen[name].append(args[0].shape[:-1])

    modules = layer.children() if scope == "of the module" else ()
    handles = [module.register_forward_hook(hook) for module in modules]
    handles = handles or [nn.modules.module.register_module_forward_hook(hook)]
    try:
        output = layer(*given)
    finally:
        for handle in handles:
            handle.remove()
    of_pairs = ("linear_b", "down_z")
    assert seen == {name: [(given.z if name in of_pairs else given.s).shape[:-1]] for name in PROJECTIONS}
    assert output.isfinite().all()


@pytest.mark.parametrize("names", [("linear_b",), ("down_z",), PROJECTIONS[:-1]], ids=["linear_b", "down_z", "all"])
def test_dynamic_quantisation_of_what_reads_s_and_z_gives_what_the_reference_gives(names: tuple[str, ...]) -> None:
    """Whole numbers, and the same ones: both hand them the same s and z. float32, for there is no other.

    The budget is that of the layer as it was: LENGTH · 2⁻²⁴ · S, with S of its output.
    """
    layer, given = small_layer(), inputs(torch.float32)
    plain = small_layer().double(), inputs()
    moved = [step(*plain, "reference", shake=shake)["output"] for shake in (0.0, 1e-7)]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        how = {name: torch.ao.quantization.default_dynamic_qconfig for name in names}
        layer = torch.ao.quantization.quantize_dynamic(layer, how)
    assert all("quantized" in type(getattr(layer, name)).__module__ for name in names)
    found = {}
    for implementation in ("reference", "cpu"):
        layer.implementation = implementation
        with torch.no_grad():
            found[implementation] = layer(*given)
    error = (found["cpu"] - found["reference"]).abs().max()
    size = (moved[1] - moved[0]).abs().max() / 1e-7
    assert found["cpu"].isfinite().all() and error <= LENGTH * 2.0**-24 * size


def test_what_is_plain_is_read_and_nothing_else_is() -> None:
    """A layer as it was made keeps the short way: no logits of size n² · h beside it."""
    layer = small_layer()
    assert all(is_plain(module) for module in layer.children())
    for wrapping, wrap in WRAPPINGS.items():
        assert is_plain(wrap(nn.Linear(4, 3))) == (wrapping == "no bias"), wrapping


def test_a_parametrised_geo_scale_is_what_the_kernels_take() -> None:
    layer, given = small_layer().double(), inputs()
    parametrize.register_parametrization(layer, "geo_scale", Shrunk())
    wanted, moved = step(layer, given, "reference"), step(layer, given, "reference", shake=1e-7)
    assert "parametrizations.geo_scale.original" in wanted
    assert_same(step(layer, given, "cpu"), wanted, moved, 1e-7)


@pytest.mark.parametrize("wrapping", ["adapter", "weight_norm", "forward hook", "module that is not affine"])
def test_invariant_point_attention_calls_every_projection(wrapping: str) -> None:
    given = inputs()
    for name, _ in InvariantPointAttention(**SIZES, pair_value_dim=2).named_children():
        torch.manual_seed(0)
        layer = randomise(InvariantPointAttention(**SIZES, pair_value_dim=2), 0).double()
        before = layer(*given)
        setattr(layer, name, WRAPPINGS[wrapping](getattr(layer, name)))
        for p in getattr(layer, name).parameters():
            p.data.mul_(1.5)
        after = layer(*given)
        after.cos().sum().backward()
        assert not torch.equal(after, before), name
        assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters()), name
