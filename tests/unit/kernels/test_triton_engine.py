"""The Triton kernels under their interpreter: what the common tests of implementations do not reach.

Those run the engine on square tiles; here are the tiles that a GPU gets, the flash kernel, groups of points, and the
static budget of the code for sm_90, which needs no GPU.
"""

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.operators import by
from helpers.process import run_script
from iga.kernels import ops
from iga.kernels.blocks import Outputs
from iga.kernels.engine import Score
from iga.kernels.triton import engine as fused
from iga.structure.synthetic import synthetic_structures
from iga.testing.judges.attention import Judged, judge
from iga.testing.judges.attention_problem import CONFIGS, Problem, degenerate_problem, random_problem, structure_problem

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call is large enough for the flash kernel."""
    monkeypatch.setattr(ops, "FLASH_FROM", 0)


@pytest.fixture
def gpu_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "laid_out", lambda how: how)


def without_z(problem: Problem) -> Problem:
    return problem.without("z", "z_weight")


def agrees(found: list[Judged]) -> None:
    wrong = {one.name: one.ratio for one in found if not one.ratio <= 1.0}
    assert found and not wrong, f"error over budget: {wrong}"


# --- the flash kernel -----------------------------------------------------------------------------------------------


def small(residues: int, *, points: int = 2, channels: tuple[int, ...] = (3, 2, 1, 1)) -> Problem:
    return random_problem(
        "bounded", seed=23, batch=1, heads=1, points=points, residues=residues, channels=channels, masked=False
    )


def backbone() -> Problem:
    return structure_problem("bounded", synthetic_structures(1, seed=24)[0], seed=24, residues=18)


# Its backward pass is the blocks': gradients are asked for once a form, to see that the flash kernel's lse serves them.
FLASH: dict[str, Callable[[], Problem]] = {
    **{f"random, {config}": partial(random_problem, config, seed=21, residues=9) for config in CONFIGS},
    **{f"degenerate, {config}": partial(degenerate_problem, config, seed=22) for config in CONFIGS},
    "one residue": lambda: small(1),
    "a whole tile": lambda: small(128, points=1),
    "one residue more": lambda: small(129, points=1),
    "more columns than one product takes": lambda: small(9, channels=(20, 33, 12, 1)),
    "a structure, no bias": lambda: backbone().without("bias"),
    "a structure, bfloat16 features": lambda: backbone().with_half(torch.bfloat16),
}


@pytest.mark.parametrize("name", FLASH)
def test_flash_agrees(flash: None, name: str) -> None:
    problem, random = without_z(FLASH[name]()), name.startswith("random")
    assert ops.takes_flash(problem.tensors["q"], None)
    found = judge(problem, by("fused"), gradients=random)
    agrees(found)
    assert not random or all(one.could_fail for one in found)


def test_flash_gives_zeros_to_masked_rows_and_rows_without_keys(flash: None) -> None:
    problem = without_z(random_problem("bounded", seed=26, residues=7))
    problem.mask[0] = False
    problem.mask[1, ::3] = False
    agrees(judge(problem, by("fused"), gradients=False))
    out = problem.call(by("fused"))
    assert bool((out.values.movedim(1, 2)[~problem.mask] == 0).all())
    assert bool((out.lse.movedim(1, 2)[~problem.mask] == -torch.inf).all())


def test_flash_is_taken_from_a_stated_number_of_scores_on_and_never_with_pair_features() -> None:
    q = torch.empty(1, 8, 2895, 4, device="meta")
    assert ops.FLASH_FROM == 2**26 and not ops.takes_flash(q, None)
    longer = torch.empty(1, 8, 2897, 4, device="meta")
    assert ops.takes_flash(longer, None) and not ops.takes_flash(longer, torch.empty(0))


def on_output(index: int, change: Callable) -> Callable:
    def wrong(right: Callable, *args: Any, **named: Any) -> Outputs:
        found = list(right(*args, **named))
        found[index] = change(found[index])
        return Outputs(*found)

    return wrong


def without_last_key(right: Callable, x: Any, geometry: Any, *rest: Any, **named: Any) -> Outputs:
    mask = geometry.mask.clone()
    mask[:, -1] = False
    return right(x, replace(geometry, mask=mask), *rest, **named)


FLASH_FAULTS = {
    "values 10⁻³ too large": on_output(0, lambda x: x * 1.001),
    "rows of points out of order": on_output(1, lambda x: x.roll(1, 2)),
    "heads of points exchanged": on_output(1, lambda x: x.flip(1)),
    "lse of the next row": on_output(3, lambda x: x.roll(1, -1)),
    "largest weight of 1": on_output(4, lambda x: torch.cat([x[..., :2], torch.ones_like(x[..., 2:])], dim=-1)),
    "lowest det in place of log_det": on_output(
        4, lambda x: torch.cat([x[..., :1], x[..., 1:2].exp(), x[..., 2:]], -1)
    ),
    "the last key left out": without_last_key,
}


@pytest.mark.parametrize("name", FLASH_FAULTS)
def test_a_faulty_flash_kernel_is_seen(flash: None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = without_z(random_problem("bounded", seed=27, batch=1, residues=5, masked=False))
    monkeypatch.setattr(fused, "flash_forward", partial(FLASH_FAULTS[name], fused.flash_forward))
    assert max(one.ratio for one in judge(problem, by("fused"), gradients=False)) > 10


# --- the tiles that a GPU gets, groups of points ------------------------------------------------------------------


def test_tiles_of_a_gpu_give_the_same_function(gpu_tiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem("bounded", seed=28, batch=1, heads=1, points=2, residues=5)
    agrees(judge(problem, by("fused")))
    monkeypatch.setattr(ops, "FLASH_FROM", 0)
    agrees(judge(without_z(problem), by("fused"), gradients=False))


@pytest.mark.parametrize(("points", "config"), [(9, "t, root, free"), (17, "bounded")])
def test_points_beyond_one_program_agree(points: int, config: str) -> None:
    agrees(
        judge(random_problem(config, seed=29, batch=1, heads=1, points=points, residues=3, masked=False), by("fused"))
    )


def test_points_are_spread_evenly_over_few_programs() -> None:
    bounded, clamped = Score("student_t", 4.0, float("-inf")), Score("student_t", 4.0, -8.0)
    for points in range(1, 65):
        for score, most in ((bounded, 8), (clamped, 4), (replace(bounded, kind="gaussian", log_det_min=-8.0), 8)):
            groups, of_program = fused.points_of_program(points, score)
            assert of_program <= most and groups == -(-points // most)
            assert points <= groups * of_program < points + groups


@pytest.mark.parametrize("dof", [8.0, 1e6])
def test_a_large_dof_keeps_its_digits(dof: float) -> None:
    problem = small(5, channels=(4, 5, 2, 6))
    agrees(judge(replace(problem, config=replace(problem.config, dof=dof)), by("fused")))


# --- the static budget ----------------------------------------------------------------------------------------------


@pytest.mark.process
def test_code_for_sm_90_keeps_within_its_budget(tmp_path: Path) -> None:
    script, target = ROOT / "benches" / "static_budget.py", tmp_path / "counts.json"
    done = run_script(script, "--json", str(target), "--against", str(ROOT / "benches/results/static_sm90.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(target.read_text())["counts"]
    kernels = {count["kernel"] for count in counts}
    assert kernels == {"score", "flash", "gradient"} and len(counts) == 16
    # 100 is what the closed form takes at the least: fewer would say that a loop was not found
    assert all(95 < count["instructions"] and count["spilled_bytes"] == 0 for count in counts)


def test_the_static_budget_fails_where_a_count_has_grown_or_passed_its_limit() -> None:
    sys.path.insert(0, str(ROOT / "benches"))
    interpret = os.environ["TRITON_INTERPRET"]
    try:
        import static_budget
    finally:
        sys.path.pop(0)
        os.environ["TRITON_INTERPRET"] = interpret
    right = static_budget.Count("flash", "Gaussian, 32 columns", 110.0, 130.0, 200, 0)
    earlier = {"triton": "3.9.0", "counts": [vars(right)]}
    assert static_budget.complaints([right], "3.9.0", earlier) == []
    for field, value, words in (
        ("instructions", 115.5, "115.5 instructions a pair-point, limit 115"),
        ("whole", 135.5, "135.5 instructions in all, limit 135"),
        ("spilled_bytes", 8, "8 bytes spilled, limit 0"),
        ("instructions", 110.5, "instructions grew from 110 to 110.5"),
        ("registers", 201, "registers grew from 200 to 201"),
    ):
        lines = static_budget.complaints([replace(right, **{field: value})], "3.9.0", earlier)
        assert any(words in line for line in lines), lines
    assert static_budget.complaints([replace(right, registers=201)], "3.10.0", earlier) == []
