"""Everything that is asked of a layer on one call: relations, laws that it has shown, its twins, the registry's checks.

Each is a name and a measure of a call; judging a candidate again is the same measure on the same call.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from iga._runtime import threads
from iga.fuzz.layer_draw import Room
from iga.fuzz.layer_genome import LayerGenome
from iga.fuzz.layer_laws import LAWS, learnt
from iga.fuzz.layer_relations import RELATIONS, Relation
from iga.fuzz.layer_scene import LayerScene, sample_of
from iga.fuzz.layer_scores import KERNEL_SCORES, asks_kernels
from iga.fuzz.layer_structures import Parts
from iga.fuzz.layer_twins import reference_relation, twins_of
from iga.fuzz.objectives import Ratios
from iga.testing.check import Check
from iga.testing.contract import Contract
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import cast, observed
from iga.testing.layer.subject import Observation, Subject
from iga.testing.result import Finding
from iga.testing.state.watch import Watch, watching
from iga.testing.targets import TargetError, one_line

__all__ = ["RELATION_NAMES", "SAME_LAW", "Asked", "Measured"]

RELATION_NAMES = (*RELATIONS, *LAWS, KERNEL_SCORES.name, "reference")
# The check of the registry that a relation is part of: who breaks the one may break the other.
SAME_LAW = {
    "finite_outputs": "small_sizes",
    "masked_numbers": "mask_inertness",
    "masked_removed": "mask_inertness",
    "sample_alone": "calls_agree",
    "residues_reordered": "permutations",
    "frames_moved": "se3_invariance",
    "other_precision": "gradient_values",
    "memory_layouts": "calls_agree",
    "called_again": "determinism",
    "copied_layer": "calls_agree",
    "equal_points": "growth_with_points",
    "reference": "reference_agrees",
}
# Not asked of one call: what forks, compiles or threads, and laws of many structures or many numbers of points.
LEFT_OUT = frozenset(
    {
        *("calls_agree", "compiled_calls", "process_state", "large_sizes", "reduced_precision"),
        *("growth_with_points", "point_scaling_law", "geometry_is_alive", "gradient_bounds"),
        "score_slopes",  # a search of its own
    }
)

# The checks are written for chains, of which they cut residues and channels: of fewer they would judge themselves.
LEAST = {"residues": 3, "c_s": 2, "c_z": 2}


@dataclass(frozen=True)
class Measured:
    """A finding, and its largest value over limit."""

    finding: Finding
    ratio: float

    @property
    def broken(self) -> bool:
        return self.finding.verdict == "broken"


@dataclass(eq=False)
class Asked:
    """All that can be asked of the subject, by name."""

    subject: Subject
    contract: Contract
    checks: Sequence[Check]
    profile: str
    structures: tuple[Parts, ...] = ()
    room: Room = field(init=False)
    _found: dict[str, Relation | None] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.room = Room(self.subject.claims, self.contract, self.subject.dtypes, self.structures)
        self._checks = {
            one.name: one
            for one in self.checks
            if one.kind == "layer"
            and one.name not in LEFT_OUT
            and not one.not_applicable(self.subject, self.profile)
            and not one.not_supported(self.subject.claims)
        }

    @cached_property
    def supported(self) -> tuple[str, ...]:
        """The relations and laws that the target does not claim to lack, `kernel_scores` of what has kernels, and
        `reference`."""
        lacking = self.subject.claims.lacking
        own = (KERNEL_SCORES.name,) if asks_kernels(self.subject) else ()
        return (*(name for name, one in RELATIONS.items() if not set(one.asks) & lacking), *LAWS, *own, "reference")

    def relation(self, name: str) -> Relation | None:
        """The relation of that name; None where it is not asked: a law that was not shown, no twin."""
        if name not in self._found:
            with watching(Watch()), threads(1):
                self._found[name] = self._made(name)
        return self._found[name]

    def known(self, name: str) -> bool | None:
        """Whether it is asked; None: not known yet."""
        return self._found[name] is not None if name in self._found else None

    def _made(self, name: str) -> Relation | None:
        if name == "reference":
            twins = twins_of(self.subject, self.contract)
            return reference_relation(twins, self.contract) if twins else None
        if name == KERNEL_SCORES.name:
            return KERNEL_SCORES
        if name in LAWS:
            return LAWS[name] if learnt(LAWS[name], self.subject, self.room) else None
        return RELATIONS[name]

    @property
    def registry(self) -> tuple[str, ...]:
        return tuple(self._checks)

    @cached_property
    def names(self) -> list[str]:
        return [*self.supported, *self._checks]

    def scene(self, genome: LayerGenome, *, thorough: bool = False) -> LayerScene:
        return LayerScene(self.subject, genome, self.contract, thorough=thorough)

    def measure(self, name: str, scene: LayerScene) -> Measured:
        """The relation or check of this name on a call; whatever the accused raises is a finding about it."""
        relation = None if name in self._checks else self.relation(name)
        unit = "" if relation is None else relation.unit
        tally = Ratios(name, self._checks[name].unit if name in self._checks else unit, 1)
        with watching(Watch()):
            try:
                if name in self._checks:
                    self._check(self._checks[name], scene, tally)
                elif relation is not None:
                    relation.measure(scene, tally)
            except TargetError as error:
                tally.fail(scene.genome.label, str(error))
            except Exception as error:  # the accused may raise anything
                tally.fail(scene.genome.label, one_line(error))
        return Measured(tally.finding(), float(tally.ratio))

    @cached_property
    def of_traces(self) -> tuple[str, ...]:
        """The checks of the registry that take one trace each: any call will do, and costs no more than itself."""
        return tuple(name for name, check in self._checks.items() if check.measure is None)

    def _check(self, check: Check, scene: LayerScene, tally: Ratios) -> None:
        """A check of the registry on the first sample of the call, all valid, the layer at the call's sizes."""
        genome = scene.genome
        sizes = {"residues": genome.residues, **genome.sizes}
        if check.measure is not None and any(sizes[name] < least for name, least in LEAST.items()):
            return
        if check.each_trace is not None:
            check.each_trace(self.observed(scene), tally)
        check(scene.subject, [_plain(scene)], self._contract(genome), genome.choice, tally)

    def observed(self, scene: LayerScene) -> Observation:
        """What the checks of one trace see of a call."""
        points = scene.genome.points
        layer = scene.subject.random(points, scene.genome.seed)
        return observed(scene.subject, layer, _plain(scene), self._contract(scene.genome), points)

    def _contract(self, genome: LayerGenome) -> Contract:
        return replace(self.contract, points=(genome.points,))


def _plain(scene: LayerScene) -> Case:
    """The first sample of a call, all valid, in float32, as the checks have it."""
    case = sample_of(scene.case, 0)
    return cast(replace(case, mask=torch.ones_like(case.mask)), torch.float32)
