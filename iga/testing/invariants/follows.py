"""Whether a layer's forward is what its trace says: the same output, or the same but for rounding.

`InvariantGaussianAttention.forward` may be computed by another implementation than its dense trace. Two evaluations of
one function lie within twice the budget of one (docs/theory.md, section 13).
"""

import torch
from torch import nn

from iga.functional import Trace
from iga.testing.cases import Case
from iga.testing.invariants.sensitivity import two_evaluations
from iga.testing.subject import Subject
from iga.testing.tally import Tally

__all__ = ["require_own_output"]


def require_own_output(
    subject: Subject, layer: nn.Module, case: Case, trace: Trace, where: str, tally: Tally, seed: int = 0
) -> None:
    """Fails the tally where forward's output is not its trace's; NaN in either is a difference."""
    with torch.no_grad():
        output = subject.output(layer, case)
    if trace.output is not None:
        if torch.equal(output, trace.output):
            return
        difference = (output - trace.output).abs()
        for least in (True, False):  # most differences are under what a fifth of the work shows to be allowed
            if bool((difference <= two_evaluations(subject, layer, case, seed, tally, least=least)).all()):
                return
    tally.fail(where, "forward does not return its trace's output")
