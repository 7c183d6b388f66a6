"""Rounding of sums, at worst and most likely: n roundings add up to n u at worst, and to about √n u if they are random.

The second is a theorem about a model (docs/theory.md, 6.8; Higham and Mary, SIAM J. Sci. Comput. 41, 2019): roundings
are independent random numbers of mean zero. Real ones are neither, and in a long sum of equal numbers they fail it:
the worst case holds whatever comes, the likely one describes what most sums do.
"""

import math

from iga.bounds.rounding import Precision, unit_roundoff

__all__ = ["likely_rounding", "rounding_failure", "rounding_lambda", "worst_rounding"]


def worst_rounding(roundings: int, dtype: Precision) -> float:
    """γ_n = nu/(1 − nu) ≥ |Π(1 + δ_i)^±1 − 1| for any n roundings |δ_i| ≤ u; inf from nu = 1. docs/theory.md, 6.8."""
    _check_count("roundings", roundings)
    first = roundings * unit_roundoff(dtype)
    return first / (1.0 - first) if first < 1.0 else math.inf


def likely_rounding(roundings: int, dtype: Precision, lam: float) -> float:
    """γ̃_n(λ) = exp(λ√n u + n u²/(1 − u)) − 1: that of independent roundings of mean zero, `rounding_failure` aside.

    Above `worst_rounding` where n is under about λ². docs/theory.md, 6.8.
    """
    _check_count("roundings", roundings)
    if not 0 < lam < math.inf:
        raise ValueError(f"lam must be a positive finite number, got {lam!r}")
    u = unit_roundoff(dtype)
    exponent = lam * math.sqrt(roundings) * u + roundings * u * u / (1.0 - u)
    return math.expm1(exponent) if exponent < 700.0 else math.inf


def rounding_failure(lam: float, dtype: Precision, factors: int = 1) -> float:
    """Probability, at most, that one of so many products of roundings exceeds γ̃(λ): factors · 2 exp(−λ²(1 − u)²/2).

    An inner product of n terms has n factors, one for each term. docs/theory.md, 6.8.
    """
    _check_count("factors", factors)
    u = unit_roundoff(dtype)
    return min(1.0, 2.0 * factors * math.exp(-0.5 * (lam * (1.0 - u)) ** 2))


def rounding_lambda(failure: float, dtype: Precision, factors: int = 1) -> float:
    """The λ at which `rounding_failure` is `failure`: √(2 ln(2 factors/failure))/(1 − u). docs/theory.md, 6.8."""
    _check_count("factors", factors)
    if not 0 < failure < 1:
        raise ValueError(f"failure must be a probability between 0 and 1, got {failure!r}")
    return math.sqrt(2.0 * math.log(2.0 * factors / failure)) / (1.0 - unit_roundoff(dtype))


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count!r}")
