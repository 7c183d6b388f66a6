"""Scores of degenerate pairs by the implementations that run here stay within the budgets of their roundings."""

import importlib.util

import pytest
import torch

from iga.bounds import ROUNDED_DRIFT
from iga.kernels.cpu import engine as cpu
from iga.overlap import gaussian_overlap_textbook, gaussian_score, student_t_score
from iga.search.pairs import decode, degenerate_pairs
from iga.testing.judges.roundings import TOGETHER
from iga.testing.overlap import score_rounding
from iga.testing.overlap.score_rounding import BANDS, SCORES, errors, main, scores, search

NEEDS_TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def pairs(count, seed=0):
    return decode(degenerate_pairs(count, torch.Generator().manual_seed(seed)))


def test_scores_are_within_the_budgets_of_their_implementation_and_near_them_where_they_are_small():
    rows = search(("reference", "cpu"), 6000, chunk=2000)
    assert len(rows) == 2 * len(SCORES) * 2 * len(BANDS)
    assert all(row.over == 0 and row.share <= 1 for row in rows)
    assert max(row.share for row in rows) > 0.2


def test_a_thousand_compositions_leave_the_default_budgets_and_plain_products_those_of_their_drift():
    kept, drifted = (search(("cpu",), 1000, compositions=1000, plain=plain, chunk=1000) for plain in (False, True))
    assert all(row.over == 0 for row in kept + drifted)
    assert max(row.drift for row in kept) <= ROUNDED_DRIFT + 1e-2 < 20 < min(row.drift for row in drifted)
    assert max(row.share for row in kept) > 0.05


def test_plain_products_break_the_budgets_of_rounded_rotations(monkeypatch):
    """What the correction is for: without it the same frames are over the default budgets."""
    monkeypatch.setattr(score_rounding, "drift", lambda rot: torch.zeros(len(rot), dtype=torch.float64))
    assert any(row.over for row in search(("reference",), 1000, compositions=1000, plain=True, chunk=1000))


@NEEDS_TRITON
def test_scores_of_the_fused_kernels_are_too(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    rows = search(("fused",), 40, chunk=20)
    assert rows and all(row.over == 0 for row in rows)


def test_points_go_through_the_kernels_that_take_several_together(monkeypatch):
    """Or the counts of what shares a division and a logarithm would be judged on what does not."""
    taken = []
    monkeypatch.setattr(cpu, "_together", lambda *given: taken.append(real(*given)) or taken[-1])
    for score in SCORES:
        scores("cpu", pairs(50), score, points=2)
    assert taken == [2, 2, 1]
    changed = (lambda rot: rot, lambda mean: 0.05 * mean, lambda sigma: sigma.clamp(0.05, 1.0))
    narrow = tuple(changed[i % 3](x) for i, x in enumerate(pairs(3000)))
    for score in SCORES:
        for points in (3, 4):
            error, budget = errors("cpu", narrow, score, points)
            assert (error <= budget).all() and (error > 0.01 * budget).any()
    assert taken[3:] == [2, 2, 4, 4, 1, 1]


real = cpu._together


def test_points_are_counted_together_as_the_kernels_take_them():
    kinds = {kind.removesuffix("_t"): counts for kind, counts in cpu.TOGETHER.items()}
    assert {kind: max(map(len, points)) for kind, points in TOGETHER.items()} == {k: max(c) for k, c in kinds.items()}


def test_scores_of_the_textbook_form_break_the_budget_and_the_command_ends_one(monkeypatch, capsys):
    def textbook(implementation, given, score, points=1):
        overlap = gaussian_overlap_textbook(*given)
        if score.kind == "gaussian":
            return points * gaussian_score(*overlap)
        return points * student_t_score(*overlap, dof=score.dof, log_det_min=max(score.log_det_min, -1e30))

    monkeypatch.setattr(score_rounding, "scores", textbook)
    assert main(["--pairs", "500", "--implementation", "reference"]) == 1
    assert "| reference | gaussian | 1 | 1000–inf |" in capsys.readouterr().out


def test_the_command_prints_a_row_for_each_score_and_ends_nought(capsys):
    assert main(["--pairs", "200", "--implementation", "reference", "--compositions", "4"]) == 0
    assert capsys.readouterr().out.count("| reference |") == len(SCORES) * 2 * len(BANDS)
