"""`state_dict_round_trip`: saved and loaded into a fresh layer, the output is the same to the last bit.

Every parameter is moved from where it started, so that whatever state_dict forgets shows; bytes and
`torch.load(weights_only=True)` in between, as in a checkpoint.
"""

import io

import torch

from iga.testing.cases import Case
from iga.testing.contract import Contract
from iga.testing.invariants.alive import require_geometry
from iga.testing.invariants.inputs import build, cast, native
from iga.testing.subject import Subject
from iga.testing.tally import Tally
from iga.testing.targets import one_line

__all__ = ["state_dict_round_trip"]


def state_dict_round_trip(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Absolute differences from the layer that was saved; 0. An example can fail if a fresh layer's output differs."""
    for index, given in enumerate(cases):
        points = contract.points[(index + 1) % len(contract.points)]
        where = f"{given.label}, P = {points}"
        layer, case = build(subject, points, seed + index), cast(given, native(subject))
        require_geometry(subject, layer, case, tally)
        other = subject.fresh(points, seed + index + 1).to(native(subject))
        saved = io.BytesIO()
        with torch.no_grad():
            expected, before = subject.output(layer, case), subject.output(other, case)
            try:
                torch.save(layer.state_dict(), saved)
                saved.seek(0)
                other.load_state_dict(torch.load(saved, weights_only=True))
            except Exception as error:  # pickle, zip and shape errors of any layer's own state are findings
                tally.fail(where, f"state_dict does not load: {one_line(error)}")
                continue
            loaded = subject.output(other, case)
        tally.add((loaded - expected).abs(), 0.0, where, could_fail=before != expected)
