"""Laws of `bounds_summary`: it answers what a user asks, and names hypotheses that contradict each other."""

import pytest

from iga import bounds


def answers(**changes):
    return {row["quantity"]: list(row.values()) for row in bounds.bounds_summary(**changes)}


def test_the_summary_answers_what_a_user_asks():
    rows = answers(points=8)
    assert rows["Gaussian: |G|, mean of P = 8"][2] == "no"
    assert rows["Student-t, ν = 4: |G|, mean of P = 8"][2] == "yes"
    assert rows["Student-t, ν = 4: |G|, mean of P = 8"][3].startswith("yes: span")
    assert rows["log_det, lowest"][1] == "-18.9599"
    capped = answers(points=8, cap=2.0, keys=256)
    assert capped["cap"][3].startswith("no: span 4,") and capped["Gaussian: |G|, sum of P = 8"][3].startswith("no:")


def test_the_summary_names_contradictory_hypotheses():
    for changes, name in (
        ({"sigma_min": 0.0}, "sigma_min"),
        ({"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_max"),
        ({"extent": -1.0}, "extent"),
        ({"points": 0}, "points"),
        ({"keys": 0}, "keys"),
        ({"cap": 0.0}, "cap"),
        ({"floor": "soft"}, "floor"),
    ):
        with pytest.raises(ValueError, match=name):
            bounds.bounds_summary(**changes)
