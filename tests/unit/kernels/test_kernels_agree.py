"""Every implementation of the attention operator agrees with the dense float64 judge, outputs and all gradients.

Budgets: p·u·S with S measured in float64 on the judge, section 13 of docs/theory.md. The faults at the end are planted
in each implementation, and each has to be seen.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.operators import by
from iga.kernels import ops, placing
from iga.kernels.blocks import BLOCK
from iga.kernels.engine import Engine, Gradients
from iga.structure import read_structure
from iga.structure.synthetic import synthetic_structures
from iga.testing.judges.attention import Expected, Judged, expected, judge
from iga.testing.judges.attention_problem import CONFIGS, Problem, degenerate_problem, random_problem, structure_problem

IMPLEMENTATIONS = ("reference", "cpu", "fused")


def agrees(found: list[Judged], problem: Problem, implementation: str) -> None:
    absent = {"gate", "bias", "z", "z_weight"} - set(problem.tensors)
    assert len(found) == 23 - len(absent) - ("z" in absent)  # 4 outputs, 3 statistics, 16 gradients
    wrong = {one.name: one.ratio for one in found if not one.ratio <= 1.0}
    assert not wrong, f"{implementation}: error over budget: {wrong}"


def sized(points: int, residues: int) -> Problem:
    return random_problem("bounded", seed=7, batch=1, heads=1, points=points, residues=residues, masked=False)


def single() -> Problem:
    return random_problem("bounded", seed=10, batch=1, points=2)


def backbone(config: str) -> Problem:
    return structure_problem(config, synthetic_structures(1, seed=3)[0], seed=3, residues=18)


# Forms with random and degenerate Gaussians in full, what else a call may be in pairs: a size and a number of points.
PROBLEMS: dict[str, Callable[[], Problem]] = {
    **{f"random, {config}": functools.partial(random_problem, config, seed=1) for config in CONFIGS},
    **{f"degenerate, {config}": functools.partial(degenerate_problem, config, seed=2) for config in CONFIGS},
    **{f"backbone, {config}": functools.partial(backbone, config) for config in ("bounded", "gaussian, clamped")},
    "one point, one residue": lambda: sized(1, 1),
    "eight points, two residues": lambda: sized(8, 2),
    "two points, a residue less than two vectors": lambda: sized(2, 31),
    "five points, a residue more than two vectors": lambda: sized(5, 33),
    "bfloat16 features": lambda: single().with_half(torch.bfloat16),
    "float16 features": lambda: single().with_half(torch.float16),
    "no bias, pair features or gate": lambda: single().without("bias", "z", "z_weight", "gate"),
    "no bias, pair features in no logit": lambda: single().without("bias", "z_weight"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_outputs_and_gradients_agree(name: str) -> None:
    problem = PROBLEMS[name]()
    right = expected(problem)
    for implementation in IMPLEMENTATIONS:
        found = judge(problem, by(implementation), right=right)
        agrees(found, problem, implementation)
        blind = [one.name for one in found if not one.could_fail]
        assert not name.startswith("random") or not blind, f"zeros in place of {blind} would pass"


@pytest.mark.parametrize(("name", "config"), [("1fna", "bounded"), ("102m", "gaussian, clamped")])
def test_outputs_and_gradients_agree_on_real_structures(name: str, config: str, structures_dir: Path) -> None:
    paths = [path for path in sorted(structures_dir.iterdir()) if path.name.lower().startswith(name)]
    if not paths:
        pytest.skip(f"no {name} among the structures")
    problem = structure_problem(config, read_structure(paths[0]), seed=4, residues=18)
    right = expected(problem)
    for implementation in IMPLEMENTATIONS:
        agrees(judge(problem, by(implementation), right=right), problem, implementation)


@pytest.mark.parametrize("config", CONFIGS)
def test_float64_agrees_to_float64(config: str) -> None:
    problem = random_problem(config, seed=6, dtype=torch.float64)
    right = expected(problem)
    for implementation in ("reference", "cpu"):
        agrees(judge(problem, by(implementation), right=right), problem, implementation)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_rows_without_keys_and_masked_rows_are_zero_whatever_stands_there(implementation: str) -> None:
    problem = random_problem("bounded", seed=11, residues=7)
    problem.mask[0] = False
    problem.mask[1, ::3] = False
    gone = ~problem.mask
    for name, tensor in problem.tensors.items():
        if name in ("q", "k", "v", "value_points"):
            tensor.transpose(1, 2)[gone] = torch.nan
        elif name.endswith(("_mean", "_sigma")):
            tensor.movedim(3, 1)[gone] = torch.nan
        elif name in ("rot", "trans"):
            tensor[gone] = torch.nan
        elif name == "bias":
            tensor.movedim(1, 3)[gone[:, :, None] | gone[:, None, :]] = torch.inf
        elif name == "z":
            tensor[gone[:, :, None] | gone[:, None, :]] = torch.nan
    agrees(judge(problem, by(implementation)), problem, implementation)
    out = problem.call(by(implementation))
    for value in (out.values, out.points, out.pair):
        assert value is not None and bool((value.movedim(1, 2)[gone] == 0).all())
    assert bool((out.lse.movedim(1, 2)[gone] == -torch.inf).all())


@pytest.mark.parametrize("implementation", ["cpu", "fused"])
def test_many_blocks_of_rows_give_what_one_gives(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem("bounded", seed=12, batch=1, residues=9)
    batch, heads, n, _ = problem.tensors["q"].shape
    right = expected(problem)
    for rows in (4,) if implementation == "fused" else (1, 4):
        monkeypatch.setitem(BLOCK, "cpu", rows * batch * heads * n)
        agrees(judge(problem, by(implementation), right=right), problem, implementation)


# --- each implementation, with a fault in it --------------------------------------------------------------------


Change = tuple[str, Callable]  # a method of an engine, and what it does instead: from the right one and its arguments


def planted(fault: Change) -> Callable[[str], Callable]:
    """`engine_for` whose engines are wrong."""
    right, (method, change) = ops.engine_for, fault

    def build(implementation: str, *args: Any) -> Engine:
        engine = right(implementation)(*args)
        rightly = getattr(engine, method)
        setattr(engine, method, lambda *a, **named: change(functools.partial(rightly, **named), *a))
        return engine

    return lambda implementation: functools.partial(build, implementation)


def on_gradient(index: int, change: Callable) -> Change:
    def wrong(right: Callable) -> object:
        found = list(right())
        found[index] = change(found[index])
        return Gradients(*found)

    return "gradients", wrong


def last_key_lost(right, start, stop):
    sums, low = right(start, stop)
    sums[..., -1] = sums[..., -2]
    return sums, low


FAULTS: dict[str, Change] = {
    "scores 10⁻³ too large": ("sums", lambda right, a, b: (right(a, b)[0] * 1.001, right(a, b)[1])),
    "the last key of a ragged tile": ("sums", last_key_lost),
    "rows of a block out of order": ("sums", lambda right, a, b: (right(a, b)[0].flip(2), right(a, b)[1])),
    "the two ends exchanged": ("sums", lambda right, a, b: (right(a, b)[0].mT.contiguous(), right(a, b)[1])),
    "one point too few": ("sums", lambda right, a, b: (right(a, b)[0] * (1 / 2), right(a, b)[1])),
    "lowest log_det of masked keys too": ("sums", lambda right, a, b: (right(a, b)[0], right(a, b)[1] * 0)),
    "gradient of half the size": ("add_gradients", lambda right, a, b, g: right(a, b, g * 0.5)),
    "gradient of the wrong rows": ("add_gradients", lambda right, a, b, g: right(a, b, g.flip(2))),
    "a block's gradient added twice": ("add_gradients", lambda right, *a: (right(*a), right(*a))),
    "rotation's gradient transposed": on_gradient(0, lambda g: g.mT),
    "rotation without gradient": on_gradient(0, torch.zeros_like),
    "sign of the query means": on_gradient(1, torch.neg),
    "variance in place of sigma": on_gradient(2, lambda g: g * 0.5),
    "sign of the key means": on_gradient(3, torch.neg),
    "key sigmas 1 % off": on_gradient(4, lambda g: g * 1.01),
    "axes exchanged": on_gradient(4, lambda g: g.roll(1, -1)),
    "value points left in space": ("back", lambda right, points, rot, trans: points),
    "value points turned the wrong way": (
        "out",
        lambda right, x, rot, trans: right(x, rot.mT.contiguous(), trans),
    ),
    "value points without their place": ("out", lambda right, x, rot, trans: right(x, rot, trans * 0)),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("implementation", ["cpu", "fused"])
def test_a_faulty_kernel_is_seen(implementation: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, right = small(implementation)
    monkeypatch.setattr(ops, "engine_for", planted(FAULTS[name]))
    assert max(one.ratio for one in judge(problem, by(implementation), right=right)) > 10


@pytest.mark.parametrize("wrong", [lambda o: lambda a, b: o(b, a), lambda o: lambda a, b: o(a, b) * 0.5])
def test_a_wrong_gradient_of_the_rotations_that_carry_value_points_is_seen(
    wrong: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, right = small("cpu")
    monkeypatch.setattr(placing, "outer", wrong(placing.outer))
    assert max(one.ratio for one in judge(problem, by("cpu"), right=right)) > 10


@functools.cache
def small(implementation: str) -> tuple[Problem, Expected]:
    """One that the implementation gets right without a fault, and what is right."""
    heads = 1 if implementation == "fused" else 2  # the interpreter takes its time
    problem = random_problem("bounded", seed=13, batch=1, residues=11, heads=heads, points=2)
    problem.mask[:, -2:] = True  # the last keys count
    right = expected(problem)
    agrees(judge(problem, by(implementation), right=right), problem, implementation)
    return problem, right
