"""Twins of a layer: references with the same parameters that say what it says on ordinary calls, and so everywhere.

A target may name its reference; a preset's is known. Of any other layer the formulas of this package are tried,
AlphaFold's and the presets': one whose parameters pair with the layer's, and which agrees with it on a structure and on
each of its degenerate perturbations, is its twin from then on. A layer that has several disagrees with them only where
it does with each. A layer of its own design has none, and nothing is asked of it here.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from iga import bounds
from iga._typing import Tensor
from iga.fuzz.layer_relations import Relation
from iga.fuzz.layer_scene import ROUNDED, LayerScene, sample_of
from iga.presets import PRESETS
from iga.structure.synthetic import synthetic_structures
from iga.testing.contract import Contract
from iga.testing.layer.cases import PERTURBATIONS, Case, make_case, perturbed_case
from iga.testing.layer.edits import cast, masked
from iga.testing.layer.reference_agrees import as_subject, judge_case, with_reference
from iga.testing.layer.sensitivity import Sensitivity, sensitivity
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally

__all__ = ["reference_relation", "twins_of"]

NAMES = ("ipa", *(f"iga:{name}" for name in PRESETS))
RESIDUES = 8
ORDINARY_POINTS = (2, 4)
GRADED = 4  # every so many calls, gradients are compared too
ROOM = 60_000  # pair-points of a call that a reference is asked for: it holds each pair's vectors in float64


def twins_of(subject: Subject, contract: Contract) -> tuple[Subject, ...]:
    """The subject with each reference that is its twin; with the one that it names, whatever they agree on."""
    if torch.float64 not in subject.dtypes:
        return ()
    if subject.reference is not None:
        return (subject,)
    found = []
    for name in NAMES if subject.config is None or subject.foreign else _own(subject):
        claims = replace(subject.claims, reference=name)
        try:
            twin = with_reference(replace(subject, claims=claims))
            if _agree(twin, contract):
                found.append(twin)
        except Exception:  # noqa: S112 - parameters that do not pair, shapes that do not fit: it is no twin
            continue
    return tuple(found)


def _own(subject: Subject) -> tuple[str, ...]:
    """This package's layer has its config's formulas, if that is a preset's."""
    return tuple(f"iga:{name}" for name, config in PRESETS.items() if config == subject.config)


def _agree(twin: Subject, contract: Contract) -> bool:
    structure = synthetic_structures(1, seed=0)[0]
    plain = make_case(structure, twin.profile, residues=RESIDUES, seed=0)
    cases = [plain, masked(plain, 1), *(perturbed_case(plain, name, contract, seed=2) for name in PERTURBATIONS)]
    for index, case in enumerate(cases):
        points = ORDINARY_POINTS[index % len(ORDINARY_POINTS)]
        if points > (twin.claims.max_points or points):
            continue
        pair = _Pair(twin, twin.random(points, index), points, cast(case, torch.float64))
        tally = Tally("", "")
        if not pair.close(sensitivity(twin, pair.layer, pair.case, index, tally, least=True)):
            pair.judge(contract, index, tally, graded=False)
        if tally.broken:
            return False
    return True


class _Pair:
    """A layer and its reference with the same parameters, on one sample in float64, [1, n]."""

    def __init__(self, twin: Subject, layer: nn.Module, points: int, case: Case) -> None:
        assert twin.reference is not None
        self.twin, self.layer, self.points, self.case = twin, layer, points, case
        dtype = next((x.dtype for x in layer.parameters()), torch.float32)
        self.right = twin.reference.take(as_subject(twin).fresh(points, 0).to(dtype), layer).double()
        self.words = f"P = {points}, against {twin.reference.name}"
        self.apart = self.limit = torch.zeros(0)

    def close(self, least: Sensitivity) -> bool:
        """Whether the outputs are within the least that one evaluation may be off by: no more has to be measured."""
        with torch.no_grad():
            expected = as_subject(self.twin).output(self.right, self.case)
        self.apart = (least.output - expected).abs()[self.case.mask]
        self.limit = least.budget(bounds.unit_roundoff(torch.float64))[self.case.mask]
        return bool((self.apart <= self.limit).all())

    def judge(self, contract: Contract, seed: int, tally: Tally, *, graded: bool) -> None:
        """As `reference_agrees` does; gradients too, if `graded`."""
        claims = self.twin.claims
        asked = self.twin if graded else replace(self.twin, claims=replace(claims, inference_only=True))
        judge_case(asked, self.layer, self.right, self.case, contract, seed, self.words, tally, single=False)


def reference_relation(twins: Sequence[Subject], contract: Contract) -> Relation:
    """The relation that the layer says what one of its twins does: value, and now and then gradients, in float64."""

    def measure(scene: LayerScene, tally: Tally) -> None:
        if scene.genome.pair_points > ROOM * len(scene.case.s):
            return
        for k in range(min(len(scene.case.s), 2)):
            if bool(scene.valid[k].any()):
                tried = [_against(twin, scene, k, tally, contract) for twin in twins]
                _take(tally, min(tried, key=lambda one: one.worst_ratio))

    return Relation("reference", "of the budget", measure)


class _Tried(Tally):
    """A tally that knows its largest value over limit."""

    worst_ratio = 0.0

    def judged(self, severity: Tensor, where: object) -> None:
        self.worst_ratio = max(self.worst_ratio, float(1.0 + severity.amax()))


def _against(twin: Subject, scene: LayerScene, k: int, tally: Tally, contract: Contract) -> _Tried:
    """One sample, judged in full where it is not close, or where gradients are asked for.

    What `reference_agrees` allows has no room for value points that are rounded far from all others: its structures
    have none. So a value is broken where it exceeds both that and what `layer_scene` allows two evaluations, and
    gradients are asked for only where the rounding of value points is no larger than all else.
    """
    found = _Tried(tally.name, tally.unit)
    accused = replace(scene.subject, claims=twin.claims, reference=twin.reference, config=None)
    case = cast(sample_of(scene.case, k), torch.float64)
    pair = _Pair(accused, scene.built(), scene.genome.points, case)
    whole, at = scene.least, slice(k, k + 1)
    parts = {name: getattr(whole, name)[at] for name in ("output", "features", "geometry", "position")}
    graded = scene.genome.choice % GRADED == 0 and scene.genome.pair_points < ROOM // 20
    if pair.close(replace(whole, **parts)) and not graded:
        found.add(pair.apart, pair.limit, pair.words)
        return found
    u, full = bounds.unit_roundoff(torch.float64), scene.whole
    own = full.budget(u)[at][case.mask]
    placed = u * full.reach * (full.places * scene.lever + ROUNDED * scene.apart[at][case.mask])
    graded = graded and float(placed.amax()) <= float(own.min())
    if not graded and bool((pair.apart <= 2 * (own + placed)).all()):
        found.add(pair.apart, 2 * (own + placed), pair.words)
    else:
        pair.judge(contract, scene.genome.choice, found, graded=graded)
    return found


def _take(tally: Tally, found: _Tried) -> None:
    """What the nearest twin said."""
    if found.broken and not math.isfinite(found.worst):
        tally.fail(found.worst_example, "; ".join(found.notes))
    elif found.examples:
        tally.add(found.worst, found.limit, found.worst_example)
