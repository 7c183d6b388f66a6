"""`process_state`: a call leaves the process as it was: torch's modes and defaults, random generators, streams, …

Every call of a run is watched (`iga.testing.state`), and what it changed is put back, so that it is found here and not
by way of other checks. Here, calls with their backward passes are added.
"""

from contextlib import nullcontext

import torch

from iga.testing.check import check
from iga.testing.overlap.accuracy import name_of
from iga.testing.overlap.pairs import PairSource
from iga.testing.overlap.subject import OverlapSubject
from iga.testing.state.watch import current, left_alone, silent
from iga.testing.tally import Tally

__all__ = ["process_state"]


@check("overlap", "changes")
def process_state(function: OverlapSubject, inputs: PairSource, seed: int, tally: Tally) -> None:
    """How often each kind of change came, which has to be never."""
    watch = current()
    assert watch is not None, "a run watches"
    try:
        with left_alone("process_state", whole=True):  # programs and threads that go on: before it is judged
            for dtype in function.dtypes:
                for again in (False, True):  # the first may load what it needs, and say so
                    pair = inputs.few(dtype, seed + again)
                    where = f"{name_of(dtype)}, forward"
                    with silent(where) if again else nullcontext(), left_alone(where), torch.no_grad():
                        function.on_copies(*pair)
                    if "gradients" in function.claims.lacking:
                        continue
                    leaves = [x.clone().requires_grad_() for x in pair]
                    with left_alone(f"{name_of(dtype)}, forward and backward"):
                        dist_sq, log_det = function(*leaves)
                        torch.autograd.grad((dist_sq + log_det).sum(), leaves, allow_unused=True)
    finally:  # what they raise may come of what an earlier one changed
        watch.judge(tally)
