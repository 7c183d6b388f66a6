"""`batch_independence`: a sample's output is the same alone and anywhere in a batch, whatever is beside it.

Beside it: the same residues elsewhere with other features, and samples full of degenerate geometry. A matrix product of
another size may add up in another order, so the outputs may differ by rounding: twice the budget of one evaluation.
"""

from dataclasses import replace

import torch

from iga.testing.cases import Case, perturbed_case
from iga.testing.contract import Contract
from iga.testing.invariants.alive import require_geometry, rolled
from iga.testing.invariants.inputs import build, cast, masked, native, redrawn, stacked
from iga.testing.invariants.sensitivity import two_evaluations
from iga.testing.subject import Subject
from iga.testing.tally import Tally

__all__ = ["batch_independence"]

DEGENERATE = ("collapsed and coincident", "needles in nearly shared frames")


def batch_independence(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Differences of the valid outputs, each over its own budget; two leading dimensions for a traced layer too."""
    for index, given in enumerate(cases):
        points = contract.points[(index + 1) % len(contract.points)]
        layer, case = build(subject, points, seed + index), cast(given, native(subject))
        require_geometry(subject, layer, case, tally)
        case = masked(case, seed + index)
        others = [redrawn(rolled(given), seed + 1)]
        others += [redrawn(perturbed_case(given, name, contract, seed=seed), seed + 2) for name in DEGENERATE]
        others = [cast(other, native(subject)) for other in others]
        others[1] = replace(others[1], mask=torch.zeros_like(others[1].mask))  # a sample without a valid residue
        batches: list[tuple[str, list[Case], int, tuple[int, ...] | None]] = [
            ("first of 4", [case, *others], 0, None),
            ("third of 4", [others[2], others[0], case, others[1]], 2, None),
        ]
        if subject.traced:
            batches.append(("third of 2 × 2", [others[2], others[0], case, others[1]], 2, (2, 2)))
        with torch.no_grad():
            alone = subject.output(layer, case)[0].double()
            allowed = two_evaluations(subject, layer, case, seed, tally)[0]
            valid = case.mask[0]
            could_fail = allowed[valid] < alone[valid].abs().amax()
            for name, batch, place, shape in batches:
                output = subject.output(layer, stacked(batch, shape))
                if shape is not None:
                    output = output.flatten(0, 1)
                ratio = (output[place].double() - alone)[valid].abs() / allowed[valid]
                tally.add(ratio, 1.0, f"{given.label}, P = {points}, {name}", could_fail=could_fail)
