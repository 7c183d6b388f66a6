"""The budget of a layer whose inside is unknown: wide enough for correct arithmetic, narrow enough to judge by."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import iga
from helpers.subjects import SMALL, foreign
from iga.attention import InvariantGaussianAttention
from iga.ipa import InvariantPointAttention
from iga.structure.synthetic import synthetic_structures
from iga.testing.contract import PROFILES, Contract
from iga.testing.layer.cases import PERTURBATIONS, Case, make_case, perturbed_case
from iga.testing.layer.edits import build, cast, kept
from iga.testing.layer.sensitivity import PROBES, chain, keeps_float64, sensitivity, shaken, two_evaluations
from iga.testing.tally import Tally

U = 2.0**-24


def some_case(seed: int = 0, residues: int = 16) -> Case:
    return make_case(synthetic_structures(1, seed=seed)[0], SMALL, residues=residues, seed=seed)


class Linear(nn.Module):
    """out = (w·s) + a·t_x, of which every derivative is known."""

    def __init__(self, a: float = 3.0, w: float = 2.0) -> None:
        super().__init__()
        self.w, self.a = nn.Parameter(torch.tensor(w)), a

    def forward(self, s, z, r, mask):
        return self.w * s + self.a * r.trans[..., :1]


def test_a_linear_layer_has_the_sensitivity_that_its_coefficients_say() -> None:
    case, layer = some_case(), Linear()
    found = sensitivity(foreign(Linear), layer, case, 0, Tally("", ""))
    # s and w err by h each, with either sign: 2 h |w s| where they agree, which one channel of 16 surely does
    largest = 2 * layer.w.detach().double() * case.s.double().abs()
    assert (found.features[..., 0] <= largest.amax(dim=-1) * (1 + 1e-6)).all()
    assert (found.features[..., 0] >= 0.1 * largest.amax(dim=-1)).all()
    torch.testing.assert_close(found.position, torch.full_like(found.position, 3.0), rtol=1e-6, atol=0)
    centred = (case.rigid.trans - case.rigid.trans.mean(dim=-2, keepdim=True)).double()
    torch.testing.assert_close(found.geometry[..., 0], 3 * centred[..., 0].abs(), rtol=1e-5, atol=1e-5)
    assert found.output.dtype == torch.float64


@pytest.mark.parametrize(
    ("layer", "label"),
    [
        *((InvariantGaussianAttention, label) for label in (None, *PERTURBATIONS)),
        *((InvariantPointAttention, label) for label in (None, "coincident residues", "far away")),
    ],
)
def test_float32_lies_well_within_the_budget_and_the_budget_well_within_the_output(layer, label: str | None) -> None:
    subject = foreign(layer)
    case = some_case()
    if label is not None:
        case = perturbed_case(case, label, Contract(), seed=0)
    built = build(subject, 2, 0)
    found = sensitivity(subject, built, case, 0, Tally("", ""))
    with torch.no_grad():
        error = (subject.output(built, case).double() - found.output).abs()
    budget = found.budget(U)
    assert torch.isfinite(error).all() and (error <= budget).all()
    assert (budget.amax() < 0.5 * found.output.abs().amax()) or label == "far away"
    # what a fifth of the work allows is never more
    least = sensitivity(subject, built, case, 0, Tally("", ""), least=True).budget(U)
    assert (least <= budget).all() and (least > 0).all()


def test_float64_lies_within_the_budget_scaled_to_its_own_unit() -> None:
    subject, case = foreign(InvariantPointAttention, dtypes=(torch.float64,)), cast(some_case(), torch.float64)
    layer = build(subject, 2, 0)
    allowed = two_evaluations(subject, layer, case, 0, Tally("", ""))
    assert (allowed > 0).all() and allowed.amax() < 1e-9
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = subject.output(layer, case)
        turned = replace(case, s=case.s[:, order], z=case.z[:, order][:, :, order], rigid=case.rigid[:, order])
        difference = (subject.output(layer, turned)[:, order.argsort()] - plain).abs()
    assert (difference <= allowed).all()


@pytest.mark.parametrize("share", [2.0**-8, 2.0**-11])
def test_coordinates_in_half_precision_are_far_outside_the_budget(share: float) -> None:
    class Short(InvariantPointAttention):
        def forward(self, s, z, r, mask):
            if s.dtype == torch.float32:
                trans = share * (r.trans / share).round()
                r = replace(r, frame=replace(r.frame, trans=trans))
            return super().forward(s, z, r, mask)

    subject, case = foreign(Short), some_case()
    layer = build(subject, 2, 0)
    found = sensitivity(subject, layer, case, 0, Tally("", ""))
    with torch.no_grad():
        error = (subject.output(layer, case).double() - found.output).abs()
    assert (error > found.budget(U)).any()


def test_without_float64_the_budget_comes_from_float32_and_says_so() -> None:
    exact, tally = foreign(InvariantPointAttention), Tally("", "")
    narrow = foreign(InvariantPointAttention, dtypes=(torch.float32,))
    case, layer = some_case(), build(exact, 2, 0)
    first = sensitivity(exact, layer, case, 0, Tally("", "")).budget(U)
    second = sensitivity(narrow, layer, case, 0, tally).budget(U)
    assert "float64 is not claimed" in tally.notes[0]
    assert (second < 3 * first).all() and (second > first / 3).all()


class Short(InvariantPointAttention):
    """Frames as OpenFold's Rigid keeps them: float32, whatever they were given in."""

    def forward(self, s, z, r, mask):
        return super().forward(s, z, r.float().to(r.dtype), mask)


class ShortOutside(InvariantPointAttention):
    """Answers in float32, whatever was asked for."""

    def forward(self, s, z, r, mask):
        return super().forward(s, z, r, mask).float()


class ShortWithin(InvariantPointAttention):
    """A value in between that is rounded to float32."""

    def __init__(self, *sizes: int, **named: int) -> None:
        super().__init__(*sizes, **named)
        self.linear_q_points.register_forward_hook(lambda module, given, out: out.float().to(out.dtype))


@pytest.mark.parametrize("label", [None, "needles", "coincident residues", "far away"])
@pytest.mark.parametrize("layer", [Short, ShortOutside, ShortWithin])
def test_float32_inside_a_float64_call_is_noticed_and_the_budget_is_that_of_the_layer_without_it(layer, label) -> None:
    case, tally = some_case(), Tally("", "")
    if label is not None:
        case = perturbed_case(case, label, Contract(), seed=0)
    built, right = build(foreign(layer), 2, 0), build(foreign(InvariantPointAttention), 2, 0)
    allowed = sensitivity(foreign(layer), built, case, 0, tally).budget(U)
    expected = sensitivity(foreign(InvariantPointAttention), right, case, 0, Tally("", "")).budget(U)
    assert tally.notes == ["float32 inside a float64 call, which gradient_values judges: budgets at steps of 2⁻¹²"]
    assert (allowed < 3 * expected).all() and (allowed > expected / 3).all()


@pytest.mark.parametrize("label", [None, *PERTURBATIONS])
@pytest.mark.parametrize("layer", [InvariantGaussianAttention, InvariantPointAttention])
def test_a_layer_in_float64_follows_what_float32_does_not(layer, label: str | None) -> None:
    subject, case = foreign(layer), some_case()
    if label is not None:
        case = perturbed_case(case, label, Contract(), seed=0)
    for residues in (16, 1):
        few = kept(cast(case, torch.float64), torch.arange(residues))
        assert keeps_float64(subject, build(subject, 2, 0).double(), few, 0)


class Bent(Linear):
    """A slope that turns by 1/8 within a step of 2⁻²⁴, of curvature 2²²."""

    sharp = 2.0**22

    def forward(self, s, z, r, mask):
        x = self.w * s + self.a * r.trans[..., :1]
        return x + torch.sin(self.sharp * x) / self.sharp


class BentShort(Bent):
    """The same with one way through float32."""

    def forward(self, s, z, r, mask):
        return super().forward(s, z, r, mask) + (self.w * s).float().to(s.dtype)


@pytest.mark.parametrize(("layer", "kept"), [(Bent, True), (BentShort, False)])
def test_a_layer_that_bends_within_a_step_is_not_taken_for_one_that_rounds_to_float32(layer, kept: bool) -> None:
    for seed in range(5):
        case = cast(some_case(seed), torch.float64)
        assert keeps_float64(foreign(layer), layer().double(), case, seed) == kept


def test_float32_inside_a_float64_call_is_one_finding() -> None:
    """OpenFold's Rigid does it, and was called broken under rigid motions: 10³ nm away its origins stood still."""
    far = replace(PROFILES["ci"], synthetic=2, focus=1, focus_residues=20)
    only = ["se3_invariance", "gradient_values", "second_derivatives", "permutations"]
    found = iga.verify(Short, kind="layer", profile=far, only=only)
    assert {finding.name: finding.verdict for finding in found.findings if finding.verdict != "holds"} == {
        "gradient_values": "broken"
    }
    assert "float64 digits along" in found["gradient_values"].worst_example


def test_what_is_shaken_errs_by_the_size_asked_for_and_nothing_else_does() -> None:
    case, layer = cast(some_case(), torch.float64), InvariantPointAttention(16, 4, 4, 2, 2, 2).double()
    size = 1e-6
    _, moved = shaken(layer, case, size, ("translations",), 0)
    torch.testing.assert_close((moved.rigid.trans - case.rigid.trans).abs(), torch.full_like(case.rigid.trans, size))
    assert moved.s is case.s and moved.rigid.rot is case.rigid.rot
    other, same = shaken(layer, case, size, ("parameters",), 0)
    assert same.s is case.s
    for (_, new), (_, old) in zip(other.named_parameters(), layer.named_parameters(), strict=True):
        torch.testing.assert_close((new - old).abs(), size * old.abs(), rtol=1e-6, atol=0)
    _, turned = shaken(layer, case, size, ("rotations",), 0)
    angle = (turned.rigid.rot - case.rigid.rot).square().sum((-2, -1)).sqrt()
    assert (angle > size).all() and (angle < size * (math.sqrt(6) + math.sqrt(3))).all()


def test_the_chain_grows_with_residues_and_points_and_there_are_several_probes() -> None:
    subject = foreign(InvariantPointAttention)
    assert chain(subject, 2, 16) < chain(subject, 8, 16) < chain(subject, 8, 64)
    assert PROBES >= 3
