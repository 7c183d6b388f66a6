"""Claims about the ways of calling an overlap function: what each family of them sees, and what a claim excuses."""

from types import SimpleNamespace

import pytest
import torch

import iga
from iga.testing.overlap import agreement
from iga.testing.overlap.agreement import calls_agree
from iga.testing.overlap.pairs import PairSource
from iga.testing.overlap.subject import OverlapSubject
from iga.testing.tally import Tally
from iga.testing.targets import Claims
from iga.testing.ways import Refused
from iga.testing.ways_back import AFTERWARDS


def judged(function, **claims):
    """The finding about a function; of one that is wrong it ends where that is seen first."""
    subject = OverlapSubject("mine", function, dtypes=(torch.float32,), claims=Claims(**claims))
    tally = Tally("calls_agree", "of the budget")
    calls_agree(subject, PairSource([], subject.sigma_range, 1000, profile="planted"), 0, tally)
    return tally.finding()


def first_thousand(*pair):
    """Only the first thousand pairs pass a gradient to the keys' scales."""
    n = len(pair[5]) if pair[5].ndim > 1 else 0
    kept = torch.arange(n)[:, None] < 1000
    sigma = torch.where(kept, pair[5], pair[5].detach()) if n > 1000 else pair[5]
    return iga.gaussian_overlap(*pair[:5], sigma)


def means_alone(*pair):
    """Scales pass a gradient only where the means do."""
    if not pair[1].requires_grad:
        pair = (*pair[:2], pair[2].detach(), *pair[3:])
    return iga.gaussian_overlap(*pair)


def one_address(*pair):
    """Frames at one address are taken for one frame."""
    return iga.gaussian_overlap(*pair[:3], pair[0] if pair[0].data_ptr() == pair[3].data_ptr() else pair[3], *pair[4:])


def training(*pair):
    """log_det without its constant while gradients are recorded."""
    dist_sq, log_det = iga.gaussian_overlap(*pair)
    return dist_sq, log_det - (2.0 if log_det.requires_grad else 0.0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (first_thousand, "gradient of k_sigma: batches of 1025"),
        (means_alone, "gradient of q_sigma: gradients by q_sigma alone"),
        (one_address, "value of dist_sq: in one memory"),
        (training, "value of log_det: under no_grad"),
    ],
)
def test_each_family_of_ways_sees_its_kind_of_slip_and_names_it(wrong, words):
    finding = judged(wrong, unsupported=("vmap",))
    assert finding.verdict == "broken" and words in finding.note, finding.note


class Classic(torch.autograd.Function):
    """Without setup_context, vmap, jvp or a backward that could be differentiated."""

    @staticmethod
    def forward(ctx, *pair):
        ctx.save_for_backward(*pair)
        return iga.gaussian_overlap(*pair)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *given):
        leaves = [x.detach().requires_grad_(True) for x in ctx.saved_tensors]
        with torch.enable_grad():
            return torch.autograd.grad(iga.gaussian_overlap(*leaves), leaves, given, allow_unused=True)


def test_a_classic_function_is_not_broken_for_what_it_claims_not_to_do(monkeypatch):
    monkeypatch.setattr(agreement, "LARGER", ())
    monkeypatch.setattr(agreement, "LAYOUTS", agreement.LAYOUTS[::8])
    finding = judged(Classic.apply, unsupported=("vmap", "compile", "export"))
    assert finding.verdict == "holds", finding.note
    assert "not supported, as the target claims" in finding.note


@pytest.mark.parametrize(
    "squares",
    [lambda x: sum(part.square() for part in x.unbind()), lambda x: x * x],
    ids=["views of one", "what was kept"],
)
def test_autograds_own_refusal_of_inputs_written_to_is_no_slip_however_it_words_it(squares):
    """Of a view of many it says so in other words than of a number that it kept."""
    x = {"x": torch.ones(3, requires_grad=True).clone()}
    answers = {"y": squares(x["x"])}
    with pytest.raises(Refused):
        AFTERWARDS.back(SimpleNamespace(held=()), answers, {"y": torch.ones_like(answers["y"])}, x, ("x",))
