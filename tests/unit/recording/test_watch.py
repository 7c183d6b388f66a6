"""Metrics of a model that is watched: those of its layers, whatever they are and however it runs."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint

import iga
from helpers.layers import Net, layer_inputs, small_layer
from helpers.process import run_script
from helpers.softmaxed import WIDTH, Chain, N, Softmaxed, tokens
from iga import InvariantPointAttention, Monitor, taps


def test_metrics_of_this_packages_layers_are_those_of_a_monitor() -> None:
    model, given = Net("sigma_floor"), layer_inputs()
    with Monitor(model) as monitor:
        plain = model(*given)
        expected = monitor.metrics()
    with iga.watch(model, every=2, limits=None) as recorder:
        found = []
        for _ in range(4):
            assert torch.equal(model(*given), plain)
            found.append(recorder.step())
        assert recorder.layers == {"l0": "first", "l1": "second"}
    assert found == [expected, {}, expected, {}] and recorder.metrics() == expected


@pytest.mark.parametrize("dot_product", [False, True], ids=["softmax", "dot product"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_metrics_of_a_layer_with_softmax_alone_are_those_of_its_weights(dot_product: bool, masked: bool) -> None:
    torch.manual_seed(0)
    layer, x = Softmaxed(3.0, dot_product), tokens()
    mask = torch.ones(2, N, dtype=torch.bool)
    mask[1, 4:] = not masked
    plain = layer(x, mask)
    with iga.watch(layer, limits=None) as recorder:
        assert torch.equal(layer(x, mask), plain)
        found = recorder.step()
    logits = (3.0 * layer.query(x) @ layer.key(x).mT).double().masked_fill(~mask[:, None, :], -torch.inf)
    weights = logits.detach().softmax(dim=-1).numpy()
    logs = np.log(weights, where=weights > 0, out=np.zeros_like(weights))
    entropy = -(weights * logs).sum(axis=-1)
    expected = {
        "debug/iga/global/wmax_sat_frac": (weights.max(axis=-1) > 0.9).mean(),
        "debug/iga/l0/wmax_mean": weights.max(axis=-1).mean(),
        "debug/iga/l0/row_entropy_mean": entropy.mean(),
        "debug/iga/l0/row_entropy_min": entropy.min(),
    }
    # float32: N products of size 3 and rounded exponentials
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5) and set(found) == set(expected)


def test_the_layer_is_the_innermost_module_with_parameters_and_is_numbered_as_it_first_ran() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.first = Softmaxed(), nn.MultiheadAttention(WIDTH, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x, x, x, need_weights=False)[0])

    model = Late()
    with iga.watch(model, every=1, limits=None) as recorder:
        for _ in range(2):
            model(tokens())
            recorder.step()
        assert recorder.layers == {"l0": "first", "l1": "second"}


def test_what_a_layer_shows_by_taps_is_taken_before_its_softmax() -> None:
    class Shown(Softmaxed):
        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            logits = self.query(x) @ self.key(x).mT
            logits[1, :, 4:] = -torch.inf
            log_det = torch.arange(2.0 * N * N).reshape(2, N, N)
            log_det[1, 0, 5] = -100.0  # of a key that is masked
            taps.show("log_det", log_det, dims="b q k")
            taps.show("geometry_logit", 7.0 * torch.ones(2, N, N), dims="b q k")
            taps.show("logits", logits, dims="b q k")
            weights = self.softmax(logits)
            taps.show("weights", weights.mT, dims="b k q")
            return weights @ x

    layer = Shown()
    with iga.watch(layer, limits=None) as recorder:
        layer(tokens())
        found = recorder.step()
    assert found["debug/iga/global/log_det_min"] == 0.0 and found["debug/iga/l0/log_det_max"] == 2.0 * N * N - 3
    assert found["debug/iga/global/geo_scaled_absmax"] == 7.0 and 0 < found["debug/iga/l0/row_entropy_mean"]


def test_the_baseline_is_read_by_its_taps() -> None:
    layer, given = InvariantPointAttention(12, 8, 4, 3, 2, 2), layer_inputs()
    with iga.watch(layer, limits=None) as recorder:
        layer(*given)
        found = recorder.step()
    assert found["debug/iga/global/geo_scaled_absmax"] > 0 and "debug/iga/global/log_det_min" not in found


def test_taps_of_a_watched_model_still_reach_their_own_listener() -> None:
    layer, given, heard = small_layer(), layer_inputs(), []
    layer.implementation = "reference"
    with iga.watch(layer, limits=None) as recorder:
        with taps.listen(lambda name, tensor, dims: heard.append(name)):
            layer(*given)
        layer(*given)
        assert recorder.step() and not taps.listening()
    assert set(heard) <= set(taps.NAMES)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_what_a_checkpoint_computes_again_is_looked_at_once(use_reentrant: bool) -> None:
    model, x = Chain(Softmaxed(), Softmaxed()), tokens().requires_grad_()
    own, given = Net(), layer_inputs()
    plain = torch.autograd.grad(model(x).sum(), x)[0]
    with iga.watch(model, limits=None) as recorder, iga.watch(own, limits=None) as second:
        checkpoint(model, x, use_reentrant=use_reentrant).sum().backward()  # type: ignore[union-attr]
        checkpoint(own, given.s.requires_grad_(), *list(given)[1:], use_reentrant=use_reentrant).sum().backward()  # type: ignore[union-attr]
        assert recorder._calls == {0: 1, 1: 1} and second._calls == {0: 1, 1: 1}
    assert torch.equal(x.grad, plain)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[None]:
    """One process, gloo."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("world")
def test_distributed_data_parallel_trains_on_while_it_is_watched() -> None:
    model = nn.parallel.DistributedDataParallel(Chain(Softmaxed(), Softmaxed()))
    with iga.watch(model, every=2, limits=None) as recorder:
        for step in range(3):
            model(tokens()).sum().backward()
            assert bool(recorder.step()) == (step != 1)
        assert recorder.layers == {"l0": "module.layers.0", "l1": "module.layers.1"}


COMPILED = """
    import torch
    import iga
    from torch import nn
    from torch._dynamo.utils import counters
    from helpers.layers import layer_inputs, small_layer
    from iga import Frame, GaussianRigid

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = small_layer()
            self.layer.implementation = "reference"
            self.attention = nn.MultiheadAttention(12, 2, batch_first=True)

        def forward(self, s, z, rot, trans, local_mean, log_scale, mask):
            s = s + self.layer(s, z, GaussianRigid(Frame(rot, trans), local_mean, log_scale), mask)
            return s + self.attention(s, s, s, need_weights=False)[0]

    given = layer_inputs()
    r = given.r
    arguments = given.s, given.z, r.rot, r.trans, r.local_mean, r.log_scale, given.mask
    def whole():
        model = Model()
        return model, torch.compile(model, backend="eager", fullgraph=True)
    def in_place():
        model = Model()
        model.compile(backend="eager", fullgraph=True)
        return model, model
    for build in (whole, in_place):
        torch.compiler.reset()
        counters.clear()
        model, run = build()
        with iga.watch(model, every=3, limits=None) as recorder:
            for step in range(8):
                run(*arguments).sum().backward()
                found = recorder.step()
                assert bool(found) == (step % 3 == 0), (step, found)
                graphs = counters["stats"]["unique_graphs"], dict(counters["graph_break"])
                assert graphs == ((0 if step == 0 else 1), {}), (build, step, graphs)
            assert recorder.layers == {"l0": "layer", "l1": "attention"}
"""


@pytest.mark.process
def test_a_compiled_model_keeps_its_one_graph_and_is_seen_in_the_steps_that_are_looked_at(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(COMPILED), encoding="utf-8")
    ran = run_script(program, timeout=300.0)
    assert ran.returncode == 0, ran.stderr
