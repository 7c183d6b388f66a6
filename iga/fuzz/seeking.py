"""The engine that goes to the sides of branches which no sample takes: branch distances, descended by gradient.

A population of genomes is decoded and the accused called under `watch_branches`. A side that fewer than one example in
`RARE` took is sought: each genome descends the sum of its distances to a random subset of the sought sides, by Adam.
One side at a time would not do where conditions hold together, and all at once not where two exclude each other.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch.autograd.graph import allow_mutation_on_saved_tensors

from iga._typing import Float, Tensor
from iga.fuzz.branches import BACKWARD, MOST_COLUMNS, Seen, watch_branches
from iga.fuzz.digits import OF_A_TABLE
from iga.testing.targets import one_line

__all__ = ["Coverage", "Space", "aimed", "cover", "seek"]

RARE = 1e-3
STEPS = 60
AIMED = 3  # each such round of the branches seeks one side alone
FAR = 4.0  # distances beyond count by their logarithm
RATES = (0.1, 0.003)  # of Adam: from the first step to the last
ONCE_MORE = (
    0.1  # chance that a side is sought in a round although it was not reached in as many as there is patience for
)
DISTINCT = 64  # numbers of a cell site up to which each is a side of its own

Side = tuple[str, bool]


@runtime_checkable
class Space(Protocol):
    """Where a population of genomes [n, genes] lives (`iga.search.pair_space`, `iga.fuzz.layer_branches`)."""

    @property
    def genes(self) -> int: ...

    def decode(self, genome: Tensor, dtype: torch.dtype, /) -> tuple[Tensor, ...]:
        """What the accused is called with, differentiable."""
        ...

    def confined(self, genome: Tensor, /) -> Tensor: ...

    def mutate(self, genome: Tensor, generator: torch.Generator, /) -> Tensor: ...


@dataclass
class Coverage:
    """How often each side of each site was taken, of how many examples; in how many rounds it was sought and never
    reached; and the numbers that were met."""

    examples: int = 0
    taken: dict[Side, int] = field(default_factory=dict)
    constants: set[float] = field(default_factory=set)
    blind: set[str] = field(default_factory=set)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    vain: dict[Side, int] = field(default_factory=dict)
    written_over: bool = False  # the accused writes over numbers that a slope needs: copies of them are kept

    def note(self, seen: Seen, rows: int, *, sampled: bool) -> list[Side]:
        """Count a call of so many examples; the sides that were never taken before. Shares are of what was `sampled`,
        not of what was driven there."""
        new = []
        if sampled:
            self.examples += rows
        for name, found in seen.sites.items():
            for side, distance in ((True, found.to_true), (False, found.to_false)):
                count = int((distance.detach() == 0).sum())
                known = self.taken.get((name, side))
                if known is None or (known == 0 and count):
                    if count:
                        new.append((name, side))
                    self.taken[name, side] = 0
                if sampled or not known:
                    self.taken[name, side] += count if sampled else min(count, 1)
        for name, values in seen.cells.items():
            finite = values.detach()[values.detach().isfinite()]
            if len(finite):
                low, high = self.ranges.get(name, (math.inf, -math.inf))
                self.ranges[name] = (min(low, float(finite.min())), max(high, float(finite.max())))
        self.constants |= seen.constants
        self.blind |= seen.blind
        return new

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "examples": self.examples,
            "taken": [[name, side, count] for (name, side), count in self.taken.items()],
            "constants": [x.hex() for x in sorted(self.constants)],
            "blind": sorted(self.blind),
            "ranges": {name: [low, high] for name, (low, high) in self.ranges.items()},
            "written_over": self.written_over,
            "vain": [[name, side, count] for (name, side), count in self.vain.items()],
        }

    @staticmethod
    def read(found: dict[str, Any]) -> "Coverage":
        """From such JSON; KeyError, TypeError or ValueError for what is none."""
        return Coverage(
            int(found["examples"]),
            {(str(name), bool(side)): int(count) for name, side, count in found["taken"]},
            {float.fromhex(x) for x in found["constants"]},
            set(found["blind"]),
            {str(name): (float(low), float(high)) for name, (low, high) in found["ranges"].items()},
            {(str(name), bool(side)): int(count) for name, side, count in found.get("vain", [])},
            bool(found.get("written_over", False)),
        )

    @property
    def sides(self) -> dict[str, tuple[int, int]]:
        """Site → how often it was true, and false."""
        sites = dict.fromkeys(name for name, _ in self.taken)
        return {name: (self.taken.get((name, True), 0), self.taken.get((name, False), 0)) for name in sites}

    def writable(self) -> AbstractContextManager[Any]:
        """Where a call and its slope are to be made."""
        return allow_mutation_on_saved_tensors() if self.written_over else nullcontext()

    def slope(self, total: Tensor | None, numbers: Tensor) -> Tensor | None:
        """The gradient of the sum of `total`; None where there is none, for a reason that is kept."""
        if total is None or not total.requires_grad:
            return None
        try:
            return torch.autograd.grad(total.sum(), numbers)[0]
        except RuntimeError as error:
            if "inplace operation" in str(error) and not self.written_over:
                self.written_over = True  # from the next call on
            else:
                self.blind.add(f"no slope of what is sought: {one_line(error)[:80]}")
            return None

    @property
    def backward(self) -> bool:
        """True if the accused's own rules of differentiation branch."""
        return any(BACKWARD in name for name, _ in self.taken)

    @property
    def met(self) -> int:
        """How many sides were ever taken."""
        return sum(count > 0 for count in self.taken.values())

    @property
    def rare(self) -> list[Side]:
        """The sides to seek."""
        return [side for side, count in self.taken.items() if count <= RARE * max(self.examples, 1)]


def seek(
    function: Callable[..., Any],
    space: Space,
    genome: Float[Tensor, "n genes"],
    dtype: torch.dtype,
    coverage: Coverage,
    generator: torch.Generator,
    *,
    steps: int = STEPS,
    columns: int = MOST_COLUMNS,
    patience: int | None = None,
    aim: Side | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows, their genomes) that took a rare side, as they are met, and at last where all n of them arrived.

    patience  rounds after which a side that was never reached is sought seldom; None: always
    aim       all rows seek this side, and nothing else; None: each row seeks some of the rare ones
    """
    n = len(genome)
    genome = genome.clone()
    numbers = genome[:, : space.genes].requires_grad_(True)
    first, second = torch.zeros_like(genome), torch.zeros_like(genome)
    chosen: dict[Side, Tensor] | None = None
    target: dict[str, Tensor] = {}
    known = set[str]()
    for step in range(steps):
        with coverage.writable(), torch.enable_grad():
            pair = space.decode(numbers, dtype)
            backward = step == 0 or coverage.backward  # a rule of differentiation that branches has been met
            _, seen = watch_branches(function, *pair, rows=n, columns=columns, backward=backward)
            coverage.note(seen, n, sampled=False)
            if aim is not None:
                chosen = {aim: torch.ones(n, dtype=torch.bool)}
            elif chosen is None:
                wanted = _wanted(coverage, seen, patience, generator)
                chosen, target = _subsets(wanted, n, generator), _targets(coverage, seen, n, generator)
            elif not seen.sites.keys() <= known:  # first met on the way: inside a branch, of rows that were picked
                late = [side for side in _wanted(coverage, seen, patience, generator) if side[0] not in known]
                chosen |= _subsets(late, n, generator)
            known |= set(seen.sites)
            total, met = _total(seen, chosen, target, n)
            slope = coverage.slope(total, numbers)
        if bool(met.any()):
            yield met.nonzero().flatten(), numbers.detach()[met]
        if total is None or slope is None:
            break
        slope = slope.nan_to_num(0.0, 0.0, 0.0)
        first = 0.9 * first + 0.1 * slope
        second = 0.99 * second + 0.01 * slope.square()
        hat1, hat2 = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.99 ** (step + 1))
        if step % 8 == 7:  # what no gradient reaches, an exact equality say, a change of ties may
            numbers = _changed(
                function, space, numbers.detach(), dtype, chosen, target, total.detach(), generator, columns, backward
            )
            numbers = numbers.requires_grad_(True)
            continue
        rate = RATES[0] * (RATES[1] / RATES[0]) ** (step / max(steps - 1, 1))
        moved = numbers.detach() - rate * hat1 / (hat2.sqrt() + 1e-12)
        numbers = space.confined(moved).requires_grad_(True)
    for side in chosen or ():
        coverage.vain[side] = 0 if coverage.taken[side] else coverage.vain.get(side, 0) + 1
    yield torch.arange(n), numbers.detach()


def aimed(
    function: Callable[..., Any],
    space: Space,
    start: Tensor,
    dtype: torch.dtype,
    coverage: Coverage,
    draw: Callable[[int], Tensor],
    turn: int,
) -> tuple[Tensor, Side | None]:
    """(where a round starts, the one side that it seeks): each third round from what is nearest to a side that nothing
    took yet, cells of tables first; else `start` and None. Of many sites a row seeks too much at once for most."""
    never = [side for side, count in coverage.taken.items() if count == 0]
    if turn % AIMED != AIMED - 1 or not never:
        return start, None
    never.sort(key=lambda side: not side[0].endswith(OF_A_TABLE))
    name, value = side = never[turn // AIMED % len(never)]
    drawn = torch.cat([start, draw(16 * len(start))])
    found = cover(function, space.decode(drawn, dtype), backward=BACKWARD in name).sites.get(name)
    if found is None:
        return start, side
    distance = (found.to_true if value else found.to_false).detach()
    return drawn[distance.argsort()[: len(start)]], side


def cover(
    function: Callable[..., Any], pair: tuple[Tensor, ...], columns: int = MOST_COLUMNS, *, backward: bool = True
) -> Seen:
    """A call on these examples, watched without slopes; its derivative too, unless that is not wanted."""
    with torch.set_grad_enabled(backward):
        given = [x.detach().requires_grad_(backward) for x in pair]
        _, seen = watch_branches(function, *given, rows=len(pair[0]), columns=columns, backward=backward)
    return seen


def _changed(
    function: Callable[..., Any],
    space: Space,
    genome: Tensor,
    dtype: torch.dtype,
    chosen: dict[Side, Tensor],
    target: dict[str, Tensor],
    known: Tensor,
    generator: torch.Generator,
    columns: int,
    backward: bool,
) -> Tensor:
    """Each genome, or a changed one that is nearer to what it seeks."""
    trial = space.mutate(genome, generator)
    seen = cover(function, space.decode(trial, dtype), columns, backward=backward)
    total, _ = _total(seen, chosen, target, len(trial))
    return genome if total is None else torch.where((total < known)[:, None], trial, genome)


def _wanted(coverage: Coverage, seen: Seen, patience: int | None, generator: torch.Generator) -> list[Side]:
    """The rare sides of what was seen, less those that were sought in vain."""
    rare = [side for side in coverage.rare if side[0] in seen.sites]
    if patience is None:
        return rare
    again = (torch.rand(len(rare), generator=generator) < ONCE_MORE).tolist()
    return [side for side, once in zip(rare, again, strict=True) if once or coverage.vain.get(side, 0) < patience]


def _subsets(wanted: list[Side], n: int, generator: torch.Generator) -> dict[Side, Tensor]:
    """Which rows seek which sides: three in ten all that is sought, the others one side at least and a share of all."""
    if not wanted:
        return {}
    share = torch.rand(n, 1, generator=generator)
    some = torch.rand(n, len(wanted), generator=generator) < share
    everything = torch.rand(n, 1, generator=generator) < 0.3
    single = torch.nn.functional.one_hot(torch.randint(0, len(wanted), (n,), generator=generator), len(wanted)).bool()
    rows = torch.where(everything, True, some | single)
    return dict(zip(wanted, rows.unbind(-1), strict=True))


def _targets(coverage: Coverage, seen: Seen, n: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A number for each row to reach before it is cut to an integer; of a third of the rows."""
    result = {}
    for name in seen.cells:
        low, high = coverage.ranges.get(name, (0.0, 0.0))
        if high - low > 1:
            aim = low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64)
            result[name] = torch.where(torch.rand(n, generator=generator) < 0.33, aim, torch.nan)
    return result


def _damped(distance: Tensor) -> Tensor:
    """What is far away does not drown what is near, and has a slope all the same."""
    far = distance.clamp(min=FAR, max=1e30)
    return torch.where(distance > FAR, FAR + (far - FAR).log1p(), distance)


def _total(seen: Seen, chosen: dict[Side, Tensor], target: dict[str, Tensor], n: int) -> tuple[Tensor | None, Tensor]:
    """(each row's distance to what it seeks, the rows that take a rare side)."""
    total, met = None, torch.zeros(n, dtype=torch.bool)
    for (name, side), rows in chosen.items():
        found = seen.sites.get(name)
        if found is None:  # a side of an `if` leaves what comes after the other side
            continue
        distance = found.to_true if side else found.to_false
        met |= distance.detach() == 0
        part = torch.where(rows, _damped(distance), 0.0)
        total = part if total is None else total + part
    for name, aim in target.items():
        values = seen.cells.get(name)
        if values is not None:
            part = torch.where(aim.isnan(), 0.0, ((values - aim).abs() / (1.0 + aim.abs())).nan_to_num(0.0))
            total = part if total is None else total + part
    return total, met
