"""Failures of the overlap that were found, a test each; its origin in the docstring."""

import json
import math
from pathlib import Path

import pytest
import torch

from iga import bounds, rotation
from iga.overlap import gaussian_overlap, gaussian_overlap_textbook
from iga.search.pairs import Domain
from iga.testing.judges.overlap import overlap_digits, overlap_reference
from iga.testing.overlap.worst_rounding import MEASURES, judge, main, ratio, search

EYE = torch.eye(3)
RESULTS = Path(__file__).resolve().parents[2] / "benches" / "results" / "accuracy_float32.json"


def turned(angle: float) -> torch.Tensor:
    """A float32 rotation about z."""
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def same_place(rot, sigma, other_rot, other_sigma, form, **options):
    zero = torch.zeros(3)
    return float(form(rot, zero, torch.tensor(sigma), other_rot, zero, torch.tensor(other_sigma), **options)[1])


def test_two_collapsed_covariances_with_a_jitter_have_log_det_minus_39_367():
    """Origin: training runs whose raw log_det_min stuck at about −39: nothing was left but a jitter of 1e-6 on each."""
    collapsed = [1e-6] * 3
    found = same_place(EYE, collapsed, turned(0.4), collapsed, gaussian_overlap_textbook, jitter=1e-6)
    assert found == pytest.approx(3 * math.log(2e-6), abs=1e-4)
    assert found == pytest.approx(-39.367, abs=1e-3)


def test_under_the_floor_of_three_tenths_of_an_angstrom_the_same_two_have_minus_18_96():
    """Origin: the remedy of the same runs, σ ≥ 0.03 nm."""
    floored = [0.03] * 3
    for form in (gaussian_overlap, gaussian_overlap_textbook):
        assert same_place(EYE, floored, turned(0.4), floored, form) == pytest.approx(-18.9599, abs=1e-4)


def test_the_textbook_cholesky_falls_under_the_floor_at_148_nm_and_the_closed_form_does_not():
    """Origin: σ = exp(3 + 2) nm, the clamps of a real model: κ² u = 1.5, and a floor on σ no longer floors log_det."""
    rot = rotation.random(20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float()
    needle, zero = torch.tensor([148.0, 0.03, 0.03]), torch.zeros(3)
    textbook = gaussian_overlap_textbook(rot, zero, needle, rot, zero, needle)[1]
    closed = gaussian_overlap(rot, zero, needle, rot, zero, needle)[1]
    # two needles of one frame: their true log_det lies far above the floor, which makes the failure the worse
    assert float(textbook.min()) < bounds.log_det_floor(0.03) - 1.0
    truth = 3 * math.log(2) + 2 * (math.log(148.0) + 2 * math.log(0.03))
    assert closed.isfinite().all()
    assert float((closed.double() - truth).abs().max()) <= bounds.log_det_budget(148.0 / 0.03, torch.float32)


def test_a_jitter_costs_digits_and_does_not_cure_the_textbook_form():
    """Origin: the jitter of the same runs; it biases every pair and the rounding at κ = 5000 is as it was."""
    sigma, zero = torch.tensor([0.03] * 3), torch.zeros(3)
    delta = torch.tensor([1.0, 0.0, 0.0])
    biased = float(gaussian_overlap_textbook(EYE, delta, sigma, EYE, zero, sigma, jitter=1e-6)[0])
    true = float(gaussian_overlap(EYE, delta, sigma, EYE, zero, sigma)[0])
    assert 1e-3 < 1 - biased / true < 2e-3


def test_a_translation_by_ten_thousand_nanometres_moves_sqrt_dist_sq_as_far_as_its_budget_and_no_further():
    """Origin: √2 u |t|/σ_min, 0.03 at 10⁴ nm: what a layer pays that does not centre its translations."""
    generator = torch.Generator().manual_seed(1)
    near = torch.randn(2, 2000, 3, generator=generator, dtype=torch.float64) * 0.1
    sigma = torch.full((3,), 0.03)
    far = near + torch.tensor([6000.0, -6400.0, 4800.0], dtype=torch.float64)
    origin, _ = overlap_reference(EYE, near[0], sigma, EYE, near[1], sigma)
    moved, _ = gaussian_overlap(EYE, far[0].float(), sigma, EYE, far[1].float(), sigma)
    error = (moved.double().sqrt() - origin.sqrt()).abs()
    budget = bounds.far_translation_budget(float(far.norm(dim=-1).max()), 0.03, torch.float32, centred=True)
    assert error.isfinite().all()
    assert 0.003 < float(error.max()) <= budget + 1e-4 < 0.04


def test_a_gaussian_score_of_anchors_20_nm_apart_overflows_fp16():
    """Origin: NaN losses in half precision; dist_sq is up to 2.3·10⁵ whatever σ_max."""
    sigma, zero = torch.full((3,), 0.03), torch.zeros(3)
    delta = torch.full((3,), 20.0 / math.sqrt(3.0) + 6 * 0.03)
    dist_sq, _ = gaussian_overlap(EYE, delta, sigma, EYE, zero, sigma)
    assert float(dist_sq) == pytest.approx(bounds.sqrt_dist_sq_bound(20.0, 0.03) ** 2, rel=1e-5)
    assert (-0.5 * dist_sq).half().isinf()


@pytest.fixture(scope="module")
def small_search():
    return search(60_000, 25, seed=3, population=256, rejudge=25)


def test_a_small_search_stays_within_what_is_required_and_what_is_proven(small_search):
    """Origin: the accuracy experiment of 10⁷ pairs (benches/results/accuracy_float32.json), made small."""
    assert {record.measure for record in small_search} == {measure.name for measure in MEASURES}
    for record in small_search:
        assert math.isfinite(record.value)
        assert record.value <= record.required, record
        assert record.value <= record.proven, record


def test_the_search_would_notice_the_textbook_form(monkeypatch):
    monkeypatch.setattr("iga.testing.overlap.worst_rounding.gaussian_overlap", gaussian_overlap_textbook)
    records = search(2000, 0, seed=4, rejudge=20)
    assert sum(record.ratio > 1 for record in records) >= len(records) // 2


def test_the_search_ends_0_prints_a_table_and_writes_its_records(tmp_path, capsys):
    target = tmp_path / "found.json"
    assert main(["--pairs", "500", "--climb-steps", "2", "--population", "16", "--json", str(target)]) == 0
    assert "| dist_sq, relative" in capsys.readouterr().out
    document = json.loads(target.read_text(encoding="utf-8"))
    assert document["pairs"] == 500 and len(document["records"][0]["pair"]) == 6


def test_the_search_ends_1_when_a_requirement_is_exceeded(monkeypatch, capsys):
    monkeypatch.setattr("iga.testing.overlap.worst_rounding.gaussian_overlap", gaussian_overlap_textbook)
    assert main(["--pairs", "500", "--climb-steps", "0", "--population", "16"]) == 1


def recorded():
    if not RESULTS.is_file():
        return []
    return [r for r in json.loads(RESULTS.read_text(encoding="utf-8"))["records"] if r["stage"] == "climbed, 50 digits"]


@pytest.mark.parametrize("record", recorded(), ids=lambda r: f"{r['measure']}, κ {r['band']}")
def test_the_worst_pairs_ever_found_are_within_what_is_required(record):
    """Origin: the climbs of the accuracy experiment; each of its worst pairs, from its numbers."""
    shapes = [(1, 3, 3), (1, 3), (1, 3)] * 2
    pairs = tuple(torch.tensor(x).reshape(s) for x, s in zip(record["pair"], shapes, strict=True))
    measure = next(m for m in MEASURES if m.name == record["measure"])
    outcome = judge(pairs, Domain(), oracle=overlap_digits)
    assert float(ratio(measure, outcome)) <= 1.0
    value, proven = float(measure.value(outcome)), float(measure.proven(outcome))
    assert math.isfinite(value) and value <= proven
