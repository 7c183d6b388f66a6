"""Numbers that know which sum they are: every term a product of symbols, with the roundings that it has been through.

An expression evaluated on these instead of floats yields its own polynomial, and for each term how many factors 1 + θ,
|θ| ≤ u, rounding puts on it at most. A fused multiply-add rounds once where two roundings are counted, so that what is
counted holds for contracted code as well; another order of summation is another expression.

A sum that equals a quantity which the theory names (Q, δ, g, h, T, det, num) becomes one symbol, and its count goes
into the machine's `counts`: theorems bound the errors of such a sum as a whole. That identity is one of polynomials, so
an expression with a term too many, or a sign changed, is not recognised. docs/theory.md, sections 5 and 6.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["DIST_SQ", "Host", "Machine", "Term", "Terms", "product"]

# Symbols with their exponents, sorted: σ_i0² g_0 is (("g0", 1), ("si0", 2)).
Monomial = tuple[tuple[str, int], ...]


class Term(NamedTuple):
    """The coefficient of a product of symbols, and how often rounding has multiplied it."""

    coefficient: float
    roundings: int


@functools.lru_cache(maxsize=1 << 16)
def product(*symbols: str | tuple[str, int]) -> Monomial:
    """The monomial of these symbols, each with an exponent or alone."""
    powers: dict[str, int] = {}
    for symbol in symbols:
        name, exponent = symbol if isinstance(symbol, tuple) else (symbol, 1)
        powers[name] = powers.get(name, 0) + exponent
    return tuple(sorted((name, exponent) for name, exponent in powers.items() if exponent))


DIST_SQ = product("num", ("det", -1))


class Machine:
    """What rounds: the price of a division, torch's logarithm, the sums that are known by name, and the counts."""

    def __init__(self, division: int = 1, log: Callable[["Terms"], "Terms"] | None = None) -> None:
        self.division = division
        self.log = log or (lambda x: x)
        self.known: dict[frozenset[tuple[Monomial, float]], tuple[str, str]] = {}
        self.counts: dict[str, int] = {}

    def leaf(self, symbol: str | tuple[str, int], roundings: int = 0, coefficient: float = 1.0) -> "Terms":
        """A number as given, or one that was rounded before."""
        return Terms(self, {product(symbol): Term(coefficient, roundings)})

    def sum_of(self, symbols: Iterable[str]) -> "Terms":
        """Numbers that nobody has rounded, as one."""
        return Terms(self, {product(symbol): Term(1.0, 0) for symbol in symbols})

    def name(self, symbol: str, kind: str, terms: Mapping[Monomial, float]) -> None:
        """Sums equal to `terms` become `symbol`, and `kind` counts their roundings."""
        self.known[frozenset(terms.items())] = symbol, kind

    def operated(self, times: int = 1) -> None:
        self.counts["operations"] = self.counts.get("operations", 0) + times

    def count(self, kind: str, roundings: int) -> None:
        self.counts[kind] = max(self.counts.get(kind, 0), roundings)

    def recognised(self, sum_: "Terms") -> "Terms":
        """`sum_`, or the symbol that it is, up to a sign and a factor common to all its terms (the σ of σ_ik T_kl)."""
        common = _common_factor(sum_.of)
        reduced = {_divided(monomial, common): term.coefficient for monomial, term in sum_.of.items()}
        for sign in (1.0, -1.0):
            found = self.known.get(frozenset((monomial, sign * c) for monomial, c in reduced.items()))
            if found:
                symbol, kind = found
                self.count(kind, sum_.most())
                return Terms(self, {product(symbol, *common): Term(sign, 0)})
        return sum_


class Terms:
    """A sum of terms; the operators of a number, each of which rounds as IEEE arithmetic does."""

    def __init__(self, machine: Machine, of: dict[Monomial, Term]) -> None:
        self.machine, self.of = machine, of
        self.grown: Terms | None = None  # x of a rounded 1 + x, and of what was made of it
        self.lost: Lost | None = None  # this is x − ((1 + x) − 1), which rounding alone keeps from being 0
        self.shape = ()

    def __add__(self, other: Any) -> "Terms":
        other = self._taken(other)
        if self.lost or other.lost:
            return _repaired(self, other)
        made = self._merged(other)
        one = {(): Term(1.0, 0)}
        if self.of == one or other.of == one:
            made.grown = other if self.of == one else self
        return made

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Terms":
        other = self._taken(other)
        if self.grown is not None and other.of == {(): Term(1.0, 0)}:
            found = Terms(self.machine, dict(self.grown.of))
            found.grown = self.grown
            return found
        if other.grown is not None and other.coefficients() == self.coefficients():
            return _nothing(self.machine, Lost(other.grown, (), False))
        return self._merged(-other)

    def __rsub__(self, other: Any) -> "Terms":
        return self._taken(other) - self

    def __neg__(self) -> "Terms":
        return Terms(self.machine, {m: Term(-c, r) for m, (c, r) in self.of.items()})

    def __mul__(self, other: Any) -> "Terms":
        other = self._taken(other)
        for one, factor in ((self, other), (other, self)):
            if one.lost:
                (scale,) = factor.of
                return _nothing(self.machine, one.lost._replace(scale=product(*one.lost.scale, *scale)))
            if _is_power_of_two(factor):
                self.machine.operated()
                scale = factor.of[()].coefficient
                return Terms(self.machine, {m: Term(c * scale, r) for m, (c, r) in one.of.items()})
        return self.times(other, 1)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Terms":
        other = self._taken(other)
        if self.lost:
            if self.lost.divided or other.grown is not self.lost.of:
                raise ValueError(f"what rounding took from one number is divided by another: {other}")
            return _nothing(self.machine, self.lost._replace(divided=True))
        return self.times(other.inverse(0), self.machine.division)

    def __rtruediv__(self, other: Any) -> "Terms":
        return self._taken(other) / self

    # A clamp changes nothing inside its range, and outside it no error grows: comparisons are taken to be false.
    def __lt__(self, other: Any) -> bool:
        return False

    def square(self) -> "Terms":
        return self * self

    def expand(self, shape: tuple[int, ...]) -> "Terms":
        return self

    def inverse(self, price: int) -> "Terms":
        """1/self, at a price in roundings."""
        if len(self.of) != 1:
            raise ValueError(f"a division by a sum that no theorem names: {self}")
        ((monomial, (coefficient, roundings)),) = self.of.items()
        inverse = tuple((symbol, -exponent) for symbol, exponent in monomial)
        return Terms(self.machine, {inverse: Term(1.0 / coefficient, roundings + price)})

    def log(self) -> "Terms":
        return self.machine.log(self)

    def coefficients(self) -> dict[Monomial, float]:
        return {monomial: term.coefficient for monomial, term in self.of.items()}

    def most(self) -> int:
        """The roundings of the term that has been through most of them."""
        return max(term.roundings for term in self.of.values())

    def __repr__(self) -> str:
        words = ("·".join(f"{s}^{e}" for s, e in m) or "1" for m in self.of)
        return " + ".join(f"{c:g} {word} ({r})" for word, (c, r) in zip(words, self.of.values(), strict=True)) or "0"

    def _taken(self, other: Any) -> "Terms":
        if isinstance(other, Terms):
            return other
        if isinstance(other, Host):
            # rounded to the dtype when it meets a tensor
            return self.machine.leaf(other.symbol, 1, other.coefficient)
        return Terms(self.machine, {(): Term(float(other), 0)} if other else {})

    def _merged(self, other: "Terms") -> "Terms":
        """The sum, one rounding; 0 + x rounds nothing."""
        if not self.of or not other.of:
            return other if not self.of else self
        of = dict(self.of)
        for monomial, (coefficient, roundings) in other.of.items():
            mine = of.get(monomial, Term(0.0, 0))
            of[monomial] = Term(mine.coefficient + coefficient, max(mine.roundings, roundings))
        kept = {m: Term(c, r + 1) for m, (c, r) in of.items() if c}
        self.machine.operated()
        return self.machine.recognised(Terms(self.machine, kept))

    def times(self, other: "Terms", price: int) -> "Terms":
        """The product, at a price in roundings."""
        self.machine.operated(min(price, 1))
        of: dict[Monomial, Term] = {}
        for a, (x, r) in self.of.items():
            for b, (y, s) in other.of.items():
                monomial = product(*a, *b)
                before = of.get(monomial, Term(0.0, 0))
                of[monomial] = Term(before.coefficient + x * y, max(before.roundings, r + s + price))
        if {m: abs(term.coefficient) for m, term in of.items()} == {DIST_SQ: 1.0}:
            self.machine.count("quotient", of[DIST_SQ].roundings)
        return Terms(self.machine, of)


class Lost(NamedTuple):
    """What rounding took from 1 + x: of which x, times what, and whether divided by the rounded 1 + x."""

    of: Terms
    scale: Monomial
    divided: bool


def _nothing(machine: Machine, lost: Lost) -> Terms:
    machine.operated()
    made = Terms(machine, {})
    made.lost = lost
    return made


class Host:
    """A number of the host's float64, such as ν: its own arithmetic is not counted, its rounding to the dtype is."""

    def __init__(self, symbol: str, coefficient: float = 1.0, sums: Mapping[float, tuple[str, float]] | None = None):
        self.symbol, self.coefficient, self.sums = symbol, coefficient, sums or {}

    def __add__(self, other: float) -> "Host":
        symbol, coefficient = self.sums[other]  # of ν: ν + 3 is twice the power
        return Host(symbol, coefficient)

    def __mul__(self, other: Any) -> Any:
        return other * self if isinstance(other, Terms) else Host(self.symbol, self.coefficient * other, self.sums)

    __rmul__ = __mul__


def _repaired(a: Terms, b: Terms) -> Terms:
    """ln y + (x − (y − 1))/y of y, the rounded 1 + x: ln(1 + x) to three roundings of it beside those of ln y.

    Proof in docs/theory.md, 8.3."""
    whole, lost = (b, a.lost) if a.lost else (a, b.lost)
    expected = product("ln grown", *lost.scale) if lost else ()
    if not lost or not lost.divided or whole.grown is not lost.of or {*whole.of} != {expected}:
        raise ValueError(f"what rounding took from 1 + x is added to what is not its logarithm: {whole}")
    machine = whole.machine
    machine.operated()
    machine.counts["growth_at_one"] = 0
    machine.count("growth", machine.counts["growth"] + 3)
    return whole


def _is_power_of_two(x: Terms) -> bool:
    return set(x.of) == {()} and math.frexp(abs(x.of[()].coefficient))[0] == 0.5


def _common_factor(of: Iterable[Monomial]) -> Monomial:
    monomials = [dict(m) for m in of]
    if len(monomials) < 2:
        return ()
    shared = set.intersection(*(set(m) for m in monomials))
    return tuple(sorted((s, min(m[s] for m in monomials)) for s in shared))


def _divided(monomial: Monomial, by: Monomial) -> Monomial:
    return product(*monomial, *((s, -e) for s, e in by))
