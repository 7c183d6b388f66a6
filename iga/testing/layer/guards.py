"""Guards: a layer whose output shows nothing of its trace or its geometry proves nothing.

A layer's forward must give what its trace says: the same output, or the same but for rounding.
`InvariantGaussianAttention.forward` may be computed by another implementation than its dense trace. Two evaluations of
one function lie within twice the budget of one (docs/theory.md, section 13).
"""

from dataclasses import replace

import torch

from iga.testing.layer.cases import Case
from iga.testing.layer.sensitivity import allowed_of
from iga.testing.layer.subject import Observation, Subject
from iga.testing.tally import Tally

__all__ = ["require_geometry", "require_own_output", "rolled"]


def require_own_output(seen: Observation, tally: Tally, seed: int = 0) -> None:
    """Fails the tally where forward's output is not its trace's; NaN in either is a difference."""
    subject, layer, case, trace = seen.subject, seen.layer, seen.case, seen.trace
    with torch.no_grad():
        output = subject.output(layer, case)
    if trace.output is not None:
        if torch.equal(output, trace.output):
            return
        difference = (output - trace.output).abs()
        if bool((difference <= allowed_of(difference, subject, layer, case, seed, tally)).all()):
            return
    tally.fail(seen.label, "forward does not return its trace's output")


def require_geometry(subject: Subject, layer: torch.nn.Module, case: Case, tally: Tally) -> None:
    """Void the tally if the layer's output is zero or the same whatever residue sits where: it then shows nothing."""
    with torch.no_grad():
        output, other = subject.output(layer, case), subject.output(layer, rolled(case))
    if bool((output == 0).all()):
        tally.void(f"{case.label}: the output is identically zero")
    elif torch.equal(output, other):
        tally.void(f"{case.label}: the output does not depend on the geometry")


def rolled(case: Case) -> Case:
    """The case with every residue's Gaussian handed to the residue half a chain further; features stay."""
    n = case.s.shape[-2]
    index = torch.arange(n).roll(max(n // 2, 1))
    return replace(case, rigid=case.rigid[:, index])
