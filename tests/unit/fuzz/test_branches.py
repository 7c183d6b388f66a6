"""Branch distances: 0 exactly on the side that was taken, and a gradient that leads to the other."""

import json
from collections.abc import Callable

import pytest
import torch

from iga._typing import Tensor
from iga.fuzz import distances
from iga.fuzz.branches import Seen, watch_branches
from iga.fuzz.distances import Distances
from iga.fuzz.seeking import Coverage, _wanted, seek

N = 200


def _seen(function) -> Seen:  # noqa: ANN001
    x = torch.randn(N, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, seen = watch_branches(function, x.requires_grad_(), rows=N)
    return seen


CONDITIONS = {
    "greater": lambda x: x[:, 0] > 0.3,
    "less than a tensor": lambda x: x[:, 0] < x[:, 1],
    "both": lambda x: (x[:, 0] > 0.3) & (x[:, 1] < 0.1),
    "either": lambda x: (x[:, 0] > 0.3) | (x[:, 1] < 0.1),
    "not": lambda x: ~(x[:, 0] > 0.3),
    "all over a dimension": lambda x: (x > -0.5).all(-1),
    "any over a dimension": lambda x: (x > 1.0).any(dim=-1),
    "stacked": lambda x: torch.stack([x[:, 0] > 0, x[:, 1] > 0], dim=-1).all(-1),
    "reshaped": lambda x: (x > 0)[:, None, :].squeeze(1)[:, 2],
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_the_distance_is_zero_on_the_side_taken_and_above_it_on_the_other(name: str) -> None:
    values: list[Tensor] = []

    def function(x: Tensor) -> Tensor:
        values.append(CONDITIONS[name](x))
        return torch.where(values[-1], x[:, 0], x[:, 1])

    seen = _seen(function)
    found = list(seen.sites.values())[-1]  # the condition itself; those that it is made of came before
    assert torch.equal(found.to_true == 0, values[-1]) and torch.equal(found.to_false == 0, ~values[-1])
    assert found.to_true.requires_grad


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.clamp(min=0.5),
        lambda x: torch.clamp(x, -1.0, 1.0),
        lambda x: torch.relu(x),
        lambda x: x.abs(),
        lambda x: torch.maximum(x[:, 0], x[:, 1]),
        lambda x: x.amax(-1),
        lambda x: x.sort(dim=-1).values,
    ],
    ids=["clamp", "clamp to a range", "relu", "abs", "maximum", "amax", "sort"],
)
def test_an_operation_that_branches_by_itself_is_a_site_of_which_both_sides_are_taken(function) -> None:  # noqa: ANN001
    seen = _seen(function)
    assert seen.sites
    for found in seen.sites.values():
        assert bool((found.to_true == 0).any()) and bool((found.to_false == 0).any())
        assert bool(((found.to_true == 0) ^ (found.to_false == 0)).all())


def test_a_sum_of_distances_descends_to_where_all_conditions_hold() -> None:
    x = torch.zeros(8, 3, dtype=torch.float64).requires_grad_()

    def function(x: Tensor) -> Tensor:
        inside = (x[:, 0] > 1.0) & (x[:, 0] < 1.01) & (x[:, 1] < -2.0)
        return torch.where(inside, x[:, 0], x[:, 1])

    optimiser = torch.optim.Adam([x], lr=0.02)
    for _ in range(400):
        _, seen = watch_branches(function, x, rows=8)
        distance = list(seen.sites.values())[-1].to_true
        if bool((distance == 0).all()):
            return
        optimiser.zero_grad()
        distance.sum().backward()
        optimiser.step()
    raise AssertionError("not reached")


def test_integers_keep_a_gradient_and_what_they_were_before() -> None:
    def function(x: Tensor) -> Tensor:
        cell = (x[:, 0] * 10).long() * 100 + (x[:, 1] * 10).floor().long()
        return torch.where(cell == 205, x[:, 0], x[:, 1])

    seen = _seen(function)
    assert len(seen.cells) == 2 and list(seen.sites.values())[-1].to_true.requires_grad


def test_constants_are_collected_and_what_python_takes_out_is_named() -> None:
    seen = _seen(lambda x: x * 2 if float(x[0, 0].detach()) > 0.0 else torch.where(x == 0.5, x, -x))
    assert 0.5 in seen.constants and any("float()" in words or "item()" in words for words in seen.blind)


def test_a_site_is_named_by_its_place_and_counted_in_its_line() -> None:
    seen = _seen(lambda x: torch.where((x[:, 0] > 0) & (x[:, 0] > 1), x[:, 0], x[:, 1]))
    names = list(seen.sites)
    assert len(set(names)) == 3 and all(name.startswith("test_branches.py:") for name in names)


def test_both_and_either_are_each_other_s_negation() -> None:
    x = Distances(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0]))
    y = Distances(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0]))
    left = distances.negated(distances.both(x, y))
    right = distances.either(distances.negated(x), distances.negated(y))
    assert torch.equal(left.to_true, right.to_true) and torch.equal(left.to_false, right.to_false)


def test_a_side_that_was_sought_in_vain_is_sought_seldom_and_not_never() -> None:
    """Beyond the rounds that patience allows one in ten; without patience always; reached once, always again."""
    far, near = ("far", True), ("near", True)
    coverage = Coverage(1000, {far: 0, near: 0}, vain={far: 6, near: 5})
    seen = Seen(sites={name: Distances(torch.ones(1), torch.zeros(1)) for name in ("far", "near")})
    draws = torch.Generator().manual_seed(0)
    wanted = [_wanted(coverage, seen, 6, draws) for _ in range(400)]
    assert all(near in sides for sides in wanted)
    assert 0 < sum(far in sides for sides in wanted) < 100  # 40 are expected, with a deviation of 6
    assert _wanted(coverage, seen, None, draws) == [far, near]
    assert Coverage.read(coverage.document()).vain == coverage.vain


def _unrecorded(x: Tensor) -> Tensor:
    with torch.no_grad():
        far = x.square().sum(-1) > 3.0
    return torch.where(far, x.sum(-1), 0.0)


def _in_inference(x: Tensor) -> Tensor:
    with torch.inference_mode():
        far = (x.square().sum(-1) > 3.0) & torch.ones(4, dtype=torch.bool)
    return torch.where(far.clone(), x.sum(-1), 0.0)


@pytest.mark.parametrize(
    "function",
    [
        _unrecorded,
        _in_inference,
        torch.inference_mode()(lambda x: torch.where(x[:, 0] > 3.0, x[:, 1], 0.0)),
        torch.no_grad()(lambda x: torch.where(x[:, 0] > 3.0, x[:, 1], 0.0)),
        lambda x: torch.where(x.detach()[:, 0] > 3.0, x[:, 1], 0.0),
        lambda x: torch.where(x.data[:, 0] > 3.0, x[:, 1], 0.0),
    ],
)
def test_a_condition_that_the_function_took_off_the_graph_has_a_gradient(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.linspace(-1.0, 1.0, 12).view(4, 3).requires_grad_(True)
    answer, seen = watch_branches(function, x * 1.0, rows=4)
    assert torch.equal(answer, function(x * 1.0))
    (site,) = [site for name, site in seen.sites.items() if name.endswith("gt")]
    (slope,) = torch.autograd.grad(site.to_true.sum(), x)
    assert bool((slope != 0).any())
    assert torch.is_grad_enabled()


def test_a_function_that_has_to_be_off_the_graph_is_called_as_it_stands() -> None:
    def into_a_buffer(x: Tensor) -> Tensor:
        with torch.no_grad():
            total = torch.empty(len(x))
            torch.sum(x, -1, out=total)
            return torch.where(total > 0.5, total, 0.0)

    x = torch.linspace(-1.0, 1.0, 12).view(4, 3).requires_grad_(True)
    answer, seen = watch_branches(into_a_buffer, x * 1.0, rows=4)
    assert torch.equal(answer, into_a_buffer(x * 1.0)) and len(seen.sites) == 1
    assert torch.is_grad_enabled()


class Line:
    """Genomes of two numbers, which are what the function is called with."""

    genes = 2

    def decode(self, genome: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        return tuple(x.to(dtype) for x in genome.unbind(-1))

    def confined(self, genome: Tensor) -> Tensor:
        return genome.clamp(-1e6, 1e6)

    def mutate(self, genome: Tensor, generator: torch.Generator) -> Tensor:
        return genome


def test_what_the_function_writes_over_does_not_end_the_descent() -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            root = x.square().add(1.0).sqrt()
            root.mul_(2.0)  # sqrt keeps its result for the slope
            inside = (root > 5.0) & (root < 5.01) & (y > 2.0) & (y < 2.01)
        return torch.where(inside, 2 * x, x)

    generator = torch.Generator().manual_seed(0)
    start = torch.rand(64, 2, dtype=torch.float64, generator=generator)
    coverage = Coverage(examples=10**6)
    for _ in range(4):
        for _ in seek(function, Line(), start.clone(), torch.float64, coverage, generator):
            pass
    assert coverage.written_over and not coverage.blind
    whole = max((name for name, _ in coverage.taken if "and" in name), key=len)
    assert coverage.taken[whole, True] > 0
    again = Coverage.read(json.loads(json.dumps(coverage.document())))
    assert again == coverage
