"""`second_derivatives`: gradients of gradients, against differences of autograd's own gradients in float64.

`torch.autograd.gradgradcheck` on two residues and one head, entry by entry, to s, translations and log scales. Its
differences have a step of 10⁻⁶: they err by p·u/10⁻⁶ of the gradient's size and by 10⁻¹² of its third derivative, which
for lengths over 0.03 nm is within (1/0.03)³ ≈ 4·10⁴ of it; the allowance is a hundred times their sum, 10⁻⁵ at least.
Of float32 alone one second derivative each, along a random direction, against the difference of float32's gradients
whose own bound on its error (`differences.central`, with the gradients' budget of `slopes`) is the least.
Where a layer rounds what it is given to float32, such differences say nothing, and `gradient_values` says so.
"""

from dataclasses import replace

import torch
from torch import nn

from iga._typing import Tensor
from iga.testing.check import SMOOTH, THOROUGH, check
from iga.testing.contract import Contract
from iga.testing.layer.cases import Case
from iga.testing.layer.differences import central
from iga.testing.layer.edits import cast, gradients, kept, leaves, native, rebuilt
from iga.testing.layer.guards import require_geometry
from iga.testing.layer.sensitivity import chain, keeps_float64
from iga.testing.layer.slopes import slopes
from iga.testing.layer.subject import Subject
from iga.testing.tally import Tally
from iga.testing.targets import TargetError, one_line

__all__ = ["second_derivatives"]

EPS = 1e-6
DIRECTIONS = 4
TINY = torch.finfo(torch.float32).tiny
FLOAT32_STEPS = tuple(2.0**-k for k in range(2, 9))  # of each input's own size
RESIDUES = 2
SIZES = {"c_s": 2, "c_z": 2, "c_hidden": 2, "no_heads": 1, "no_v_points": 1}
NAMES = ("s", "translations", "log scales")


@check(
    "layer",
    "entries",
    seen_faults=SMOOTH,
    every=4,
    requires=("gradients", "double_backward"),
)
def second_derivatives(subject: Subject, cases: list[Case], contract: Contract, seed: int, tally: Tally) -> None:
    """One example per input and case: does every entry of its second derivative agree; zeros show nothing."""
    exact = torch.float64 in subject.dtypes
    profile = replace(subject.profile, **SIZES)
    tiny = replace(subject, profile=profile)
    chosen = cases if subject.profile.name in THOROUGH else cases[:1]
    for index, given in enumerate(chosen):
        layer = tiny.random(2, seed + index)
        whole = replace(given, s=given.s[..., : profile.c_s], z=given.z[..., : profile.c_z])
        layer, whole = (layer.double(), cast(whole, torch.float64)) if exact else (layer, cast(whole, native(tiny)))
        case = kept(whole, torch.arange(min(RESIDUES, given.s.shape[-2])))
        # of the whole chain: where scores are symmetric, two residues that change places change nothing
        require_geometry(tiny, layer, whole, tally)
        terms = chain(tiny, 2, RESIDUES)
        for name in NAMES:
            where = f"{given.label}, two residues: {name}"
            if not exact:
                _judge_float32(tiny, layer, case, name, terms, seed + index, where, tally)
                continue
            if not keeps_float64(tiny, layer, whole, seed, ((name,),)):
                tally.note(f"float32 inside a float64 call, which gradient_values judges: no differences by {name}")
                continue
            _judge(tiny, layer, case, name, terms, seed, where, tally)


def _judge(
    subject: Subject, layer: nn.Module, case: Case, name: str, terms: int, seed: int, where: str, tally: Tally
) -> None:
    _, inputs = leaves(case, (name,))
    x = inputs[name]

    def function(value: Tensor) -> Tensor:
        return subject.output(layer, rebuilt(case, {name: value}))

    gradient = gradients(function(x).square().sum(), {name: x}, create_graph=True)[name]
    second = None
    try:
        if gradient is not None:
            second = gradients(gradient.square().sum(), {name: x})[name]
        if second is None or not bool((second != 0).any()):
            tally.add(0.0, 0.0, where, could_fail=False)
            return
        assert gradient is not None
        size = float(gradient.detach().abs().amax())
        allowed = max(1e-5, 100 * (terms * 2.0**-53 / EPS + EPS**2 * 4e4)) * max(size, 1.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            torch.autograd.gradgradcheck(
                function, (x,), eps=EPS, atol=allowed, rtol=1e-3, gen_non_contig_grad_outputs=False
            )
    except RuntimeError as error:  # GradcheckError, or a layer without a second derivative
        tally.fail(where, f"second derivative: {one_line(error)}")
        return
    tally.add((~second.isfinite()).double().sum(), 0.0, where)


def _judge_float32(
    subject: Subject, layer: nn.Module, case: Case, name: str, terms: int, seed: int, where: str, tally: Tally
) -> None:
    """dᵀHd along a random d against the slope of d · ∇F, F = Σ output²/2, over the error of that slope."""
    _, inputs = leaves(case, (name,))
    start = inputs[name].detach()
    size = start.square().mean().sqrt().clamp(min=0.1)
    budget = slopes(subject, layer, case, None, terms, seed).budgets[name]

    def along(d: Tensor, value: Tensor, *, create_graph: bool = False) -> Tensor:
        loss = subject.output(layer, rebuilt(case, {name: value})).square().sum() / 2
        found = gradients(loss, {name: value}, create_graph=create_graph)[name]
        return value.sum() * 0 if found is None else (found * d).sum()

    def differenced(d: Tensor) -> tuple[Tensor, Tensor]:
        def slope_at(e: float) -> Tensor:
            return along(d, (start + e * d).requires_grad_(True)).detach().double()

        tries = [central(slope_at, step, budget * float(d.abs().sum())) for step in FLOAT32_STEPS]
        return min(tries, key=lambda one: float(one[1].nan_to_num(nan=torch.inf)))

    generator = torch.Generator().manual_seed(seed)
    for _ in range(DIRECTIONS):  # the first along which a wrong second derivative would show
        d = torch.randn(start.shape, generator=generator, dtype=torch.float64).to(start) * size
        expected, error = differenced(d)
        able = bool(error < 0.5 * expected.abs())
        if able:
            break
    try:
        value = start.clone().requires_grad_(True)
        found = gradients(along(d, value, create_graph=True), {name: value})[name]
    except TargetError as problem:
        tally.fail(where, f"second derivative: {one_line(problem)}")
        return
    actual = torch.zeros_like(expected) if found is None else (found * d).double().sum()
    tally.add((actual - expected).abs() / error.clamp(min=TINY), 1.0, where, could_fail=able)
