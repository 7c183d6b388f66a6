"""Rounding at worst and most likely (theory.md, 6.8): the numbers of their theorems, and float32 sums held to both."""

import math

import numpy as np
import pytest
import torch

from helpers.bounds import MP
from iga import bounds

U = 2.0**-24
TRIALS, TERMS, FAILURE = 1000, 1024, 1e-3


@pytest.mark.parametrize(("n", "lam"), [(1, 1.0), (256, 7.3), (10**6, 4.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_are_the_numbers_of_their_theorems(n: int, lam: float, dtype: torch.dtype) -> None:
    u, exact = MP.mpf(torch.finfo(dtype).eps) / 2, MP.mpf(lam)
    likely = MP.exp(exact * MP.sqrt(n) * u + n * u**2 / (1 - u)) - 1
    failure = 2 * n * MP.exp(-((exact * (1 - u)) ** 2) / 2)
    assert bounds.worst_rounding(n, dtype) == pytest.approx(float(n * u / (1 - n * u)), rel=1e-12)
    assert bounds.likely_rounding(n, dtype, lam) == pytest.approx(float(likely), rel=1e-12)
    assert bounds.rounding_failure(lam, dtype, n) == pytest.approx(min(1.0, float(failure)), rel=1e-12)


@pytest.mark.parametrize("factors", [1, 5000])
def test_lambda_is_that_of_its_probability(factors: int) -> None:
    for failure in (0.5, 1e-3, 1e-12):
        lam = bounds.rounding_lambda(failure, torch.float32, factors)
        assert bounds.rounding_failure(lam, torch.float32, factors) == pytest.approx(failure, rel=1e-9)


def test_the_likely_is_the_smaller_from_about_lambda_squared_roundings_on() -> None:
    for n, smaller in ((40, False), (60, True)):
        found = bounds.likely_rounding(n, torch.float32, 7.0) < bounds.worst_rounding(n, torch.float32)
        assert found is smaller


def test_past_the_reach_of_a_dtype_nothing_is_claimed() -> None:
    assert bounds.worst_rounding(2**24, torch.float32) == math.inf
    assert bounds.likely_rounding(1, 0.5, 2000.0) == math.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bounds.worst_rounding(0, U), "roundings must be at least 1, got 0"),
        (lambda: bounds.likely_rounding(-1, U, 1.0), "roundings must be at least 1, got -1"),
        (lambda: bounds.likely_rounding(1, U, 0.0), "lam must be a positive finite number, got 0.0"),
        (lambda: bounds.rounding_failure(1.0, U, 0), "factors must be at least 1, got 0"),
        (lambda: bounds.rounding_lambda(1.0, U), "failure must be a probability between 0 and 1, got 1.0"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# --- sums in float32 against float64 -----------------------------------------------------------------------------


def shares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|error| over Σ|x_i y_i| of inner products of float32 rows, each term rounded and added in order in float32."""
    summed = np.cumsum(x * y, axis=-1, dtype=np.float32)[:, -1].astype(np.float64)
    terms = x.astype(np.float64) * y.astype(np.float64)
    return np.abs(summed - terms.sum(-1)) / np.abs(terms).sum(-1)


def random_rows(positive: bool) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(7)
    x, y = generator.random((2, TRIALS, TERMS), dtype=np.float32)
    return (x, y) if positive else (x - 0.5, y - 0.5)


@pytest.mark.parametrize("positive", [True, False])
def test_sums_of_random_terms_are_within_the_likely_as_often_as_it_says(positive: bool) -> None:
    """At most one in a thousand over it, by the model; three standard errors of that many are allowed to chance."""
    found = shares(*random_rows(positive))
    assert (found <= bounds.worst_rounding(TERMS, torch.float32)).all()
    lam = bounds.rounding_lambda(FAILURE, torch.float32, TERMS)
    over = (found > bounds.likely_rounding(TERMS, torch.float32, lam)).sum()
    assert over <= TRIALS * FAILURE + 3 * math.sqrt(TRIALS * FAILURE)
    assert found.max() > U / 2  # something was rounded


def test_a_sum_of_equal_terms_exceeds_the_likely_and_not_the_worst() -> None:
    """Its roundings have one sign for long stretches: the model is not what arithmetic does."""
    n = 2**17
    (found,) = shares(np.full((1, n), 0.1, np.float32), np.ones((1, n), np.float32))
    assert bounds.likely_rounding(n, torch.float32, 7.0) < found <= bounds.worst_rounding(n, torch.float32)


def test_a_product_with_a_short_mantissa_exceeds_the_likely() -> None:
    x, y = random_rows(positive=True)
    shortened = x.astype(np.float16).astype(np.float32)  # of each product eleven bits are right, not 24
    terms = x.astype(np.float64) * y
    found = np.abs((shortened.astype(np.float64) * y).sum(-1) - terms.sum(-1)) / terms.sum(-1)
    assert (found > bounds.likely_rounding(TERMS, torch.float32, 7.0)).any()


def test_random_roundings_obey_the_model() -> None:
    """Products of 64 factors 1 + δ with δ uniform within u = 2⁻⁶: over γ̃ in no more cases than Hoeffding allows."""
    generator, u, n, count = np.random.default_rng(3), 2.0**-6, 64, 20_000
    product = np.prod(1.0 + u * (2.0 * generator.random((count, n)) - 1.0), axis=-1)
    for lam in (1.0, 1.5, 2.0):
        over = (np.abs(product - 1.0) > bounds.likely_rounding(n, u, lam)).mean()
        assert over <= bounds.rounding_failure(lam, u)
    biased = np.prod(1.0 + u * generator.random((count, n)), axis=-1)  # of mean u/2: not the model
    assert (np.abs(biased - 1.0) > bounds.likely_rounding(n, u, 3.0)).mean() > bounds.rounding_failure(3.0, u)
