"""Layers that are wrapped, subclassed, copied, saved or compiled while a Monitor watches: it sees each of them once.

Found where a compiled layer was counted twice, a subclass with an argument more ended in a TypeError, torch.save failed
on a watched model, and a deep copy went on counting for the model that it was copied from.
"""

import copy
import io
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint

from helpers.layers import Net, layer_inputs, small_layer
from helpers.process import run_script
from iga import InvariantGaussianAttention, Monitor
from iga.diagnostics import layer_metrics


class Holding(nn.Module):
    """A wrapper that calls what it holds."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args):
        return self.inner(*args)


class Delegating(Holding):
    """One that hands attributes on, as FSDP1 and PEFT do."""

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


def seen(monitor: Monitor) -> list[str]:
    return sorted({name.split("/")[2] for name in monitor.metrics()})


@pytest.mark.parametrize("wrap", [Delegating, Holding])
def test_a_wrapped_layer_is_counted_once(wrap) -> None:
    model, given = Net(), layer_inputs()
    model.first = wrap(wrap(model.first))  # type: ignore[assignment]
    with Monitor(model) as monitor:
        model(*given)
    assert seen(monitor) == ["global", "l0", "l1"] and monitor._calls == [1, 1]


COMPILED = """
    import torch
    from helpers.layers import layer_inputs, small_layer
    from iga import Monitor

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = small_layer()
            self.layer.implementation = "cpu"

        def forward(self, s, z, r, mask):
            return s + self.layer(s, z, r, mask)

    def within():
        net = Net()
        net.layer = torch.compile(net.layer, backend="eager")
        return net

    def in_place():
        net = Net()
        net.layer.compile(backend="eager")
        return net

    given = layer_inputs()
    for build, late in ((lambda: torch.compile(Net(), backend="eager"), True), (within, False), (in_place, True)):
        torch.compiler.reset()
        model = build()
        if late:
            model(*given)
        with Monitor(model) as monitor:
            model(*given)
            assert sorted({name.split("/")[2] for name in monitor.metrics()}) == ["global", "l0"]
            assert monitor._calls == [1], (build, late, monitor._calls)
        model(*given)
        assert monitor._calls == [1], (build, late, monitor._calls)
    model = Net()
    with Monitor(model) as monitor:
        torch.export.export(model, tuple(given))
        assert monitor._calls == [0]
"""


@pytest.mark.process
def test_a_compiled_layer_is_counted_once_however_and_whenever_it_was_compiled(tmp_path: Path) -> None:
    """Also one that was compiled and ran before anybody watched, and again after nobody does. In a process of its own:
    the compiler cannot read the checks of shapes that run here."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(COMPILED), encoding="utf-8")
    ran = run_script(program, timeout=300.0)
    assert ran.returncode == 0, ran.stderr


@pytest.fixture
def world(tmp_path: Path) -> Iterator[None]:
    """One process, gloo. It ends after the model: torch can wait for ever if DDP holds the last name of the group."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("world")
def test_distributed_data_parallel_is_counted_once() -> None:
    model = nn.parallel.DistributedDataParallel(Net())
    with Monitor(model) as monitor:
        model(*layer_inputs()).sum().backward()
    assert seen(monitor) == ["global", "l0", "l1"] and monitor._calls == [1, 1]


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_what_a_checkpoint_computes_again_is_not_counted_again(use_reentrant: bool) -> None:
    model, given = Net(), layer_inputs()
    given.s.requires_grad_()
    with Monitor(model) as monitor:
        checkpoint(model, *given, use_reentrant=use_reentrant).sum().backward()  # type: ignore[union-attr]
    assert monitor._calls == [1, 1] and given.s.grad is not None


class Scaled(InvariantGaussianAttention):
    """Other names, an argument more, and one by keyword alone."""

    def forward(self, x, frames, pair, extra, *, valid, scale=1.0):  # type: ignore[override]
        return super().forward(x + scale * extra, pair, frames, valid)


class Watched(InvariantGaussianAttention):
    def forward(self, s, z, r, mask, **unused):  # type: ignore[override]
        return self.with_statistics(s, z, r, mask)[0]


def test_a_subclass_shows_what_its_layer_computed_whatever_its_arguments_are() -> None:
    given = layer_inputs()
    layer = Scaled(12, 8, 4, 3, 2, 2, implementation="reference")
    extra = torch.ones_like(given.s)
    with Monitor(layer) as monitor:
        layer(given.s, given.r, given.z, extra, valid=given.mask, scale=3.0)
    expected = layer_metrics(layer.trace(given.s + 3.0 * extra, given.z, given.r, given.mask), "debug/iga/l0/")
    assert {name: value for name, value in monitor.metrics().items() if "/l0/" in name} == expected
    with Monitor(Watched(12, 8, 4, 3, 2, 2, implementation="reference")) as monitor:
        monitor._layers[0](*given, what="ever")
    assert monitor._calls == [1]


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "torch.save": saved,
    "deepcopy": copy.deepcopy,
    "averaged": lambda model: torch.optim.swa_utils.AveragedModel(model).module,
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_of_a_watched_model_is_not_watched(name: str) -> None:
    model, given = Net(), layer_inputs()
    with Monitor(model) as monitor:
        other = COPIES[name](model)
        assert torch.equal(other(*given), model(*given))
        assert monitor._calls == [1, 1]
        with Monitor(other) as second:
            other(*given)
        assert second._calls == [1, 1] and monitor._calls == [1, 1]


def test_closing_leaves_the_model_as_it_was_and_other_monitors_at_work() -> None:
    model, given = Net(), layer_inputs()
    before = [set(vars(module)) for module in model.modules()]
    first, second = Monitor(model), Monitor(model.first, every=2)
    shallow = copy.copy(model.first)
    model(*given)
    second.close()
    second.close()
    model(*given)
    assert first._calls == [2, 2] and second._calls == [1]
    first.close()
    last = first.metrics()
    assert [set(vars(module)) for module in model.modules()] == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with torch.no_grad():
        model.first.geo_bias.add_(1.0)
    model(*given)
    shallow(*given)
    assert first._calls == [2, 2] and first.metrics() == last


def test_a_call_that_fails_is_not_counted_and_ends_nothing() -> None:
    model, given = Net(), layer_inputs()
    with Monitor(model) as monitor:
        with pytest.raises(Exception, match="mask must be"):
            model(given.s, given.z, given.r, given.mask[:, :-1])
        assert monitor._calls == [0, 0] and monitor.metrics() == {}
        model(*given)
    assert monitor._calls == [1, 1]


def test_a_layer_that_runs_twice_in_a_step_is_one_layer_of_two_calls() -> None:
    layer, given = small_layer(), layer_inputs()
    layer.implementation = "reference"
    with Monitor(nn.ModuleList([layer, layer])) as monitor:
        layer(*given)
        layer(*given)
    assert seen(monitor) == ["global", "l0"] and monitor._calls == [2]


def test_calls_without_values_pass_a_watched_layer_unseen() -> None:
    model, given = Net(), layer_inputs()
    parameters = dict(model.named_parameters())
    with Monitor(model) as monitor:
        torch.func.grad(lambda p: torch.func.functional_call(model, p, tuple(given)).sum())(parameters)
        model.to("meta")(*(x.to("meta") for x in given))
        assert monitor._calls == [0, 0]


class Foreign(nn.Module):
    """Somebody else's layer: no InvariantGaussianAttention among its modules, and arguments of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = [small_layer(seed=3)]  # in a list: unknown to nn.Module
        self.inner[0].implementation = "reference"

    def forward(self, x, frames, *, pair, valid):
        return self.inner[0](x, pair, frames, valid)

    def trace(self, x, frames, *, pair, valid):
        return self.inner[0].trace(x, pair, frames, valid)


class Around(nn.Module):
    """Its `trace` is not one of ours, and is left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Foreign()

    def forward(self, s, z, r, mask):
        return self.layer(s, r, pair=z, valid=mask)

    def trace(self) -> None:
        raise AssertionError


def test_a_foreign_layer_that_offers_a_trace_is_watched_with_the_arguments_of_its_forward() -> None:
    model, given = Around(), layer_inputs()
    before = {name: copy.copy(value) for name, value in vars(model.layer).items()}
    with Monitor(model) as monitor, Monitor(Delegating(model.layer)) as second:
        s, *others = given
        checkpoint(model, s.clone().requires_grad_(), *others, use_reentrant=False).sum().backward()  # type: ignore[union-attr]
        for copied in (copy.deepcopy(model), saved(model)):
            assert torch.equal(copied(*given), model(*given))
        assert monitor._calls == second._calls == [3] and seen(monitor) == ["global", "l0"]
        expected = layer_metrics(model.layer.trace(given.s, given.r, pair=given.z, valid=given.mask), "debug/iga/l0/")
        assert {name: value for name, value in monitor.metrics().items() if "/l0/" in name} == expected
    assert vars(model.layer).keys() == before.keys() and not model.layer._forward_hooks
    assert not model.layer._forward_hooks_with_kwargs
    model(*given)
    assert monitor._calls == second._calls == [3]
