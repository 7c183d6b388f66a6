"""A model that is watched: its metrics are right, its outputs stay as they were, and nothing is left in it."""

import copy
import io
import math
import random
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import iga
from helpers.layers import Net, layer_inputs, small_layer
from helpers.process import run_script
from iga import InvariantPointAttention, Monitor, taps
from iga.recording import LimitCrossed

N, WIDTH = 6, 8


class Softmaxed(nn.Module):
    """A layer that knows nothing of this package."""

    def __init__(self, sharp: float = 1.0, dot_product: bool = False) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.softmax, self.sharp, self.dot_product = nn.Softmax(dim=-1), sharp, dot_product

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        q, k = self.sharp * self.query(x), self.key(x)
        if self.dot_product:
            some = None if mask is None else mask[:, None, :].expand(len(x), N, N)
            return F.scaled_dot_product_attention(q, k, x, attn_mask=some, scale=1.0)
        logits = q @ k.mT
        if mask is not None:
            logits = logits.masked_fill(~mask[:, None, :], -torch.inf)
        return self.softmax(logits) @ x


class Chain(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, N, WIDTH, generator=torch.Generator().manual_seed(seed))


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


def hooks_of(model: nn.Module) -> list[tuple[set[str], int]]:
    return [
        (set(vars(module)), len(module._forward_hooks) + len(module._forward_pre_hooks)) for module in model.modules()
    ]


def test_steps_that_are_not_looked_at_have_a_model_as_it_was() -> None:
    model, given = nn.ModuleList([Net(), Softmaxed()]), layer_inputs()
    before = hooks_of(model)
    recorder = iga.watch(model, every=2, limits=None)
    assert hooks_of(model) != before
    recorder.step()
    assert hooks_of(model) == before and not taps.listening()
    recorder.step()
    model[0](*given)
    model[1](tokens())
    recorder.close()
    recorder.close()
    assert hooks_of(model) == before and recorder.step() == {}


def test_a_call_that_fails_is_not_looked_at_and_the_next_one_is() -> None:
    class Failing(Softmaxed):
        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            y = super().forward(x)
            if mask is not None:
                raise KeyError("mask")
            return y

    model, given = nn.ModuleList([Net(), Failing()]), layer_inputs()
    with iga.watch(model, limits=None) as recorder:
        with pytest.raises(KeyError):
            model[1](tokens(), torch.ones(2, N, dtype=torch.bool))
        with pytest.raises(Exception, match="mask must be"):
            model[0](given.s, given.z, given.r, given.mask[:, :-1])
        assert recorder._calls == {} and not taps.listening()
        model[0](*given)
        try:
            raise KeyError
        except KeyError:  # also while another error is handled
            model[1](tokens())
        assert recorder._calls == {0: 1, 1: 1, 2: 1}


def test_copies_and_files_of_a_model_are_not_watched() -> None:
    model, given = nn.ModuleList([Net(), Softmaxed()]), layer_inputs()
    with iga.watch(model, limits=None) as recorder:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
            assert torch.equal(other[0](*given), model[0](*given))
            assert torch.equal(other[1](tokens()), model[1](tokens()))
        assert recorder._calls == {0: 2, 1: 2, 2: 2}


def test_calls_without_values_pass_unseen() -> None:
    model, x = Softmaxed(), tokens()
    parameters = dict(model.named_parameters())
    with iga.watch(model, limits=None) as recorder:
        torch.func.grad(lambda p: torch.func.functional_call(model, p, (x,)).sum())(parameters)
        copy.deepcopy(model).to("meta")(x.to("meta"))
        assert recorder.step() == {}


@pytest.mark.usefixtures("without_shape_checks")  # which draw what they check
def test_random_numbers_of_a_training_stay_those_that_it_had() -> None:
    model, given = Net(), layer_inputs()
    torch.manual_seed(0)
    plain = torch.rand(3)
    torch.manual_seed(0)
    states = random.getstate(), torch.get_rng_state()
    with iga.watch(model, limits=None):
        model(*given)
    assert torch.equal(torch.rand(3), plain) and random.getstate() == states[0]


def test_a_step_that_is_never_ended_is_told_of_once() -> None:
    model = Softmaxed()
    with iga.watch(model, every=3, limits=None), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(9):
            model(tokens())
    assert ["step()" in str(one.message) for one in caught] == [True]


def test_a_training_goes_on_warns_or_ends_as_it_was_asked(tmp_path: Path) -> None:
    model = Softmaxed(1e3)
    with iga.watch(model, on_limit="record", out=tmp_path) as recorder:
        model(tokens())
    assert set(recorder.written) == {"saturated", "entropy"}
    with (
        iga.watch(model) as recorder,
        pytest.warns(RuntimeWarning, match=r"step 0, layer l0 \(\): saturated \S+ over 0.5"),
    ):
        model(tokens())
        model(tokens())
    assert recorder.written == {"saturated": None, "entropy": None}
    with iga.watch(model, on_limit="raise", first_step=7) as recorder:
        with pytest.raises(LimitCrossed, match="step 7") as raised:
            model(tokens())
        model(tokens())  # once a kind
    assert raised.value.kind == "saturated" and raised.value.folder is None
    assert not taps.listening() and hooks_of(model) == hooks_of(Softmaxed())


def test_a_folder_that_cannot_be_written_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    model = Softmaxed(1e3)
    with iga.watch(model, out=tmp_path / "made") as recorder:
        monkeypatch.setattr("iga.recording.folder.write_folder", full)
        with pytest.warns(RuntimeWarning, match="could not be kept: .*No space left"):
            model(tokens())
    assert recorder.written == {"saturated": None, "entropy": None} and list((tmp_path / "made").iterdir()) == []


@pytest.mark.parametrize(
    ("plant", "kind", "name"),
    [
        (lambda layer: layer.query.weight[0].fill_(math.nan), "non_finite", "softmax"),
        (lambda layer: layer.query.bias.fill_(math.inf), "non_finite", "softmax"),
    ],
    ids=["a NaN in a weight", "an infinity in a bias"],
)
def test_numbers_that_are_not_finite_are_found_and_named(plant, kind: str, name: str, tmp_path: Path) -> None:
    layer = Softmaxed()
    with torch.no_grad():
        plant(layer)
    with iga.watch(layer, out=tmp_path) as recorder, pytest.warns(RuntimeWarning, match=name):
        layer(tokens())
    assert kind in recorder.written


def test_rows_of_masked_keys_and_of_one_key_are_no_alarm() -> None:
    mask = torch.zeros(2, N, dtype=torch.bool)
    mask[:, 0] = True  # one key: its weight is 1
    layer, given = small_layer(), layer_inputs()
    given.mask[:, 1:] = False
    with iga.watch(nn.ModuleList([layer]), on_limit="raise"):
        layer(*given)
    softmaxed = Softmaxed()
    with iga.watch(softmaxed, on_limit="raise") as recorder:
        softmaxed(tokens(), mask)
        assert recorder.step()["debug/iga/global/wmax_sat_frac"] == 1.0


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("every", 0),
        ("every", 2.0),
        ("first_step", -1),
        ("limits", {"log_det": -3.0}),
        ("on_limit", "stop"),
        ("config", {"model": nn.Linear}),
        ("config", {"loss": math.nan}),
        ("model", "layer"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        iga.watch(**{"model": Softmaxed(), name: value})  # type: ignore[arg-type]
    assert stance() == "default"


def stance() -> str:
    from torch._dynamo import eval_frame

    return eval_frame._stance.stance


def test_the_stance_of_the_compiler_is_put_back_when_the_last_of_two_recorders_ends() -> None:
    first, second = Softmaxed(), Softmaxed()
    with torch.compiler.set_stance("eager_on_recompile"):
        one, two = iga.watch(first, limits=None), iga.watch(second, limits=None)
        one.close()
        assert stance() == "force_eager"
        two.close()
        assert stance() == "eager_on_recompile"
    assert stance() == "default"
