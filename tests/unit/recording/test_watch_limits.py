"""Limits that a watched model crosses: what is written, said or raised, and what is no alarm."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import iga
from helpers.layers import layer_inputs, small_layer
from helpers.softmaxed import N, Softmaxed, hooks_of, stance, tokens
from iga import taps
from iga.recording import LimitCrossed


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
