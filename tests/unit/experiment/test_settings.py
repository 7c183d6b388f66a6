"""Settings of an experiment: what wins over what, exact round trips, and errors that name what does exist."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iga.experiment import _yaml
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

# YAML


@pytest.mark.parametrize(
    "text, value",
    [
        ("1e-3", 1e-3),
        ("1.5E+4", 1.5e4),
        (".5", 0.5),
        ("5.", 5.0),
        ("-7", -7),
        ("010", 10),
        ("true", True),
        ("on", "on"),
        ("no", "no"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("null", None),
        ("", None),
        ("1pdb", "1pdb"),
        ("1e5", 1e5),
        ("'1e5'", "1e5"),
        ("[1, a]", [1, "a"]),
        (".inf", float("inf")),
    ],
)
def test_plain_words_are_numbers_and_text_as_yaml_1_2_has_them(text: str, value: object) -> None:
    found = _yaml.parse(text, "here")
    assert found == value and type(found) is type(value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(VALUES)
def test_what_is_written_is_read_back_exactly(value: object) -> None:
    assert _yaml.parse(_yaml.dump(value), "here") == value


@pytest.mark.parametrize("text", ["1e3", "010", "true", "null", "on", "1_0", ".5", "~", "", "0x10", "1e", "<<", "="])
def test_text_that_looks_like_another_value_comes_back_as_text(text: str) -> None:
    assert _yaml.parse(_yaml.dump([text]), "here") == [text]


def test_a_key_that_stands_twice_and_what_is_no_yaml_are_refused() -> None:
    with pytest.raises(ValueError, match="'a' stands twice, the second time in line 3"):
        _yaml.parse("a: 1\nb: 2\na: 3\n", "here")
    with pytest.raises(ValueError, match=r"a key must be a plain value, got \[1\] in line 1"):
        _yaml.parse("{[1]: 2}", "here")
    with pytest.raises(ValueError, match="here is no YAML"):
        _yaml.parse("{", "here")
    with pytest.raises(ValueError, match="here is no YAML"):
        _yaml.parse("!!python/object/apply:os.getcwd []", "here")


# Files and overrides


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("size", SIZES)
def test_every_arm_in_every_size_loads_and_survives_yaml_exactly(arm: str, size: str) -> None:
    settings = load_settings(arm, size)
    assert settings.name == size and settings.arm.name == arm and settings.arm == load_arm(arm)
    assert from_yaml(to_yaml(settings)) == settings
    assert to_yaml(from_yaml(to_yaml(settings))) == to_yaml(settings)


def test_settings_that_are_nobodys_default_survive_yaml_exactly() -> None:
    settings = Settings(
        name="1e3",
        arm=Arm(
            "mine", "_on", "a note: with #signs, “quotes” and\nlines", {"layer": "iga", "preset": "bounded", "dof": 1.0}
        ),
        model=Model(c_s=12, transformer_heads=3, gaussians="learned"),
        training=Training(lr=1.2345678901234567e-5, clip_grad=1e16, held_out=1 / 3, seed=2**32 - 1),
        data=Data(structures=("1e5", "no", "a b/*.pdb"), synthetic=2, stress=True),
    )
    assert from_yaml(to_yaml(settings)) == settings
    for section in (settings, settings.model, settings.training, settings.data):
        for entry in fields(section):
            assert f"{entry.name}:" in to_yaml(settings)


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


@pytest.mark.parametrize(
    "override, message",
    [
        ("training.lrr=1", r"unknown key 'training\.lrr'; keys of training: steps, lr, weight_decay"),
        ("trainin.lr=1", "unknown key 'trainin'; keys of the settings: name, arm, model"),
        ("training.lr.x=1", "training.lr is a value, not a section"),
        ("training={lrr: 1}", r"unknown key 'training\.lrr'"),
        ("arm.attention.sigma=1", r"unknown key 'arm\.attention\.sigma'; keys of arm\.attention: form, score"),
        ("arm.attention.sigma_min=thin", r"arm\.attention\.sigma_min must be a number, got 'thin'"),
        ("arm.attention.score=cauchy", r"arm\.attention\.score must be one of gaussian, student_t; got 'cauchy'"),
        ("arm.attention.preset=best", "unknown preset 'best'; presets: pre_fix"),
        ("arm.attention.layer=transformer", r"arm\.attention\.layer must be one of ipa, iga; got 'transformer'"),
        ("arm.attention.layer=ipa", r'arm\.attention\.preset belongs to layer "iga"'),
        ("arm.attention.implementation=fast", r"arm\.attention\.implementation must be one of auto, fused"),
        ("training=3", "training must be a mapping of keys to values, got 3"),
        ("training.lr=fast", r"training\.lr must be a number, got 'fast'"),
        ("training.lr=null", r"training\.lr must be a number, got None"),
        ("training.lr=true", r"training\.lr must be a number, got True"),
        ("training.lr=0", r"training\.lr must be a positive finite number"),
        ("training.lr=.inf", r"training\.lr must be a positive finite number"),
        ("training.steps=1.0", r"training\.steps must be a whole number, got 1\.0"),
        ("training.steps=0", r"training\.steps must be at least 1, got 0"),
        ("training.seed=-1", r"training\.seed must be from 0"),
        ("training.held_out=1", r"training\.held_out must be a share between 0 and 1"),
        ("training.clip_grad=0", r"training\.clip_grad must be a positive finite number or null"),
        ("training.weight_decay=-1", r"training\.weight_decay must be a finite number"),
        ("training.shortest=49", r"training\.shortest must be at most training\.crop = 48"),
        ("model.heads=true", r"model\.heads must be a whole number, got True"),
        ("model.blocks=0", r"model\.blocks must be at least 1"),
        ("model.transformer_heads=5", r"model\.c_s must be a multiple of model\.transformer_heads = 5"),
        ("model.gaussians=moving", r"model\.gaussians must be one of fixed, learned; got 'moving'"),
        ("data.structures=a.pdb", r"data\.structures must be a list, got 'a\.pdb'"),
        ("data.structures=[a, 1]", r"data\.structures\[1\] must be text, got 1"),
        ("data.stress=yes", r"data\.stress must be true or false, got 'yes'"),
        ("data.synthetic=1", r"data\.synthetic must be at least 2"),
        ("name=3", "name must be text, got 3"),
        ("training.lr", r"an override must be KEY=VALUE, as training\.lr=1e-3, got 'training\.lr'"),
        ("=3", "an override must be KEY=VALUE"),
        ("training..lr=3", "an override must be KEY=VALUE"),
        ("training.lr={", r"the value of training\.lr is no YAML"),
    ],
)
def test_an_override_that_does_not_fit_is_named(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_settings("bounded", "small", [override])


def test_an_unknown_arm_or_size_is_an_error_that_names_those_that_exist() -> None:
    for load in (load_arm, lambda name: load_settings(name, "small")):
        with pytest.raises(ValueError, match=f"unknown arm 'best'; arms: {', '.join(ARMS)}"):
            load("best")
    with pytest.raises(ValueError, match="unknown size 'huge'; sizes: small, paper"):
        load_settings("bounded", "huge")


def test_settings_as_text_that_do_not_fit_are_named() -> None:
    text = to_yaml(load_settings("bounded", "small"))
    with pytest.raises(ValueError, match="unknown key 'colour'"):
        from_yaml(text + "colour: red\n")
    with pytest.raises(ValueError, match="arm is missing"):
        from_yaml("name: small\n")
    with pytest.raises(ValueError, match="the settings must be a mapping"):
        from_yaml("- 1\n")
    with pytest.raises(ValueError, match=r'arm\.attention\.preset is missing; layer "iga" starts from a preset'):
        Arm("mine", "_mine", attention={"layer": "iga"})
