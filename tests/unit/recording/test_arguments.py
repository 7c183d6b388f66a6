"""Arguments as JSON and tensors: they come back as they were, and what cannot be kept is named."""

import json
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from iga.recording.arguments import decoded, encoded, left_out

CPU = torch.device("cpu")
Pair = namedtuple("Pair", "left right")


@dataclass(frozen=True)
class Holding:
    tensor: torch.Tensor
    inner: object


def back(value: object, **classes: type) -> object:
    tensors: dict[str, torch.Tensor] = {}
    tree = json.loads(json.dumps(encoded(value, "args", tensors), allow_nan=False))
    return decoded(tree, tensors, classes, CPU)


@pytest.mark.parametrize(
    "value",
    [None, True, 7, -0.0, float("inf"), "x", (), [1, (2.5, None)], {"a": 1, 2: [3]}, torch.float16, CPU, {}, "nan"],
    ids=repr,
)
def test_plain_values_come_back_as_they_were(value: object) -> None:
    assert back(value) == value and type(back(value)) is type(value)
    assert repr(back(value)) == repr(value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_come_back_with_dtype_and_shape(dtype: torch.dtype) -> None:
    x = torch.arange(6).reshape(2, 3).to(dtype)
    found = back({"whole": x, "view": x.mT, "wide": x[:1].expand(4, 3), "empty": x[:0]})
    assert isinstance(found, dict)
    for name, expected in (("whole", x), ("view", x.mT), ("wide", x[:1].expand(4, 3)), ("empty", x[:0])):
        assert torch.equal(found[name], expected) and found[name].dtype == dtype


def test_objects_come_back_of_classes_that_the_reader_names_and_of_no_other() -> None:
    value = Holding(torch.ones(2), Pair(torch.zeros(1), [Holding(torch.ones(1), 3.0)]))
    found = back(value, Holding=Holding, Pair=Pair)
    assert isinstance(found, Holding) and isinstance(found.inner, Pair)
    assert torch.equal(found.tensor, value.tensor) and found.inner.right[0].inner == 3.0  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="test_arguments.Pair.*--target has to import"):
        back(value, Holding=Holding)


def test_what_cannot_be_kept_is_named_once_it_is_asked_for() -> None:
    endless: list[object] = []
    endless.append(endless)
    for value in (nn.Linear(2, 2), print, torch.ones(2).to_sparse(), Holding, endless, torch.Generator()):
        tensors: dict[str, torch.Tensor] = {}
        tree = encoded([value, 1], "args", tensors)
        json.dumps(tree)
        assert left_out(tree)
        with pytest.raises(ValueError, match="could not be kept|has to import"):
            decoded(tree, tensors, {}, CPU)


@pytest.mark.parametrize(
    "tree",
    [1.5, [], {"tuple": 3}, {"tensor": "args.7"}, {"dtype": "nn"}, {"dtype": "no"}, {"object": "os.system"}, {"x": 1}],
    ids=repr,
)
def test_a_damaged_tree_is_refused(tree: object) -> None:
    with pytest.raises(ValueError):
        decoded(tree, {}, {}, CPU)
