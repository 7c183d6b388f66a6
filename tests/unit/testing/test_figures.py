"""Figures behind a verdict, and the place of the accused: kept as they were met, and found without running anything."""

import math
import sys
from pathlib import Path

import pytest
import torch

from helpers.scripts import ROOT
from iga.report.documents import Verify
from iga.report.measured import Curve, Histogram
from iga.report.schema import flaw
from iga.testing.figures import LEAST, Blank, Figures, half_decades
from iga.testing.source import source_of, source_of_preset


def test_a_curve_keeps_the_worst_example_of_each_place_by_its_share_of_the_limit() -> None:
    figures = Figures()
    at = torch.tensor([1.0, 1.0, 10.0])
    figures.curve("t", "κ", "nm", at, torch.tensor([4.0, 3.0, 5.0]), torch.tensor([8.0, 4.0, 5.0]))
    figures.curve("t", "κ", "nm", torch.tensor([1.0]), torch.tensor([0.1]), 1.0)
    (curve,) = figures.curves()
    assert (curve["title"], curve["along"], curve["unit"]) == ("t", "κ", "nm")
    assert curve["points"] == [
        {"at": 1.0, "value": 3.0, "limit": 4.0, "examples": 3},
        {"at": 10.0, "value": 5.0, "limit": 5.0, "examples": 1},
    ]
    assert flaw(curve, Curve) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_the_worst_and_stays(bad: float) -> None:
    figures = Figures()
    figures.curve("t", "P", "1", torch.tensor([2.0, 2.0]), torch.tensor([bad, 9.0]), 1.0)
    figures.curve("t", "P", "1", torch.tensor([2.0]), torch.tensor([1e9]), 1.0)
    assert figures.curves()[0]["points"] == [{"at": 2.0, "value": None, "limit": 1.0, "examples": 3}]


def test_where_nothing_is_claimed_the_largest_is_kept() -> None:
    figures = Figures()
    figures.curve("t", "P", "1", torch.tensor([2.0, 2.0]), torch.tensor([3.0, 7.0]), math.nan)
    figures.curve("t", "P", "1", torch.tensor([2.0]), torch.tensor([5.0]), math.inf)
    (point,) = figures.curves()[0]["points"]
    assert point["limit"] is None and point["examples"] == 3


def test_a_histogram_counts_all_examples_wherever_they_lie() -> None:
    figures = Figures()
    values = torch.tensor([-1.5, -1.0, 0.0, 0.99, 3.0, math.nan, math.inf])
    figures.count("t", "nm", values, width=1.0, limit=-2.0)
    figures.count("t", "nm", torch.tensor([]), width=1.0, limit=-2.0)
    (found,) = figures.histograms()
    assert dict(zip(found["start"], found["counts"], strict=True)) == {-2.0: 1, -1.0: 1, 0.0: 2, 3.0: 1}
    assert (found["not_finite"], found["limit"], found["log10"]) == (2, -2.0, False)
    assert flaw(found, Histogram) is None


def test_decades_hold_zero_and_what_is_far_away_makes_no_endless_list() -> None:
    figures = Figures()
    figures.count("t", "1", torch.tensor([0.0, 1e-3, 0.5, 1.0]), width=0.5, limit=0.0, log10=True)
    (found,) = figures.histograms()
    assert found["start"][0] == math.log10(LEAST) and sum(found["counts"]) == 4
    far = Figures()
    far.count("t", "1", torch.tensor([0.0, 1.0, 1e18]), width=1e-3)
    assert sum(far.histograms()[0]["counts"]) == 3 and len(far.histograms()[0]["counts"]) <= 3


def test_half_decades_are_the_lower_ends_of_half_decades() -> None:
    values = torch.tensor([1.0, 3.0, 3.17, 10.0, 99.0, 5000.0], dtype=torch.float64)
    ends = half_decades(values)
    assert bool((ends <= values * (1 + 1e-9)).all()) and bool((values < ends * 10**0.5 * (1 + 1e-9)).all())
    assert ends.tolist() == pytest.approx([1.0, 1.0, 10**0.5, 10.0, 10**1.5, 10**3.5])


def test_a_search_keeps_no_figures() -> None:
    blank = Blank()
    blank.curve("t", "κ", "1", torch.ones(2), torch.ones(2), 1.0)
    blank.count("t", "1", torch.ones(2), width=1.0)
    assert blank.curves() == [] == blank.histograms()


def test_documents_without_figures_are_whole() -> None:
    optional = {"source", "taps"}
    assert optional.isdisjoint(Verify.__required_keys__)


NESTED = """
raise SystemExit("nobody runs this")

def early():
    pass

if early:
    class Box:
        size = 3

        def inside(self):
            pass
else:
    other: int = 4

early = 5
first, second = 1, 2
from math import pi as circle
"""


@pytest.mark.parametrize(
    ("attribute", "line"),
    [("early", 16), ("Box", 8), ("Box.inside", 11), ("Box.size", 9), ("other", 14), ("second", 17), ("circle", 18)]
    + [("made_later", None), ("Box.made_later", 8)],
)
def test_the_line_of_an_attribute_is_that_of_its_last_value_and_nothing_is_run(
    attribute: str, line: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "mine.py").write_text(NESTED, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert source_of(f"a folder/mine.py:{attribute}") == {"file": "a folder/mine.py", "line": line}
    monkeypatch.chdir(tmp_path / "a folder")
    assert source_of(f"mine:{attribute}") == {"file": "mine.py", "line": line}
    assert "mine" not in sys.modules


def test_what_has_no_file_has_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("nowhere.py:f", "no.such.package:f", "builtins:len", "no place", "a\0b.py:f", ":", "..:f", ".py:f"):
        assert source_of(place) is None, place
    (tmp_path / "bad.py").write_text("def f(:\n")
    (tmp_path / "latin.py").write_bytes(b"x = '\xe4'\n")
    for name in ("bad.py", "latin.py"):
        assert source_of(f"{name}:f") == {"file": name, "line": None}


def test_a_package_and_a_preset_have_their_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for place in (source_of("iga.overlap:gaussian_overlap"), source_of_preset("sigma_floor")):
        assert place is not None and place["line"] is not None
        text = (ROOT / place["file"]).read_text(encoding="utf-8").splitlines()[place["line"] - 1]
        assert "gaussian_overlap" in text or '"sigma_floor"' in text
