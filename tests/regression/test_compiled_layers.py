"""Layers under torch.compile with derivatives inside, and exported with a free length.

Each test is a process of its own: shape checks of the test session are in the way of tracers.
"""

import subprocess
import sys
import textwrap

SETUP = """
    import sys, warnings, torch
    sys.path.insert(0, "tests")
    from layer_support import layer_inputs, small_layer
    torch.set_num_threads(1)
    U = 2.0**-24
"""


def run_alone(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SETUP) + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_derivatives_of_torch_func_are_the_same_compiled() -> None:
    run_alone(
        """
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
    """
    )


def test_export_with_a_free_length_serves_every_length() -> None:
    run_alone(
        """
    layer = small_layer().requires_grad_(False)
    n = torch.export.Dim("n", min=2, max=512)
    given = layer_inputs(6)
    free = ({1: n}, {1: n, 2: n}, [[{1: n}, {1: n}], {1: n}, {1: n}], {1: n})
    program = torch.export.export(layer, tuple(given), dynamic_shapes=free)
    for length in (5, 6, 9):
        other = layer_inputs(length)
        assert torch.equal(program.module()(*other), layer(*other))
    """
    )
