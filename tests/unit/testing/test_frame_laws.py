"""`frame_laws` and `quaternion_sign`: iga's functions hold, and nothing that is wrong does."""

from dataclasses import fields, replace

import pytest
import torch

from iga.frame import Frame
from iga.testing.faults.fault import Fault
from iga.testing.faults.frames import FAULTS
from iga.testing.library.frame_laws import frame_laws
from iga.testing.library.frames import FRAMES, FrameLibrary
from iga.testing.library.quaternion_sign import quaternion_sign
from iga.testing.result import Finding
from iga.testing.tally import Tally

INVARIANTS = {"frame_laws": frame_laws, "quaternion_sign": quaternion_sign}
FILLERS = {"NaN": torch.nan, "Inf": torch.inf, "-Inf": -torch.inf, "zeros": 0.0, "a constant": 0.5, "ones": 1.0}
NAMES = [field.name for field in fields(FrameLibrary)]

each_invariant = pytest.mark.parametrize("invariant", INVARIANTS)


def finding(invariant: str, frames: FrameLibrary, seed: int = 0) -> Finding:
    tally = Tally(invariant, "of the budget")
    INVARIANTS[invariant](frames, seed, tally)
    return tally.finding()


def filled(x: object, value: float) -> object:
    """`x` with every floating number in it the same."""
    if isinstance(x, torch.Tensor):
        return torch.full_like(x, value) if x.is_floating_point() else x
    if isinstance(x, Frame):
        return Frame(torch.full_like(x.rot, value), torch.full_like(x.trans, value))
    assert isinstance(x, tuple)
    return tuple(filled(part, value) for part in x)


def fill(frames: FrameLibrary, name: str, value: float) -> FrameLibrary:
    clean = getattr(FRAMES, name)
    return replace(frames, **{name: lambda *args, **options: filled(clean(*args, **options), value)})


@each_invariant
def test_the_functions_of_this_package_hold(invariant: str) -> None:
    for seed in range(20):
        found = finding(invariant, FRAMES, seed)
        assert found.verdict == "holds", found
        assert found.examples > 1000 and found.vacuous < 0.1 * found.examples


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_is_caught_where_it_is_expected(fault: Fault) -> None:
    assert list(fault.sizes) == sorted(fault.sizes, reverse=True)
    for name in fault.expected:
        assert finding(name, fault.planted(FRAMES)).verdict == "broken"


@each_invariant
def test_each_invariant_catches_a_fault_that_the_other_does_not(invariant: str) -> None:
    (other,) = set(INVARIANTS) - {invariant}
    alone = [fault for fault in FAULTS if fault.expected == (invariant,)]
    assert any(finding(other, fault.planted(FRAMES)).verdict == "holds" for fault in alone)


@each_invariant
@pytest.mark.parametrize("filler", FILLERS)
def test_a_library_that_returns_one_number_breaks(invariant: str, filler: str) -> None:
    frames = FRAMES
    for name in NAMES:
        frames = fill(frames, name, FILLERS[filler])
    assert finding(invariant, frames).verdict == "broken"


@pytest.mark.parametrize("name", NAMES)
def test_each_function_is_judged(name: str) -> None:
    for filler in ("NaN", "a constant"):
        frames = fill(FRAMES, name, FILLERS[filler])
        assert any(finding(invariant, frames).verdict == "broken" for invariant in INVARIANTS), filler


def test_a_result_of_another_dtype_or_shape_breaks() -> None:
    for wrong in (lambda v: FRAMES.exp(v).double(), lambda v: FRAMES.exp(v)[..., :2], lambda v: None):
        assert finding("frame_laws", replace(FRAMES, exp=wrong)).verdict == "broken"


def test_a_refusal_of_a_valid_input_breaks() -> None:
    def refuse(q: torch.Tensor) -> torch.Tensor:
        raise ValueError("no quaternion pleases me")

    for invariant in INVARIANTS:
        found = finding(invariant, replace(FRAMES, from_quaternion=refuse))
        assert found.verdict == "broken" and "pleases" in found.note
