"""The Hypothesis strategies hand out geometry that shrinks to numbers a person can read."""

import math
from collections.abc import Callable
from random import Random
from typing import TypeVar

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from iga.testing import strategies
from iga.testing.strategies import AxisAngle, GaussianPair

T = TypeVar("T")


def smallest(strategy: st.SearchStrategy[T], fails: Callable[[T], bool], seed: int) -> T:
    phases = (hypothesis.Phase.generate, hypothesis.Phase.shrink)
    settings = hypothesis.settings(max_examples=200, database=None, phases=phases)
    return hypothesis.find(strategy, fails, settings=settings, random=Random(seed))


def dist_sq(pair: GaussianPair, *, transposed: bool = False) -> float:
    q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma = (x.numpy() for x in pair.tensors)
    k_rot = k_rot.T if transposed else k_rot
    covariance = (q_rot * q_sigma**2) @ q_rot.T + (k_rot * k_sigma**2) @ k_rot.T
    delta = q_mean - k_mean
    return float(delta @ np.linalg.solve(covariance, delta))


def power_of_ten(x: float) -> bool:
    return math.isclose(math.log10(abs(x)), round(math.log10(abs(x))), abs_tol=1e-9)


def readable(rotation: AxisAngle) -> bool:
    whole = all(isinstance(x, int) and abs(x) <= 4 for x in rotation.axis)
    return whole and rotation.base in (0.0, 1.0, math.pi) and (rotation.offset == 0 or power_of_ten(rotation.offset))


def test_a_transposed_rotation_shrinks_to_a_pair_that_can_be_read() -> None:
    def fails(pair: GaussianPair) -> bool:
        right = dist_sq(pair)
        return abs(dist_sq(pair, transposed=True) - right) > 1e-3 * right

    found = smallest(strategies.gaussian_pairs(), fails, seed=0)
    assert fails(found)
    assert readable(found.frame) and readable(found.turn)
    # σ is the floor times a quarter power of ten, or the ceiling
    quarters = [4 * math.log10(x / 0.03) for x in (*found.sigma_i, *found.sigma_j) if x != 150.0]
    assert all(math.isclose(q, round(q), abs_tol=1e-9) for q in quarters)
    size = max(abs(x) for x in found.delta)
    steps = [x / 10 ** math.floor(math.log10(size)) for x in found.delta]
    assert all(math.isclose(x, round(x), abs_tol=1e-9) and abs(x) <= 4 for x in steps)
    assert len(repr(found)) < 300 and "tensor" not in repr(found)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_fault_beside_a_half_turn_shrinks_to_where_it_begins(seed: int) -> None:
    found = smallest(strategies.axis_angles(), lambda turn: turn.base == math.pi and 0 < abs(turn.offset) <= 1e-6, seed)
    assert (found.axis, found.base) == ((0, 0, 1), math.pi)
    assert math.isclose(abs(found.offset), 1e-6)
    assert repr(found) == f"AxisAngle(axis=(0, 0, 1), base=3.141592653589793, offset={found.offset})"


def test_what_is_documented_is_what_can_be_imported() -> None:
    for name in strategies.__all__:
        assert getattr(strategies, name).__doc__, name
