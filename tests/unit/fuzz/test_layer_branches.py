"""Branches inside a layer: sites of all pairs are seen, narrow sides reached, and what raises there is handed on."""

from typing import Any

import pytest
import torch
from torch import nn

import iga
from helpers.subjects import foreign
from iga.fuzz.branches import watch_branches
from iga.fuzz.layer_branches import KEPT, ROWS, LayerSpace, calls_at_branches, drawn_population
from iga.fuzz.layer_draw import Room
from iga.fuzz.layer_genome import GEOMETRY
from iga.fuzz.layer_measure import Asked
from iga.fuzz.seeking import Coverage
from iga.presets import preset
from iga.testing.checks import CHECKS
from iga.testing.contract import Contract
from iga.testing.targets import Claims

CONTRACT = Contract()
ROOM = Room(Claims(), CONTRACT, (torch.float64,))
ROUNDS = 12
ROUND = 2.0**-44  # relative, of sinh(asinh(x)): |asinh| < 16, whose rounding by 2⁻⁵³ is 2⁻⁴⁹ of x; some ten of them


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def space(seed: int = 0) -> LayerSpace:
    return drawn_population(ROOM, generator(seed))


def quiet() -> None:
    pass


# --- the numbers of a population ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_population_is_what_its_numbers_say(seed: int) -> None:
    own = space(seed)
    rot, trans, mean, log_scale = own.decode(own.encode(), torch.float64)
    base = own.base
    assert torch.equal(rot, base.rot)
    wide = base.trans.abs() < 1000.0  # farther ones are brought in
    torch.testing.assert_close(trans[wide], base.trans[wide], rtol=ROUND, atol=ROUND * 0.01)
    torch.testing.assert_close(mean, base.local_mean, rtol=ROUND, atol=ROUND * 0.01)
    low, high = ROOM.log_scales
    assert torch.equal(log_scale, base.log_scale.clamp(low, high))  # a half and its double, which round nothing


def test_a_row_alone_is_the_row_of_the_population() -> None:
    own = space()
    numbers = own.mutate(own.encode(), generator())
    whole = dict(zip(GEOMETRY, own.decode(numbers, torch.float64), strict=True))
    for row in (0, 12):
        call = own.call(row, numbers[row])
        assert call.shape == (1,) and torch.equal(call.samples, torch.tensor([row]))
        assert all(torch.equal(getattr(call, name)[0], whole[name][row]) for name in GEOMETRY)


def test_what_was_changed_stays_in_its_ranges_and_frames_stay_rotations() -> None:
    own, draws = space(3), generator(4)
    numbers = own.encode()
    changed = 0
    for _ in range(20):
        before, numbers = numbers, own.mutate(numbers, draws)
        changed += not torch.equal(before, numbers)
    rot, trans, _, log_scale = own.decode(numbers, torch.float64)
    low, high = ROOM.log_scales
    assert changed == 20 and trans.abs().max() <= 1000.0 * (1 + ROUND)
    assert low <= log_scale.min() and log_scale.max() <= high
    eye = torch.eye(3, dtype=torch.float64).expand_as(rot)
    torch.testing.assert_close(rot.mT @ rot, eye, rtol=0.0, atol=64 * 2.0**-53)


# --- sites ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flat", [False, True])
def test_of_a_condition_on_all_pairs_the_nearest_of_each_sample_counts(flat: bool) -> None:
    x = torch.tensor([[0.0, 1.0, 2.0], [4.0, 7.0, 9.0]], dtype=torch.float64)  # two samples of three residues

    def layer(x: torch.Tensor) -> torch.Tensor:
        apart = (x[:, :, None] - x[:, None, :]).abs()
        return torch.where((apart.reshape(-1, 3) if flat else apart) > 4.5, 1.0, 0.0)

    _, seen = watch_branches(layer, x, rows=2, columns=1)
    (site,) = (found for name, found in seen.sites.items() if name.endswith("gt"))
    assert site.to_true.shape == (2,)
    # 2 against 4.5: (4.5 − 2)/(4.5 + 2); of the second sample a pair is 5 apart
    assert float(site.to_true[0]) == pytest.approx(2.5 / 6.5, rel=1e-6) and float(site.to_true[1]) == 0.0
    assert not site.to_false.any()  # a residue is no distance from itself


# --- layers ---------------------------------------------------------------------------------------------------


class _Boxed(nn.Module):
    """Two residues between 3.1 and 3.11 nm from each other: what `inside` says."""

    def __init__(self, **sizes: int) -> None:
        super().__init__()
        self.inner = iga.InvariantGaussianAttention(**sizes, config=preset("bounded"), implementation="reference")  # pyright: ignore[reportArgumentType]

    def forward(self, s: Any, z: Any, r: Any, mask: Any) -> Any:
        apart = (r.trans[..., :, None, :] - r.trans[..., None, :, :]).norm(dim=-1)
        turn = torch.einsum("...iab,...jab->...ij", r.rot, r.rot)
        return self.inside(self.inner(s, z, r, mask), (apart > 3.1) & (apart < 3.11) & (turn < -0.5))

    def inside(self, output: Any, box: Any) -> Any:
        return output * (1.0 + 0.5 * box.any(-1, keepdim=True))


class _Raises(_Boxed):
    def inside(self, output: Any, box: Any) -> Any:
        if bool(box.any()):
            raise RuntimeError("inside the box")
        return output


class _Unbuilt(_Boxed):
    def __init__(self, **sizes: int) -> None:
        raise RuntimeError("no such sizes")


class _Plain(nn.Module):
    """No branch anywhere."""

    def __init__(self, c_s: int, **sizes: int) -> None:
        super().__init__()
        self.out = nn.Linear(c_s, c_s)

    def forward(self, s: Any, z: Any, r: Any, mask: Any) -> Any:
        return self.out(s) * mask[..., None]


def asked(layer: Any) -> Asked:
    return Asked(foreign(layer), CONTRACT, [check for check in CHECKS if check.kind == "layer"], "fast")


def in_the_box(call: Any) -> bool:
    apart = (call.trans[:, :, None] - call.trans[:, None]).norm(dim=-1)
    turn = torch.einsum("...iab,...jab->...ij", call.rot, call.rot)
    return bool(((apart > 3.1) & (apart < 3.11) & (turn < -0.5)).any())


def test_a_narrow_side_is_reached_that_no_drawn_call_takes() -> None:
    own, coverage, draws = asked(_Boxed), Coverage(), generator(1)
    drawn = sum(in_the_box(drawn_population(own.room, draws).base) for _ in range(200))  # of 13 samples each
    found: list[Any] = []
    for _ in range(ROUNDS):
        gain, calls = calls_at_branches(own, coverage, draws, quiet)
        assert len(calls) == KEPT and gain >= 0
        found += [call for call in calls if in_the_box(call)]
        if found:
            break
    assert found, coverage.sides
    # of 200 · 13 drawn samples so few that as many as the search handed on would meet it once in ten times at most
    assert drawn * ROUNDS * KEPT < 0.1 * 200 * ROWS
    (box,) = (name for name, side in coverage.taken if "and" in name and "(2)" in name and side)
    assert coverage.sides[box][0] > 0


def test_where_the_layer_raises_its_samples_are_handed_on() -> None:
    own, coverage, draws = asked(_Raises), Coverage(), generator(1)
    for _ in range(ROUNDS):
        _, calls = calls_at_branches(own, coverage, draws, quiet)
        if any(in_the_box(call) for call in calls):
            break
    (inside, *_) = [call for call in calls if in_the_box(call)]
    found = own.measure("finite_outputs", own.scene(inside))
    assert found.broken and "inside the box" in found.finding.note + found.finding.worst_example


def test_where_the_layer_cannot_be_built_the_drawn_samples_are_handed_on() -> None:
    own = asked(_Unbuilt)
    gain, calls = calls_at_branches(own, Coverage(), generator(), quiet)
    assert gain == 0 and len(calls) == 13
    found = own.measure("finite_outputs", own.scene(calls[0]))
    assert found.broken and "no such sizes" in found.finding.note + found.finding.worst_example


def test_a_layer_without_branches_has_none_to_seek() -> None:
    own, coverage = asked(_Plain), Coverage()
    assert calls_at_branches(own, coverage, generator(), quiet) == (0, []) and not coverage.taken
