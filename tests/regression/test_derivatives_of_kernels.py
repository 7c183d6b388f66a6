"""Every way in which torch differentiates, through every implementation: right, or refused by name.

Seen: forward-mode derivatives through the kernels were zero without a word (`torch.func.jvp`, `jacfwd`, dual tensors),
and reverse mode of torch.func was refused with a message about `setup_context`. Judged by central differences of the
CPU kernels' values in float64, and of their blocked gradients for second derivatives.
"""

from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch.autograd import functional

from helpers.layers import layer_inputs, small_layer
from helpers.operators import OUTPUTS, SIZE, Function, call_of_three_numbers, differences, flat_arguments
from iga.frame import Frame
from iga.kernels import derivatives, gaussian_attention
from iga.kernels.ops import gaussian_attention_backward_op, gaussian_attention_op

# torch's own, when forward mode loads its decompositions
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

V = torch.tensor([0.5, -1.0, 2.0])
W = torch.tensor([1.0, -0.5, 0.25, 2.0])


def total(f: Function) -> Function:
    return lambda x: f(x) @ W.to(x)


def dual(f: Function, x: torch.Tensor) -> torch.Tensor:
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(x, V.to(x)))).tangent
    assert tangent is not None
    return tangent


def slope(f: Function, x: torch.Tensor, *, create_graph: bool = False) -> torch.Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x), x, torch.eye(OUTPUTS).to(x), is_grads_batched=True, create_graph=create_graph)[0]


def dual_of_a_cotangent(f: Function, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    y = f(x)
    with forward_ad.dual_level():
        (found,) = torch.autograd.grad(y, x, forward_ad.make_dual(torch.ones_like(y), W.to(x)))
        tangent = forward_ad.unpack_dual(found).tangent
    assert tangent is not None
    return tangent


func, one = torch.func, lambda x: torch.stack([x, x])
# name: (how, ∂f/∂x [4, 3] to what it gives)
FIRST: dict[str, tuple[Callable, Callable]] = {
    "backward": (lambda f, x: slope_of(total(f), x), lambda j: W.to(j) @ j),
    "is_grads_batched": (slope, lambda j: j),
    "is_grads_batched, create_graph": (lambda f, x: slope(f, x, create_graph=True), lambda j: j),
    "func.grad": (lambda f, x: func.grad(total(f))(x), lambda j: W.to(j) @ j),
    "func.grad_and_value": (lambda f, x: func.grad_and_value(total(f))(x)[0], lambda j: W.to(j) @ j),
    "func.vjp": (lambda f, x: func.vjp(f, x)[1](W.to(x))[0], lambda j: W.to(j) @ j),
    "func.jvp": (lambda f, x: func.jvp(f, (x,), (V.to(x),))[1], lambda j: j @ V.to(j)),
    "func.jacrev": (lambda f, x: func.jacrev(f)(x), lambda j: j),
    "func.jacrev in chunks": (lambda f, x: func.jacrev(f, chunk_size=3)(x), lambda j: j),
    "func.jacfwd": (lambda f, x: func.jacfwd(f)(x), lambda j: j),
    "vmap(grad)": (lambda f, x: func.vmap(func.grad(total(f)))(one(x)), lambda j: one(W.to(j) @ j)),
    "grad(vmap)": (lambda f, x: func.grad(lambda y: func.vmap(total(f))(y).sum())(one(x)), lambda j: one(W.to(j) @ j)),
    "jvp(vmap)": (
        lambda f, x: func.jvp(func.vmap(f), (one(x),), (one(V.to(x)),))[1],
        lambda j: one(j @ V.to(j)),
    ),
    "vmap(jvp)": (
        lambda f, x: func.vmap(lambda y: func.jvp(f, (y,), (V.to(x),))[1])(one(x)),
        lambda j: one(j @ V.to(j)),
    ),
    "backward of vmap": (lambda f, x: slope_of(lambda y: func.vmap(total(f))(one(y))[0], x), lambda j: W.to(j) @ j),
    "forward_ad": (dual, lambda j: j @ V.to(j)),
    "forward_ad of a cotangent": (dual_of_a_cotangent, lambda j: W.to(j) @ j),
    "functional.jvp": (lambda f, x: functional.jvp(f, x, V.to(x))[1], lambda j: j @ V.to(j)),
    "functional.vjp": (lambda f, x: functional.vjp(f, x, W.to(x))[1], lambda j: W.to(j) @ j),
    "functional.jacobian": (functional.jacobian, lambda j: j),
    "functional.jacobian, vectorize": (lambda f, x: functional.jacobian(f, x, vectorize=True), lambda j: j),
    "functional.jacobian, forward": (
        lambda f, x: functional.jacobian(f, x, vectorize=True, strategy="forward-mode"),
        lambda j: j,
    ),
}
# name: (how, the Hessian of W·f [3, 3] to what it gives)
SECOND: dict[str, tuple[Callable, Callable]] = {
    "func.hessian": (lambda f, x: func.hessian(total(f))(x), lambda h: h),
    "jacrev(jacrev)": (lambda f, x: func.jacrev(func.jacrev(total(f)))(x), lambda h: h),
    "jacrev(jacfwd)": (lambda f, x: func.jacrev(func.jacfwd(total(f)))(x), lambda h: h),
    "jvp(grad)": (lambda f, x: func.jvp(func.grad(total(f)), (x,), (V.to(x),))[1], lambda h: h @ V.to(h)),
    "forward_ad of backward": (
        lambda f, x: dual(lambda y: slope_of(total(f), y, create_graph=True), x),
        lambda h: h @ V.to(h),
    ),
    "functional.hvp": (lambda f, x: functional.hvp(total(f), x, V.to(x))[1], lambda h: h @ V.to(h)),
    "functional.vhp": (lambda f, x: functional.vhp(total(f), x, V.to(x))[1], lambda h: h @ V.to(h)),
    "functional.hessian": (lambda f, x: functional.hessian(total(f), x), lambda h: h),
    "functional.hessian, vectorize": (lambda f, x: functional.hessian(total(f), x, vectorize=True), lambda h: h),
}


def slope_of(f: Function, x: torch.Tensor, *, create_graph: bool = False) -> torch.Tensor:
    x = x if x.requires_grad else x.clone().requires_grad_()
    return torch.autograd.grad(f(x), x, create_graph=create_graph)[0]


def somewhere(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor([0.25, -0.125, 0.5], dtype=dtype)


@cache
def by_differences(order: int) -> tuple[torch.Tensor, float]:
    f = call_of_three_numbers("cpu")
    return differences(f if order == 1 else (lambda x: slope_of(total(f), x)), somewhere())


def check(found: torch.Tensor, expected: torch.Tensor, error: float, name: str) -> None:
    assert bool(found.isfinite().all()), name
    assert found.shape == expected.shape, name
    assert float(expected.abs().max()) > 10 * error, "differences that could not tell a zero"
    worst = float((found.detach().double() - expected).abs().max())
    assert worst <= error, f"{name}: {worst} > {error}"


@pytest.mark.parametrize(("implementation", "leaves"), [("reference", False), ("cpu", False), ("cpu", True)])
def test_every_transform_agrees_with_differences_of_the_values(implementation: str, leaves: bool) -> None:
    f = call_of_three_numbers(implementation, wants_gradients=leaves)
    for order, table in ((1, FIRST), (2, SECOND)):
        expected, error = by_differences(order)
        for name, (how, what) in table.items():
            # a product with V or W: sums of at most four, of sizes up to 2
            check(how(f, somewhere()), what(expected), 8 * error, name)


def test_every_transform_agrees_through_the_fused_kernels() -> None:
    f = call_of_three_numbers("fused", torch.float32)
    for order, table in ((1, FIRST), (2, SECOND)):
        expected, _ = by_differences(order)
        # the interpreter takes its time: torch.autograd.functional is made of the others, and these of one another
        made = ("functional", "func.grad_and_value", "func.jacrev in chunks", "vmap(", "jacrev(")
        table = {name: row for name, row in table.items() if not name.startswith(made)}
        # κ ≤ 20 and logits of at most 60: (25 + 3κ) u of each, in sums of the size of what is compared; V, W: 8
        error = 8 * 85 * 60 * 2.0**-24 * float(expected.abs().max())
        for name, (how, what) in table.items():
            check(how(f, somewhere(torch.float32)), what(expected), error, name)


def test_vmap_alone_stays_with_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    f = call_of_three_numbers("cpu")
    monkeypatch.setattr(derivatives, "attend_by_reference", None)
    x = torch.stack([somewhere(), -somewhere()])
    apart = torch.stack([f(x[0]), f(x[1])])
    # the same kernels on inputs that another order of sums has rounded: under 10³ terms, a condition of under 10²
    assert bool(((func.vmap(f)(x) - apart).abs() <= 1e5 * 2.0**-53 * apart.abs().max()).all())


def test_a_frozen_part_before_a_differentiated_head_keeps_its_kernels_and_its_gradient() -> None:
    f = call_of_three_numbers("cpu")
    x, head = somewhere().requires_grad_(), torch.ones(OUTPUTS, dtype=torch.float64)
    inside = func.grad(lambda w: (w * f(x)).square().sum())(head)
    outside = torch.autograd.grad((head * f(x)).square().sum(), x)[0]
    again = torch.autograd.grad(inside.sum() / 2, x)[0]  # Σ ∂_w (w f)² / 2 = Σ w f², of the same slope at w = 1
    assert torch.equal(inside, 2 * f(x).square())
    error = 64 * 2.0**-53 * float(outside.abs().max())  # the same sums, in another order
    assert bool(((again - outside).abs() <= error).all())


def test_a_layer_s_parameters_have_forward_and_per_sample_derivatives() -> None:
    layer = small_layer().double()
    given = layer_inputs(n=3, batch=(2,), dtype=torch.float64)
    parameters = {n: p.detach() for n, p in layer.named_parameters()}
    tangents = {n: torch.ones_like(p) for n, p in parameters.items()}

    def loss(p: dict[str, torch.Tensor], *args: object) -> torch.Tensor:
        return func.functional_call(layer, p, args).cos().sum()

    samples = tuple(x[:, None] for x in (given.s, given.z, given.r, given.mask))
    found = {}
    for layer.implementation in ("reference", "cpu"):
        _, forward = func.jvp(lambda p: loss(p, *given), (parameters,), (tangents,))
        each = func.vmap(func.grad(loss), in_dims=(None, 0, 0, 0, 0))(parameters, *samples)
        found[layer.implementation] = [forward, *each.values()]
    sums = sum(float(x.sum()) for x in found["cpu"][1:])
    for mine, reference in zip(found["cpu"], found["reference"], strict=True):
        # float64 all through: sums of under 10³ terms, and a condition of under 10³
        assert bool(((mine - reference).abs() <= 1e6 * 2.0**-53 * max(1.0, float(reference.abs().max()))).all())
    assert abs(sums - float(found["cpu"][0])) <= 1e6 * 2.0**-53 * sum(float(x.abs().sum()) for x in found["cpu"][1:])


def test_a_gated_layer_is_mapped_and_differentiated_over_its_time() -> None:
    from dataclasses import replace

    layer = small_layer(replace(small_layer().config, time_gate=2.0)).double()
    given = layer_inputs(n=3, batch=(1,), dtype=torch.float64)
    layer.requires_grad_(False)
    time = torch.tensor([0.25, 0.5], dtype=torch.float64)

    def at(t: torch.Tensor) -> torch.Tensor:
        return layer(*given, t=t.expand(1)).sum()

    assert torch.equal(func.vmap(at)(time), torch.stack([at(t) for t in time]))
    expected, h = func.vmap(func.grad(at))(time), 2.0**-15
    measured = (func.vmap(at)(time + h) - func.vmap(at)(time - h)) / (2 * h)
    wider = (func.vmap(at)(time + 2 * h) - func.vmap(at)(time - 2 * h)) / (4 * h)
    error = float((measured - wider).abs().max()) + 1e3 * 2.0**-53 / h
    check(expected, measured, error, "vmap(grad) over t")


def test_the_operator_itself_carries_a_tangent_and_its_backward_refuses_by_name() -> None:
    args = flat_arguments(dtype=torch.float64)
    plain = tuple(x.detach() if isinstance(x, torch.Tensor) else x for x in args)
    with forward_ad.dual_level():
        q = forward_ad.make_dual(plain[0], torch.ones_like(plain[0]))
        values = gaussian_attention_op(q, *plain[1:])[0]
        tangent = forward_ad.unpack_dual(values).tangent
    assert tangent is not None and bool(tangent.abs().max() > 0)

    out = gaussian_attention_op(*plain)
    given = (*(torch.ones_like(x) for x in out[:4]), out[1], out[3], *plain, True, True, True)
    gaussian_attention_backward_op(*given)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match='implementation="reference"'):
        cotangent = forward_ad.make_dual(given[0], torch.ones_like(given[0]))
        gaussian_attention_backward_op(cotangent, *given[1:])
    with pytest.raises(NotImplementedError, match='implementation="reference"'):
        func.grad(lambda g: gaussian_attention_backward_op(g, *given[1:])[0].sum())(given[0])


def test_second_derivatives_tell_apart_one_tensor_given_as_query_and_key() -> None:
    """One leaf as q and k, means and sigmas: its second derivative is that of two leaves that hold the same."""
    generator = torch.Generator().manual_seed(3)
    q, mean = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((1, 2, 4, 3), (1, 2, 2, 4, 3)))
    frame, mask = Frame.identity(1, 4, dtype=torch.float64), torch.ones(1, 4, dtype=torch.bool)
    config, scale = small_layer().config, torch.zeros(2, dtype=torch.float64)
    values = torch.randn(1, 2, 4, 1, 3, generator=generator, dtype=torch.float64)

    def f(a: torch.Tensor, implementation: str) -> torch.Tensor:
        gaussians = (a[..., None, :, :].expand_as(mean) + mean, torch.full_like(mean, 0.3))
        options = {"geo_scale": scale, "geo_bias": scale, "config": config, "implementation": implementation}
        return gaussian_attention(a, a, a, values, gaussians, gaussians, frame, mask, **options).values.square().sum()

    cpu, reference = (functional.hessian(lambda a, i=i: f(a, i), q) for i in ("cpu", "reference"))
    assert bool(((cpu - reference).abs() <= 1e6 * 2.0**-53 * reference.abs().max()).all())


assert SIZE == len(V) and OUTPUTS == len(W)
