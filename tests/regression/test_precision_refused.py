"""Dtypes that reach no formula: each public function refuses half precision, integers and complex numbers by name.

Origin: `gaussian_overlap` took float16 and bfloat16 without a word, and was 9.5 % off: products of six σ have an
exponent range and digits that those formats lack. Integers were rounded to float32, or worse. (The verbs of rotations
and frames are in unit/geometry/test_refusals_exact.py.)
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from iga import bounds, functional, overlap, preset, rotation
from iga.diagnostics import statistics_metrics
from iga.frame import Frame
from iga.gaussian import GaussianRigid, floored_sigma
from iga.kernels import Statistics

pytestmark = pytest.mark.usefixtures("without_shape_checks")

HALF = (torch.float16, torch.bfloat16)
WRONG = (*HALF, torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64, torch.complex128)
ROT, VEC, NUMBER, ONE = torch.eye(3), torch.ones(3), torch.ones(4), torch.ones(())
PAIR = {"q_rot": ROT, "q_mean": VEC, "q_sigma": VEC, "k_rot": ROT, "k_mean": 2 * VEC, "k_sigma": VEC}
TERMS = {"dist_sq": NUMBER, "log_det": NUMBER}
RAW = torch.zeros(1, 1, 2, 3)
RIGID = GaussianRigid(Frame(torch.eye(3).expand(2, 3, 3), torch.zeros(2, 3)), torch.zeros(2, 3), torch.zeros(2, 3))
CLOSED = preset("bounded")

# function, its right arguments by name
CALLS: dict[str, tuple[Callable[..., Any], dict[str, torch.Tensor]]] = {
    "gaussian_overlap": (overlap.gaussian_overlap, PAIR),
    "gaussian_overlap_textbook": (overlap.gaussian_overlap_textbook, PAIR),
    "gaussian_score": (overlap.gaussian_score, TERMS),
    "student_t_score": (lambda **x: overlap.student_t_score(**x, dof=4.0), TERMS),
    "multiply": (rotation.multiply, {"a": ROT, "b": ROT}),
    "transpose": (rotation.transpose, {"a": ROT}),
    "rotate": (rotation.rotate, {"rot": ROT, "x": VEC}),
    "rotate_inverse": (rotation.rotate_inverse, {"rot": ROT, "x": VEC}),
    "cross": (rotation.cross, {"a": VEC, "b": VEC}),
    "floored_sigma": (
        lambda log_sigma: floored_sigma(log_sigma, sigma_min=0.03, floor="smooth"),
        {"log_sigma": NUMBER},
    ),
    "point_gaussians": (
        lambda **x: functional.point_gaussians(RIGID, config=CLOSED, **x),
        {"raw_offset": RAW, "raw_log_scale": RAW},
    ),
    "geometry_logits": (
        lambda **x: functional.geometry_logits(**x, config=CLOSED),
        {"score": torch.ones(1, 2, 2, 2), "geo_weight": torch.ones(1, 1, 1)},
    ),
    "joined": (lambda points: functional.joined(ONE.expand(1, 2, 2, 4), points, None), {"points": RAW[..., None, :]}),
    "statistics_metrics": (
        lambda **x: statistics_metrics(Statistics(ONE.expand(1, 2, 3), **x), torch.ones(1, 3, dtype=torch.bool)),
        {"log_det_min": torch.ones(1, 2, 3), "weight_max": torch.ones(1, 2, 3)},
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_not_float32_or_float64_is_refused_by_name(name: str) -> None:
    function, right = CALLS[name]
    function(**right)
    for argument in right:
        for dtype in WRONG:
            with pytest.raises(ValueError, match=rf"{argument}\b.*{dtype}"):
                function(**right | {argument: right[argument].to(dtype)})


def test_fields_of_the_closed_form_are_refused_by_name() -> None:
    right = {"q": ((ONE,) * 3,) * 3} | dict.fromkeys(("g", "h", "v_i", "v_j"), (ONE,) * 3)
    overlap.closed_form(**right)
    for name, fields in right.items():
        for dtype in WRONG:
            low: Any = tuple(tuple(x.to(dtype) for x in f) if name == "q" else f.to(dtype) for f in fields)
            with pytest.raises(ValueError, match=rf"{name} must.*{dtype}"):
                overlap.closed_form(**right | {name: low})


def test_two_dtypes_in_one_overlap_are_refused() -> None:
    for name in tuple(PAIR)[1:]:
        with pytest.raises(ValueError, match=f"{name} must have the dtype"):
            overlap.gaussian_overlap(**PAIR | {name: PAIR[name].double()})


def test_random_rotations_of_half_precision_are_refused_by_name() -> None:
    for dtype in HALF:
        with pytest.raises(ValueError, match="dtype must be"):
            rotation.random(2, dtype=dtype)


OF_NUMBERS = ("bounds_rows", "bounds_summary", "unit_roundoff", "scaling_exponent", "sigma_range")
BOUNDS = [name for name in bounds.__all__ if inspect.isfunction(getattr(bounds, name)) and name not in OF_NUMBERS]


def test_every_bound_refuses_tensors_that_no_bound_holds_for() -> None:
    for name in BOUNDS:
        function = getattr(bounds, name)
        first = next(iter(inspect.signature(function).parameters))
        for dtype in WRONG:
            with pytest.raises(ValueError, match=rf"{first} must be a number.*{dtype}"):
                function(torch.ones(2).to(dtype))
        with pytest.raises(ValueError, match=f"{first} must be a real number"):
            function(1j)


FEATURES = {
    **dict.fromkeys("qkv", torch.ones(1, 2, 3, 4)),
    "value_points": torch.ones(1, 2, 3, 2, 3),
    "geo_scale": torch.zeros(2),
    "geo_bias": torch.zeros(2),
    "pair_bias": torch.zeros(1, 2, 3, 3),
    "pair_values": torch.zeros(1, 3, 3, 2),
    "gate": torch.ones(1),
}


def test_features_of_the_attention_may_be_half_precision_and_neither_integers_nor_complex() -> None:
    raw, rest = torch.zeros(1, 2, 1, 3, 3), torch.zeros(1, 3, 3)

    def attend(**changes: torch.Tensor) -> Any:
        r = GaussianRigid(Frame.random(1, 3), rest, rest)
        given = FEATURES | {"mask": torch.ones(1, 3, dtype=torch.bool)} | changes
        return functional.gaussian_attention(r=r, raw_query=(raw, raw), raw_key=(raw, raw), config=CLOSED, **given)

    for name, right in FEATURES.items():
        if name not in "qkv":
            assert attend(**{name: right.half()}).features.isfinite().all(), name
        for dtype in (torch.int64, torch.complex64):
            with pytest.raises(ValueError, match=f"{name} must be one of float16"):
                attend(**{name: right.to(dtype)})
