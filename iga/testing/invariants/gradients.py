"""`gradient_finiteness`: every gradient of the layer is finite on every degenerate geometry."""

from dataclasses import replace

import torch

from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.testing.cases import Case
from iga.testing.contract import Contract
from iga.testing.invariants.alive import require_geometry
from iga.testing.subject import Subject
from iga.testing.tally import Tally

__all__ = ["gradient_finiteness"]


def gradient_finiteness(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """Counts entries that are not finite among the gradients to features, frames, Gaussians and parameters."""
    natural = cases[0].rigid
    for index, case in enumerate(cases):
        points = contract.points[index % len(contract.points)]
        layer = subject.random(points, seed)
        if case.rigid is natural:
            require_geometry(subject, layer, case, tally)
        r = case.rigid
        frame = Frame(r.rot.clone().requires_grad_(True), r.trans.clone().requires_grad_(True))
        rigid = GaussianRigid(
            frame, r.local_mean.clone().requires_grad_(True), r.log_scale.clone().requires_grad_(True)
        )
        leaf = replace(case, rigid=rigid, s=case.s.clone().requires_grad_(True), z=case.z.clone().requires_grad_(True))
        output = subject.output(layer, leaf)
        inputs = {
            "s": leaf.s,
            "z": leaf.z,
            "rotations": frame.rot,
            "translations": frame.trans,
            "local means": rigid.local_mean,
            "log scales": rigid.log_scale,
            **dict(layer.named_parameters()),
        }
        gradients = torch.autograd.grad(output.square().sum(), list(inputs.values()), allow_unused=True)
        for name, gradient in zip(inputs, gradients, strict=True):
            if gradient is None:
                tally.add(0.0, 0.0, f"{case.label}: {name}", could_fail=False)
                continue
            bad = (~gradient.isfinite()).double().sum()
            reached = bool((gradient != 0).any())
            tally.add(bad, 0.0, f"{case.label}, P = {points}: gradient of {name}", could_fail=reached)
