"""The dtype of answers, of calls on the same dtypes."""

import pytest
import torch

from iga._typing import Tensor
from iga.overlap import gaussian_overlap
from iga.testing.overlap.subject import OverlapSubject
from iga.testing.targets import TargetError


def pair(dtype: torch.dtype) -> list[Tensor]:
    rot, mean, sigma = torch.eye(3, dtype=dtype), torch.ones(3, dtype=dtype), torch.ones(3, dtype=dtype)
    return [rot, mean, sigma, rot, 2 * mean, sigma]


def test_a_function_that_answers_in_another_dtype_than_before_is_refused_and_says_both() -> None:
    answers = [torch.float32, torch.float32, torch.float64]

    def function(*pair: Tensor) -> tuple[Tensor, ...]:
        dtype = answers.pop(0)
        return tuple(x.to(dtype) for x in gaussian_overlap(*pair))

    subject = OverlapSubject("f", function)
    subject(*pair(torch.float32))
    subject(*pair(torch.float32))
    with pytest.raises(TargetError, match=r"dist_sq is torch.float64, of an earlier call .* torch.float32"):
        subject(*pair(torch.float32))


def test_other_dtypes_given_autocast_and_another_default_dtype_may_have_another_answer() -> None:
    def function(*pair: Tensor) -> tuple[Tensor, ...]:
        wide = torch.is_autocast_enabled("cpu") or torch.get_default_dtype() == torch.float64
        return tuple(x.double() if wide else x for x in gaussian_overlap(*pair))

    subject = OverlapSubject("f", function)
    subject(*pair(torch.float32))
    subject(*pair(torch.float64))
    with torch.autocast("cpu"):
        subject(*pair(torch.float32))
    torch.set_default_dtype(torch.float64)
    try:
        assert subject(*pair(torch.float32))[0].dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
