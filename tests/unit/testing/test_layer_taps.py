"""Laws of layers without a trace: judged by what is shown, hooked or caught, and named where they were not judged."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call

from helpers.subjects import CONTRACT, SMALL, Plain, foreign, judged
from iga import taps
from iga.attention import InvariantGaussianAttention
from iga.frame import Frame
from iga.gaussian import GaussianRigid
from iga.ipa import InvariantPointAttention
from iga.presets import preset
from iga.report.verify import blocks
from iga.structure.synthetic import synthetic_structures
from iga.testing import target
from iga.testing.checks import checks_of
from iga.testing.faults.layer_taps import FAULTS
from iga.testing.faults.subjects import JUDGES, clean_subject, run_checks
from iga.testing.layer.cases import make_case
from iga.testing.layer.seen import Hook, dims_of, watched
from iga.testing.result import Report
from iga.testing.tally import Tally
from iga.testing.targets import Claims, TargetError
from iga.testing.verify import prepare

ONE_TENSOR = [one for one in FAULTS if " shown" in one.name and "nothing" not in one.name]


class Same(nn.Module):
    def forward(self, x):
        return x


class Hooked(Plain):
    """`Plain` with a part whose output could be a tap, and one that forward never calls."""

    def __init__(self, **sizes) -> None:
        super().__init__(**sizes)
        self.part, self.idle = nn.ModuleDict({"scores": Same()}), Same()

    def forward(self, s, z, r, mask):
        squares = (r.frame.trans[..., :, None, :] - r.frame.trans[..., None, :, :]).square().sum(-1)
        self.part["scores"](
            torch.where(mask[..., None, :], squares, 0.0)[..., None, None, :, :].expand(1, 3, 2, -1, -1)
        )
        return super().forward(s, z, r, mask)


def prepared(layer: type[nn.Module] = Plain, **claims):
    return prepare(target(kind="layer", **claims)(lambda **sizes: layer(**sizes)), profile="fast")


@pytest.mark.parametrize("fault", ONE_TENSOR, ids=lambda fault: fault.name)
def test_a_law_that_a_layer_without_trace_breaks_is_broken_by_name(fault) -> None:
    checks = [one for one in JUDGES["layer"] if one.name in fault.expected]
    found = run_checks("layer", fault.planted(clean_subject("layer")), checks, 0)
    assert {one.name: one.verdict for one in found} == dict.fromkeys(fault.expected, "broken")


class Wide(nn.Module):
    """`bounded` in float64, whatever it is given; its frames are then rotations that were rounded to float32."""

    form = "closed"

    def __init__(self, **sizes) -> None:
        super().__init__()
        self.inner = InvariantGaussianAttention(**sizes, config=preset("bounded", form=self.form))

    def forward(self, s, z, r, mask):
        wide = {name: x.double() for name, x in self.inner.named_parameters()}
        frame = Frame(r.rot.double(), r.trans.double())
        rigid = GaussianRigid(frame, r.local_mean.double(), r.log_scale.double())
        with torch.autocast("cpu", enabled=False):
            return functional_call(self.inner, wide, (s.double(), z.double(), rigid, mask)).to(s.dtype)


class WideTextbook(Wide):
    """The same, from Σ of the matrices as they are: ln det R of both is in log_det."""

    form = "textbook"


@pytest.mark.parametrize("layer", [Wide, WideTextbook])
@pytest.mark.parametrize("seed", range(3))
def test_laws_hold_for_a_layer_that_shows_scores_of_float64_in_a_float32_call(layer, seed: int) -> None:
    run = prepared(layer)
    names = {"log_det_floor", "dist_sq_bound", "geometry_logit_bound"}
    run.checks, run.seed = [one for one in run.checks if one.name in names], seed
    found = run.run().findings
    assert {one.name for one in found} == names
    assert {one.verdict for one in found} == {"holds"}, found


@pytest.mark.parametrize("name", ["growth_with_points", "attention_weights"])
@pytest.mark.parametrize("layer", [Plain, InvariantPointAttention])
def test_laws_hold_for_right_layers_by_their_softmax_alone(name: str, layer: type[nn.Module]) -> None:
    finding = judged(name, foreign(layer, taps={"logits": "caught", "weights": "caught"}))
    assert finding.verdict == "holds", finding


class LeavesOut(nn.Module):
    """A layer of one sample that computes valid residues alone: its softmax is not over all of them."""

    def __init__(self, **sizes) -> None:
        super().__init__()
        self.inner, self.wrong = Plain(**sizes), False

    def forward(self, s, z, r, mask):
        index = mask[0].bool().nonzero()[:, 0]
        output = torch.zeros_like(s)
        if len(index):
            z = z[:, index][:, :, index]
            found = self.inner(s[:, index], z, r[:, index], mask[:, index])
            output[:, index] = found
        return output


def test_calls_without_a_softmax_over_all_residues_are_passed_over_and_the_others_judged() -> None:
    caught = {"logits": "caught", "weights": "caught"}
    finding = judged("attention_weights", foreign(LeavesOut, taps=caught))
    assert finding.verdict == "holds", finding
    assert "softmax is not seen over all residues" in finding.note


class InBlocks(nn.Module):
    """Keys in blocks of 22, in two passes: of more residues no softmax is over all of them."""

    def __init__(self, *, c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points) -> None:
        super().__init__()
        self.query, self.key, self.out = nn.Linear(c_s, c_hidden), nn.Linear(c_s, c_hidden), nn.Linear(c_s, c_s)
        self.bias = nn.Linear(c_z, 1)

    def forward(self, s, z, r, mask):
        mask = mask.bool()
        s = torch.where(mask[..., None], s, 0.0)
        z = torch.where((mask[..., :, None] & mask[..., None, :])[..., None], z, 0.0)
        trans = torch.where(mask[..., None], r.trans, 0.0)
        squares = (trans[..., :, None, :] - trans[..., None, :, :]).square().sum(-1)
        logits = self.query(s) @ self.key(s).mT / 2 + self.bias(z)[..., 0] - squares.log1p()
        logits = torch.where(mask[..., None, :], logits, -1e9)
        blocks = logits.split(22, dim=-1)
        norm = torch.stack([block.logsumexp(-1) for block in blocks], dim=-1).logsumexp(-1, keepdim=True)
        values = [(block - norm).exp() @ part for block, part in zip(blocks, s.split(22, dim=-2), strict=True)]
        return self.out(torch.stack(values).sum(0)) * mask[..., None]


@pytest.mark.parametrize("name", ["growth_with_points", "attention_weights"])
def test_a_softmax_that_is_seen_of_few_residues_alone_is_judged_on_few(name: str) -> None:
    subject = foreign(InBlocks, taps={"logits": "caught", "weights": "caught"})
    check, tally = checks_of("layer")[name], Tally(name, "")
    case = make_case(synthetic_structures(1, seed=0)[0], SMALL, residues=30, seed=0)
    check(subject, [case], CONTRACT, 0, tally)
    finding = tally.finding()
    assert finding.verdict == "holds", finding
    assert "softmax is not seen of 30 residues: judged on 20" in finding.note


def test_a_claimed_exponent_is_what_growth_is_judged_against() -> None:
    (growing,) = (one for one in FAULTS if one.name == "a sum over points, and nothing shown")
    subject = growing.planted(clean_subject("layer"))
    check = [one for one in JUDGES["layer"] if one.name == "growth_with_points"]
    found = [run_checks("layer", one, check, 0)[0] for one in (subject, replace(subject, claims=Claims(growth=1.0)))]
    assert [one.verdict for one in found] == ["broken", "holds"]


def test_a_submodule_is_a_tap_with_dimensions_that_its_sizes_say() -> None:
    run = prepared(Hooked, taps={"dist_sq": "part.scores"})
    assert run.taps["dist_sq"] == "shown" and run.taps["logits"] == "caught" and run.taps["log_det"] == "missing"
    assert run.subject.hooks == (Hook("dist_sq", "part.scores", "b h p q k"),)
    assert "dist_sq_bound" in {one.name for one in run.checks}
    assert run.missing == {"log_det_floor": ("log_det",)}


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("attn.scores", "no submodule 'attn.scores'; there are query, key"),
        ("idle", "forward does not call it"),
        ("query", 'say its dimensions: "query: b h p q k"'),
        ("part.scores: h q k", "must name the 5 dimensions"),
    ],
)
def test_a_wrong_tap_is_misuse_in_one_line(place: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as misuse:
        prepared(Hooked, taps={"dist_sq": place})
    assert "\n" not in str(misuse.value)


def test_an_unknown_tap_is_misuse() -> None:
    with pytest.raises(ValueError, match="no tap 'logdet'"):
        target(kind="layer", taps={"logdet": "attn"})


def test_dimensions_that_sizes_leave_open_have_to_be_given() -> None:
    hook, sizes = Hook("weights", "softmax", ""), {"n": 7, "h": 3}
    assert dims_of(hook, torch.Size((1, 3, 7, 7)), sizes) == "b h q k"
    assert dims_of(hook, torch.Size((7, 7, 3)), sizes) == "q k h"
    for shape in (torch.Size((1, 3, 7, 5)), None):
        with pytest.raises(ValueError, match="say its dimensions"):
            dims_of(hook, shape, sizes)
    with pytest.raises(ValueError, match="say its dimensions"):
        dims_of(hook, torch.Size((1, 1, 7, 7)), {"n": 7, "h": 1})


def test_shown_tensors_come_in_one_order_whatever_theirs_was() -> None:
    scores = torch.randn(7, 7, 3, 2)
    with watched(nn.Identity(), 7) as made:
        taps.show("score", scores, dims="q k h p")
        taps.show("mean", torch.zeros(7, 3), dims="n x")
        taps.show("sigma", torch.ones(2, 7, 3), dims="p q x")
        with pytest.raises(TargetError, match="it has b h p q k"):
            taps.show("log_det", scores, dims="q n h p")
        seen = made(torch.zeros(()))
    (found,) = seen.all("score")
    assert torch.equal(found, scores.permute(2, 3, 0, 1)[None])
    assert [one.shape for one in seen.pairs("mean")[0]] == [(1, 1, 1, 7, 3)] * 2
    assert seen.pairs("sigma") == []  # only of the queries
    with pytest.raises(TargetError, match="weights was not shown"):
        seen.all("weights")


def summary(report: Report) -> str:
    return str(blocks(report.document("iga verify"))[-2].text)  # pyright: ignore[reportAttributeAccessIssue]


def test_the_last_line_says_which_laws_were_not_judged_and_never_that_all_hold() -> None:
    run = prepared()
    run.checks = [one for one in run.checks if one.name == "determinism"]
    report = run.run()
    assert report.exit_code == 0
    words = (
        "1 invariants hold; not judged: log_det_floor, dist_sq_bound (nothing shows log_det, dist_sq: iga.taps.show)"
    )
    assert summary(report).endswith(words) and "all" not in summary(report)
    document = report.document("iga verify")
    assert document.get("taps", {}) | {"logits": "caught", "log_det": "missing"} == document.get("taps")


def test_a_layer_with_a_trace_shows_every_tap() -> None:
    run = prepare("bounded", only=["determinism"], profile=SMALL)
    assert set(run.taps.values()) == {"shown"} and not run.missing
    assert "all 1 invariants hold" in summary(run.run())
