"""`process_state`: a call leaves the process as it was: torch's modes and defaults, random generators, streams, …

Every call of a run is watched (`iga.testing.state`), and what it changed is put back, so that it is found here and not
by way of other checks. Building the layer may draw random numbers; calling it in eval mode may not. Here, calls with
their backward passes are added.
"""

from contextlib import nullcontext

import torch

from iga.testing.check import check
from iga.testing.contract import Contract
from iga.testing.layer.cases import Case
from iga.testing.layer.edits import build, cast, gradients, leaves, native
from iga.testing.layer.subject import Subject
from iga.testing.state.watch import current, left_alone, silent
from iga.testing.tally import Tally

__all__ = ["process_state"]


@check("layer", "changes")
def process_state(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """How often each kind of change came, which has to be never."""
    watch = current()
    assert watch is not None, "a run watches"
    try:
        with left_alone("process_state", whole=True):  # programs and threads that go on: before it is judged
            for index, given in enumerate(cases):
                points = contract.points[index % len(contract.points)]
                layer = build(subject, points, seed + index)
                for again in (False, True):  # the first may load what it needs, and say so
                    case = cast(given, native(subject))
                    where = f"{given.label}, P = {points}, forward"
                    with silent(where) if again else nullcontext(), left_alone(where), torch.no_grad():
                        subject.output(layer, case)
                    if "gradients" in subject.claims.lacking:
                        continue
                    leaf, inputs = leaves(case)
                    with left_alone(f"{given.label}, P = {points}, forward and backward"):
                        gradients(subject.output(layer, leaf).square().sum(), inputs)
    finally:  # what they raise may come of what an earlier one changed
        watch.judge(tally)
