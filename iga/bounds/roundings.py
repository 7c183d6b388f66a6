"""The roundings of a term of the closed form by each implementation: the table that the budgets are made of.

docs/theory.md, section 6, bounds any evaluation of the sums of section 5 by these counts, in any order of summation and
with or without fused multiply-adds. `python -m iga.testing.judges.roundings` counts them again in the sources of the
implementations, and ends 1 if one differs.
"""

from dataclasses import dataclass, fields

__all__ = ["ANY", "CPU", "FUSED", "IMPLEMENTATIONS", "REFERENCE", "Roundings"]


@dataclass(frozen=True)
class Roundings:
    """Units of rounding, u each, that the terms of one implementation take at most; of approximate functions, their
    documented error in u. What is ≤ 1 ulp is 2.

    relative, delta    Q = R_iᵀR_j; δ = μ_i − μ_j
    local, cross       g = R_iᵀδ and h = R_jᵀδ, from δ; T = q_l × g, from Q and g (with σ_ik, where it is multiplied in)
    det, num           the two sums, from σ, Q, g, h and T
    quotient           dist_sq, from num and det
    log, log_at_one    ln det: relative to it, and absolute
    argument           dist_sq/ν in 1 + dist_sq/ν, from num and det
    growth, growth_at_one   ln(1 + dist_sq/ν): relative to it, and absolute
                       (of a logarithm for several points together, a point's share)
    dist_sq_term       dist_sq in a Gaussian score, from num and det
    log_det_term, growth_term     what is done to the two logarithms until they are a score
    operations         sums, products and quotients in the source, all forms of the score together; in no budget

    Source: docs/theory.md, 6.2, 6.3 and 8.3.
    """

    relative: int = 3
    delta: int = 1
    local: int = 3
    cross: int = 2
    det: int = 17
    num: int = 17
    quotient: int = 1
    log: int = 2
    log_at_one: int = 0
    argument: int = 3
    growth: int = 2
    growth_at_one: int = 0
    dist_sq_term: int = 2
    log_det_term: int = 1
    growth_term: int = 3
    operations: int = 0

    def worst(self, other: "Roundings") -> "Roundings":
        """The larger of each count."""
        return Roundings(*(max(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)))


REFERENCE = Roundings(operations=463)
CPU = Roundings(
    cross=3,
    det=15,
    num=11,
    log=3,
    log_at_one=1,
    growth=6,
    growth_at_one=3,
    dist_sq_term=5,
    operations=285,
)
FUSED = Roundings(
    cross=3,
    det=15,
    num=11,
    quotient=5,
    log=4,
    log_at_one=3,
    argument=7,
    growth=5,
    growth_at_one=4,
    dist_sq_term=4,
    log_det_term=3,
    operations=252,
)
IMPLEMENTATIONS = {"reference": REFERENCE, "cpu": CPU, "fused": FUSED}
# What holds for whichever of them runs.
ANY = REFERENCE.worst(CPU).worst(FUSED)
