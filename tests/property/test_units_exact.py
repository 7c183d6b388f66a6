"""When coordinates are in the other unit: the rule of `check_unit`, counted again in plain Python, case by case.

A chain is drawn as its steps (a CA–CA distance of a protein, another one, none at all, or one that is not known) and as
its residues' bonds; the rule's windows are tried at their very ends, where a distance along an axis is exact.
"""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iga._backbone import check_trans_unit, check_unit, units_per_nm

# ångström: kinds of steps between neighbouring CA, and of residues by N–CA, CA–C and their angle
STEPS = {"protein": 3.8, "long": 5.0, "short": 0.5, "none": 0.0}
BONDS = {"protein": (1.46, 1.53, 111.0), "long": (1.9, 1.53, 111.0), "none": (0.0, 1.53, 111.0)}
OTHER = {"nm": "angstrom", "angstrom": "nm"}
# one ångström in the unit that was not named
ANGSTROM = {"nm": 1.0, "angstrom": 0.1}
CONVERSION = {"nm": "ångström = 10 × nm", "angstrom": "nm = 0.1 × ångström"}

Atoms = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def chain(steps: Sequence[str], residues: Sequence[str], lost: Sequence[bool]) -> Atoms:
    """N, CA, C [len(residues), 3] in ångström, CA along x; where `lost`, the CA is not a number."""
    n, ca, c = [], [], []
    x = 0.0
    for kind, step, gone in zip(residues, ("none", *steps), lost, strict=True):
        x += STEPS[step]
        to_n, to_c, angle = BONDS[kind]
        turn = math.radians(angle)
        ca.append([math.nan if gone else x, 0.0, 0.0])
        c.append([x, to_c, 0.0])
        n.append([x, to_n * math.cos(turn), to_n * math.sin(turn)])
    return tuple(torch.tensor(atom, dtype=torch.float64) for atom in (n, ca, c))  # pyright: ignore[reportReturnType]


def proven(steps: Sequence[str], residues: Sequence[str], lost: Sequence[bool], bonds: bool) -> bool:
    """The docstring of `check_unit`, on the draws."""
    known = [s for s, a, b in zip(steps, lost, lost[1:], strict=False) if s != "none" and not (a or b)]
    m, near = len(known), known.count("protein")
    judged = [r for r, gone in zip(residues, lost, strict=True) if r != "none" and not gone]
    by_bonds = bonds and len(judged) > 0 and 4 * judged.count("protein") >= 3 * len(judged)
    by_distances = m >= 8 and near >= m / 2 + 3
    return m > 0 and near >= m / 2 and (by_bonds or by_distances)


def refused(function, *arguments) -> bool:
    try:
        function(*arguments)
    except ValueError as error:
        assert "coordinates must be in the named unit" in str(error)
        return True
    return False


@st.composite
def chains(draw) -> tuple[list[str], list[str], list[bool]]:
    length = draw(st.integers(1, 16))
    # mostly proteins, or the rule would hardly ever say yes
    kind = st.sampled_from([*["protein"] * 6, "long", "short", "none"])
    steps = draw(st.lists(kind, min_size=length - 1, max_size=length - 1))
    residue = st.sampled_from([*["protein"] * 5, "long", "none"])
    residues = draw(st.lists(residue, min_size=length, max_size=length))
    lost = draw(st.lists(st.sampled_from([*[False] * 9, True]), min_size=length, max_size=length))
    return steps, residues, lost


@pytest.mark.parametrize("unit", ["nm", "angstrom"])
@given(drawn=chains())
def test_the_unit_is_refused_where_the_counts_prove_the_other_and_nowhere_else(unit, drawn) -> None:
    atoms = tuple(ANGSTROM[unit] * atom for atom in chain(*drawn))
    assert refused(check_unit, *atoms, unit) == proven(*drawn, bonds=True)
    assert refused(check_trans_unit, atoms[1], unit) == proven(*drawn, bonds=False)
    assert not refused(check_unit, *atoms, OTHER[unit])


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
def test_each_count_of_the_rule_turns_at_its_number(counts, by_all: bool, by_trans: bool) -> None:
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
    ("length", "low", "high"),
    [("step", 3.61, 3.99), ("N-CA", 1.30, 1.65), ("CA-C", 1.35, 1.75), ("N-C", 2.15, 2.80)],
)
def test_each_window_is_closed_at_both_ends(length: str, low: float, high: float) -> None:
    for value, inside in (
        (low, True),
        (high, True),
        ((low + high) / 2, True),
        (math.nextafter(low, 0), False),
        (math.nextafter(high, 9), False),
    ):
        assert refused(check_unit, *two_residues(length, value), "nm") == inside, value


@pytest.mark.parametrize("unit", ["nm", "angstrom"])
def test_the_message_names_both_units_the_median_of_known_distances_and_the_way_out(unit: str) -> None:
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


def test_the_median_is_that_of_the_chains_in_the_wrong_unit_only() -> None:
    """Beside a chain in nm whose distances are ten times smaller, and one without an opinion."""
    _, good, _ = chain(["protein"] * 12, ["protein"] * 13, [False] * 13)
    batch = torch.stack([good / 10, good, torch.zeros_like(good), torch.full_like(good, math.nan)])
    with pytest.raises(ValueError, match='look like "angstrom": neighbouring CA atoms are 3.8 apart'):
        check_trans_unit(batch)
    check_trans_unit(batch[[0, 2, 3]])


def test_a_step_of_any_length_counts_as_a_distance() -> None:
    """Eight of a protein's and nine of half an ångström: fewer than half."""
    drawn = (["protein"] * 8 + ["short"] * 9, ["none"] * 18, [False] * 18)
    assert not proven(*drawn, bonds=False)
    check_trans_unit(chain(*drawn)[1], "nm")


def test_each_chain_of_a_batch_is_judged_by_its_own_counts() -> None:
    """Beside a chain of residues far apart, whose bonds prove nothing: it must not lend its numbers to the other."""
    proof, apart = of(3, 0, 3, 1), of(0, 3, 0, 4)
    assert proven(*proof, bonds=True) and not proven(*apart, bonds=True)
    for order in ((proof, apart), (apart, proof)):
        assert refused(check_unit, *(torch.stack(x) for x in zip(*(chain(*drawn) for drawn in order), strict=True)))
    assert not refused(check_unit, *(torch.stack([x, x]) for x in chain(*apart)))


def test_units_are_named_and_no_others() -> None:
    assert (units_per_nm("nm"), units_per_nm("angstrom")) == (1.0, 10.0)
    for unit in ("NM", "Angstrom", "pm", ""):
        with pytest.raises(ValueError, match=f'^unit must be "nm" or "angstrom", got \'{unit}\''):
            units_per_nm(unit)


def test_checking_the_unit_leaves_no_graph_behind() -> None:
    """The check reads values only: what needs a gradient passes, and its backward pass does not see the check."""
    n, ca, c = (atom.requires_grad_() for atom in chain(["long"] * 9, ["protein"] * 10, [False] * 10))
    check_unit(n, ca, c, "nm")
    check_trans_unit(ca, "nm")
    assert ca.grad_fn is None and ca.grad is None
