"""The search of an overlap function: three engines over pairs of Gaussians, one pool, every check of the registry.

sampling  grids of pairs and batches of every size and layout, screened; pairs with exact ties, judged by all checks;
          now and then the checks that draw inputs of their own, with a new seed
climb     the pool by gradient up its float64 error, and by mutation up one check's value over limit
branches  the rare sides of the accused's own conditions, by branch distance

Every pair that came near a budget, or took a rare side, is kept in the pool, which the engines start from.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from iga._runtime import threads
from iga._typing import Tensor
from iga.fuzz import sampling
from iga.fuzz.bandit import Bandit
from iga.fuzz.climbing import climb_error
from iga.fuzz.objectives import Verdict, judge_pairs
from iga.fuzz.packed import packed, unpacked
from iga.fuzz.pair_cases import DRAWN, drawn, judged_again, shrunk
from iga.fuzz.seeking import Coverage, aimed, cover, seek
from iga.fuzz.stream import Candidate, Covered, Judgement, Round
from iga.search.climb import climb
from iga.search.pair_space import CELLS, PairSpace, cells_of
from iga.search.pairs import Domain, Pairs
from iga.testing.check import Check
from iga.testing.checks import checks_of
from iga.testing.latest import Call
from iga.testing.overlap.subject import ARGUMENTS, OverlapSubject
from iga.testing.state.watch import Watch, left_alone, watching
from iga.testing.targets import one_line

__all__ = ["ENGINES", "OverlapStream"]

ENGINES = ("sampling", "climb", "branches")
HERE = "a round of the search"  # where a change of the process is noted, unless a check saw it
NEAR = 0.7  # of a budget: from there on all checks look
POOL, POPULATION = 2048, 512
LEADS = 16  # of each grid in float64: what stands out most, for the climb
DRAWN_AT = (15, 60)  # checks that draw inputs of their own cost seconds: the first such round, and how many lie between
PATIENCE = 8  # candidates of a check, none of which was believed, after which it raises no more


@dataclass
class _Found:
    """What the rounds of an engine collect."""

    examples: int = 0
    gain: float = 0.0


class OverlapStream:
    """See `iga.fuzz.stream.Stream`. seed and shard (i, n) say which of n streams it is."""

    kind = "overlap"

    def __init__(
        self,
        subject: OverlapSubject,
        *,
        checks: list[Check] | None = None,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        digits: int = 2,
        known: list[Pairs] | None = None,
        engines: tuple[str, ...] = ENGINES,
    ) -> None:
        """`known` are pairs to start from, of real structures say; `engines` those that take part."""
        self.subject, self.digits, self.seed = subject, digits, seed * shard[1] + shard[0]
        self.sigma_range = subject.sigma_range
        given = list(checks_of("overlap").values()) if checks is None else checks
        self._checks = {check.name: check for check in given if not check.not_supported(subject.claims)}
        self.checks = list(self._checks)
        self.generator = torch.Generator().manual_seed(self.seed)
        self.space = PairSpace(Domain(*subject.sigma_range))
        self.pool = torch.empty(0, self.space.genes, dtype=torch.float64)
        self._known = torch.cat([self.space.encode(pair) for pair in known])[:POOL] if known else self.pool
        self.pool = self._known
        self.leads = self.pool[:0]  # pairs whose float64 error stands out, the latest last
        self.coverage, self.bandit = Coverage(), Bandit(engines)
        self.cells = torch.zeros(CELLS, dtype=torch.long)
        self.worst, self.raised = dict[str, float](), dict[str, int]()
        self.alive: Callable[[], None] = lambda: None  # called between calls of the accused
        self.chosen: Callable[[str], None] = lambda engine: None
        self.halvings = -1  # of the ends of a grid and of a population, for a slow function; −1: not known yet
        self._flat = bool({"broadcasting", "leading_dimensions"} & subject.claims.lacking)

    def round(self) -> Round:
        """The next round, of the engine whose turn it is."""
        engine = self.bandit.choose(self.generator)
        self.chosen(engine)
        self._begin(engine)
        watch = Watch()
        with threads(1), watching(watch), left_alone(HERE, whole=True):  # its calls are not those of a check
            if self.halvings < 0:
                self.halvings = sampling.slowness(self.subject.function, self.space, self.subject.dtypes[0], self.alive)
            {"sampling": self._sampling, "climb": self._climbing, "branches": self._branching}[engine]()
        for words in (words for words, (_, where) in watch.changes.items() if where == HERE):
            # not of the stream's own generator: what it draws is the same with and without such a finding
            pair = self.space.decode(self.space.draw(1, torch.Generator().manual_seed(0)), self.subject.dtypes[0])
            self._candidate("process_state", _call(pair), math.inf, "a call", words)
        gain = self._seen.gain + 5 * len(self._candidates)
        for name, value in self._worst.items():
            known = self.worst.get(name, 0.0)
            gain += value > 1.1 * known
            self.worst[name] = max(known, value)
        self.bandit.reward(engine, gain)
        self._meet_constants()
        return Round(engine, self._seen.examples, self._worst, list(self._candidates.values()))

    def skip(self, number: int) -> None:
        """Pass over a round that did not come back: the next one draws otherwise."""
        self.generator.manual_seed(self.seed + 1_000_003 * (number + 1))

    def _begin(self, engine: str) -> None:
        self._now, self._seen = engine, _Found()
        self._candidates, self._worst = dict[str, Candidate](), dict[str, float]()

    @property
    def _population(self) -> int:
        return max(POPULATION >> self.halvings, 32)

    def _meet_constants(self) -> None:
        constants = torch.tensor(sorted(self.coverage.constants), dtype=torch.float64)
        self.space = replace(self.space, constants=constants)

    def _sampling(self) -> None:
        turn = self.bandit.rounds.get("sampling", 0)
        dtypes = self.subject.dtypes
        if turn == 0:
            self._judged(self._known)
        for k in range(sampling.GRIDS):
            dtype = dtypes[(turn + k) % len(dtypes)]
            pairs = sampling.grid(self.space, self.generator, dtype, sampling.ENDS >> self.halvings)
            if turn % 2 or self._flat:
                pairs = sampling.picked(pairs, torch.arange(pairs[0].shape[0] * pairs[3].shape[0]))
            self._screened(pairs, dtype)
        self._sizes(turn, dtypes[turn % len(dtypes)])
        self._every_size(turn, dtypes[turn % len(dtypes)])
        self._judged(self.space.draw(self._population, self.generator, 0.8))
        first, every = DRAWN_AT
        if turn >= first and (turn - first) % every == 0:
            self._own_draws((turn - first) // every)

    def _sizes(self, turn: int, dtype: torch.dtype) -> None:
        """Batches of a few sizes of the table, small and large."""
        for size in sampling.table_in_turn(turn, self.halvings):
            many = sampling.repeated(self.space, self.generator, size, dtype)
            self._screened(many, dtype, batch=True)
            for _ in sampling.odd_gradients(self.subject.function, many, [size], self.alive):
                self._whole("gradient_values", many, dtype)

    def _every_size(self, turn: int, dtype: torch.dtype) -> None:
        usual, rests = (of(turn, self.seed, self.halvings) for of in (sampling.sizes_in_turn, sampling.rests_in_turn))
        for sizes, few in ((usual, usual), (rests, rests[:2]))[: 1 + bool(rests)]:  # beside a batch of none of them
            many = sampling.repeated(self.space, self.generator, max(sizes) + sampling.PIECE, dtype)
            self._seen.examples += sum(sizes)
            for size in sampling.odd_sizes(self.subject.function, many, sizes, dtype, self.alive)[:4]:
                self._screened(sampling.first(many, size), dtype, batch=True)
            for size in sampling.odd_gradients(self.subject.function, many, few, self.alive)[:1]:
                self._whole("gradient_values", sampling.first(many, size), dtype)

    def _whole(self, name: str, pairs: Pairs, dtype: torch.dtype) -> None:
        """The check of this name on a batch as it is."""
        if name not in self.checks:
            return
        found = judge_pairs([self._checks[name]], self.subject, _as(pairs), len(pairs[0]), dtypes=[dtype])
        self._note(found, _call(pairs))

    def _climbing(self) -> None:
        turn = self.bandit.rounds.get("climb", 0)
        if turn % 2 and torch.float64 in self.subject.dtypes:
            count = self._population // 2
            start = torch.cat([self.leads[-count:], self._from_pool(count)])[:count]
            self.leads = self.leads[:-count]
            try:
                climbed = climb_error(self.subject.function, self.space, start, 40)
                self._seen.examples += 40 * count
                self._judged(climbed)
                return
            except Exception as error:  # an accused without gradients is climbed by mutation
                self.coverage.blind.add(f"no gradient to climb: {one_line(error)[:80]}")
        self._judged(self._from_pool(self._population))  # which checks have a slope at all
        for name in self._row_checks:
            if name in self.checks and self.worst.get(name, 0.0) + self._worst.get(name, 0.0) > 0:
                self._mutated(self._checks[name])

    def _mutated(self, check: Check) -> None:
        """One check's value over its limit climbed by mutation, mostly from its own best in the pool."""

        def height(genome: Tensor) -> Tensor:
            return self._verdicts(genome, [check])[check.name].ratio.nan_to_num(nan=math.inf)

        known, start = self._from_pool(4 * self._population), self._from_pool(self._population // 2)
        best = known[height(known).argsort(descending=True)[: self._population // 8]]
        start = torch.cat([best.repeat(4, 1), start])
        climbed, _ = climb(height, lambda genome: self.space.mutate(genome, self.generator), start, 12)
        self._judged(climbed)

    def _branching(self) -> None:
        turn = self.bandit.rounds.get("branches", 0)
        dtype = self.subject.dtypes[turn % len(self.subject.dtypes)]
        if turn == 0:
            self._cover(self.space.draw(8192, self.generator), dtype, sampled=True)
        if not self.coverage.taken and not self.coverage.ranges:
            self._judged(self._from_pool(self._population))  # nothing that branches can be seen
            return
        before = {side for side, count in self.coverage.taken.items() if count}
        met = []
        try:
            way = (self.subject.function, self.space, self._from_pool(self._population), dtype, self.coverage)
            start, aim = aimed(*way, lambda count: self.space.draw(count, self.generator), turn)
            for _, genome in seek(*way[:2], start, *way[3:], self.generator, aim=aim):
                self.alive()
                met.append(genome[: self._population // 4])
        except Exception as error:  # the accused's own, at inputs that no other engine went to
            self.coverage.blind.add(f"on the way to a branch it raised {one_line(error)[:80]}")
        self._seen.examples += 68 * self._population
        self._seen.gain += len({side for side, count in self.coverage.taken.items() if count} - before)
        if met:
            reached = torch.cat(met)
            reached = reached[torch.randperm(len(reached), generator=self.generator)[: 2 * self._population]]
            self._keep(reached[:128])
            self._judged(reached)

    @property
    def _row_checks(self) -> list[str]:
        """The checks that are measured on the pairs of the search; the costly ones draw inputs of their own."""
        return [name for name, check in self._checks.items() if check.every == 1]

    def given(self, name: str) -> bool:
        """Whether the check of this name is measured on pairs that it is given."""
        return name not in self._checks or self._checks[name].every == 1

    def judged_in(self, dtype: torch.dtype) -> list[str]:
        """The checks that can be measured on given pairs of that dtype."""
        checks = (self._checks[name] for name in self._row_checks)
        return [check.name for check in checks if check.dtype in (None, dtype)]

    def _verdicts(self, genome: Tensor, checks: list[Check]) -> dict[str, Verdict]:
        self.alive()
        self._seen.examples += len(genome)
        self.cells += torch.bincount(cells_of(genome), minlength=CELLS)
        found = judge_pairs(
            checks, self.subject, lambda dtype: self.space.decode(genome, dtype), len(genome), digits=self.digits
        )
        self._note(found)
        return found

    def _judged(self, genome: Tensor) -> None:
        """All checks on these pairs; those nearest to a limit are kept."""
        new = int((self.cells > 0).sum())
        found = self._verdicts(genome, [self._checks[name] for name in self._row_checks if name in self.checks])
        self._seen.gain += 0.1 * (int((self.cells > 0).sum()) - new)
        for verdict in found.values():
            self._keep(genome[verdict.ratio.argsort(descending=True)[:4]])

    def _screened(self, pairs: Pairs, dtype: torch.dtype, *, batch: bool = False) -> None:
        try:
            suspects: sampling.Suspects = sampling.screen(self.subject.function, pairs, dtype)
        except Exception as error:  # whatever the accused raises is a finding about it
            if pairs[0].ndim > 3:  # whether it broadcasts is for the check of its ways of calling to say
                self._flat = True
            else:
                self._raised(one_line(error), pairs)
            return
        self.alive()
        self._seen.examples += suspects.examples
        if not suspects.examples:
            return
        worst = self.space.encode(sampling.picked(pairs, suspects.index[:LEADS]))
        self._keep(worst[:4])
        if dtype == torch.float64 and not batch:
            self.leads = torch.cat([self.leads, worst])[-POOL:]
        near, names = suspects.index[suspects.share > NEAR], self._row_checks
        if not len(near):  # how near the nearest of so many comes is told all the same
            near, names = suspects.index[:LEADS], ["accuracy"]
        checks = [self._checks[name] for name in names if name in self.checks]
        chosen = _as(sampling.picked(pairs, near))
        found = judge_pairs(checks, self.subject, chosen, len(near), dtypes=[dtype], digits=self.digits)
        self._note(found)
        if batch and not any(one.finding.verdict == "broken" for one in found.values()):
            self._whole("accuracy", pairs, dtype)  # alone they are right: it is the batch

    def _own_draws(self, turn: int) -> None:
        """The costly checks, as a run has them, with a seed of this round."""
        names = [name for name in self._checks if name not in self._row_checks and name in self.checks]
        if not names:
            return
        check = self._checks[names[turn % len(names)]]
        finding, call, ratio = drawn(self.subject, check, seed := self.seed + turn, self.digits)
        if finding.shown:
            self._worst[check.name] = max(self._worst.get(check.name, 0.0), min(ratio, 1e300))
        if finding.verdict == "broken" and call is not None:
            again = replace(call, layer={DRAWN: seed})
            self._candidate(check.name, again, math.inf, finding.worst_example, finding.note)

    def _note(self, found: dict[str, Verdict], batch: Call | None = None) -> None:
        for name, verdict in found.items():
            worst = float(verdict.ratio.max()) if len(verdict.ratio) else 0.0
            if verdict.finding.shown:
                self._worst[name] = max(self._worst.get(name, 0.0), min(worst, 1e300))
            call = batch or verdict.call
            if verdict.finding.verdict == "broken" and call is not None:
                self._candidate(name, call, worst, verdict.finding.worst_example, verdict.finding.note)

    def _candidate(self, name: str, call: Call, ratio: float, where: str, note: str) -> None:
        if name not in self.checks or name in self._candidates or self.raised.get(name, 0) >= PATIENCE:
            return
        self.raised[name] = self.raised.get(name, 0) + 1
        self._candidates[name] = Candidate(name, call, ratio, where, note, self._now)

    def _raised(self, words: str, pairs: Pairs) -> None:
        """The accused raised: the first check of values says so, if it is the accused's fault."""
        if "accuracy" in self.checks:
            few = sampling.least_raising(self.subject.function, pairs, self.alive)
            self._candidate("accuracy", _call(few), math.inf, "a batch", f"it raised {words}")

    def _cover(self, genome: Tensor, dtype: torch.dtype, *, sampled: bool) -> None:
        try:
            seen = cover(self.subject.function, self.space.decode(genome, dtype))
        except Exception as error:  # the checks meet it too
            self.coverage.blind.add(one_line(error)[:80])
            return
        self._seen.gain += len(self.coverage.note(seen, len(genome), sampled=sampled))

    def _from_pool(self, count: int) -> Tensor:
        """Half from the pool, half drawn."""
        old = self.pool[torch.randperm(len(self.pool), generator=self.generator)[: count // 2]]
        return torch.cat([self.space.draw(count - len(old), self.generator, 0.1), old])

    def _keep(self, genome: Tensor) -> None:
        """Into the pool; what is over its size leaves at random."""
        both = torch.cat([self.pool, genome])
        if len(both) > POOL:
            both = both[torch.randperm(len(both), generator=self.generator)[:POOL]]
        self.pool = both

    def covered(self) -> Covered:
        """The sides of sites, and cells of κ × angle × |δ|."""
        return Covered(self.coverage.sides, int((self.cells > 0).sum()), CELLS, tuple(sorted(self.coverage.blind)))

    def judge(self, candidate: Candidate) -> Judgement:
        """The candidate's check on its exact inputs alone."""
        with threads(1):
            return judged_again(self.subject, self._checks[candidate.check], candidate, self.digits)

    def shrink(self, candidate: Candidate, seconds: float) -> Candidate:
        """The simplest inputs that were found on which the same check breaks."""
        with threads(1):
            return shrunk(self.subject, self._checks[candidate.check], candidate, seconds, self.digits)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, as JSON."""
        return {
            "generator": packed(self.generator.get_state()),
            "pool": packed(self.pool),
            "leads": packed(self.leads),
            "cells": packed(self.cells),
            "bandit": {"rounds": self.bandit.rounds, "gain": self.bandit.gain},
            "worst": self.worst,
            "raised": self.raised,
            "checks": self.checks,
            "flat": self._flat,
            "halvings": self.halvings,
            "rounds": sum(self.bandit.rounds.values()),
            "coverage": self.coverage.document(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there. Raises ValueError for what is no state of such a stream."""
        try:
            generator = unpacked(state["generator"], (len(self.generator.get_state()),))
            self.pool = unpacked(state["pool"], (None, self.space.genes))
            self.leads = unpacked(state["leads"], (None, self.space.genes))
            self.cells = unpacked(state["cells"], (CELLS,))
            self.bandit = Bandit(self.bandit.engines, dict(state["bandit"]["rounds"]), dict(state["bandit"]["gain"]))
            self.worst, self.raised = dict(state["worst"]), dict(state["raised"])
            self.checks = [name for name in state["checks"] if name in self._checks]
            self._flat, self.halvings = bool(state["flat"]), int(state["halvings"])
            self.coverage = Coverage.read(state["coverage"])
            self.generator.set_state(generator)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"no state of a search of pairs: {error}") from error
        self._meet_constants()


def _call(pairs: Pairs) -> Call:
    return Call("overlap", dict(zip(ARGUMENTS, pairs, strict=True)))


def _as(pairs: Pairs) -> Callable[[torch.dtype], Pairs]:
    return lambda dtype: tuple(x.to(dtype) for x in pairs)  # pyright: ignore[reportReturnType] - six of them
