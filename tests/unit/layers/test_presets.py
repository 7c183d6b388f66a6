"""The presets are the history that they claim to be, and bad configurations are refused with a remedy."""

import importlib.util
import sys
from dataclasses import fields
from types import ModuleType

import pytest

import iga.presets
from iga.presets import PRESETS, IGAConfig, preset


@pytest.fixture(scope="module")
def as_users_load_it() -> ModuleType:
    """The module without the tests' type checks, which would object before the module's own messages do."""
    assert iga.presets.__file__ is not None
    spec = importlib.util.spec_from_file_location("presets_without_type_checks", iga.presets.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def changes(before: str, after: str) -> dict[str, object]:
    a, b = PRESETS[before], PRESETS[after]
    return {f.name: getattr(b, f.name) for f in fields(IGAConfig) if getattr(a, f.name) != getattr(b, f.name)}


def test_pre_fix_is_the_layer_that_blew_up() -> None:
    config = PRESETS["pre_fix"]
    assert (config.form, config.score, config.floor) == ("textbook", "gaussian", "hard")
    assert (config.sigma_min, config.jitter, config.log_det_min) == (1e-6, 1e-6, None)
    assert (config.point_scaling, config.geo_scale_init, config.logit_cap) == ("sum", 1.0, None)


def test_each_historical_preset_adds_one_remedy_to_the_one_before() -> None:
    assert changes("pre_fix", "logdet_clamp") == {"log_det_min": -20.0}
    assert changes("logdet_clamp", "sigma_floor") == {"sigma_min": 0.03, "point_scaling": "rsqrt"}
    assert changes("sigma_floor", "soft_start") == {"geo_scale_init": -4.0}


def test_the_default_is_bounded_and_its_bound_is_free_of_the_number_of_points() -> None:
    config = preset("bounded")
    assert config == IGAConfig()
    assert config.form == "closed" and config.sigma_min == 0.03
    assert config.point_scaling == "mean" and config.logit_cap is not None


def test_a_preset_takes_changes_by_name() -> None:
    assert preset("bounded", sigma_min=0.05).sigma_min == 0.05


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"form": "cholesky"}, "form"),
        ({"score": "cauchy"}, "score"),
        ({"floor": "soft"}, "floor"),
        ({"point_scaling": "sqrt"}, "point_scaling"),
        ({"sigma_min": 0.0}, "sigma_min"),
        ({"sigma_min": float("nan")}, "sigma_min"),
        ({"sigma_max": 0.01}, "sigma_max"),
        ({"jitter": 1e-6}, "jitter"),
        ({"jitter": -1.0}, "jitter"),
        ({"logit_cap": -1.0}, "logit_cap"),
        ({"time_gate": 0.0}, "time_gate"),
        ({"pair_value_dim": 0}, "pair_value_dim"),
        ({"temperature": float("inf")}, "temperature"),
        ({"no_such_field": 1}, "no_such_field"),
    ],
)
def test_a_bad_field_is_refused_by_name(as_users_load_it: ModuleType, change: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        as_users_load_it.preset("bounded", **change)


def test_an_unknown_preset_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match="sigma_floor"):
        preset("bounde")
