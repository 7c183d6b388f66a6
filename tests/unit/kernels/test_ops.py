"""What torch asks of an operator: opcheck, compile, export, autocast, vmap, second derivatives, the same bits again."""

import copy
import subprocess
import sys
import textwrap

import pytest
import torch

from helpers.layers import layer_inputs, small_layer
from helpers.operators import flat_arguments
from iga.attention import InvariantGaussianAttention
from iga.diagnostics import global_metrics, statistics_metrics
from iga.kernels.ops import gaussian_attention_op
from iga.testing.judges.attention import judge
from iga.testing.judges.attention_problem import Problem, random_problem


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pair", [True, False])
def test_opcheck_holds(dtype: torch.dtype, pair: bool) -> None:
    torch.library.opcheck(gaussian_attention_op, flat_arguments(bias=pair, z=pair, dtype=dtype))


def run_alone(code: str) -> str:
    """In a process of its own: shape checks of the test session are in the way of tracers."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


LAYER = """
    import sys, torch
    sys.path.insert(0, "tests")
    from helpers.layers import layer_inputs, small_layer
    layer, given = small_layer(), layer_inputs()
    layer.implementation = "cpu"
    given.mask[0, 2] = False
    eager = layer(*given)
    eager.cos().sum().backward()
    slopes = {n: p.grad.clone() for n, p in layer.named_parameters()}
"""


def test_torch_compile_sees_the_same_function_in_one_graph() -> None:
    run_alone(
        LAYER
        + """
    layer.zero_grad()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    output = compiled(*given)
    output.cos().sum().backward()
    assert torch.equal(output, eager)
    # The order in which a parameter's contributions are added is the compiler's: two roundings of the largest.
    for n, p in layer.named_parameters():
        assert (p.grad - slopes[n]).abs().max() <= 64 * 2.0**-24 * max(1.0, slopes[n].abs().max()), n
    """
    )


def test_torch_export_keeps_the_operator() -> None:
    run_alone(
        LAYER
        + """
    program = torch.export.export(layer, tuple(given))
    assert torch.equal(program.module()(*given), eager)
    assert any("iga.gaussian_attention" in str(node.target) for node in program.graph.nodes)
    """
    )


@pytest.mark.parametrize("implementation", ["reference", "cpu", "fused"])
def test_autocast_does_not_reach_the_geometry(implementation: str) -> None:
    problem = random_problem("bounded", seed=1)
    plain = problem.run(implementation)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        short = problem.run(implementation)
    assert torch.equal(plain.values, short.values) and torch.equal(plain.points, short.points)


def test_a_layer_under_autocast_is_at_least_as_near_as_the_dense_one() -> None:
    layer, given = small_layer(), layer_inputs()
    errors = {}
    exact = copy.deepcopy(layer).double()(*layer_inputs(dtype=torch.float64)).float()
    for implementation in ("reference", "cpu"):
        layer.implementation = implementation
        with torch.autocast("cpu", dtype=torch.bfloat16):
            errors[implementation] = (layer(*given).float() - exact).square().mean().sqrt()
    # the projections around the kernel are bf16 in both; inside it the kernel rounds less, by chance perhaps elsewhere
    assert 0 < errors["cpu"] <= 1.5 * errors["reference"]


@pytest.mark.parametrize("implementation", ["cpu", "fused"])
def test_the_same_call_gives_the_same_bits(implementation: str) -> None:
    small = implementation == "fused"  # the interpreter takes its time
    problem = random_problem("bounded", seed=2, batch=1, residues=9 if small else 24)

    def everything() -> list[torch.Tensor]:
        p = problem.leaves()
        out = p.run(implementation)
        loss = out.values.sum() + out.points.square().sum() + out.lse.masked_fill(out.lse == -torch.inf, 0).sum()
        return [out.values, out.points, out.lse, *torch.autograd.grad(loss, list(p.tensors.values()))]

    first = everything()
    for _ in range(1 if small else 3):
        assert all(torch.equal(a, b) for a, b in zip(first, everything(), strict=True))


@pytest.mark.parametrize("implementation", ["cpu", "fused"])
def test_a_sample_does_not_feel_its_batch(implementation: str) -> None:
    problem = random_problem("bounded", seed=3, batch=3)
    whole = problem.run(implementation)
    shared = ("geo_scale", "geo_bias", "z_weight")
    one = {n: t if n in shared else t[1:2] for n, t in problem.tensors.items()}
    alone = Problem("one", one, problem.mask[1:2], problem.config).run(implementation)
    assert torch.equal(whole.lse[1:2], alone.lse) and torch.equal(whole.points[1:2], alone.points)
    # torch takes another product for a smaller batch: two orders of one sum of n terms, Σ|a v| ≤ max|v|
    n, u = problem.mask.shape[-1], 2.0**-24
    largest = problem.tensors["v"].abs().max()
    assert bool(((whole.values[1:2] - alone.values).abs() <= 2 * (n + 1) * u * largest).all())


def test_vmap_maps_over_the_operator() -> None:
    layer = small_layer()
    layer.implementation = "cpu"
    given = layer_inputs()
    whole = layer(*given)
    mapped = torch.func.vmap(lambda s, z, r, m: layer(s, z, r, m))(*given)
    assert torch.equal(whole, mapped)


def test_second_derivatives_come_from_the_reference() -> None:
    layer = small_layer().double()
    given = layer_inputs(n=3, batch=(1,), dtype=torch.float64)
    found = {}
    for implementation in ("reference", "cpu"):
        layer.implementation = implementation
        s = given.s.clone().requires_grad_()
        (slope,) = torch.autograd.grad(layer(s, given.z, given.r, given.mask).cos().sum(), s, create_graph=True)
        found[implementation] = torch.autograd.grad(slope.square().sum(), s)[0]
    size = found["reference"].abs().max()
    assert size > 0
    # float64 all through: sums of under 10³ terms, differentiated twice
    assert bool(((found["cpu"] - found["reference"]).abs() <= 1e3 * 2.0**-53 * 1e3 * size).all())


def test_geo_bias_has_a_gradient_of_zero_and_not_none() -> None:
    for implementation in ("reference", "cpu", "fused"):
        p = random_problem("bounded", seed=4).leaves()
        p.run(implementation).values.sum().backward()
        slope = p.tensors["geo_bias"].grad
        assert slope is not None and bool((slope == 0).all())


def test_statistics_cost_no_second_pass_and_change_nothing() -> None:
    problem = random_problem("bounded", seed=5)
    for implementation in ("cpu", "fused"):
        with_them, without = problem.run(implementation, statistics=True), problem.run(implementation)
        assert without.statistics is None and with_them.statistics is not None
        assert torch.equal(with_them.values, without.values)


def test_a_layer_uses_linear_memory_by_default_and_says_what_it_takes() -> None:
    from iga.kernels import choose

    layer = InvariantGaussianAttention(8, 0, 4, 2, 2, 2)
    assert layer.implementation == "auto"
    assert choose("auto", torch.device("cpu"), torch.float32, layer.config) == "cpu"
    assert choose("auto", torch.device("cpu"), torch.float32, small_layer("pre_fix").config) == "reference"
    assert random_problem("bounded", seed=6).run("auto").implementation == "cpu"


def test_gradients_hold_without_geometry_and_without_bias_wanted() -> None:
    problem = random_problem("bounded", seed=7)
    full = {one.name: one for one in judge(problem, "cpu")}
    assert full["d_q"].ratio <= 1
    p = problem.leaves()
    slopes = torch.autograd.grad(p.run("cpu").values.sum(), [p.tensors["q"]])
    fixed = Problem("q only", {**problem.tensors, "q": problem.tensors["q"].clone().requires_grad_()}, p.mask, p.config)
    fixed.run("cpu").values.sum().backward()
    assert torch.equal(slopes[0], fixed.tensors["q"].grad)


def test_statistics_of_a_call_are_those_of_its_trace() -> None:
    for name in ("bounded", "sigma_floor"):
        layer, given = small_layer(name), layer_inputs()
        given.mask[0, 2:4] = False
        output, statistics = layer.with_statistics(*given)
        found = statistics_metrics(statistics, given.mask)
        expected = global_metrics([layer.trace(*given)])
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            # κ ≤ 20 and |log_det| ≤ 20 here: (25 + 3κ)u absolute, (15 + 8κ)u of a logit of at most 60
            assert abs(found[key] - value) <= 200 * 2.0**-24 * 60, key
        assert torch.equal(output, layer(*given)) or name == "sigma_floor"
