"""Settings of an experiment: what wins over what, exact round trips, errors of one line that name key and remedy."""

import re
from dataclasses import fields

import pytest

from iga.experiment.settings import (
    ARMS,
    SIZES,
    Arm,
    Data,
    Model,
    Settings,
    Training,
    from_yaml,
    load_arm,
    load_settings,
    to_yaml,
)
from iga.presets import preset


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_in_every_size_loads_and_survives_yaml_exactly(arm: str) -> None:
    for size in SIZES:
        settings = load_settings(arm, size)
        assert settings.name == size and settings.arm.name == arm and settings.arm == load_arm(arm)
        assert from_yaml(to_yaml(settings)) == settings
        assert to_yaml(from_yaml(to_yaml(settings))) == to_yaml(settings)


def test_settings_that_are_nobodys_default_survive_yaml_exactly() -> None:
    looks_like_another_value = ("1e5", "no", "010", "1_0", "0x10", "null", "~", "1:30", "2026-01-01", "", "<<", "=")
    settings = Settings(
        name="1e3",
        arm=Arm(
            "mine", "_on", "a note: with #signs, “quotes” and\nlines", {"layer": "iga", "preset": "bounded", "dof": 1.0}
        ),
        model=Model(c_s=12, transformer_heads=3, gaussians="learned"),
        training=Training(lr=1.2345678901234567e-5, clip_grad=1e16, held_out=1 / 3, seed=2**32 - 1),
        data=Data(structures=(*looks_like_another_value, "a b/*.pdb"), synthetic=2, stress=True),
    )
    assert from_yaml(to_yaml(settings)) == settings
    for section in (settings, settings.model, settings.training, settings.data):
        for entry in fields(section):
            assert f"{entry.name}:" in to_yaml(settings)


def test_the_settings_of_a_run_that_was_made_before_are_read_as_they_were_meant() -> None:
    """As the loader wrote them that OmegaConf took the place of."""
    old = """
name: '1e3'
arm:
  name: sigma_floor
  label: _sigmaMin03nm_scaleP
  note: logdet_clamp, and σ ≥ 0.03 nm, points scaled by 1/√P
  attention: {layer: iga, preset: sigma_floor, sigma_min: 0.03, point_scaling: rsqrt}
training: {lr: 1.0e-05, clip_grad: null, held_out: 0.1}
data:
  structures: ['1e5', 'no', ./*.pdb]
  stress: false
"""
    read = from_yaml(old)
    assert read.arm == load_arm("sigma_floor") and read.data.structures == ("1e5", "no", "./*.pdb")
    assert (read.name, read.training, read.model) == ("1e3", Training(lr=1e-5), Model())


def test_overrides_win_over_the_arm_the_arm_over_the_size_and_the_size_over_the_defaults() -> None:
    assert load_settings("bounded", "small").model.c_s != Model().c_s
    assert load_settings("bounded", "paper").model.points == 8
    overridden = load_settings(
        "bounded", "small", ["training.lr=1e-3", "training.lr = 2e-4", "model={heads: 2}", "data.structures=[a.pdb, b]"]
    )
    assert overridden.training.lr == 2e-4 and overridden.model.heads == 2
    assert overridden.model.c_s == load_settings("bounded", "small").model.c_s
    assert overridden.data.structures == ("a.pdb", "b")
    assert load_settings("bounded", "small", ["training.clip_grad=1"]).training.clip_grad == 1.0
    assert load_settings("bounded", "small", ["training.clip_grad=null"]).training.clip_grad is None
    assert load_settings("sigma_floor", "small", ["arm.attention.sigma_min=0.05"]).arm.config == preset(
        "sigma_floor", sigma_min=0.05
    )


def test_a_run_bears_the_label_of_what_it_runs() -> None:
    assert load_settings("sigma_floor", "small").run_name == "small_sigmaMin03nm_scaleP_seed0"
    changed = load_settings("bounded", "small", ["arm.attention.sigma_min=0.05", "arm.attention.score=gaussian"])
    assert changed.arm.label == "_bounded_sigma_min0.05_scoregaussian"
    assert load_settings("bounded", "small", ["arm={attention: {dof: 1}}"]).arm.label == "_bounded_dof1"
    named = load_settings("bounded", "small", ["arm.attention.sigma_min=0.05", "arm.label=_mine"])
    assert named.arm.label == "_mine"
    assert load_settings("sigma_floor", "small", ["arm.attention.sigma_min=0.03"]).arm == load_arm("sigma_floor")
    other = load_settings("ipa", "paper", ["model.gaussians=learned", "data.stress=true", "training.seed=3"])
    assert other.run_name == "paper_learned_stress_ipa_seed3"


# What does not fit

OVERRIDES = {
    "training.lrr=1": r"unknown key 'training\.lrr'; keys of training: steps, lr, weight_decay",
    "trainin.lr=1": "unknown key 'trainin'; keys of the settings: name, arm, model",
    "training.lr.x=1": r"training\.lr must be a number: .*'x': 1",
    "training={lrr: 1}": r"unknown key 'training\.lrr'",
    "arm.attention.sigma=1": r"arm\.attention: unknown key 'sigma'; keys of arm\.attention: form, score",
    "arm.attention.sigma_min=thin": r"arm\.attention: sigma_min must be a number: .*'thin'",
    "arm.attention.sigma_min=0": r"arm\.attention: sigma_min must be a number of nm in .* got 0",
    "arm.attention.score=cauchy": r"arm\.attention: score: Invalid value 'cauchy', expected one of .*gaussian",
    "arm.attention.preset=best": "arm.attention: unknown preset 'best'; presets: pre_fix",
    "arm.attention.layer=transformer": r"arm\.attention\.layer must be one of ipa, iga; got 'transformer'",
    "arm.attention.layer=ipa": r'arm\.attention\.preset belongs to layer "iga"',
    "arm.attention.implementation=fast": r"arm\.attention\.implementation must be one of auto, fused",
    "arm.attention=[a]": "container types",
    "arm.attention={1: 2}": r"arm\.attention\.1: Key 1 \(int\) is incompatible",
    "training=3": "training must be a mapping of keys to values, got 3",
    "training.lr=fast": r"training\.lr must be a number: .*'fast'",
    "training.lr=null": r"training\.lr must be a number: .*None",
    "training.lr=": r"training\.lr must be a number: .*None",
    "training.lr=true": r"training\.lr must be a number: .*True",
    "training.lr=[1]": r"training\.lr must be a number: .*\[1\]",
    "training.lr=0": r"training\.lr must be a positive finite number",
    "training.lr=.inf": r"training\.lr must be a positive finite number",
    "training.lr=.nan": r"training\.lr must be a positive finite number",
    "training.steps=1.0": r"training\.steps must be a whole number: .*1\.0",
    "training.steps=0": r"training\.steps must be at least 1, got 0",
    "training.seed=-1": r"training\.seed must be from 0",
    "training.held_out=1": r"training\.held_out must be a share between 0 and 1",
    "training.clip_grad=0": r"training\.clip_grad must be a positive finite number or null",
    "training.clip_grad=x": r"training\.clip_grad must be a number or null: .*'x'",
    "training.weight_decay=-1": r"training\.weight_decay must be a finite number",
    "training.shortest=49": r"training\.shortest must be at most training\.crop = 48",
    "model.heads=true": r"model\.heads must be a whole number: .*True",
    "model.blocks=0": r"model\.blocks must be at least 1",
    "model.transformer_heads=5": r"model\.c_s must be a multiple of model\.transformer_heads = 5",
    "model.gaussians=moving": r"model\.gaussians must be one of fixed, learned, free; got 'moving'",
    "data.structures=a.pdb": r"data\.structures must be a list of texts",
    "data.structures.0=a.pdb": "container types",
    "data.stress=maybe": r"data\.stress must be true or false: .*'maybe'",
    "data.synthetic=1": r"data\.synthetic must be at least 2",
    "name=/etc": "must make a folder's name",
    "training.lr": r"an override must be KEY=VALUE, as training\.lr=1e-3, got 'training\.lr'",
    "=3": "an override must be KEY=VALUE",
    "training..lr=3": "an override must be KEY=VALUE",
    "training.lr={": r"the value of training\.lr is no YAML",
    "training.lr=???": r"training\.lr must not be \?\?\?; give it a value",
    "training.lr=${training.steps}": r"the value of training\.lr: a reference .* write the value",
    "name=${oc.env:HOME}": "the value of name: a reference",
    "arm.note=${oc.env": r"the value of arm\.note: a reference",
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_an_override_that_does_not_fit_is_named_in_one_line(override: str) -> None:
    with pytest.raises(ValueError, match=OVERRIDES[override]) as caught:
        load_settings("bounded", "small", [override])
    assert "\n" not in str(caught.value)


START = "name: small\narm: {name: mine, label: _mine}\n"
BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
)
TEXTS = {
    START + "colour: red": "unknown key 'colour'; keys of the settings: name, arm",
    START + "training: {steps: 1}\ntraining: {steps: 2}": "duplicate key training in .* line 4",
    START + "? [1]\n: 2": "the settings is no YAML: .* line 3",
    START + "data: {": "the settings is no YAML",
    START + "training: !!python/object/apply:sys.exit [3]": "no YAML: could not determine a constructor for the tag",
    START + "training: ???": r"training must not be \?\?\?",
    START + "training: ${training}": "a reference",
    START + "a: &a [*a]": "recursive aliases are not supported",
    START + "data: " + "[" * 100_000: "exceeded maximum nesting depth",
    BOMB: "no YAML: YAML node expansion exceeds",
    "name: small": "arm is missing; give it a value",
    "name: small\narm: {label: _x}": r"arm\.name is missing",
    "name: small\narm: 3": "arm must be a mapping of keys to values, got 3",
    "- 1": r"the settings must be a mapping of keys to values, got \[1\]",
    "3": "the settings is no YAML: neither a mapping nor a list",
    "": "arm is missing",
}


@pytest.mark.parametrize("text", TEXTS, ids=[re.sub(r"\W+", " ", message) for message in TEXTS.values()])
def test_settings_as_text_that_do_not_fit_are_named_in_one_line_and_nothing_is_executed(text: str) -> None:
    with pytest.raises(ValueError, match=TEXTS[text]) as caught:
        from_yaml(text)
    assert "\n" not in str(caught.value)


def test_an_unknown_arm_or_size_is_an_error_that_names_those_that_exist() -> None:
    for load in (load_arm, lambda name: load_settings(name, "small")):
        with pytest.raises(ValueError, match=f"unknown arm 'best'; arms: {', '.join(ARMS)}"):
            load("best")
    with pytest.raises(ValueError, match="unknown size 'huge'; sizes: small, paper"):
        load_settings("bounded", "huge")
    with pytest.raises(ValueError, match=r'arm\.attention\.preset is missing; layer "iga" starts from a preset'):
        Arm("mine", "_mine", attention={"layer": "iga"})
