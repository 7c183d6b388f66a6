"""Half precision, integers and complex numbers reach no formula: each public function refuses them by name.

`gaussian_overlap` took float16 and bfloat16 without a word, and was 9.5 % off: products of six σ have an exponent range
and digits that those formats lack. Integers were rounded to float32, or worse.
"""

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from iga import bounds, functional, overlap, preset, rotation
from iga.diagnostics import statistics_metrics
from iga.frame import Frame
from iga.gaussian import GaussianRigid, floored_sigma
from iga.kernels import Statistics

HALF = [torch.float16, torch.bfloat16]
NO_FLOAT = [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64, torch.complex128]
WRONG = [*HALF, *NO_FLOAT]
ROT, VEC, NUMBER = torch.eye(3), torch.ones(3), torch.ones(4)
PAIR = {"q_rot": ROT, "q_mean": VEC, "q_sigma": VEC, "k_rot": ROT, "k_mean": 2 * VEC, "k_sigma": VEC}
RIGID = GaussianRigid(Frame(torch.eye(3).expand(2, 3, 3), torch.zeros(2, 3)), torch.zeros(2, 3), torch.zeros(2, 3))
RAW = torch.zeros(1, 1, 2, 3)
SCORES, WEIGHT = torch.ones(1, 2, 2, 2), torch.ones(1, 1, 1)
CLOSED = preset("bounded")


ONE = torch.ones(())
FIELDS = {"q": ((ONE,) * 3,) * 3, "g": (ONE,) * 3, "h": (ONE,) * 3, "v_i": (ONE,) * 3, "v_j": (ONE,) * 3}

# function, its right arguments by name
CALLS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (overlap.gaussian_overlap, PAIR),
    (overlap.gaussian_overlap_textbook, PAIR),
    (overlap.gaussian_score, {"dist_sq": NUMBER, "log_det": NUMBER}),
    (
        lambda dist_sq, log_det: overlap.student_t_score(dist_sq, log_det, dof=4.0),
        {"dist_sq": NUMBER, "log_det": NUMBER},
    ),
    (rotation.multiply, {"a": ROT, "b": ROT}),
    (rotation.transpose, {"a": ROT}),
    (rotation.rotate, {"rot": ROT, "x": VEC}),
    (rotation.rotate_inverse, {"rot": ROT, "x": VEC}),
    (rotation.cross, {"a": VEC, "b": VEC}),
    (rotation.exp, {"rotvec": VEC}),
    (rotation.log, {"rot": ROT}),
    (rotation.from_quaternion, {"quaternion": NUMBER}),
    (rotation.to_quaternion, {"rot": ROT}),
    (rotation.geodesic_distance, {"a": ROT, "b": ROT}),
    (rotation.gram_schmidt, {"x_axis": VEC, "xy_plane": VEC * torch.tensor([1.0, 2.0, 3.0])}),
    (lambda log_sigma: floored_sigma(log_sigma, sigma_min=0.03, floor="smooth"), {"log_sigma": NUMBER}),
    (
        lambda raw_offset, raw_log_scale: functional.point_gaussians(RIGID, raw_offset, raw_log_scale, CLOSED),
        {"raw_offset": RAW, "raw_log_scale": RAW},
    ),
    (
        lambda score, geo_weight: functional.geometry_logits(score, geo_weight, CLOSED),
        {"score": SCORES, "geo_weight": WEIGHT},
    ),
    (lambda points: functional.joined(torch.ones(1, 2, 2, 4), points, None), {"points": torch.ones(1, 2, 2, 2, 3)}),
]
CASES = [(function, arguments, name) for function, arguments in CALLS for name in arguments]


def label(case: Any) -> str:
    return getattr(case, "__qualname__", "") if callable(case) else case if isinstance(case, str) else ""


@pytest.mark.parametrize(("function", "arguments", "name"), CASES, ids=label)
def test_what_is_not_float32_or_float64_is_refused_by_name(
    function: Callable[..., Any], arguments: dict[str, Any], name: str
) -> None:
    function(**arguments)
    for dtype in HALF:
        with pytest.raises(ValueError, match=rf"{name}\b.*{dtype}"):
            function(**{**arguments, name: arguments[name].to(dtype)})


def taken() -> list[str]:
    """What takes integers, bools or complex numbers, or refuses them without a name."""
    found = []
    for function, arguments, name in CASES:
        for dtype in NO_FLOAT:
            what = f"{label(function)}({name}: {dtype})"
            try:
                function(**{**arguments, name: arguments[name].to(dtype)})
            except ValueError as error:
                if not re.search(rf"{name}\b.*{dtype}", str(error)):
                    found.append(f"{what}: {error}")
            else:
                found.append(what)
    for dtype in (torch.int64, torch.complex64):
        for name, right in FEATURES.items():
            try:
                attend(**{name: right.to(dtype)})
            except ValueError as error:
                if f"{name} must be one of float16" not in str(error):
                    found.append(f"attention({name}: {dtype}): {error}")
            else:
                found.append(f"attention({name}: {dtype})")
    return found


def test_integers_bools_and_complex_numbers_are_refused_by_name() -> None:
    """In a process of its own: under pytest the signatures are checked too, and would refuse them first."""
    here = Path(__file__).resolve()
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(here.parents[2]), str(here.parent)])}
    program = "import test_precision_refused as t; print('\\n'.join(t.taken()), end='')"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env)
    assert (ran.stdout, ran.returncode) == ("", 0), ran.stdout + ran.stderr


def test_fields_of_the_closed_form_are_refused_by_name() -> None:
    overlap.closed_form(**FIELDS)
    for name, fields in FIELDS.items():
        for dtype in WRONG:
            low: Any = tuple(tuple(x.to(dtype) for x in f) if name == "q" else f.to(dtype) for f in fields)
            with pytest.raises(ValueError, match=rf"{name} must.*{dtype}"):
                overlap.closed_form(**{**FIELDS, name: low})


def test_two_dtypes_in_one_overlap_are_refused() -> None:
    for name in tuple(PAIR)[1:]:
        with pytest.raises(ValueError, match=f"{name} must have the dtype"):
            overlap.gaussian_overlap(**{**PAIR, name: PAIR[name].double()})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_random_rotations_of_half_precision_are_refused_by_name(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="dtype must be"):
        rotation.random(2, dtype=dtype)


TENSOR_BOUNDS = [
    name
    for name in bounds.__all__
    if inspect.isfunction(getattr(bounds, name))
    and name not in ("bounds_rows", "bounds_summary", "unit_roundoff", "scaling_exponent", "sigma_range")
]


@pytest.mark.parametrize("name", TENSOR_BOUNDS)
def test_every_bound_refuses_tensors_that_no_bound_holds_for(name: str) -> None:
    function = getattr(bounds, name)
    first = next(iter(inspect.signature(function).parameters))
    for dtype in WRONG:
        with pytest.raises(ValueError, match=rf"{first} must be a number.*{dtype}"):
            function(torch.ones(2).to(dtype))
    with pytest.raises(ValueError, match=f"{first} must be a real number"):
        function(1j)


def attend(**changes: Any) -> Any:
    b, h, n = 1, 2, 3
    r = GaussianRigid(Frame.random(b, n), torch.zeros(b, n, 3), torch.zeros(b, n, 3))
    raw = torch.zeros(b, h, 1, n, 3)
    given: dict[str, Any] = {
        "q": torch.ones(b, h, n, 4),
        "k": torch.ones(b, h, n, 4),
        "v": torch.ones(b, h, n, 4),
        "value_points": torch.ones(b, h, n, 2, 3),
        "mask": torch.ones(b, n, dtype=torch.bool),
        "geo_scale": torch.zeros(h),
        "geo_bias": torch.zeros(h),
        "pair_bias": torch.zeros(b, h, n, n),
        "pair_values": torch.zeros(b, n, n, 2),
        "gate": torch.ones(b),
    }
    given |= changes
    args = [given.pop(name) for name in ("q", "k", "v", "value_points")]
    return functional.gaussian_attention(*args, r, (raw, raw), (raw, raw), given.pop("mask"), config=CLOSED, **given)


FEATURES = {
    "q": torch.ones(1, 2, 3, 4),
    "k": torch.ones(1, 2, 3, 4),
    "v": torch.ones(1, 2, 3, 4),
    "value_points": torch.ones(1, 2, 3, 2, 3),
    "geo_scale": torch.zeros(2),
    "geo_bias": torch.zeros(2),
    "pair_bias": torch.zeros(1, 2, 3, 3),
    "pair_values": torch.zeros(1, 3, 3, 2),
    "gate": torch.ones(1),
}


def test_half_precision_features_of_the_attention_are_taken() -> None:
    for name, right in FEATURES.items():
        if name not in "qkv":
            assert attend(**{name: right.half()}).features.isfinite().all()


def test_statistics_of_half_precision_are_refused_by_name() -> None:
    ones, mask = torch.ones(1, 2, 3), torch.ones(1, 3, dtype=torch.bool)
    assert statistics_metrics(Statistics(ones, ones, ones), mask)
    for dtype in HALF:
        with pytest.raises(ValueError, match="statistics.log_det_min must be"):
            statistics_metrics(Statistics(ones, ones.to(dtype), ones), mask)
