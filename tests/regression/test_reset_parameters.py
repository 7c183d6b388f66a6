"""Fresh parameters of layers made on the meta device: those of the constructor, in copies and pickles too.

Origin: neither layer had `reset_parameters`; after `to_empty` geo_scale was whatever the memory held, and the reset of
the parts (which FSDP and others call, one module after another) gave nn.Linear's weights: linear_out not zero.
"""

import copy
import gc
import io
import weakref
from collections.abc import Callable
from functools import partial
from typing import get_args

import pytest
import torch
from torch import nn

from helpers.layers import LAYERS, SIZES, layer_inputs
from iga._layers import Init, linear
from iga.presets import preset

IGA, IPA = LAYERS["IGA"], LAYERS["IPA"]
MADE: dict[str, Callable[[], nn.Module]] = {
    "IGA": partial(IGA, **SIZES),
    "IGA without z": partial(IGA, **(SIZES | {"c_z": 0})),
    "IGA of its own scale": partial(IGA, **SIZES, config=preset("bounded", geo_scale_init=-0.7)),
    "IPA": partial(IPA, **SIZES),
    "IPA of the multimer": partial(IPA, **SIZES, is_multimer=True),
    "IPA with down_z": partial(IPA, **SIZES, pair_value_dim=2),
}


def poison(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.constant_(parameter, float("nan"))


def equal(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", MADE)
def test_reset_parameters_draws_what_the_constructor_draws(name: str) -> None:
    torch.manual_seed(3)
    made = MADE[name]()
    with torch.device("meta"):
        empty = MADE[name]()
    assert all(p.is_meta for p in empty.parameters())
    for layer in (empty.to_empty(device="cpu"), MADE[name](), copy.deepcopy(made)):
        poison(layer)
        torch.manual_seed(3)
        layer.reset_parameters()
        assert equal(layer, made)
        z = None if name == "IGA without z" else layer_inputs().z
        assert (layer(layer_inputs().s, z, layer_inputs().r, layer_inputs().mask) == 0).all()


@pytest.mark.parametrize("order", ["from the outside", "from the inside", "each on its own device"])
@pytest.mark.parametrize("name", MADE)
def test_a_reset_of_module_after_module_gives_the_initial_distribution(name: str, order: str) -> None:
    """As FSDP's deferred initialisation, or a loop over modules(): the last projection is zero, the biases are."""
    with torch.device("meta"):
        layer = MADE[name]()
    modules = [module for module in layer.modules() if hasattr(module, "reset_parameters")]
    if order != "each on its own device":
        layer.to_empty(device="cpu")
        poison(layer)
    for module in modules[::-1] if order == "from the inside" else modules:
        if order == "each on its own device":
            module.to_empty(device="cpu", recurse=False)
        module.reset_parameters()
    made = MADE[name]().state_dict()
    for key, found in layer.state_dict().items():
        assert found.isfinite().all(), key
        if (made[key] == made[key].flatten()[0]).all():  # a constant: zeros, or the scale of the heads
            assert torch.equal(found, made[key]), key
        else:  # cut off at two standard deviations of the normal before the cut
            assert found.std() > 0 and found.abs().max() <= 2 / 0.8796 / found.shape[-1] ** 0.5, key


@pytest.mark.parametrize("init", get_args(Init))
def test_a_copied_or_pickled_linear_resets_itself_and_not_its_origin(init: Init) -> None:
    torch.manual_seed(5)
    origin = linear(6, 4, init=init)
    before = copy.deepcopy(origin.state_dict())
    memory = io.BytesIO()
    torch.save(origin, memory)
    memory.seek(0)
    for other in (copy.deepcopy(origin), torch.load(memory, weights_only=False)):
        poison(other)
        torch.manual_seed(5)
        other.reset_parameters()
        assert equal(other, origin) and all(torch.equal(origin.state_dict()[k], before[k]) for k in before)


@pytest.mark.parametrize("name", MADE)
def test_a_layer_is_freed_when_its_last_name_goes(name: str) -> None:
    """Not when the garbage collector comes: on a GPU that may be after the memory is needed."""
    made = MADE[name]()
    gone = [weakref.ref(module) for module in made.modules()]
    gc.disable()
    try:
        del made
        assert [one() for one in gone] == [None] * len(gone)
    finally:
        gc.enable()
