"""Layers under torch.compile: the default backend, lengths that change, whole models, and derivatives inside.

Origin: the suite compiled with backends that check nothing, and with the default one every backward pass failed. Each
part has a process apart: shape checks of the test session are in the way of tracers.
"""

import textwrap
from pathlib import Path

import pytest

from helpers.process import run_script

pytestmark = pytest.mark.process

PROGRAM = """
    import sys, warnings, torch
    from torch import nn
    from iga import InvariantPointAttention
    from iga.gaussian import GaussianRigid
    from iga.frame import Frame
    from iga.testing.layer.subject import randomise
    from helpers.layers import SIZES, layer_inputs, small_layer
    torch.set_num_threads(1)
    counters = torch._dynamo.utils.counters
    U = 2.0**-24

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([small_layer(), randomise(InvariantPointAttention(**SIZES), 1)])
            self.norm = nn.LayerNorm(SIZES["c_s"])

        def forward(self, s, z, r, mask):
            for layer in self.layers:
                s = s + layer(self.norm(s), z, r, mask)
            return s

    def slopes(call, model, n):
        given = layer_inputs(n, seed=n)
        given.mask[0, n // 2:] = False
        leaves = [given.s.requires_grad_(), given.z.requires_grad_(), given.r.trans.clone().requires_grad_()]
        rigid = GaussianRigid(Frame(given.r.rot, leaves[2]), given.r.local_mean, given.r.log_scale)
        model.zero_grad()
        output = call(given.s, given.z, rigid, given.mask)
        output.square().sum().backward()
        found = dict(zip(("s", "z", "trans"), (x.grad for x in leaves))) | {"output": output.detach()}
        return found | {name: p.grad for name, p in model.named_parameters()}

    def model():
        model = Model()
        # Scalar code, which is compiled in half the time: what is vectorised is not what is judged.
        compiled = torch.compile(model, fullgraph=True, dynamic=True, options={"cpp.simdlen": 1})
        for n in (5, 6, 9):
            expected, found = slopes(model, model, n), slopes(compiled, model, n)
            for name, one in expected.items():
                # A compiler fuses, and sums in an order of its own: under 10³ terms, twice, a condition under 10²
                bound = 2e3 * 1e2 * U * max(1.0, float(one.abs().max()))
                got = found[name]
                assert got.isfinite().all() and float((got - one).abs().max()) <= bound, (name, n)
        assert not counters["graph_break"], dict(counters["graph_break"])
        assert counters["stats"]["unique_graphs"] == 1

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

    globals()[sys.argv[1]]()
"""
PARTS = {
    "model": "a model of both layers has its gradients under the default backend at every length",
    "transforms": "derivatives of torch.func are the same compiled and linearised",
    "export": "export with a free length serves every length",
}


@pytest.mark.parametrize("part", PARTS)
def test_compiled_layers_are_right(part: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM), encoding="utf-8")
    done = run_script(program, part, timeout=600.0)
    assert done.returncode == 0, f"not so: {PARTS[part]}\n{done.stderr[-3000:]}"
