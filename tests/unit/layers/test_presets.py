"""The presets, which are the history that they claim to be, and configurations that are refused."""

from dataclasses import fields

import pytest

from iga.presets import PRESETS, IGAConfig, preset

pytestmark = pytest.mark.usefixtures("without_shape_checks")


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
    ("name", "wrong"),
    [
        ("form", ["cholesky"]),
        ("score", ["cauchy"]),
        ("floor", ["soft"]),
        ("point_scaling", ["sqrt"]),
        ("sigma_min", [0.0, float("nan")]),
        ("sigma_max", [0.01]),
        ("jitter", [1e-6, -1.0]),
        ("logit_cap", [-1.0]),
        ("time_gate", [0.0]),
        ("pair_value_dim", [0]),
        ("temperature", [float("inf")]),
        ("no_such_field", [1]),
    ],
)
def test_a_bad_field_is_refused_by_name(name: str, wrong: list) -> None:
    for value in wrong:
        with pytest.raises(ValueError, match=name):
            preset("bounded", **{name: value})


def test_an_unknown_preset_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match="sigma_floor"):
        preset("bounde")
