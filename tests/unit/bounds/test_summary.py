"""The table of `iga bounds`, cell by cell: each number is that of its theorem, printed as the column says.

Numbers are computed again in mpmath from docs/theory.md; what a row is called and states is compared word for word,
since people and scripts read it.
"""

import pytest

from helpers.bounds import MP, dist_sq_budget, log_det_budget, log_det_floor_budget, score_range
from iga import bounds

mpf, ln, root = MP.mpf, MP.ln, MP.sqrt


def fits(value):
    return "yes" if abs(value) <= 65504 else "no"


def saturates(keys, span):
    if keys == 1:
        return "yes: it is alone"
    needed = ln((keys - 1) * mpf(9))
    if span >= needed:
        return f"yes: span {float(span):.3g} ≥ {float(needed):.3g}"
    return f"no: span {float(span):.3g}, w_max ≤ {float(1 / (1 + (keys - 1) * MP.exp(-span))):.2g}"


def rounding_rows(low, high):
    kappa = high / low
    yield "κ", f"{float(kappa):.4g}", "", "", "σ_max/σ_min, the worst pair"
    yield "drift", "1.73 u", "", "", "a frame's matrix off a rotation; theory.md, 6.7"
    rho = root(3)
    for name, u in (("float32", mpf(2) ** -24), ("float64", mpf(2) ** -53)):
        by_dist_sq, textbook = dist_sq_budget(kappa, u, rho), kappa**2 * u
        by_log_det = log_det_budget(kappa, u, rho, 3 * ln(2 * mpf(150) ** 2))
        floor = log_det_floor_budget(low, u, rho)
        digits, lost = (float(max(mpf(0), -MP.log10(x))) for x in (by_dist_sq, textbook))
        yield f"{name}: digits of dist_sq", f"{digits:.1f}", "", "", f"textbook form: {lost:.1f}"
        note = f"(51 + 61.5 κ) u; textbook form: κ² u = {float(textbook):.2g}"
        yield f"{name}: dist_sq, relative", f"{float(by_dist_sq):.2g}", "", "", note
        yield f"{name}: log_det, absolute", f"{float(by_log_det):.2g}", "", "", "(23 + 12.5 κ) u + 4 u |log_det| + 3 u"
        yield f"{name}: log_det under its floor", f"{float(floor):.2g}", "", "", "35 u + 4 u |log_det| + 3 u"
        far = f"{float(root(2) * u * 1000 / low):.2g}"
        yield f"{name}: √dist_sq, 1000 nm away", far, "", "", "√2 u |t|/σ_min, translations centred"


def sum_rows(keys):
    for name, u in (("float32", mpf(2) ** -24), ("float64", mpf(2) ** -53)):
        lam = root(2 * ln(2 * keys / mpf("1e-9"))) / (1 - u)
        likely = MP.exp(lam * root(keys) * u + keys * u**2 / (1 - u)) - 1
        note = f"worst case; {float(likely):.2g} with probability 1 − 1e-09 if roundings are random; theory.md, 6.8"
        yield f"{name}: a sum over {keys} keys, of Σ|terms|", f"{float(keys * u / (1 - keys * u)):.2g}", "", "", note


def table(low, high, extent, points, cap=None, *, keys, dof, offset, weight, clamp, floor):
    """(quantity, bound, fits in fp16, can one key take 0.9, statement), row by row."""
    low, high, extent, offset, weight, dof = (mpf(x) for x in (low, high, extent, offset, weight, dof))
    largest = root(low**2 + high**2) if floor == "smooth" else high
    dist_sq = (extent / (root(2) * low) + root(6) * offset) ** 2
    delta = root(2 * dist_sq) * low
    yield "log_det, lowest", f"{float(3 * ln(2 * low**2)):.4f}", "yes", "", "3 ln(2 σ_min²)"
    yield "log_det, highest", f"{float(3 * ln(2 * largest**2)):.4f}", "yes", "", "3 ln(2 σ_max²)"
    yield "dist_sq", f"{float(dist_sq):.4g}", fits(dist_sq), "", "(extent/(√2 σ_min) + √6 u_max)²"
    gradient = delta / low**2
    note = f"|δ|/σ_min² at dist_sq's bound: |δ| = {float(delta):.4g} nm"
    yield "|∂dist_sq/∂δ|", f"{float(gradient):.4g} /nm", fits(gradient), "", note
    of_student = f"Student-t, ν = {float(dof):g}"
    slope = (dof + 3) / (2 * root(2 * dof) * low)
    yield f"{of_student}: |∂score/∂μ|", f"{float(slope):.4g} /nm", "", "", "at any distance; theory.md, 9.4"
    beta = 6 * offset**2
    slope = (dof + 3) * (1 + beta / (2 * (dof + root(dof**2 + beta * dof)))) + 1
    yield f"{of_student}: Σ |∂score/∂log σ|", f"{float(slope):.4g}", "", "", "means move with σ; theory.md, 9.4"
    far = mpf("0.01")
    change = far * (dof + 3) / (2 * root(2 * dof) * low) + far * (dof + 4)
    bend = ((dof + 3) * ((far / (root(2 * dof) * low) + far) ** 2 + far**2) + 6 * far**2) / 2
    share = f"{float(100 * MP.tanh(weight * change / 2)):.3g} % of a row's weight"
    note = f"its slope within {float(bend):.3g}; mean over points: {share}; theory.md, 9.5"
    yield f"{of_student}: |Δscore| of a step, 0.01 nm and 0.01 in log σ", f"{float(change):.4g}", "", "", note
    clamp = -MP.inf if clamp is None else mpf(clamp)
    for name, nu in (("Gaussian", None), (f"Student-t, ν = {float(dof):g}", dof)):
        deep, shallow = score_range(extent, low, largest, offset, clamp, nu)
        size = max(abs(deep), abs(shallow))
        yield f"{name}: score", f"{float(deep):.4g} … {float(shallow):.4g}", fits(size), "", "theory.md, 3.3"
        for scaling, exponent in (("sum", mpf(1)), ("rsqrt", mpf(1) / 2), ("mean", mpf(0))):
            factor = points**exponent
            ends, capped = [factor * weight * x for x in (shallow, deep)], ""
            if cap is not None:
                ends = [cap * MP.tanh(x / cap) for x in ends]
                capped = f"; capped {float(cap * MP.tanh(weight * factor * size / cap)):.4g}"
            name_of_row, total = f"{name}: |G|, {scaling} of P = {points}", factor * size
            answer = saturates(keys, ends[0] - ends[1])
            yield name_of_row, f"{float(total):.4g}", fits(total), answer, "P^α · |score|" + capped
    if cap is not None:
        yield "cap", f"{float(cap):g}", fits(mpf(cap)), saturates(keys, mpf(2 * cap)), "|c tanh(x/c)| ≤ c"
    yield from rounding_rows(low, largest)
    yield from sum_rows(keys)


DEFAULTS = {"keys": 256, "dof": 4.0, "offset": 3.0, "weight": 1.0, "clamp": None, "floor": "smooth"}
TABLES = {
    "defaults": ((0.03, 150.0, 20.0, 8), {}),
    "a cap of 2, hard floor, 9 keys": ((0.03, 3.0, 5.0, 4, 2.0), {"floor": "hard", "keys": 9}),
    "a cap beyond fp16, one key": ((0.5, 0.75, 0.0, 2, 1e5), {"keys": 1, "weight": 0.25}),
    "small offsets, a clamp, ν = 2.5": (
        (0.1, 2.0, 1.0, 3),
        {"offset": 0.5, "clamp": -5.0, "dof": 2.5, "keys": 2, "weight": 0.125},
    ),
    "everything saturates": ((0.03, 150.0, 1e3, 64, 30.0), {"keys": 5000, "weight": 3.0, "floor": "hard"}),
    "a span at the cap, just enough": ((0.03, 150.0, 100.0, 1, 2.0), {"keys": 7}),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_of_the_table_is_the_number_of_its_theorem(name):
    given, changes = TABLES[name]
    hypotheses = DEFAULTS | changes
    expected = [list(row) for row in table(*given, **hypotheses)]
    spelled = {"offset": "offset_max", "clamp": "log_det_min"}
    options = {spelled.get(key, key): value for key, value in hypotheses.items()}
    keys = options["keys"]
    headings = ["quantity", "bound", "fits in fp16", f"one of {keys} keys can take 0.9", "statement"]
    found = bounds.bounds_summary(*given, **options)
    assert all(list(row) == headings for row in found)
    assert [list(row.values()) for row in found] == expected


def test_a_span_that_just_reaches_the_weight_saturates():
    """Logits within ± half of ln(9 (N−1)) let one of N keys take 0.9, by a hair."""
    cap = bounds.span_for_weight(11, 0.9) / 2
    row = next(row for row in bounds.bounds_summary(cap=cap, keys=11) if row["quantity"] == "cap")
    assert row["one of 11 keys can take 0.9"] == "yes: span 4.5 ≥ 4.5"


def test_the_defaults_of_the_table_are_those_of_the_default_preset_on_eight_points_and_256_keys():
    explicit = bounds.bounds_summary(
        0.03, 150.0, 20.0, 8, None, keys=256, dof=4.0, offset_max=3.0, weight=1.0, log_det_min=None, floor="smooth"
    )
    assert bounds.bounds_summary() == explicit


@pytest.mark.parametrize(
    ("accepted", "refused", "message"),
    [
        ({"sigma_min": 1e-6}, {"sigma_min": 0.0}, "sigma_min and sigma_max must be 0 < sigma_min ≤ sigma_max"),
        ({"sigma_min": 2.0, "sigma_max": 2.0}, {"sigma_min": 2.0, "sigma_max": 1.9}, "got 2.0 and 1.9"),
        ({"sigma_max": 1e100}, {"sigma_max": float("inf")}, "got 0.03 and inf"),
        ({"extent": 0.0}, {"extent": -1e-9}, "extent must be a distance of at least 0 nm"),
        ({"extent": 1e100}, {"extent": float("inf")}, "extent must be .*got inf"),
        ({"points": 1}, {"points": 0}, "points must be at least 1, got 0"),
        ({"keys": 1}, {"keys": 0}, "keys must be at least 1, got 0"),
        ({"cap": 0.5}, {"cap": 0.0}, "cap must be a positive finite number, got 0.0"),
        ({"cap": 0.5}, {"cap": float("inf")}, "cap must be a positive finite number, got inf"),
        ({"dof": 0.5}, {"dof": 0.0}, "dof must be a positive finite number, got 0.0"),
        ({"dof": 1e6}, {"dof": float("inf")}, "dof must be a positive finite number, got inf"),
        ({"weight": 0.5}, {"weight": 0.0}, "weight must be a positive finite number, got 0.0"),
        ({"floor": "hard"}, {"floor": "HARD"}, "floor must be 'hard' or 'smooth', got 'HARD'"),
    ],
    ids=lambda x: ", ".join(f"{k}={v}" for k, v in x.items()) if isinstance(x, dict) else "",
)
def test_hypotheses_are_refused_where_they_contradict_themselves_and_not_before(accepted, refused, message):
    assert bounds.bounds_summary(**accepted)
    with pytest.raises(ValueError, match=message):
        bounds.bounds_summary(**refused)
