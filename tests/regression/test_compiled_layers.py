"""Layers under torch.compile: the default backend, lengths that change, whole models, and derivatives inside.

Seen: the suite compiled with backends that check nothing, and with the default one every backward pass failed. All run
in one process apart, which says what became of each: shape checks of the test session are in the way of tracers.
"""

import json
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
    import json, sys, traceback, warnings, torch
    sys.path.insert(0, "tests")
    from torch import nn
    from iga.gaussian import GaussianRigid
    from iga.frame import Frame
    from helpers.layers import SIZES, layer_inputs, small_layer
    torch.set_num_threads(1)
    counters = torch._dynamo.utils.counters
    U = 2.0**-24

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(small_layer(seed=i) for i in range(2))
            self.norm = nn.LayerNorm(SIZES["c_s"])

        def forward(self, s, z, r, mask):
            for layer in self.layers:
                s = s + layer(self.norm(s), z, r, mask)
            return s

    def slopes(call, model, n, *, batch=2, pair=True, kind=torch.bool):
        given = layer_inputs(n, batch=(batch,), seed=n)
        given.mask[0, n // 2:] = False
        leaves = [given.s.requires_grad_(), given.z.requires_grad_(), given.r.trans.clone().requires_grad_()]
        rigid = GaussianRigid(Frame(given.r.rot, leaves[2]), given.r.local_mean, given.r.log_scale)
        model.zero_grad()
        output = call(given.s, given.z if pair else None, rigid, given.mask.to(kind))
        output = output[0] if isinstance(output, tuple) else output
        output.float().square().sum().backward()
        found = {"output": output.detach(), "s": leaves[0].grad, "z": leaves[1].grad, "trans": leaves[2].grad}
        return found | {name: p.grad for name, p in model.named_parameters()}

    def agree(model, compiled, eager, *, unit=U, **how):
        one, two = slopes(eager, model, **how), slopes(compiled, model, **how)
        for name, expected in one.items():
            got = two[name]
            assert (expected is None) == (got is None), name
            if expected is not None:
                # A compiler fuses, and sums in an order of its own: under 10³ terms, twice, a condition under 10²
                bound = 2e3 * 1e2 * unit * max(1.0, float(expected.abs().max()))
                assert got.isfinite().all() and float((got - expected).abs().max()) <= bound, (name, how)

    def graphs():
        assert not counters["graph_break"], dict(counters["graph_break"])
        return counters["stats"]["unique_graphs"]

    def model():
        model = Model()
        compiled = torch.compile(model, fullgraph=True, dynamic=True)
        for n in (10, 11, 17):
            agree(model, compiled, model, n=n)
        assert graphs() == 1

    def transforms():
        warnings.simplefilter("ignore")
        layer, given = small_layer().requires_grad_(False), layer_inputs(4)
        f = lambda s: layer(s, given.z, given.r, given.mask)
        v = torch.ones_like(given.s)
        transforms = {
            "grad": torch.func.grad(lambda s: f(s).square().sum()),
            "jvp": lambda s: torch.func.jvp(f, (s,), (v,))[1],
            "vmap": lambda s: torch.func.vmap(lambda x, z, r, m: layer(x, z, r, m))(s, given.z, given.r, given.mask),
        }
        for name, transformed in transforms.items():
            expected = transformed(given.s)
            found = torch.compile(transformed, backend="aot_eager", fullgraph=True)(given.s)
            assert float(expected.abs().max()) > 0
            assert float((found - expected).abs().max()) <= 2e5 * U * float(expected.abs().max()), name
        _, linear = torch.func.linearize(f, given.s)
        expected = transforms["jvp"](given.s)
        assert float((linear(v) - expected).abs().max()) <= 2e5 * U * float(expected.abs().max())

    def export():
        layer = small_layer().requires_grad_(False)
        n = torch.export.Dim("n", min=2, max=512)
        given = layer_inputs(6)
        free = ({1: n}, {1: n, 2: n}, [[{1: n}, {1: n}], {1: n}, {1: n}], {1: n})
        program = torch.export.export(layer, tuple(given), dynamic_shapes=free)
        for length in (5, 6, 9):
            other = layer_inputs(length)
            assert torch.equal(program.module()(*other), layer(*other))

    became = {}
    for part in (model, transforms, export):
        torch.compiler.reset()
        try:
            part()
            became[part.__name__] = "right"
        except Exception:  # handed to the tests, one for each part, which show it
            became[part.__name__] = traceback.format_exc()
    print(json.dumps(became))
"""


@pytest.fixture(scope="module")
def became() -> dict[str, str]:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_model_of_two_layers_has_its_gradients_under_the_default_backend_at_every_length(
    became: dict[str, str],
) -> None:
    assert became["model"] == "right"


def test_derivatives_of_torch_func_are_the_same_compiled_and_linearised(became: dict[str, str]) -> None:
    assert became["transforms"] == "right"


def test_export_with_a_free_length_serves_every_length(became: dict[str, str]) -> None:
    assert became["export"] == "right"
