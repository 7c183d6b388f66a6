"""Finite differences: their error is known, smooth or at a kink, and every kink of a layer is looked at."""

import math

import torch

from helpers.subjects import SMALL
from iga.presets import preset
from iga.structure.synthetic import synthetic_structures
from iga.testing.layer import differences
from iga.testing.layer.cases import make_case
from iga.testing.layer.differences import central
from iga.testing.layer.edits import cast
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally


def test_a_kink_of_every_kind_is_looked_at() -> None:
    subject = Subject("traced", preset("bounded", floor="hard", log_det_min=-12.0), SMALL)
    tally = Tally("kinks", "")
    case = cast(make_case(synthetic_structures(1, seed=0)[0], SMALL, residues=6, seed=0), torch.float64)
    differences.judge_kinks(subject, subject.random(2, 0).double(), case, 300, 0, "", tally)
    assert len(differences.kinks(subject.iga_config)) == 3
    assert tally.examples == 9 and tally.finding().verdict == "holds"


def test_a_kink_within_a_central_step_widens_its_error_enough() -> None:
    h = 2.0**-10
    for jump in (-1.0, 1.0):
        for place in range(1, 40):

            def f(x: float, kink: float = place / 40 * h, jump: float = jump) -> torch.Tensor:
                return torch.tensor(3 * x + 0.5 * x**2 + jump * max(x - kink, 0.0), dtype=torch.float64)

            slope, error = central(f, h, 2.0**-60)
            assert (slope - 3).abs() <= error, (jump, place)


def test_a_smooth_derivative_is_known_to_six_digits() -> None:
    slope, error = central(lambda x: torch.tensor(1 + x, dtype=torch.float64).exp(), 2.0**-10, 2.0**-50)
    assert (slope - math.e).abs() <= error <= 1e-6 * math.e
