"""Checks of layers: right ones hold by their outputs alone, and what `iga faults` does not plant breaks its check.

The catalogue of `iga faults` is planted in a layer that shows its scores. Here are faults of layers that show only
outputs, which take another way through a check, and those that only one part of a check can see.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from helpers.subjects import SMALL, Plain, foreign, judged, tampered
from iga.attention import InvariantGaussianAttention
from iga.ipa import InvariantPointAttention
from iga.presets import preset
from iga.testing.checks import CHECKS
from iga.testing.faults.patched import patched
from iga.testing.layer.subject import Subject
from iga.testing.targets import Claims, Target
from iga.testing.verify import verify


class Symmetric(Plain):
    """`Plain` in which geometry moves the weights alone, by the distances of the residues."""

    def forward(self, s, z, r, mask):
        mask = mask.bool()
        s = torch.where(mask[..., None], s, 0.0)
        z = torch.where((mask[..., :, None] & mask[..., None, :])[..., None], z, 0.0)
        trans = torch.where(mask[..., None], r.frame.trans, 0.0)
        squares = (trans[..., :, None, :] - trans[..., None, :, :]).square().sum(-1)
        logits = (
            self.query(s) @ self.key(s).mT / 2 + self.bias(z)[..., 0] - self.weight.exp() * squares.to(s.dtype).log1p()
        )
        weights = torch.where(mask[..., None, :], logits, -1e30).softmax(-1)
        return self.out(
            torch.cat([torch.where(mask[..., None, :], weights, 0.0) @ s, s.new_zeros(*s.shape[:-1], 3)], dim=-1)
        )


BY_OUTPUT = [c for c in CHECKS if c.kind == "layer" and not c.needs and c.name != "compiled_calls"]


@pytest.mark.parametrize("check", BY_OUTPUT, ids=lambda check: check.name)
def test_a_correct_layer_that_shows_only_outputs_holds(check) -> None:
    finding = judged(check, foreign())
    assert finding.verdict == "holds", finding


@pytest.mark.parametrize("check", BY_OUTPUT, ids=lambda check: check.name)
def test_a_layer_whose_only_geometry_is_symmetric_scores_holds(check) -> None:
    """Two residues that change places change nothing of it: it is not blind for that."""
    finding = judged(check, foreign(Symmetric))
    assert finding.verdict == "holds", finding


@pytest.mark.parametrize("layer", [InvariantPointAttention, InvariantGaussianAttention])
def test_our_layers_hold_by_their_outputs_alone(layer: type[nn.Module]) -> None:
    for name in ("permutations", "calls_agree", "se3_invariance", "mask_inertness"):
        finding = judged(name, foreign(layer))
        assert finding.verdict == "holds", finding


def by_log_sum_exp(right: object, logits: torch.Tensor, key_mask: torch.Tensor) -> torch.Tensor:
    shown = torch.where(key_mask, logits, -torch.inf)
    some = key_mask.any(-1, keepdim=True)
    weights = (shown - torch.where(some, shown, 0.0).logsumexp(-1, keepdim=True)).exp()
    return torch.where(key_mask & some, weights, 0.0)


class Bare(nn.Module):
    """This package's layer without its trace."""

    def __init__(self, **sizes: int) -> None:
        super().__init__()
        self.inner = InvariantGaussianAttention(**sizes, implementation="reference")

    def forward(self, s, z, r, mask):
        return self.inner(s, z, r, mask)


@pytest.mark.parametrize("seed", range(501, 507))
def test_a_softmax_whose_weights_sum_to_one_but_for_its_logits_rounding_is_right(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits of 10⁶ leave two digits of a weight that is exp(x − log Σ exp x), and pair features of 10⁶ show it."""
    monkeypatch.setattr("iga.functional.masked_softmax", lambda *given: by_log_sum_exp(None, *given))
    report = verify(Target("bare", "layer", Bare), only=["mask_inertness"], seed=seed)
    assert report.exit_code == 0, report.findings


@pytest.mark.parametrize("seed", range(3))
def test_what_float32_leaves_of_a_gradient_that_is_zero_is_not_judged(seed: int) -> None:
    """Softmax sees no bias that all keys share: without float64 only rounding says what its gradient is."""
    finding = judged("calls_agree", foreign(InvariantPointAttention, dtypes=(torch.float32,)), seed)
    assert finding.verdict == "holds", finding


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_layer_is_called_in_the_dtypes_that_it_claims_only(dtype: torch.dtype) -> None:
    class Choosy(Plain):
        def forward(self, s, z, r, mask):
            assert s.dtype == z.dtype == r.dtype == self.query.weight.dtype == dtype
            return super().forward(s, z, r, mask)

    for name in ("permutations", "determinism", "mask_inertness", "gradient_values", "small_sizes"):
        finding = judged(name, foreign(Choosy, dtypes=(dtype,)))
        needs_float64 = name == "gradient_values" and dtype == torch.float32
        assert finding.verdict == ("vacuous" if needs_float64 else "holds"), finding


class Nearest(Bare):
    """Attention to the 48 nearest: copies push others out, so what it gives copies is not what it gives one."""

    def forward(self, s, z, r, mask):
        distance = torch.cdist(r.trans.double(), r.trans.double()).masked_fill(~mask.bool()[..., None, :], torch.inf)
        far = distance > distance.sort(-1).values[..., min(48, s.shape[-2]) - 1, None]
        trace = self.inner.trace(s, z, r, mask)
        bias = torch.where(far, -torch.inf, 0.0)[..., None, :, :].to(trace.logits)
        weights = (trace.logits + bias).softmax(-1).where(mask.bool()[..., None, None, :], 0.0)
        return (weights.mean(-3) @ s.where(mask.bool()[..., None], 0.0)) * mask[..., None]


def test_attention_to_the_nearest_residues_is_not_asked_for_the_law_of_copies() -> None:
    finding = judged("large_sizes", foreign(Nearest))
    assert finding.verdict == "holds", finding
    assert "10 are not asked" in str(finding.note)


# --- faults: (layer, s, z, r, mask) before a call, (layer, output, s, r, mask) after it ------------------------------


def in_place(layer, s, z, r, mask):
    with torch.no_grad():
        s[..., 0].add_(1e-6)
    return s, z, r, mask


def short_coordinates(layer, s, z, r, mask):
    if not torch.is_autocast_enabled("cpu"):
        return s, z, r, mask
    return s, z, replace(r, frame=replace(r.frame, trans=r.trans.bfloat16().to(r.dtype))), mask


def refuses_empty_batches(layer, s, z, r, mask):
    if len(s) == 0:
        raise RuntimeError("empty")
    return s, z, r, mask


def averaging(layer, output, s, r, mask):
    return output + 1e-3 * torch.where(mask[..., None], s, 0.0).mean(dim=-2, keepdim=True)


def stale_by_object(layer, output, s, r, mask):
    kept = layer.__dict__.setdefault("kept", {})
    return kept.setdefault(id(s), (s, output))[1]


def float32_inside(layer, output, s, r, mask):
    return output.float().to(output.dtype)


def nan_without_keys(layer, output, s, r, mask):
    return output / mask.any(dim=-1)[:, None, None]


def leans_on_neighbours(layer, output, s, r, mask):
    return output + 1e-4 * s.roll(1, dims=-2)


def far_from_invariant(layer, output, s, r, mask):
    return output + 1e-3 * r.trans[..., :1] * (1.0 if mask.all() else 0.0)


OF_OUTPUTS: dict[str, tuple[str, Subject]] = {
    "a mean that counts padding": ("mask_inertness", tampered(after=averaging)),
    "NaN through masked keys": ("mask_inertness", tampered(after=leans_on_neighbours)),
    "a cache by object": ("determinism", tampered(after=stale_by_object)),
    "inputs changed in place": ("determinism", tampered(in_place)),
    "bf16 coordinates under autocast": ("reduced_precision", tampered(short_coordinates)),
    "float32 in float64": ("gradient_values", tampered(after=float32_inside)),
    "NaN without keys": ("small_sizes", tampered(after=nan_without_keys)),
    "a masked neighbour": ("small_sizes", tampered(after=leans_on_neighbours)),
    "coordinates in the output": ("se3_invariance", tampered(after=far_from_invariant)),
}


# --- faults of a layer that shows its scores: what takes a function's place is called with the right one first -------


def slanted(right, score, weight, config):
    ramp = torch.linspace(0.99, 1.01, score.shape[-3], dtype=score.dtype)
    return right(score * ramp[:, None, None], weight, config)


def steep(right, *gaussians):
    dist_sq, log_det = right(*gaussians)
    return dist_sq + 100 * (dist_sq - dist_sq.detach()), log_det


def steep_log_det(right, *gaussians):
    dist_sq, log_det = right(*gaussians)
    return dist_sq, log_det + 0.05 * (log_det - log_det.detach())


def straight_through_floor(right, r, raw_offset, raw_scale, config):
    """The gradient below the hard floor is that above it."""
    found = right(r, raw_offset, raw_scale, config)
    log_sigma = r.log_scale[..., None, None, :, :] + config.log_scale_max * raw_scale.tanh()
    below = found.sigma * (log_sigma - log_sigma.detach())
    return replace(found, sigma=torch.where(found.sigma > config.sigma_min, found.sigma, found.sigma + below))


def additive_mask(right, logits, key_mask):
    return (logits + torch.where(key_mask, 0.0, -20.0)).softmax(dim=-1)


def tempered(right, logits, key_mask):
    return right(logits * 1.001, key_mask)


OF_SCORES: dict[str, tuple[str, str, Callable]] = {
    "a ramp over points": ("permutations", "geometry_logits", slanted),
    "a floor that passes gradients": ("gradient_values", "point_gaussians", straight_through_floor),
    "dist_sq too steep": ("gradient_bounds", "gaussian_overlap", steep),
    "log_det too steep by 5 %": ("gradient_bounds", "gaussian_overlap", steep_log_det),
    "an additive mask": ("attention_weights", "masked_softmax", additive_mask),
    "a temperature of its own": ("attention_weights", "masked_softmax", tempered),
}


@pytest.mark.parametrize("fault", [*OF_OUTPUTS, *OF_SCORES])
def test_a_fault_that_the_catalogue_does_not_plant_is_caught(fault: str) -> None:
    if fault in OF_OUTPUTS:
        name, subject = OF_OUTPUTS[fault]
    else:
        name, place, step = OF_SCORES[fault]
        subject = patched(Subject("traced", preset("bounded", floor="hard"), SMALL), {f"functional.{place}": step})
    assert judged(name, subject).verdict == "broken", judged(name, subject)


def test_one_size_that_raises_does_not_hide_the_others() -> None:
    finding = judged("small_sizes", tampered(refuses_empty_batches))
    assert finding.verdict == "broken"
    assert finding.note.startswith("broken in 2 of") and "empty" in finding.note and finding.examples > 100


@pytest.mark.parametrize(
    ("how", "verdicts"),
    [
        (lambda s: s * torch.nan, {"broken"}),
        (lambda s: s * 0 + torch.inf, {"broken"}),
        (torch.zeros_like, {"vacuous", "broken"}),
        (torch.ones_like, {"vacuous", "broken"}),
        (torch.tanh, {"vacuous", "broken"}),
    ],
    ids=["NaN", "Inf", "zeros", "ones", "a function of s alone"],
)
def test_trivial_outputs_never_hold(how: Callable, verdicts: set[str]) -> None:
    class Filled(Plain):
        def forward(self, s, z, r, mask):
            return how(s)

    # whatever a layer gives may leave the process as it was
    checks = [check for check in BY_OUTPUT if check.name != "process_state"]
    found = {check.name: judged(check, foreign(Filled)).verdict for check in checks}
    assert set(found.values()) <= verdicts, found


# --- ways of calling ------------------------------------------------------------------------------------------------


def branching(layer, output, s, r, mask):
    return output if bool((output > 0).any()) else output + 1


def different(layer, output, s, r, mask):
    return output * (1.0 + 1e-2 * torch.compiler.is_compiling())


@pytest.mark.parametrize("after", [None, branching, different, lambda layer, output, s, r, mask: output * torch.nan])
def test_what_is_compiled_or_exported_agrees_with_the_plain_call(after: Callable | None) -> None:
    finding = judged("compiled_calls", tampered(after=after) if after else foreign())
    assert finding.verdict == ("broken" if after else "holds"), finding
    if after is branching:
        assert "capability: torch.compile" in finding.note


def not_without_a_batch(layer, s, z, r, mask):
    if s.ndim == 2:
        raise RuntimeError("one batch dimension is needed")
    return s, z, r, mask


def test_a_way_that_raises_names_the_claim_that_would_excuse_it_and_the_claim_does() -> None:
    subject = tampered(not_without_a_batch)
    finding = judged("calls_agree", subject)
    assert finding.verdict == "broken"
    assert "capability: no batch dimension" in finding.note and 'unsupported=("no_batch_dimension",)' in finding.note
    finding = judged("calls_agree", replace(subject, claims=Claims(unsupported=("no_batch_dimension",))))
    assert finding.verdict == "holds" and "not supported, as the target claims: no_batch_dimension" in finding.note


@pytest.mark.parametrize("check", BY_OUTPUT, ids=lambda check: check.name)
def test_of_a_layer_for_inference_only_no_gradient_is_asked(check) -> None:
    class Inferring(Plain):
        def forward(self, s, z, r, mask):
            with torch.no_grad():
                return super().forward(s, z, r, mask)

    subject = foreign(Inferring, claims=Claims(inference_only=True))
    if not check.not_supported(subject.claims):
        finding = judged(check, subject)
        assert finding.verdict == "holds", finding


def doubled(layer, output, s, r, mask):
    return 2 * output - output.detach() if layer.out.weight.requires_grad else output


def test_a_wrong_gradient_of_one_way_is_called_a_gradient() -> None:
    finding = judged("calls_agree", tampered(after=doubled))
    assert finding.verdict == "broken" and "gradient of s: parameters are frozen" in finding.note
