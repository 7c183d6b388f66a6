"""The search of an attention layer: calls of every size and form, of which relations, laws, twins and checks are asked.

sampling  calls whose sizes come from ladders (`layer_draw`), so that each small one is met soon; all relations
climb     calls that came near a limit, changed a little, up one relation's value over limit
branches  calls of a few residues, moved by gradient to the sides of branches that no call takes; all relations
checks    the checks of the registry on small calls, two a round, in turn; those of one trace on many
kernels   scores alone of this package's layer on calls of hundreds of residues, every second round

Other layers are asked by whole calls, a hundred a second, not by pairs: what is covered are sizes.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from iga._runtime import threads
from iga.fuzz.bandit import Bandit
from iga.fuzz.layer_branches import calls_at_branches
from iga.fuzz.layer_draw import LADDERS, draw, draw_ordinary, mutated
from iga.fuzz.layer_genome import LayerGenome, call_of, genome_of
from iga.fuzz.layer_measure import Asked, Measured
from iga.fuzz.layer_scores import KERNEL_SCORES
from iga.fuzz.layer_shrink import shrunk
from iga.fuzz.layer_structures import Parts
from iga.fuzz.messages import candidate_of, document_of
from iga.fuzz.packed import packed, unpacked
from iga.fuzz.seeking import Coverage
from iga.fuzz.stream import Candidate, Covered, Judgement, Round
from iga.testing.check import Check
from iga.testing.contract import Contract
from iga.testing.layer.subject import Subject

__all__ = ["ENGINES", "LayerStream"]

ENGINES = ("sampling", "climb", "branches", "checks", "kernels")
# The subject of each call of a round; each size has its own place in its ladder.
SUBJECTS = (
    "residues", "no_qk_points", "residues", "samples", "residues", "no_heads", "residues", "no_qk_points",
    "c_hidden", "residues", "samples", "residues", "c_s", "no_qk_points", "residues", "c_z", "c_hidden",
    "no_v_points", "no_qk_points",
)  # fmt: skip
LARGE = 100  # residues, from which on only what ties N to other N is asked
OF_LARGE = ("finite_outputs", "masked_removed", "residues_reordered", "equal_copies", "reference")
# What is asked of an ordinary call in float64, by its subject; of the other sizes its reference.
OF_ORDINARY = {
    "no_qk_points": ("reference", "alike_residues", "equal_points"),
    "residues": ("equal_copies", "residues_reordered"),
    "samples": ("sample_alone",),
}
OF_POINTS = ("alike_residues", "equal_points")  # of no geometry
KERNELS = KERNEL_SCORES.name
SELDOM = {"no_jumps": 8, "copied_layer": 3, "memory_layouts": 1}  # asked of every so many calls
POOL = 24
TRACED = 64  # calls whose traces are judged in a round of checks, a hundredth of a second each
LARGEST = 512  # residues of a call of the kernels
SCORED = 1 << 23  # pair-points of a round of theirs, a second or two
FEW = 12  # largest subject of these
STEPS = 12  # changed calls of a climb, which are measured in full and so cost more than others
DESCENTS = 3  # of a round of branches, each of a third of what a round of sampling costs: engines are chosen by rounds
CHECKED = {"no_qk_points": 12}  # largest sizes that the registry's checks, which take derivatives, are asked at
PATIENCE = 8  # candidates of a name, none of which was believed, after which it raises no more


class LayerStream:
    """See `iga.fuzz.stream.Stream`. seed and shard (i, n) say which of n streams it is."""

    kind = "layer"

    def __init__(
        self,
        subject: Subject,
        contract: Contract,
        *,
        checks: list[Check],
        profile: str = "fast",
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        only: list[str] | None = None,
        engines: tuple[str, ...] = ENGINES,
        structures: tuple[Parts, ...] = (),
    ) -> None:
        """`only`: names of relations and checks; None: all that apply. `structures`: what calls begin with."""
        self.subject, self.contract = subject, contract
        self.asked = Asked(subject, contract, checks, profile, structures)
        self.checks = [name for name in self.asked.names if only is None or name in only]
        self.seed = seed * shard[1] + shard[0]
        self.first, self.every = shard  # streams of one campaign share the ladders out
        self.generator = torch.Generator().manual_seed(self.seed)
        asked = {"checks": self.asked.registry, "kernels": (KERNELS,)}
        engines = tuple(one for one in engines if one not in asked or set(asked[one]) & set(self.checks))
        self.kernels = "kernels" in engines
        self.bandit = Bandit(tuple(one for one in engines if one != "kernels") or engines)
        self.coverage = Coverage()
        self.pool: list[tuple[str, float, LayerGenome]] = []  # by limits that may have been measured from below
        self.tops: dict[str, tuple[float, LayerGenome]] = {}  # by limits measured in full
        self.turns = dict.fromkeys(LADDERS, 0)
        self.met: dict[str, set[int]] = {name: set() for name in LADDERS}
        self.worst: dict[str, float] = {}
        self.raised: dict[str, int] = {}
        self.calls = 0
        self.alive: Callable[[], None] = lambda: None  # called between calls of the accused
        self.chosen: Callable[[str], None] = lambda engine: None

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self.contract.sigma_min, self.contract.sigma_max

    # rounds

    def round(self) -> Round:
        """The next round, of the engine whose turn it is."""
        engine = self.bandit.choose(self.generator)
        if self.kernels and KERNELS in self.checks and sum(self.bandit.rounds.values()) % 2:
            engine = "kernels"
        self.chosen(engine)
        self._now, self._examples, self._gain, self._pair_points = engine, 0, 0.0, 0
        self._candidates: dict[str, Candidate] = {}
        self._worst: dict[str, float] = {}
        with threads(1):
            {
                "sampling": self._sampling,
                "climb": self._climbing,
                "branches": self._branching,
                "checks": self._checking,
                "kernels": self._scoring,
            }[engine]()
        gain = self._gain + 5 * len(self._candidates)
        for name, value in self._worst.items():
            known = self.worst.get(name, 0.0)
            gain += value > 1.1 * known
            self.worst[name] = max(known, value)
        self.bandit.reward(engine, gain)
        found = list(self._candidates.values())
        return Round(engine, self._examples, self._worst, found, self._pair_points)

    def skip(self, number: int) -> None:
        """Pass over a round that did not come back: the next one draws otherwise, and at the next sizes."""
        self.generator.manual_seed(self.seed + 1_000_003 * (number + 1))
        self.turns = {name: turn + SUBJECTS.count(name) for name, turn in self.turns.items()}

    def _sampling(self) -> None:
        for subject in SUBJECTS:
            rungs = LADDERS[subject]
            value = rungs[(self.first + self.every * self.turns[subject]) % len(rungs)]
            self.turns[subject] += 1
            genome = draw(self.asked.room, self.generator, subject, value)
            self.calls += 1
            self._meet(genome)
            self._ask(genome, [*self._wanted(genome, subject), *self._of_traces(genome)])
            # a degenerate call, or one of float32, may show nothing of its size, which comes once a ladder
            ordinary = draw_ordinary(self.asked.room, self.generator, subject, value)
            self._ask(ordinary, [name for name in OF_ORDINARY.get(subject, ("reference",)) if name in self.checks])

    def _wanted(self, genome: LayerGenome, subject: str) -> list[str]:
        """The relations that are asked of a call."""
        names = [name for name in self.asked.supported if name in self.checks]
        if genome.residues > LARGE:
            return [name for name in names if name in OF_LARGE]
        if subject != "residues":
            names = [name for name in names if name != "equal_copies"]
        names = [name for name in names if name not in OF_POINTS]
        return [name for name in names if self.calls % SELDOM.get(name, 1) == 0]

    def _of_traces(self, genome: LayerGenome) -> list[str]:
        return [name for name in self.asked.of_traces if name in self.checks and genome.residues <= LARGE]

    def _climbing(self) -> None:
        names = [name for name in (*self.asked.supported, *self.asked.of_traces) if name in self.checks]
        known = {name for name, _, _ in self.pool}
        names = [name for name in names if name in known]
        if not names:
            self._sampling()
            return
        name = names[self.bandit.rounds.get("climb", 0) % len(names)]
        _, _, genome = max((one for one in self.pool if one[0] == name), key=lambda one: one[1])
        top = 0.0
        if self.bandit.rounds.get("climb", 0) // len(names) % 2 and name in self.tops:
            top, genome = self.tops[name]
        for k in range(STEPS if genome.residues < LARGE else STEPS // 6):
            other = genome if k == 0 else mutated(genome, self.asked.room, self.generator)
            found = self._ask(other, [name], thorough=True).get(name)
            if found is not None and found.ratio > top:
                top, genome = found.ratio, other
            if name in self._candidates:
                return
        if top > self.tops.get(name, (0.0, genome))[0]:
            self.tops[name] = (top, genome)

    def _branching(self) -> None:
        names = [name for name in self.asked.supported if name in self.checks and name not in OF_POINTS]
        for _ in range(DESCENTS):
            gain, found = calls_at_branches(self.asked, self.coverage, self.generator, self.alive)
            self._gain += gain
            if not found:
                self._sampling()  # no branch can be seen
                return
            for turn, genome in enumerate(found):
                seldom = [name for name in names if turn % SELDOM.get(name, 1) == 0]
                self._ask(genome, [*seldom, *self._of_traces(genome)])

    def _checking(self) -> None:
        names = [name for name in self.asked.registry if name in self.checks]
        turn = self.bandit.rounds.get("checks", 0)
        for k in range(TRACED if self.asked.of_traces else 0):
            subject = SUBJECTS[k % len(SUBJECTS)]
            genome = draw(self.asked.room, self.generator, subject, 1 + (turn + k) % FEW)
            self._ask(genome, self._of_traces(genome))
        for k in range(2):
            subject = ("no_qk_points", "no_heads", "c_hidden", "samples")[(2 * turn + k) % 4]
            rungs = [n for n in LADDERS[subject] if n <= CHECKED.get(subject, 16)]
            genome = draw_ordinary(self.asked.room, self.generator, subject, rungs[(turn + k) % len(rungs)])
            if names:
                self._ask(genome, [names[(2 * turn + k) % len(names)]])

    def _scoring(self) -> None:
        """Calls of any number of residues, heads and points."""
        while self._pair_points < SCORED and KERNELS not in self._candidates:
            residues, heads, points = (
                int(torch.randint(1, most + 1, (), generator=self.generator)) for most in (LARGEST, 8, 16)
            )
            genome = draw(self.asked.room, self.generator, "residues", residues)
            self._ask(genome.sized(no_heads=heads, no_qk_points=points), [KERNELS])

    # what all rounds share

    def _meet(self, genome: LayerGenome) -> None:
        sizes = {**genome.sizes, "residues": genome.residues, "samples": len(genome.samples)}
        for name, values in self.met.items():
            if sizes[name] not in values:
                values.add(sizes[name])
                self._gain += 0.1

    def _ask(self, genome: LayerGenome, names: list[str], *, thorough: bool = False) -> dict[str, Measured]:
        self._examples += 1
        scene, found = self.asked.scene(genome, thorough=thorough), {}
        names = [name for name in names if name not in self._candidates]
        self._pair_points += genome.pair_points if names else 0
        for name in names:
            self.alive()
            one = found[name] = self.asked.measure(name, scene)
            ratio = min(one.ratio, 1e300)
            if one.finding.shown:
                self._worst[name] = max(self._worst.get(name, 0.0), ratio)
            if one.broken:
                self._candidate(name, genome, one)
            elif ratio > 0 and not thorough and name in (*self.asked.supported, *self.asked.of_traces):
                self._keep(name, ratio, genome)
        return found

    def _keep(self, name: str, ratio: float, genome: LayerGenome) -> None:
        """The two calls of each name that came nearest."""
        own = [one for one in self.pool if one[0] == name]
        if len(own) >= 2:
            least = min(own, key=lambda one: one[1])
            if ratio <= least[1]:
                return
            self.pool = [one for one in self.pool if one is not least]
        self.pool = [*self.pool, (name, ratio, genome)][-POOL:]

    def _candidate(self, name: str, genome: LayerGenome, one: Measured) -> None:
        if self.raised.get(name, 0) >= PATIENCE:
            return
        self.raised[name] = self.raised.get(name, 0) + 1
        found = one.finding
        where = f"{genome.label}: {found.worst_example}"
        self._candidates[name] = Candidate(name, call_of(genome), one.ratio, where, found.note, self._now)

    # judging and making simple

    def judge(self, candidate: Candidate) -> Judgement:
        """The candidate's relation or check on its call alone."""
        genome = genome_of(candidate.call)
        with threads(1):
            one = self.asked.measure(candidate.check, self.asked.scene(genome))
        found = one.finding
        verdict = "broken" if one.broken else "not reproducible"
        where = f"{genome.label}: {found.worst_example}"
        return Judgement(verdict, found.worst, found.budget, found.unit, where, found.note)

    def shrink(self, candidate: Candidate, seconds: float) -> Candidate:
        """The simplest call that was found on which the same relation or check breaks."""
        with threads(1):
            return shrunk(self.asked, candidate, seconds)

    # state

    def covered(self) -> Covered:
        """Sides of the layer's own conditions; sizes met, of those of the ladders."""
        rungs = {name: set(values) for name, values in LADDERS.items()}
        met = sum(len(self.met[name] & rungs[name]) for name in rungs)
        blind = tuple(name for name in self.checks if name not in self.asked.registry and not self._asks(name))
        return Covered(
            self.coverage.sides,
            cells=met,
            of_cells=sum(len(x) for x in rungs.values()),
            blind=(
                *(f"{name}: not shown on ordinary calls, and not asked" for name in blind),
                *sorted(self.coverage.blind),
            ),
        )

    def _asks(self, name: str) -> bool:
        """Whether it is asked, as far as is known by now."""
        return self.asked.known(name) is not False

    def state(self) -> dict[str, Any]:
        """All that the stream is, as JSON."""
        pool, tops = _written(self.pool), _written([(name, *one) for name, one in self.tops.items()])
        return {
            "kind": self.kind,
            "rounds": sum(self.bandit.rounds.values()),
            "generator": packed(self.generator.get_state()),
            "bandit": {"rounds": self.bandit.rounds, "gain": self.bandit.gain},
            "turns": self.turns,
            "met": {name: sorted(values) for name, values in self.met.items()},
            "worst": {name: value for name, value in self.worst.items() if math.isfinite(value)},
            "raised": self.raised,
            "calls": self.calls,
            "coverage": self.coverage.document(),
            "pool": pool,
            "tops": tops,
            "checks": list(self.checks),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there. Raises ValueError for what is no state of a layer's stream."""
        try:
            if state["kind"] != self.kind:
                raise ValueError(f"a state of a {state['kind']}")
            self.generator.set_state(unpacked(state["generator"], (None,)))
            self.bandit.rounds = {str(k): int(v) for k, v in state["bandit"]["rounds"].items()}
            self.bandit.gain = {str(k): float(v) for k, v in state["bandit"]["gain"].items()}
            self.turns = {name: int(state["turns"][name]) for name in LADDERS}
            self.met = {name: {int(x) for x in state["met"][name]} for name in LADDERS}
            self.worst = {str(k): float(v) for k, v in state["worst"].items()}
            self.raised = {str(k): int(v) for k, v in state["raised"].items()}
            self.calls = int(state["calls"])
            self.coverage = Coverage.read(state["coverage"])
            self.pool = _read(state["pool"])
            self.tops = {name: (ratio, genome) for name, ratio, genome in _read(state["tops"])}
            self.checks = [name for name in state["checks"] if name in self.asked.names]
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise ValueError(f"no state of a layer's search: {error}") from error


def _written(pool: list[tuple[str, float, LayerGenome]]) -> list[dict[str, Any]]:
    return [document_of(Candidate(name, call_of(genome), ratio, "", "", "")) for name, ratio, genome in pool]


def _read(pool: list[dict[str, Any]]) -> list[tuple[str, float, LayerGenome]]:
    known = [candidate_of(one) for one in pool]
    return [(one.check, one.ratio, genome_of(one.call)) for one in known]
