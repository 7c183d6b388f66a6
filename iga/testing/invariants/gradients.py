"""`gradient_finiteness`: every gradient of the layer is finite on every degenerate geometry."""

from iga.testing.cases import Case
from iga.testing.contract import Contract
from iga.testing.invariants.alive import require_geometry
from iga.testing.invariants.inputs import build, cast, gradients, leaves, native
from iga.testing.subject import Subject
from iga.testing.tally import Tally

__all__ = ["gradient_finiteness"]


def gradient_finiteness(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Counts entries that are not finite among the gradients to features, frames, Gaussians and parameters."""
    for index, given in enumerate(cases):
        points = contract.points[index % len(contract.points)]
        layer, case = build(subject, points, seed), cast(given, native(subject))
        if given.rigid is cases[0].rigid:  # a structure as it is
            require_geometry(subject, layer, case, tally)
        leaf, inputs = leaves(case)
        inputs |= dict(layer.named_parameters())
        output = subject.output(layer, leaf)
        for name, gradient in gradients(output.square().sum(), inputs).items():
            if gradient is None:
                tally.add(0.0, 0.0, f"{case.label}: {name}", could_fail=False)
                continue
            bad = (~gradient.isfinite()).double().sum()
            reached = bool((gradient != 0).any())
            tally.add(bad, 0.0, f"{case.label}, P = {points}: gradient of {name}", could_fail=reached)
