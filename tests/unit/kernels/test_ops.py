"""The operator as torch and the layer meet it: opcheck, autocast, the same bits again, statistics, the default.

Compiled, exported and differentiated layers: tests/regression/test_compiled_layers.py, test_derivatives_of_kernels.py.
"""

import copy

import pytest
import torch

from helpers.layers import layer_inputs, small_layer
from helpers.operators import by, flat_arguments
from iga.attention import InvariantGaussianAttention
from iga.diagnostics import global_metrics, statistics_metrics
from iga.kernels import choose
from iga.kernels.ops import gaussian_attention_op
from iga.testing.judges.attention_problem import Problem, random_problem


@pytest.mark.parametrize(("dtype", "pair"), [(torch.float32, True), (torch.float64, False)])
def test_opcheck_holds(dtype: torch.dtype, pair: bool) -> None:
    torch.library.opcheck(gaussian_attention_op, flat_arguments(bias=pair, z=pair, dtype=dtype))


@pytest.mark.parametrize("implementation", ["reference", "cpu", "fused"])
def test_autocast_does_not_reach_the_geometry(implementation: str) -> None:
    problem = random_problem("bounded", seed=1, batch=1, residues=7)
    plain = problem.call(by(implementation))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        short = problem.call(by(implementation))
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
    problem = random_problem("bounded", seed=2, batch=1, residues=5 if small else 24, heads=2)

    def everything() -> list[torch.Tensor]:
        p = problem.leaves()
        out = p.call(by(implementation))
        loss = out.values.sum() + out.points.square().sum() + out.lse.masked_fill(out.lse == -torch.inf, 0).sum()
        return [out.values, out.points, out.lse, *torch.autograd.grad(loss, list(p.tensors.values()))]

    first = everything()
    for _ in range(1 if small else 3):
        assert all(torch.equal(a, b) for a, b in zip(first, everything(), strict=True))


@pytest.mark.parametrize("implementation", ["cpu", "fused"])
def test_a_sample_does_not_feel_its_batch(implementation: str) -> None:
    problem = random_problem("bounded", seed=3, batch=2, residues=7)
    whole = problem.call(by(implementation))
    shared = ("geo_scale", "geo_bias", "z_weight")
    one = {n: t if n in shared else t[1:2] for n, t in problem.tensors.items()}
    alone = Problem("one", one, problem.mask[1:2], problem.config).call(by(implementation))
    assert torch.equal(whole.lse[1:2], alone.lse) and torch.equal(whole.points[1:2], alone.points)
    # torch takes another product for a smaller batch: two orders of one sum of n terms, Σ|a v| ≤ max|v|
    n, u = problem.mask.shape[-1], 2.0**-24
    largest = problem.tensors["v"].abs().max()
    assert bool(((whole.values[1:2] - alone.values).abs() <= 2 * (n + 1) * u * largest).all())


def test_statistics_cost_no_second_pass_and_change_nothing() -> None:
    problem = random_problem("bounded", seed=5, batch=1, residues=7)
    for implementation in ("cpu", "fused"):
        with_them, without = problem.call(by(implementation), statistics=True), problem.call(by(implementation))
        assert without.statistics is None and with_them.statistics is not None
        assert torch.equal(with_them.values, without.values)


def test_a_layer_uses_linear_memory_by_default_and_says_what_it_takes() -> None:
    layer = InvariantGaussianAttention(8, 0, 4, 2, 2, 2)
    assert layer.implementation == "auto"
    assert choose("auto", torch.device("cpu"), torch.float32, layer.config) == "cpu"
    assert choose("auto", torch.device("cpu"), torch.float32, small_layer("pre_fix").config) == "reference"
    assert random_problem("bounded", seed=6).call(by("auto")).implementation == "cpu"


def test_gradients_hold_without_geometry_and_without_bias_wanted() -> None:
    problem = random_problem("bounded", seed=7)
    p = problem.leaves()
    slopes = torch.autograd.grad(p.call(by("cpu")).values.sum(), [p.tensors["q"]])
    fixed = Problem("q only", {**problem.tensors, "q": problem.tensors["q"].clone().requires_grad_()}, p.mask, p.config)
    fixed.call(by("cpu")).values.sum().backward()
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
