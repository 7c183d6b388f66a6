"""The tables of a comparison: every cell is what the result says, whatever is missing in it."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from helpers.comparison import ARMS, STEPS, find_run, make_result, stop
from iga.experiment.results.columns import Group, glance, groups
from iga.experiment.results.readings import estimate
from iga.experiment.results.sections import blocks_of
from iga.experiment.results.tables import below, cell, digits, first_non_finite, health, metric_table, paired_table
from iga.report.document import Table, as_markdown


def group_of(result: dict[str, Any], title: str) -> Group:
    return next(group for group in groups(result) if title in group.title)


def column(table: Table | None, title: str) -> dict[str, str]:
    """{arm: cell}."""
    assert table is not None
    at = table.heads.index(title)
    return {row[0]: row[at] for row in table.rows}


def metric(result: dict[str, Any], title: str, table: Callable[..., Table | None] = metric_table) -> dict[str, str]:
    group = next(group for group in groups(result) if any(metric.title == title for metric in group.metrics))
    return column(table(result, group), title)


def paired(result: dict[str, Any], title: str) -> dict[str, str]:
    return metric(result, title, paired_table)


def markdown_of(result: dict[str, Any]) -> str:
    return as_markdown(blocks_of([("r.json", result)], {}))


@pytest.mark.parametrize(
    "value, text",
    [
        *[(0.0, "0"), (1.0, "1.00"), (0.12345, "0.123"), (12.345, "12.3"), (123.45, "123"), (1234.5, "1230")],
        *[(99999.0, "1.00·10⁵"), (12345678.0, "1.23·10⁷"), (0.001, "0.00100"), (0.00012, "1.20·10⁻⁴")],
        *[(-0.5, "−0.500"), (-2.5e-8, "−2.50·10⁻⁸"), (math.inf, "not finite"), (math.nan, "not finite")],
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert digits(value) == text


RAMP = [float(step) for step in range(1, STEPS + 1)]


@pytest.mark.parametrize(
    ("series", "title", "text"),
    [
        ({"rots_vf_loss": RAMP}, "rots_vf_loss mean", "35.5 "),
        ({"rots_vf_loss": RAMP}, "rots_vf_loss median", "35.5 "),
        ({"rots_vf_loss": RAMP}, "rots_vf_loss last", "40.0 "),
        ({"rots_vf_loss": [1.0] * (STEPS - 1) + [101.0]}, "rots_vf_loss mean", "11.0 "),
        ({"rots_vf_loss": [1.0] * (STEPS - 1) + [101.0]}, "rots_vf_loss median", "1.00 "),
        ({"geo_scaled_absmax": [None] + [10.0] * (STEPS - 1)}, "geo_scaled_absmax worst", "not finite"),
        ({"geo_scaled_absmax": [None] + [10.0] * (STEPS - 1)}, "geo_scaled_absmax median", "10.0 [10.0, 10.0]"),
    ],
)
def test_losses_are_over_the_last_quarter_of_the_matched_steps_geometry_over_all(
    series: dict[str, Any], title: str, text: str
) -> None:
    """Steps 31 … 40 of 40. A null shows in the worst, and not as a number."""
    assert metric(make_result({"bounded": lambda seed: series}), title)["bounded"].startswith(text)


def test_a_shorter_run_moves_the_window_of_every_arm_of_its_seed() -> None:
    """20 matched steps: the window is 16 … 20."""
    result = make_result({"bounded": lambda seed: {"rots_vf_loss": RAMP}}, seeds=1)
    run = find_run(result, "ipa", 0)
    run["steps"] = {name: values[:20] for name, values in run["steps"].items()}
    run["status"] = "running"
    assert metric(result, "rots_vf_loss mean")["bounded"] == "18.0"
    assert metric(result, "steps") == {arm: "20" for arm in ARMS}


def test_held_out_losses_are_those_of_the_evaluations_in_the_window() -> None:
    result = make_result(seeds=1)
    for step, row in zip((30, 31, 40), find_run(result, "bounded", 0)["held_out"], strict=False):
        row |= {"step": step, "trans_loss": float(step)}
    find_run(result, "bounded", 0)["held_out"] = find_run(result, "bounded", 0)["held_out"][:3]
    held_out = group_of(result, "held-out")
    assert column(metric_table(result, held_out), "trans_loss mean")["bounded"] == "35.5"
    assert column(metric_table(result, held_out), "trans_loss last")["bounded"] == "40.0"


def test_an_arm_that_stopped_early_has_no_window_and_leaves_that_of_the_others() -> None:
    result = make_result()
    for seed in range(3):
        stop(find_run(result, "sigma_floor", seed), 12)
    cells = metric(result, "trans_loss mean")
    assert cells["sigma_floor"] == "–"
    assert cells["bounded"] == "1.00 [1.00, 1.00]"
    assert metric(result, "steps")["sigma_floor"] == "12"
    assert metric(result, "geo_scaled_absmax worst")["sigma_floor"] == "10.0 [10.0, 10.0]"


def test_an_arm_that_stopped_within_the_window_has_no_value_there_either() -> None:
    """Steps 31 … 35 of 31 … 40 were made, and the null was not written."""
    result = make_result(seeds=1)
    run = find_run(result, "sigma_floor", 0)
    run["held_out"][3]["step"] = 33
    stop(run, 35)
    run["steps"] = {name: values[:35] for name, values in run["steps"].items()}
    assert metric(result, "trans_loss mean")["sigma_floor"] == "–"
    held_out = metric_table(result, group_of(result, "held-out"))
    assert column(held_out, "trans_loss mean") == {arm: "–" if arm == "sigma_floor" else "1.00" for arm in ARMS}


def test_a_cell_that_rests_on_fewer_seeds_says_so() -> None:
    result = make_result()
    stop(find_run(result, "sigma_floor", 1), 12)
    assert metric(result, "trans_loss mean")["sigma_floor"] == "1.00 [1.00, 1.00] (2 of 3 seeds)"
    assert paired(result, "trans_loss mean")["sigma_floor"] == "0 [0, 0] (2 of 3 seeds)"


def test_counts_and_extremes_are_over_all_matched_steps() -> None:
    series = {
        "trans_loss": [5.0] * 3 + [math.nextafter(5.0, 0.0)] + [1.0] * (STEPS - 4),
        "rots_vf_loss": [10.0, 10.5, 11.0] + [1.0] * (STEPS - 3),
        "clamped_samples": [4, 3] + [0] * (STEPS - 2),
        "log_det_min": [-30.0] + [-20.0] * (STEPS - 1),
        "wmax_sat_frac": [0.5] + [0.25] * (STEPS - 1),
        "geo_scaled_absmax": [1000.0] + [100.0] * (STEPS - 1),
    }
    result = make_result({"bounded": lambda seed: series}, seeds=1)
    table = metric_table(result, group_of(result, "Clamps"))
    said = {title: column(table, title)["bounded"] for title in table.heads[1:]}
    assert said == {
        "steps": "40",
        "steps with trans_loss ≥ 5": "3.00",
        "samples at the clamp": "7.00",
        "share of samples at the clamp": digits(7 / 160),
        "steps with rots_vf_loss > 10": "2.00",
        "geo_scaled_absmax worst": "1000",
        "geo_scaled_absmax median": "100",
        "wmax_sat_frac worst": "0.500",
        "wmax_sat_frac median": "0.250",
        "log_det_min worst": "−30.0",
        "log_det_min median": "−20.0",
    }


def test_a_series_without_a_number_is_a_dash_and_not_the_worst() -> None:
    cells = metric(make_result(), "log_det_min worst")
    assert cells["ipa"] == "–" and cells["bounded"] == "−20.0 [−20.0, −20.0]"


def test_the_mean_and_interval_of_a_cell_are_students() -> None:
    assert cell([1.0, 2.0, 3.0], of=3) == f"2.00 [{digits(2 - 4.302653 / 3**0.5)}, {digits(2 + 4.302653 / 3**0.5)}]"
    assert cell([2.0], of=1) == "2.00"
    assert cell([], of=3) == "–"
    assert cell([1.0, 100.0], "log", of=2).startswith("10.0 [")
    assert cell([12345.0, 12345.0], "exact", of=2) == "12345"
    assert cell([7.0, 9.0], "exact", of=2) == "7 to 9"


def test_differences_are_paired_by_seed() -> None:
    """ipa differs by 100 between seeds, the arm is 1 below it in each: no pairing would drown it."""
    result = make_result(
        {
            "ipa": lambda seed: {"rots_vf_loss": 100.0 * seed + 50.0},
            "bounded": lambda seed: {"rots_vf_loss": 100.0 * seed + 49.0},
            "sigma_floor": lambda seed: {"rots_vf_loss": 100.0 * seed + 51.0 + 0.1 * seed},
        }
    )
    cells = paired(result, "rots_vf_loss mean")
    assert cells["bounded"] == "−1.00 [−1.00, −1.00] ↓"
    assert cells["sigma_floor"].startswith("1.10 [") and cells["sigma_floor"].endswith("↑")
    assert "ipa" not in cells


def test_logits_are_compared_by_their_ratio() -> None:
    result = make_result({"bounded": lambda seed: {"geo_scaled_absmax": (2.0, 20.0, 200.0)[seed]}})
    assert paired(result, "geo_scaled_absmax median")["bounded"].startswith("2.00× [")
    assert not re.search("[↑↓]", paired(result, "geo_scaled_absmax median")["bounded"])
    assert paired(result, "geo_scaled_absmax median")["sigma_floor"] == "1.00× [1.00, 1.00]"


def test_a_seed_that_only_one_of_the_two_has_is_in_no_difference() -> None:
    result = make_result({"bounded": lambda seed: {"rots_vf_loss": 2.0 + (seed == 2) * 100}})
    result["runs"].remove(find_run(result, "ipa", 2))
    assert paired(result, "rots_vf_loss mean")["bounded"] == "0 [0, 0] (2 of 3 seeds)"


def test_without_ipa_there_are_no_differences_and_the_page_says_so() -> None:
    result = make_result(arms=ARMS[1:])
    assert all(paired_table(result, group) is None for group in groups(result))
    text = markdown_of(result)
    assert "no run of ipa" in text and "Minus ipa" not in text


def test_one_seed_and_one_arm_give_a_report_without_intervals() -> None:
    result = make_result(arms=["bounded"], seeds=1)
    text = markdown_of(result)
    assert "One seed: there are no intervals" in text
    assert "[" not in re.sub(r"\(.*?\)", "", text.split("### Arms and metrics")[1])
    assert "| below |" not in text and "no interval" in text
    assert text.count("undecided |") >= 8


def test_the_row_of_a_claim_shows_its_readings_and_its_factor() -> None:
    """b: geometric mean of 10³, 10⁵, 10⁷ over that of 10, 10³, 10⁵. d: 30 steps against none: (30 + ½) / ½ = 61."""
    clamped = [5.0] * 30 + [1.0] * 10
    result = make_result(
        {
            "logdet_clamp": lambda seed: {"geo_scaled_absmax": 10.0 ** (3 + 2 * seed), "trans_loss": clamped},
            "sigma_floor": lambda seed: {"geo_scaled_absmax": 10.0 ** (1 + 2 * seed), "trans_loss": 1.0},
        }
    )
    text = markdown_of(result)
    rows = [
        line.split(" | ") for line in text.split("## What they mean")[1].splitlines() if " | sigma_floor | " in line
    ]
    b, d = (next(row for row in rows if f"({letter})" in row[0]) for letter in "bd")
    assert b[1:3] == ["supported", "sigma_floor"] and b[3].startswith("1.00·10⁵ [") and b[4].startswith("1000 [")
    assert b[5:8] == ["100× [100, 100]", "3", "40 of 40"]
    assert [d[1], *d[3:7]] == ["supported", "30.0 [30.0, 30.0]", "0 [0, 0]", "61.0× [61.0, 61.0]", "3"]


def test_the_learned_gaussians_loss_has_columns_where_they_are_learned() -> None:
    titles = [m.title for group in groups(make_result(gaussians="learned")) for m in group.metrics]
    assert titles.count("gaussian_loss mean") == 2
    assert not any("gaussian_loss" in m.title for group in groups(make_result()) for m in group.metrics)


def test_the_columns_to_look_at_first_are_those_of_the_tables_in_full() -> None:
    """Each arm has its own numbers, and the held-out loss is not mistaken for that of training."""
    result = make_result({"bounded": lambda seed: {"geo_scaled_absmax": 7.0 + seed, "wmax_sat_frac": 0.25}})
    shown = metric_table(result, glance(result))
    for title, full, where in (
        ("held-out se3_vf_loss_raw", "se3_vf_loss_raw mean", "held-out"),
        ("training se3_vf_loss", "se3_vf_loss mean", "training"),
        ("geo_scaled_absmax", "geo_scaled_absmax median", "geometry"),
        ("wmax_sat_frac", "wmax_sat_frac median", "geometry"),
        ("log_det_min", "log_det_min median", "geometry"),
        ("seconds a step", "seconds a step", "Cost"),
    ):
        assert column(shown, title) == column(metric_table(result, group_of(result, where)), full)
    text = markdown_of(result)
    assert text.index("## Results at a glance") < text.index("## What they mean") < text.index("## The rules")


def test_each_run_that_went_non_finite_is_listed_with_its_step() -> None:
    result = make_result()
    assert first_non_finite(result) is None
    stop(find_run(result, "sigma_floor", 1), 12)
    table = first_non_finite(result)
    assert table is not None and table.rows == (("sigma_floor", "loss", "1", "13"),)


def test_training_is_judged_against_two_baselines_and_the_shuffled_input() -> None:
    """Losses 3.5 against 6, 4 and 7; one arm above both; one between them; one that went non-finite is not judged."""
    result = make_result()
    for seed in range(3):
        for row in find_run(result, "ipa", seed)["held_out"]:
            row["se3_vf_loss_raw"] = 9.0 + seed
        for row in find_run(result, "logdet_clamp", seed)["held_out"]:
            row["se3_vf_loss_raw"] = 6.5 + 0.01 * seed
    stop(find_run(result, "sigma_floor", 0), 12)
    words = {row.arm: tuple(map(below, (row.to_mean_frame, row.to_shuffled, row.to_input))) for row in health(result)}
    assert words == {
        "ipa": ("not below", "not below", "not below"),
        "logdet_clamp": ("not below", "below", "not below"),
        "bounded": ("below", "below", "below"),
    }
    assert "Not judged, a run went non-finite: sigma_floor." in markdown_of(result)


def test_below_needs_the_whole_interval_under_zero() -> None:
    for differences, word in (
        ([-1.0, -1.1, -0.9], "below"),
        ([-1.0, -5.0, 0.5], "not below"),
        ([1.0, 1.1, 0.9], "not below"),
        ([-1.0], "no interval"),
    ):
        assert below(estimate(differences)) == word
    assert below(None) == "–"


def test_a_result_without_a_baseline_says_nothing_of_it() -> None:
    result = make_result()
    del result["baselines"]
    assert (
        {below(row.to_mean_frame) for row in health(result)} == {below(row.to_input) for row in health(result)} == {"–"}
    )
    assert {below(row.to_shuffled) for row in health(result)} == {"below"}
