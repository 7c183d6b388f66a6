"""A watched model is as it was: its outputs, its copies, its hooks, random numbers, and the compiler's stance."""

import copy
import io
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import iga
from helpers.layers import Net, layer_inputs
from helpers.softmaxed import N, Softmaxed, hooks_of, stance, tokens
from iga import taps


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


def test_the_stance_of_the_compiler_is_put_back_when_the_last_of_two_recorders_ends() -> None:
    first, second = Softmaxed(), Softmaxed()
    with torch.compiler.set_stance("eager_on_recompile"):
        one, two = iga.watch(first, limits=None), iga.watch(second, limits=None)
        one.close()
        assert stance() == "force_eager"
        two.close()
        assert stance() == "eager_on_recompile"
    assert stance() == "default"


NEVER_CLOSED = """
import torch
import iga
from helpers.softmaxed import Softmaxed, tokens

model = Softmaxed()
recorder = iga.watch(model, limits=None)
model(tokens())
kept = [recorder]
"""


@pytest.mark.process
def test_a_recorder_that_nobody_closes_says_nothing_as_the_program_ends(tmp_path: Path) -> None:
    """From a training without `close`: an ignored ImportError on its last line, of torch's stance put back too late."""
    script = tmp_path / "train.py"
    script.write_text(NEVER_CLOSED, encoding="utf-8")
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    ran = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
