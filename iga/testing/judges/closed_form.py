"""The sums that the theory names, of the closed form and of its scores, for sums that count to be compared with.

Sections 2 and 5 of docs/theory.md as polynomials: a machine that knows them recognises Q, δ, g, h, T, det and num by
what they are, and refuses an expression that is none of its theorems'.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

from iga.testing.judges.terms import DIST_SQ, Machine, Monomial, Terms, product

__all__ = ["AXES", "expect_sums", "knowing_the_closed_form", "log", "log1p", "log2", "scored"]

AXES = range(3)


def knowing_the_closed_form(machine: Machine) -> Machine:
    """`machine`, with the sums of section 5 for it to recognise, in σ, R and μ of the sides i and j."""

    def others(side: str, axis: int) -> list[tuple[str, int]]:
        return [(f"s{side}{a}", 2) for a in AXES if a != axis]

    det: dict[Monomial, float] = {product(*((f"s{side}{a}", 2) for a in AXES)): 1.0 for side in "ij"}
    num: dict[Monomial, float] = {}
    for k in AXES:
        machine.name(f"d{k}", "delta", {product(f"mi{k}"): 1.0, product(f"mj{k}"): -1.0})
        machine.name(f"g{k}", "local", {product(f"Ri{a}{k}", f"d{a}"): 1.0 for a in AXES})
        machine.name(f"h{k}", "local", {product(f"Rj{a}{k}", f"d{a}"): 1.0 for a in AXES})
        num[product(*others("i", k), (f"g{k}", 2))] = num[product(*others("j", k), (f"h{k}", 2))] = 1.0
        a, b = (k + 1) % 3, (k + 2) % 3
        for l in AXES:  # noqa: E741 - the letter of the formula
            machine.name(f"q{k}{l}", "relative", {product(f"Ri{x}{k}", f"Rj{x}{l}"): 1.0 for x in AXES})
            cross = {product(f"q{a}{l}", f"g{b}"): 1.0, product(f"q{b}{l}", f"g{a}"): -1.0}
            machine.name(f"t{k}{l}", "cross", cross)
            square = (f"q{k}{l}", 2)
            det[product(*others("i", k), (f"sj{l}", 2), square)] = 1.0
            det[product(*others("j", l), (f"si{k}", 2), square)] = 1.0
            num[product((f"si{k}", 2), (f"sj{l}", 2), (f"t{k}{l}", 2))] = 1.0
    machine.name("det", "det", det)
    machine.name("num", "num", num)
    return machine


def expect(found: Terms, expected: Mapping[Monomial, float], complaint: str) -> None:
    if found.coefficients() != expected:
        raise ValueError(f"{complaint}, docs/theory.md, sections 2 and 5: {found}")


def expect_sums(num: Terms, det: Terms) -> None:
    expect(num, {product("num"): 1.0}, "num is not the sum of the closed form")
    expect(det, {product("det"): 1.0}, "det is not the sum of the closed form")


def scored(machine: Machine, score: Terms, student: bool, points: Sequence[str] = ("",)) -> Machine:
    """`machine` with the counts of the score's own terms, which must be those of section 2."""
    expected = {product(f"ln det{p}"): -0.5 for p in points}
    for p in points:
        expected |= {product("power", f"ln grown{p}"): -1.0} if student else {_ratio(p): -0.5}
    expect(score, expected, "a score is not that of its definition")
    for monomial, term in score.of.items():
        of_det = any(symbol.startswith("ln det") for symbol, _ in monomial)
        kind = "log_det" if of_det else "growth" if student else "dist_sq"
        machine.count(f"{kind}_term", term.roundings)
    return machine


def _ratio(point: str) -> Monomial:
    return product(f"num{point}", (f"det{point}", -1))


def log(x: Terms, relative: int, absolute: int = 0) -> Terms:
    """ln of a product of determinants, or of factors 1 + dist_sq/ν, with the errors of the function. What all terms of
    x have been through is an absolute error of its logarithm, of which each point under it has its share."""
    machine, found = x.machine, x.coefficients()
    for points in ("",), ("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d"):
        if found == {product(*(f"det{p}" for p in points)): 1.0}:
            machine.count("log", relative)
            machine.count("log_at_one", math.ceil((absolute + x.most()) / len(points)))
            return machine.sum_of(f"ln det{p}" for p in points)
        arguments = [product(*_ratio(p), ("dof", -1)) for p in points]
        chosen = (c for n in range(len(points) + 1) for c in itertools.combinations(arguments, n))
        if found == {product(*itertools.chain(*c)): 1.0 for c in chosen}:
            shared = x.of[()].roundings
            for monomial, term in x.of.items():
                degree = -dict(monomial).get("dof", 0)
                if degree:
                    machine.count("argument", -((shared - term.roundings) // degree))
            machine.count("growth", relative)
            machine.count("growth_at_one", math.ceil((absolute + shared) / len(points)))
            logarithm = machine.sum_of(f"ln grown{p}" for p in points)
            logarithm.grown = x.grown
            return logarithm
    raise ValueError(f"a logarithm of neither a determinant nor 1 + dist_sq/ν, docs/theory.md, section 2: {x}")


def log1p(x: Terms, relative: int) -> Terms:
    expect(x, {product(*DIST_SQ, ("dof", -1)): 1.0}, "log1p of what is not dist_sq/ν")
    for kind, roundings in (("argument", x.most()), ("growth", relative), ("growth_at_one", 0)):
        x.machine.count(kind, roundings)
    return x.machine.leaf("ln grown")


def log2(x: Terms, relative: int, absolute: int = 0) -> Terms:
    found = log(x, relative, absolute)
    binary = found.times(x.machine.leaf(("ln2", -1)), 0)
    binary.grown = found.grown
    return binary
