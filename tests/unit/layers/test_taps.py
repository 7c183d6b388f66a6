"""Taps: a layer shows what it computes to whoever listens, and pays one read of a global where nobody does."""

import pytest
import torch

import iga
from helpers.layers import LAYERS, SIZES, layer_inputs, small_layer
from helpers.process import run_script
from iga import functional, taps
from iga.testing.layer.subject import randomise

OF_IGA = ["dist_sq", "geometry_logit", "log_det", "logits", "mean", "score", "sigma", "values", "weights"]
OF_IPA = ["geometry_logit", "logits", "values", "weights"]


def heard_of(layer, inputs):
    heard = {}

    def hear(name, tensor, dims):
        heard.setdefault(name, []).append((tensor, dims))

    with taps.listen(hear):
        output = layer(*inputs)
    return heard, output


def built(kind: str, implementation: str = "reference"):
    layer = randomise(LAYERS[kind](**SIZES), 0)
    if kind == "IGA":
        layer.implementation = implementation
    return layer


@pytest.mark.parametrize(("kind", "names"), [("IGA", OF_IGA), ("IPA", OF_IPA)])
@pytest.mark.parametrize("batch", [(), (2,), (2, 1)])
def test_a_layer_shows_its_taps_with_their_dimensions(kind, names, batch):
    heard, _ = heard_of(built(kind), layer_inputs(batch=batch))
    assert sorted(heard) == names
    sizes = {"h": 3, "p": 2, "q": 7, "k": 7, "x": 3, "c": 4}
    for shown in heard.values():
        for tensor, dims in shown:
            assert tensor.shape == (*batch, *(sizes[letter] for letter in dims.split()[1:]))


def test_what_is_shown_is_what_the_trace_says_and_keeps_its_gradient():
    layer, inputs = built("IGA"), layer_inputs()
    heard, output = heard_of(layer, inputs)
    trace = layer.trace(*inputs)
    assert torch.equal(output, trace.output)
    for name, field in {"log_det": "log_det", "dist_sq": "dist_sq", "geometry_logit": "geo_scaled"}.items():
        ((tensor, _),) = heard[name]
        assert torch.equal(tensor, getattr(trace, field)) and tensor.requires_grad
    for (sigma, _), gaussians in zip(heard["sigma"], (trace.query, trace.key), strict=True):
        assert torch.equal(sigma, gaussians.sigma)


def test_a_kernel_shows_what_dense_torch_makes_of_its_inputs_and_keeps_its_own_output():
    layer, inputs = built("IGA", "cpu"), layer_inputs()
    alone = layer(*inputs)
    heard, output = heard_of(layer, inputs)
    assert torch.equal(output, alone) and output.requires_grad
    assert sorted(heard) == OF_IGA
    assert torch.equal(heard["logits"][0][0], layer.trace(*inputs).logits)
    assert not heard["logits"][0][0].requires_grad


@pytest.mark.parametrize("kind", LAYERS)
def test_nothing_is_made_for_taps_while_nobody_listens(kind, monkeypatch):
    asked = []
    monkeypatch.setattr(taps, "show", lambda *_, **__: pytest.fail("shown to nobody"))
    monkeypatch.setattr(taps, "listening", lambda: asked.append(1))
    built(kind)(*layer_inputs())
    assert len(asked) == 1


# A process apart: shape checks of the test session are in the way of tracers.
COMPILED = """
import torch
from helpers.layers import LAYERS, SIZES, layer_inputs
from iga import taps

inputs = layer_inputs()
for kind in LAYERS.values():
    layer = kind(**SIZES)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.equal(compiled(*inputs), layer(*inputs))
    with taps.listen(lambda *_: print("shown")):
        compiled(*inputs)
"""


@pytest.mark.process
def test_taps_break_no_graph_and_a_compiled_graph_shows_nothing(tmp_path):
    (tmp_path / "compiled.py").write_text(COMPILED)
    done = run_script(tmp_path / "compiled.py")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_listener_inside_hears_alone_and_the_one_before_hears_again():
    heard = []
    with taps.listen(lambda *_: heard.append("outer")):
        with taps.listen(lambda *_: heard.append("inner")):
            taps.show("weights", torch.ones(2, 2), dims="q k")
        taps.show("weights", torch.ones(2, 2), dims="q k")
    taps.show("weights", torch.ones(2, 2), dims="no such thing")
    assert heard == ["inner", "outer"] and not taps.listening()


@pytest.mark.parametrize(
    ("name", "tensor", "dims", "words"),
    [
        ("weight", torch.ones(2, 2), "q k", "no tap 'weight'"),
        ("weights", torch.ones(2, 2), "h q k", "must name the 2 dimensions"),
        ("weights", torch.ones(2, 2), "b h q k", "must name the 2 dimensions"),
        ("weights", torch.ones(2, 2), "k k", "different letters"),
        ("weights", torch.ones(2, 2), "q j", "letters of"),
    ],
)
def test_a_wrong_tap_is_refused_by_name(name, tensor, dims, words):
    with taps.listen(lambda *_: None), pytest.raises(ValueError, match=words):
        taps.show(name, tensor, dims=dims)


def test_taps_are_public_without_an_import_of_their_own():
    assert iga.taps is taps and "taps" in dir(iga) and functional.taps is taps
    assert small_layer().config is not None
