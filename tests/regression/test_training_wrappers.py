"""Wrappers that people train with: DDP, FSDP2, activation checkpointing, averaged weights. They change no number.

Origin: DDP waited for ever for linear_b and down_z after a call without z; FSDP2 met the kernels with a sharded weight.
World size 1, in this process: what a wrapper does to a module does not depend on the others. Two: test_two_processes.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from helpers.ipa import openfold_rigid
from helpers.layers import LAYERS, SIZES, Inputs, layer_inputs, small_layer
from iga.testing.layer.subject import randomise

KINDS = pytest.mark.parametrize("kind", ["reference", "cpu", "IPA"])
pytestmark = pytest.mark.filterwarnings("ignore")
# Operations of the longest chain, and the condition of a softmax over logits of tens: docs/theory.md, section 13.
CHAIN = 2.0**8 * 2.0**5


def attention(kind: str) -> nn.Module:
    if kind == "IPA":
        return randomise(LAYERS["IPA"](**SIZES, pair_value_dim=2), 0)
    layer = small_layer()
    layer.implementation = kind
    return layer


def inputs() -> Inputs:
    given = layer_inputs()
    given.mask[0, 2] = False
    return given


def gradients(layer: nn.Module, call: Callable[..., Tensor], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
    """Output and gradients of one step, whole."""
    layer.zero_grad()
    output = call(*args, **kwargs)
    output.float().cos().sum().backward()
    found = {name.removeprefix("module."): p.grad for name, p in layer.named_parameters()}
    assert all(grad is not None for grad in found.values()), [name for name in found if found[name] is None]
    whole = {name: g.full_tensor() if hasattr(g, "full_tensor") else g for name, g in found.items()}  # pyright: ignore
    return {"output": output.detach(), **{name: grad.float() for name, grad in whole.items()}}  # pyright: ignore


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor], unit: float) -> None:
    """Within CHAIN roundings of the largest number in play."""
    assert found.keys() == wanted.keys()
    size = max(float(x.abs().max()) for x in wanted.values())
    for name, x in wanted.items():
        error = float((found[name].float() - x).abs().max())
        assert found[name].isfinite().all() and error <= CHAIN * unit * size, (name, error, size)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One process, gloo."""
    store = tmp_path_factory.mktemp("world") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@KINDS
@pytest.mark.parametrize("pair", [(True, False), (False, False), (False, True)], ids=str)
def test_ddp_goes_on_when_a_call_has_no_z(kind: str, pair: tuple[bool, bool], world: Any) -> None:
    """`find_unused_parameters` is off, as it is by default: each parameter must have its gradient, step after step."""
    layer, given = attention(kind), inputs()
    plain = copy.deepcopy(layer)
    parallel = DistributedDataParallel(layer)
    for with_z in pair:
        args = (given.s, given.z if with_z else None, given.r, given.mask)
        found = gradients(parallel, parallel, *args)
        wanted = gradients(plain, plain, *args)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        unused = [name for name in wanted if name.startswith(("linear_b", "down_z"))]
        assert unused and (with_z or all((wanted[name] == 0).all() for name in unused))


def test_parameters_without_use_have_zero_gradients_whatever_they_hold() -> None:
    """An infinite weight times zero would be NaN."""
    for kind in ("cpu", "IPA"):
        layer, given = attention(kind), inputs()
        layer.linear_b.weight.data.fill_(float("inf"))
        found = gradients(layer, layer, given.s, None, given.r, given.mask)
        assert all(x.isfinite().all() for x in found.values())


WAYS = ("root", "each projection", "both")


def sharded(layer: nn.Module, way: str, mesh: Any, policy: MixedPrecisionPolicy | None = None) -> nn.Module:
    options = {"mesh": mesh} if policy is None else {"mesh": mesh, "mp_policy": policy}
    for child in layer.children() if way != "root" else ():
        fully_shard(child, **options)
    return layer if way == "each projection" else fully_shard(layer, **options)


@pytest.mark.parametrize("way", WAYS)
@KINDS
def test_fsdp2_gives_what_the_layer_gives(kind: str, way: str, world: Any) -> None:
    layer, given = attention(kind), inputs()
    wanted = gradients(layer, layer, *given)
    layer = sharded(copy.deepcopy(layer), way, world)
    assert_close(gradients(layer, layer, *given), wanted, 2.0**-24)
    output = layer(given.s, None, given.r, given.mask)
    output.cos().sum().backward()
    assert output.isfinite().all()


def test_fsdp2_in_bfloat16_casts_a_frame_unless_it_is_told_not_to(world: Any) -> None:
    """Frames are dataclasses, into which it looks: their digits are lost, and the call goes on in float32."""
    given = inputs()
    wanted = attention("cpu")(*given)
    errors = []
    for cast in (True, False):
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, cast_forward_inputs=cast)
        layer = sharded(attention("cpu"), "root", world, policy)
        output = layer(given.s.bfloat16(), given.z.bfloat16(), given.r, given.mask)
        errors.append(float((output.float() - wanted).abs().max()))
        assert output.isfinite().all()
    assert 0 < errors[1] < errors[0] <= 32 * 2.0**-8 * float(wanted.abs().max())


@pytest.mark.parametrize("way", WAYS)
@KINDS
def test_fsdp2_in_bfloat16_casts_what_it_likes_and_geometry_stays(kind: str, way: str, world: Any) -> None:
    """Every floating argument is cast: s, z, a float mask, local_mean, log_scale. 2⁻⁸: bfloat16 has 8 bits."""
    layer, given = attention(kind), inputs()
    rigid, mask = openfold_rigid(given.r.rot, given.r.trans), given.mask.float()
    beside = {} if kind == "IPA" else {"local_mean": given.r.local_mean, "log_scale": given.r.log_scale}
    wanted = gradients(layer, layer, given.s, given.z, rigid, mask, **beside)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    layer = sharded(copy.deepcopy(layer), way, world, policy)
    found = gradients(layer, layer, given.s, given.z, rigid, mask, **beside)
    assert found["output"].dtype == torch.bfloat16
    size = float(wanted["output"].abs().max())
    # features and parameters rounded once each, through three projections and a softmax of logits under 8
    assert float((found["output"].float() - wanted["output"]).abs().max()) <= 16 * 2.0**-8 * size
    assert all(x.isfinite().all() for x in found.values())


def test_statistics_come_from_a_sharded_layer_too(world: Any) -> None:
    layer, given = attention("cpu"), inputs()
    wanted = layer.with_statistics(*given)
    layer = fully_shard(layer, mesh=world)
    register_fsdp_forward_method(layer, "with_statistics")
    output, statistics = layer.with_statistics(*given)
    assert torch.equal(output, wanted[0]) and all(map(torch.equal, statistics, wanted[1]))


def test_a_layer_made_on_meta_is_sharded_moved_and_drawn(world: Any) -> None:
    with torch.device("meta"):
        layer = LAYERS["IGA"](**SIZES)
    fully_shard(layer, mesh=world)
    layer.to_empty(device="cpu")
    layer.reset_parameters()
    parts = {name: p.full_tensor() for name, p in layer.named_parameters()}
    assert (parts["geo_scale"] == layer.config.geo_scale_init).all() and (parts["geo_bias"] == 0).all()
    assert (parts["linear_out.weight"] == 0).all() and parts["linear_q.weight"].std() > 0
    assert (layer(*layer_inputs()) == 0).all()


@pytest.mark.parametrize("reentrant", [True, False])
@KINDS
def test_activation_checkpointing_gives_the_same_bits(kind: str, reentrant: bool) -> None:
    layer, given = attention(kind), inputs()
    s = given.s.clone().requires_grad_()
    for autocast in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            wanted = gradients(layer, layer, s, given.z, given.r, given.mask)
            wanted_s, s.grad = s.grad, None
            found = gradients(layer, checkpoint, layer, s, given.z, given.r, given.mask, use_reentrant=reentrant)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        assert s.grad is not None and wanted_s is not None and torch.equal(s.grad, wanted_s)
        s.grad = None


@KINDS
def test_averaged_weights_are_averages_and_leave_the_layer_alone(kind: str) -> None:
    layer, given = attention(kind), inputs()
    averaged = AveragedModel(layer, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    averaged.update_parameters(layer)
    first = copy.deepcopy(layer.state_dict())
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(2.0)  # exact, and so is the average
    averaged.update_parameters(layer)
    apart = copy.deepcopy(layer)
    assert all(torch.equal(averaged.module.state_dict()[k], 1.5 * x) for k, x in first.items())
    apart.load_state_dict({k: 1.5 * x for k, x in first.items()})
    before = layer(*given)
    assert torch.equal(averaged(*given), apart(*given)) and torch.equal(layer(*given), before)
    assert not torch.equal(averaged(*given), before)
