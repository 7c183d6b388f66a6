"""A call's threads: torch's number, fewer once they lacked a core, all again where there is room."""

import time
from collections.abc import Iterator
from threading import Thread, get_ident

import pytest
import torch

from iga.bench.gate import cotangents, sampled_rows
from iga.bench.implementations import IMPLEMENTATIONS, step
from iga.bench.problem import Case, make_problem
from iga.kernels.cpu import share
from iga.kernels.cpu.share import CALLS, LEAST, PAUSES, SHARE, Lacking, granted, lacking
from iga.kernels.cpu.team import run_units

pytestmark = pytest.mark.skipif(share._knobs() is None, reason="torch has other runtimes here")


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(share, "_look_at", 0.0)
    monkeypatch.setattr(share, "_try_at", 0.0)
    monkeypatch.setattr(share, "_free", lambda: 1)
    yield
    torch.set_num_threads(before)


def calling(work: float = 0.0) -> tuple[int, int]:
    """The threads of torch inside a call, and how many ran its units, of which one lacks a core for so long."""
    seen: set[int] = set()

    def unit(k: int) -> None:
        seen.add(get_ident())
        end = time.perf_counter() + 3e-3
        while time.perf_counter() < end:
            torch.arange(10).sum()
        time.sleep(work if k == 0 else 0.0)

    with granted(8):
        run_units(unit, [(k,) for k in range(8)])
        return torch.get_num_threads(), len(seen)


def test_what_is_lacking_is_too_much_by_its_share_and_by_its_length() -> None:
    for within, without, much in ((1.0, 1.1 * SHARE, True), (1.0, 0.9 * SHARE, False), (1e-3, 0.9 * LEAST, False)):
        found = Lacking()
        for _ in range(4):
            found.add(within / 4, without / 4)
        assert found.too_much == much


def test_a_thread_that_had_no_core_is_seen() -> None:
    with granted(8):
        found = lacking()
        run_units(lambda k: time.sleep(0.05), [(k,) for k in range(2)])
    assert found is not None and lacking() is None
    assert found.too_much and 0.04 < found.without <= found.within


def test_after_a_call_that_lacked_a_core_calls_take_one_thread_until_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(share, "monotonic", lambda: now)
    assert calling(work=0.5)[0] == 2
    assert calling() == (1, 1)
    monkeypatch.setattr(share, "_free", lambda: 2)
    now += 0.9 * PAUSES[0]
    assert calling() == (1, 1), "too early to look"
    now += 0.2 * PAUSES[0]
    assert calling()[0] == 2
    assert torch.get_num_threads() == 2


def test_without_room_calls_try_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(share, "monotonic", lambda: now)
    calling(work=0.5)
    now += 0.9 * PAUSES[1]
    assert calling() == (1, 1)
    now += 0.2 * PAUSES[1]
    assert calling()[0] == 2


def test_a_long_call_is_not_followed_by_a_try_too_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 100.0, 101.0, 101.0])
    monkeypatch.setattr(share, "monotonic", lambda: next(times))
    calling(work=0.5)
    assert share._try_at == 101.0 + CALLS


@pytest.mark.parametrize(("free", "expected"), [(62, 62), (70, 63), (-3, 1), (None, 32)])
def test_as_many_threads_are_left_as_there_are_free_cores(
    free: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share, "_free", lambda: free)
    monkeypatch.setattr(share, "_look_at", float("inf"))
    monkeypatch.setattr(share, "_try_at", float("inf"))
    assert share._count(64) == expected


def test_an_error_puts_the_threads_back_and_other_threads_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "_try_at", float("inf"))
    monkeypatch.setattr(share, "_look_at", float("inf"))
    elsewhere: list[int] = []
    with pytest.raises(KeyError), granted(8):
        assert torch.get_num_threads() == 1
        other = Thread(target=lambda: elsewhere.append(torch.get_num_threads()))
        other.start()
        other.join()
        raise KeyError
    assert torch.get_num_threads() == 2 and elsewhere == [2] and lacking() is None


@pytest.mark.parametrize(("residues", "heads"), [(5, 1), (64, 1), (33, 2), (300, 3)])
def test_the_numbers_are_the_same_bits_for_any_number_of_threads(residues: int, heads: int) -> None:
    """One head too, whose products MKL splits, and then sums otherwise."""
    case = Case("forward_backward", residues, heads, 2)
    problem = make_problem(case, seed=1)
    call = step(IMPLEMENTATIONS["cpu"].build(case), problem, cotangents(problem, sampled_rows(case, 1 << 20), 0))
    found = []
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        found.append(call())
    assert all(torch.equal(x, y) for other in found[1:] for x, y in zip(found[0], other, strict=True))


def test_bits_would_depend_on_threads_if_one_head_were_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "_knobs", lambda: None)
    with pytest.raises(AssertionError):
        test_the_numbers_are_the_same_bits_for_any_number_of_threads(5, 1)
