"""`calls_agree`: every way of calling an overlap function gives the plain call's answers, and its gradients.

One driver (`iga.testing.ways`) goes over tables of ways: what serves whatever is judged (`common_ways`), modes of the
process (`process_ways`), batches and subsets of gradients (`batch_ways`), leading shapes and shared memory (`layouts`),
transforms (`transform_ways`).
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from iga.testing.check import check
from iga.testing.common_ways import COMMON, without_recording
from iga.testing.overlap.accuracy import name_of
from iga.testing.overlap.batch_ways import BATCHES, LARGER, PAIRS, SUBSETS
from iga.testing.overlap.layouts import LAYOUTS, SET, SHAPED, SHARED, SHARING
from iga.testing.overlap.pairs import PairSource, aligned_pairs, degenerate
from iga.testing.overlap.scenes import OPERANDS, Assign, Stage, as_pair, draw, stage
from iga.testing.overlap.subject import OverlapSubject, require_answers
from iga.testing.overlap.transform_ways import EXPORTED, MAPPED, TRACED, TRANSFORMS
from iga.testing.process_ways import PROCESS
from iga.testing.tally import Tally
from iga.testing.targets import TargetError
from iga.testing.ways import Inputs, Way, judge_ways
from iga.testing.ways_back import AFTERWARDS

__all__ = ["calls_agree"]

OTHERS = 23  # pairs of the calls in between
# Of the list, pairs with equal means, with one frame, and of a Gaussian and itself.
EQUAL = {"mean": (3, 20, 36), "rot": (5, 36), "sigma": (36,)}
# Zeros have a sign. Aligned frames and means at the origin have many; not every right form has a gradient there.
SIGNED = tuple(replace(way, gradients=False) for way in COMMON if way.claim == "negative_zero")
# What earlier calls, memory and threads may not change, once more while nothing is recorded.
UNRECORDED = tuple(
    without_recording(way)
    for way in (*COMMON, *BATCHES)
    if way.back is None and way.claim in ("repeat", "strided", "in_place", "concurrent_calls")
)
# On pairs of any κ at any distance, whose values are as large as they get.
DEGENERATE = (*UNRECORDED, EXPORTED)
TABLES = (
    *(*COMMON, *UNRECORDED, *PROCESS, *BATCHES, *SUBSETS, *SHAPED, SHARING, *MAPPED, *TRANSFORMS, *TRACED, *LARGER),
    *(AFTERWARDS, EXPORTED),
)
CLAIMS = tuple(sorted({name for one in TABLES for name in (one.claim, *one.excused)}))


@check("overlap", "of the budget", claims=CLAIMS, seen_faults=("calls", "control flow"), every=20)
def calls_agree(function: OverlapSubject, inputs: PairSource, seed: int, tally: Tally) -> None:
    """Differences from the plain call over two budgets of one call; a way that raises is a missing capability."""
    for first, dtype in enumerate(function.dtypes):
        for label, given, other, assign, ways in _scenes(function, dtype, seed):
            where = f"{label}, {name_of(dtype)}"
            # what is large, and what a compiler takes, is asked for in one dtype
            chosen = [way for way in ways if not first or way not in (*LARGER, *TRACED, EXPORTED)]
            if not chosen:
                continue
            gradients = any(way.gradients for way in chosen)
            plain = _staged(function, where, given, other, seed, assign, tally, gradients=gradients)
            if plain is not None:
                lacking = function.claims.lacking | (frozenset() if plain.finite else {"gradients"})
                judge_ways(chosen, plain.scene, plain.plain, inputs.profile, lacking, where, tally)


def _scenes(
    function: OverlapSubject, dtype: torch.dtype, seed: int
) -> Iterator[tuple[str, Inputs, Inputs, Assign, tuple[Way, ...]]]:
    """(label, inputs, other inputs, how operands are made of them, ways): what costs least first."""
    low, high = function.sigma_range

    def drawn(shape: tuple[int, ...], k: int) -> dict[str, torch.Tensor]:
        return draw((shape,) * 6, (low, high), dtype, seed + k)

    other = draw(((OTHERS,),) * 6, (max(low, high / 20), high), dtype, seed + 1)
    pairs = drawn((PAIRS,), 0)
    for name, rows in EQUAL.items():
        for row in rows:
            pairs[f"k_{name}"][row] = pairs[f"q_{name}"][row]
    yield "a list", pairs, other, as_pair, (*COMMON, *UNRECORDED, *PROCESS, *SUBSETS, *BATCHES)
    grid = draw(((7, 1),) * 3 + ((9,),) * 3, (low, high), dtype, seed + 2)
    yield "a matrix", grid, other, as_pair, (*COMMON, *SUBSETS, *MAPPED)
    between = {name: other[f"q_{name}"] for name in SET}
    for k, (label, assign) in enumerate(SHARED.items()):
        gaussians = drawn((PAIRS // 4,), 3 + k)
        yield label, {name: gaussians[f"q_{name}"] for name in SET}, between, assign, (SHARING,)
    for k, (label, shapes) in enumerate(LAYOUTS):
        yield label, draw(shapes, (low, high), dtype, seed + k), other, as_pair, SHAPED
    aligned: dict[str, torch.Tensor] = dict(zip(OPERANDS, aligned_pairs(PAIRS, (low, high), dtype, seed), strict=True))
    for row, name in enumerate(("q_mean", "k_mean")):  # at the origin, and in one of its planes
        aligned[name][row::5] = 0
        aligned[name][row + 2 :: 5, 1] = 0
    yield "aligned frames", aligned, other, as_pair, SIGNED
    wild: dict[str, torch.Tensor] = dict(zip(OPERANDS, degenerate(PAIRS, (low, high), dtype, seed), strict=True))
    yield "degenerate pairs", wild, other, as_pair, DEGENERATE
    yield "a list", pairs, other, as_pair, (*TRANSFORMS, AFTERWARDS)
    yield "a list", pairs, other, as_pair, LARGER
    yield "a list", pairs, other, as_pair, TRACED


def _staged(
    function: OverlapSubject,
    where: str,
    given: Inputs,
    other: Inputs,
    seed: int,
    assign: Assign,
    tally: Tally,
    *,
    gradients: bool,
) -> Stage | None:
    """The plain call; a finding, and None, if not even that can be done."""
    try:
        plain = stage(function, given, other, seed, assign, gradients=gradients)
    except TargetError as error:
        tally.fail(where, f"the plain call: {error}")
        return None
    if not plain.finite:
        tally.fail(where, "gradient: of the plain call it is not finite; ways are judged by their values")
    if len(plain.plain.inputs) == 6:
        require_answers((plain.plain.answers["dist_sq"], plain.plain.answers["log_det"]), tally)
    return plain
