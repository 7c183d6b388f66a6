"""Units of work on torch's threads: each once, errors raised, on both kinds of team."""

from collections import Counter
from threading import get_ident

import pytest
import torch

from iga.kernels.cpu import team as _team
from iga.kernels.cpu.team import run_units


@pytest.fixture(params=["torch's team", "a pool"])
def team(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    if request.param == "a pool":
        monkeypatch.setattr(_team, "_entry_point", lambda: None)
    elif _team._entry_point() is None:
        pytest.skip("torch has another runtime here")
    yield request.param
    torch.set_num_threads(before)


def test_every_unit_runs_once(team: str) -> None:
    seen: Counter[tuple[int, int]] = Counter()
    units = [(a, b) for a in range(7) for b in range(5)]
    run_units(lambda a, b: seen.update([(a, b)]), units)
    assert seen == Counter(units)


def test_no_unit_is_no_work(team: str) -> None:
    run_units(lambda: pytest.fail("there is nothing to do"), [])


def test_an_error_in_a_unit_is_the_callers(team: str) -> None:
    def unit(k: int) -> None:
        if k == 3:
            raise KeyError("three")

    with pytest.raises(KeyError, match="three"):
        run_units(unit, [(k,) for k in range(9)])
    run_units(lambda k: None, [(k,) for k in range(9)])  # and the team still works


def test_two_threads_share_the_work(team: str) -> None:
    """A unit that waits for another one ends only if both run at once."""
    meeting: list[int] = []

    def unit(k: int) -> None:
        meeting.append(get_ident())
        while len(meeting) < 2:
            torch.arange(10).sum()

    run_units(unit, [(0,), (1,)])
    assert len(set(meeting)) == 2


def test_one_thread_works_in_the_caller() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found: list[int] = []
        run_units(lambda k: found.append(get_ident()), [(k,) for k in range(3)])
    finally:
        torch.set_num_threads(before)
    assert found == [get_ident()] * 3
