"""Atoms that fix no frame, and coordinates in the other unit: each threshold at its number and just beyond it.

The triangles have edges along the axes and lengths that are powers of two, so that nothing is rounded on the way; the
windows of lengths are tried at their very ends, where a distance along an axis is exact.
"""

import math
from functools import partial

import pytest
import torch

from helpers.geometry import each_dtype, eps
from helpers.units import ANGSTROM, OTHER, Atoms, chain, proven, refused
from iga._backbone import check_trans_unit, check_unit, units_per_nm
from iga.frame import Frame


def vector(*x: float, dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(x, dtype=dtype)


@each_dtype
@pytest.mark.parametrize("exponent", [-40, -10, 0, 1, 7, 40])
@pytest.mark.parametrize("edge", [2.0**-8, 0.5])
@pytest.mark.parametrize("swapped", [False, True], ids=["long x", "long y"])
def test_a_triangle_is_resolved_from_a_height_of_eight_roundings_of_its_largest_coordinate(
    dtype, exponent, edge, swapped
):
    """Corners (m − l, 0, 0), (m, 0, 0) and (m − l, h, 0), h ≤ l: the smallest height is h."""
    m = 2.0**exponent
    length, bar = m * edge, 8 * eps(dtype) * m
    origin, far = vector(m - length, 0, 0, dtype=dtype), vector(m, 0, 0, dtype=dtype)
    for height, resolved in ((bar, False), (bar * (1 + 2**-10), True), (bar * 1.5, True), (bar * 0.5, False)):
        near = vector(m - length, height, 0, dtype=dtype)
        corners = (near, origin, far) if swapped else (far, origin, near)
        # from_backbone's N, CA, C: e1 along C − CA
        frame, valid = Frame.from_backbone(*reversed(corners), return_valid=True)
        assert bool(valid) == resolved, height / bar
        assert resolved or torch.equal(frame.rot, torch.eye(3, dtype=dtype))


@pytest.mark.parametrize("function", ["from_backbone", "from_3_points"])
def test_points_without_a_frame_are_refused_with_their_indices_and_what_to_do(function):
    chain = [torch.randn(13, 3, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    for bad in ([], [5], list(range(2, 10)), list(range(2, 11)), list(range(1, 12))):
        n, ca, c = (x.clone() for x in chain)
        n[bad] = ca[bad]
        what, remedy = {
            "from_backbone": ("N, CA, C", "pass return_valid=True and mask those residues out"),
            "from_3_points": ("the three points", "mask them out with from_backbone(…, return_valid=True)"),
        }[function]
        call = partial(getattr(Frame, function), n, ca, c)
        if not bad:
            assert call().shape == (13,)
            continue
        shown = ", ".join(map(str, bad[:8])) + (f" and {len(bad) - 8} more" if len(bad) > 8 else "")
        with pytest.raises(ValueError) as refused:
            call()
        assert str(refused.value) == (
            f"{what} must be three finite points that neither coincide nor lie on a line, got {len(bad)} of 13 that "
            f"do, at index {shown}; {remedy}"
        )


def test_the_index_of_points_without_a_frame_has_as_many_numbers_as_there_are_dimensions():
    points = [torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    points[0][1, 2] = points[1][1, 2]
    with pytest.raises(ValueError, match=r"got 1 of 6 that do, at index \(1, 2\); mask"):
        Frame.from_3_points(*points)
    with pytest.raises(ValueError, match=r"got 1 of 1 that do; mask"):
        Frame.from_3_points(*(x[1, 2] for x in points))


CONVERSION = {"nm": "ångström = 10 × nm", "angstrom": "nm = 0.1 × ångström"}


def of(near: int, far: int, good: int, bad: int) -> tuple[list[str], list[str], list[bool]]:
    residues = ["protein"] * good + ["long"] * bad
    residues += ["none"] * (near + far + 1 - len(residues))
    return ["protein"] * near + ["long"] * far, residues, [False] * len(residues)


@pytest.mark.parametrize(
    ("counts", "by_all", "by_trans"),
    [
        ((1, 0, 2, 0), True, False),  # one distance, both residues' bonds
        ((1, 0, 1, 0), True, False),  # or one residue's
        ((0, 1, 2, 0), False, False),  # bonds alone are no proof
        ((1, 1, 3, 0), True, False),  # half of the distances is enough
        ((1, 2, 4, 0), False, False),  # less than half is not
        ((3, 0, 3, 1), True, False),  # three residues in four
        ((3, 0, 2, 1), False, False),  # two in three are too few
        ((3, 0, 0, 0), False, False),  # no bonds to judge
        ((7, 0, 0, 0), False, False),  # seven distances without bonds
        ((8, 0, 0, 0), True, True),  # eight are proof
        ((7, 1, 0, 0), True, True),  # m/2 + 3 of eight
        ((6, 2, 0, 0), False, False),  # one less
        ((8, 1, 0, 0), True, True),  # nine: 7.5 are asked for
        ((7, 2, 0, 0), False, False),
        ((8, 9, 0, 0), False, False),
    ],
)
def test_each_count_of_the_rule_turns_at_its_number(counts, by_all, by_trans):
    drawn = of(*counts)
    assert proven(*drawn, bonds=True) == by_all and proven(*drawn, bonds=False) == by_trans
    atoms = chain(*drawn)
    assert refused(check_unit, *atoms, "nm") == by_all
    assert refused(check_unit, *atoms) == by_all
    assert refused(check_trans_unit, atoms[1], "nm") == by_trans
    assert refused(check_trans_unit, atoms[1]) == by_trans


def two_residues(length: str, x: float) -> Atoms:
    """Two residues in ångström, with a protein's lengths but for one: x, along an axis and so exact."""
    step = x if length == "step" else 3.8
    beside = math.sqrt(max(1.5**2 - x**2 / 4, 0.0))
    n, c = {
        "step": ((0.0, -0.55, 1.352), (0.0, 1.53, 0.0)),
        "N-CA": ((0.0, 0.0, x), (0.0, 1.53, -0.45)),
        "CA-C": ((0.0, -0.55, 1.352), (0.0, x, 0.0)),
        "N-C": ((0.0, beside, x / 2), (0.0, beside, -x / 2)),
    }[length]
    ca = torch.tensor([[0.0, 0.0, 0.0], [step, 0.0, 0.0]], dtype=torch.float64)
    return ca + torch.tensor(n, dtype=torch.float64), ca, ca + torch.tensor(c, dtype=torch.float64)


@pytest.mark.parametrize(
    ("length", "low", "high"), [("step", 3.61, 3.99), ("N-CA", 1.30, 1.65), ("CA-C", 1.35, 1.75), ("N-C", 2.15, 2.80)]
)
def test_each_window_is_closed_at_both_ends(length, low, high):
    for value, inside in (
        (low, True),
        (high, True),
        ((low + high) / 2, True),
        (math.nextafter(low, 0), False),
        (math.nextafter(high, 9), False),
    ):
        assert refused(check_unit, *two_residues(length, value), "nm") == inside, value


@pytest.mark.parametrize("unit", ["nm", "angstrom"])
def test_the_message_names_both_units_the_median_of_known_distances_and_the_way_out(unit):
    steps = ["protein"] * 7 + ["long"] + ["none"] * 5 + ["protein"] * 3
    atoms = chain(steps, ["protein"] * 17, [False] * 17)
    atoms = tuple(ANGSTROM[unit] * atom for atom in atoms)
    median = {"nm": "3.8", "angstrom": "0.38"}[unit]
    message = (
        f'coordinates must be in the named unit, "{unit}", but look like "{OTHER[unit]}": neighbouring CA atoms are '
        f'{median} apart, and 3.8 Å = 0.38 nm in proteins; pass unit="{OTHER[unit]}", or convert '
        f"({CONVERSION[OTHER[unit]]})"
    )
    for call in (lambda: check_unit(*atoms, unit), lambda: check_trans_unit(atoms[1], unit)):
        with pytest.raises(ValueError) as error:
            call()
        assert str(error.value) == message


def test_the_median_is_that_of_the_chains_in_the_wrong_unit_only():
    """Beside a chain in nm whose distances are ten times smaller, and one without an opinion."""
    _, good, _ = chain(["protein"] * 12, ["protein"] * 13, [False] * 13)
    batch = torch.stack([good / 10, good, torch.zeros_like(good), torch.full_like(good, math.nan)])
    with pytest.raises(ValueError, match='look like "angstrom": neighbouring CA atoms are 3.8 apart'):
        check_trans_unit(batch)
    check_trans_unit(batch[[0, 2, 3]])


def test_a_step_of_any_length_counts_as_a_distance():
    """Eight of a protein's and nine of half an ångström: fewer than half."""
    drawn = (["protein"] * 8 + ["short"] * 9, ["none"] * 18, [False] * 18)
    assert not proven(*drawn, bonds=False)
    check_trans_unit(chain(*drawn)[1], "nm")


def test_each_chain_of_a_batch_is_judged_by_its_own_counts():
    """Beside a chain of residues far apart, whose bonds prove nothing: it must not lend its numbers to the other."""
    proof, apart = of(3, 0, 3, 1), of(0, 3, 0, 4)
    assert proven(*proof, bonds=True) and not proven(*apart, bonds=True)
    for order in ((proof, apart), (apart, proof)):
        assert refused(check_unit, *(torch.stack(x) for x in zip(*(chain(*drawn) for drawn in order), strict=True)))
    assert not refused(check_unit, *(torch.stack([x, x]) for x in chain(*apart)))


def test_units_are_named_and_no_others():
    assert (units_per_nm("nm"), units_per_nm("angstrom")) == (1.0, 10.0)
    for unit in ("NM", "Angstrom", "pm", ""):
        with pytest.raises(ValueError, match=f'^unit must be "nm" or "angstrom", got \'{unit}\''):
            units_per_nm(unit)


def test_checking_the_unit_leaves_no_graph_behind():
    """The check reads values only: what needs a gradient passes, and its backward pass does not see the check."""
    n, ca, c = (atom.requires_grad_() for atom in chain(["long"] * 9, ["protein"] * 10, [False] * 10))
    check_unit(n, ca, c, "nm")
    check_trans_unit(ca, "nm")
    assert ca.grad_fn is None and ca.grad is None
