"""Each invariant of a layer holds for what is right and breaks for a fault of its own kind, traced or not.

A fault is a layer that is right but for one thing. Cases are small; what is judged is the verdict.
"""

import copy
import functools
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from helpers.layers import DenseAttention
from iga import functional
from iga.attention import InvariantGaussianAttention
from iga.functional import Trace
from iga.gaussian import GaussianRigid
from iga.ipa import InvariantPointAttention
from iga.presets import IGAConfig, preset
from iga.structure.synthetic import synthetic_structures
from iga.testing.checks import INVARIANTS
from iga.testing.contract import PROFILES, Contract
from iga.testing.layer import differences
from iga.testing.layer.cases import Case, make_case, perturbed_case
from iga.testing.layer.differences import central
from iga.testing.layer.edits import cast
from iga.testing.layer.subject import Subject
from iga.testing.result import Finding
from iga.testing.tally import Tally
from iga.testing.targets import TargetError

SMALL = replace(PROFILES["fast"], focus=1, focus_residues=14, c_s=16, c_z=4, c_hidden=4, no_heads=2, no_v_points=2)
CONTRACT = Contract(points=(1, 4))
DEGENERATE = ("collapsed and coincident", "needles in nearly shared frames")
BY_OUTPUT = (
    "permutations",
    "batch_independence",
    "determinism",
    "small_sizes",
    "state_dict_round_trip",
    "gradient_values",
    "reduced_precision",
    "second_derivatives",
    "se3_invariance",
    "mask_inertness",
    "gradient_finiteness",
)
BY_TRACE = ("attention_weights", "gradient_bounds")
COSTLY = ("gradient_values", "reduced_precision", "second_derivatives")
SEEDS = [(name, seed) for name in BY_OUTPUT for seed in ((0,) if name in COSTLY else (0, 1))]


class Plain(nn.Module):
    """Point attention in plain torch, one head: what somebody else might bring. It shows nothing but its output."""

    def __init__(self, *, c_s, c_z, c_hidden, no_heads, no_qk_points, no_v_points) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(c_s, c_hidden), nn.Linear(c_s, c_hidden)
        self.points, self.bias = nn.Linear(c_s, 3), nn.Linear(c_z, 1)
        self.weight = nn.Parameter(torch.zeros(1))
        self.out = nn.Linear(c_s + 3, c_s)

    def forward(self, s, z, r, mask):
        rot, trans = r.frame.rot, r.frame.trans
        s = torch.where(mask[..., None], s, 0.0)
        z = torch.where((mask[..., :, None] & mask[..., None, :])[..., None], z, 0.0)
        rot, trans = torch.where(mask[..., None, None], rot, 0.0), torch.where(mask[..., None], trans, 0.0)
        places = (rot * self.points(s)[..., None, :]).sum(-1) + trans
        squares = (places[..., :, None, :] - places[..., None, :, :]).square().sum(-1)
        logits = self.query(s) @ self.key(s).mT / 2 + self.bias(z)[..., 0] - self.weight.exp() * squares
        weights = torch.where(mask[..., None, :], logits, -1e30).softmax(-1)
        weights = torch.where(mask[..., None, :], weights, 0.0)
        # not through a product, which autocast would shorten
        seen = (weights.to(places.dtype)[..., None] * (places[..., None, :, :] - places[..., :, None, :])).sum(-2)
        local = (rot * seen[..., :, None]).sum(-2)
        return self.out(torch.cat([weights.to(s.dtype) @ s, local], dim=-1))


def traced(layer: type[nn.Module] = InvariantGaussianAttention, config: IGAConfig | None = None) -> Subject:
    return Subject("traced", config or preset("bounded"), SMALL, layer)


def foreign(layer: type[nn.Module] = Plain, **options) -> Subject:
    return Subject("foreign", None, SMALL, lambda **sizes: layer(**sizes), foreign=True, **options)


@functools.cache
def cases(degenerate: bool, seed: int) -> list[Case]:
    structure = synthetic_structures(1, seed=seed)[0]
    case = make_case(structure, SMALL, residues=SMALL.focus_residues, seed=seed)
    return [case, *(perturbed_case(case, label, CONTRACT, seed=seed) for label in DEGENERATE if degenerate)]


def judged(name: str, subject: Subject, seed: int = 0) -> Finding:
    invariant, tally = INVARIANTS[name], Tally(name, INVARIANTS[name].unit)
    assert invariant.measure is not None
    try:
        # a deep copy: some faults write into their inputs
        invariant.measure(subject, copy.deepcopy(cases(invariant.degenerate, seed)), CONTRACT, seed, tally)
    except TargetError as error:
        tally.fail(subject.name, str(error))
    return tally.finding()


@pytest.mark.parametrize("name", [*BY_OUTPUT, *BY_TRACE])
def test_the_default_layer_holds(name: str) -> None:
    finding = judged(name, traced(), seed=3)
    assert finding.verdict == "holds", finding


@pytest.mark.parametrize(("name", "seed"), SEEDS)
def test_a_correct_layer_that_shows_only_outputs_holds(name: str, seed: int) -> None:
    finding = judged(name, foreign(), seed)
    assert finding.verdict == "holds", finding


@pytest.mark.parametrize("layer", [InvariantPointAttention, InvariantGaussianAttention])
@pytest.mark.parametrize("name", ["permutations", "batch_independence", "se3_invariance", "mask_inertness"])
def test_our_layers_hold_by_their_outputs_alone(name: str, layer: type[nn.Module]) -> None:
    finding = judged(name, foreign(layer))
    assert finding.verdict == "holds", finding


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["permutations", "determinism", "mask_inertness", "gradient_values", "small_sizes"])
def test_a_layer_is_called_in_the_dtypes_that_it_claims_only(name: str, dtype: torch.dtype) -> None:
    class Choosy(Plain):
        def forward(self, s, z, r, mask):
            assert s.dtype == z.dtype == r.dtype == self.query.weight.dtype == dtype
            return super().forward(s, z, r, mask)

    finding = judged(name, foreign(Choosy, dtypes=(dtype,)))
    needs_float64 = name == "gradient_values" and dtype == torch.float32
    assert finding.verdict == ("vacuous" if needs_float64 else "holds"), finding


def test_a_kink_of_every_kind_is_looked_at() -> None:
    subject, tally = traced(config=preset("bounded", floor="hard", log_det_min=-12.0)), Tally("kinks", "")
    case = cast(make_case(synthetic_structures(1, seed=0)[0], SMALL, residues=6, seed=0), torch.float64)
    differences.judge(subject, subject.random(2, 0).double(), case, 300, 0, "", tally)
    assert len(differences.kinks(subject.iga_config)) == 3
    assert tally.examples == 9 and tally.finding().verdict == "holds"


@pytest.mark.parametrize("place", [i / 40 for i in range(1, 40)])
@pytest.mark.parametrize("jump", [-1.0, 1.0])
def test_a_kink_within_a_central_step_widens_its_error_enough(place: float, jump: float) -> None:
    h = 2.0**-10

    def f(x: float) -> torch.Tensor:
        return torch.tensor(3 * x + 0.5 * x**2 + jump * max(x - place * h, 0.0), dtype=torch.float64)

    slope, error = central(f, h, 2.0**-60)
    assert (slope - 3).abs() <= error


def test_a_smooth_derivative_is_known_to_six_digits() -> None:
    slope, error = central(lambda x: torch.tensor(1 + x, dtype=torch.float64).exp(), 2.0**-10, 2.0**-50)
    assert (slope - math.e).abs() <= error <= 1e-6 * math.e


def test_frames_and_gaussians_are_pytrees_whose_leaves_are_their_tensors() -> None:
    rigid = cases(False, 0)[0].rigid
    leaves, spec = torch.utils._pytree.tree_flatten(rigid)
    expected = [rigid.rot, rigid.trans, rigid.local_mean, rigid.log_scale]
    assert all(one is other for one, other in zip(leaves, expected, strict=True))
    again = torch.utils._pytree.tree_unflatten(leaves, spec)
    assert isinstance(again, GaussianRigid) and again.rot is rigid.rot


# --- faults -------------------------------------------------------------------------------------------------------


class Changed(DenseAttention):
    """A layer with one of the functional core's steps replaced while it runs."""

    step: tuple[str, object]

    def trace(self, *args, **kwargs) -> Trace:
        name, replacement = self.step
        original = getattr(functional, name)
        setattr(functional, name, replacement)
        try:
            return super().trace(*args, **kwargs)
        finally:
            setattr(functional, name, original)


def changed(name: str, replacement: Callable) -> Subject:
    return traced(type("Faulty", (Changed,), {"step": (name, staticmethod(replacement))}))


def around(before: Callable | None = None, after: Callable | None = None) -> Subject:
    """The plain layer with its inputs or its output tampered with."""

    class Faulty(Plain):
        def forward(self, s, z, r, mask):
            if before is not None:
                s, z, r, mask = before(self, s, z, r, mask)
            output = super().forward(s, z, r, mask)
            return output if after is None else after(self, output, s, r, mask)

    return foreign(Faulty)


geometry_logits, gaussian_overlap = functional.geometry_logits, functional.gaussian_overlap
masked_softmax, point_gaussians = functional.masked_softmax, functional.point_gaussians


def slanted(score, weight, config):
    ramp = torch.linspace(0.99, 1.01, score.shape[-3], dtype=score.dtype)
    return geometry_logits(score * ramp[:, None, None], weight, config)


def counting(layer, s, z, r, mask):
    place = torch.linspace(0, 1, s.shape[-2], dtype=s.dtype)[:, None]
    return s + 1e-3 * place, z, r, mask


def leaking(layer, s, z, r, mask):
    return s - 1e-3 * s.mean(dim=0, keepdim=True), z, r, mask


def averaging(layer, output, s, r, mask):
    return output + 1e-3 * torch.where(mask[..., None], s, 0.0).mean(dim=-2, keepdim=True)


def noisy(layer, output, s, r, mask):
    return output * (1 + 1e-6 * torch.rand(()))


def stale(layer, output, s, r, mask):
    """Keeps the first output for every later call of the same shape."""
    kept = layer.__dict__.setdefault("kept", {})
    return kept.setdefault(output.shape, output)


def stale_by_object(layer, output, s, r, mask):
    kept = layer.__dict__.setdefault("kept", {})
    return kept.setdefault(id(s), (s, output))[1]


def in_place(layer, s, z, r, mask):
    with torch.no_grad():
        s[..., 0].add_(1e-6)
    return s, z, r, mask


def short_coordinates(layer, s, z, r, mask):
    if not torch.is_autocast_enabled("cpu"):
        return s, z, r, mask
    return s, z, replace(r, frame=replace(r.frame, trans=r.trans.bfloat16().to(r.dtype))), mask


def overlap_under_autocast(*gaussians):
    dist_sq, log_det = gaussian_overlap(*gaussians)
    return (dist_sq.bfloat16().float(), log_det) if torch.is_autocast_enabled("cpu") else (dist_sq, log_det)


def detached(layer, s, z, r, mask):
    return s, z, replace(r, frame=replace(r.frame, trans=r.trans.detach())), mask


def gradient_one_percent_off(layer, output, s, r, mask):
    return output + 0.01 * (output - output.detach())


def float32_inside(layer, output, s, r, mask):
    return output.float().to(output.dtype)


def steep(*gaussians):
    dist_sq, log_det = gaussian_overlap(*gaussians)
    return dist_sq + 100 * (dist_sq - dist_sq.detach()), log_det


def steep_log_det(*gaussians):
    dist_sq, log_det = gaussian_overlap(*gaussians)
    return dist_sq, log_det + 0.05 * (log_det - log_det.detach())


class RightOnce(torch.autograd.Function):
    """x², whose gradient is right and has no gradient of its own in x."""

    @staticmethod
    def forward(ctx, x):
        ctx.slope = 2 * x.detach()
        return x.square()

    @staticmethod
    def backward(ctx, upstream):
        return upstream * ctx.slope


def right_once(layer, output, s, r, mask):
    return RightOnce.apply(output)


def straight_through_floor(r, raw_offset, raw_scale, config):
    """The gradient below the hard floor is that above it."""
    found = point_gaussians(r, raw_offset, raw_scale, config)
    log_sigma = r.log_scale[..., None, None, :, :] + config.log_scale_max * raw_scale.tanh()
    below = found.sigma * (log_sigma - log_sigma.detach())
    return replace(found, sigma=torch.where(found.sigma > config.sigma_min, found.sigma, found.sigma + below))


def over_queries(logits, key_mask):
    return masked_softmax(logits, key_mask).mT.softmax(dim=-1)


def additive_mask(logits, key_mask):
    return (logits + torch.where(key_mask, 0.0, -20.0)).softmax(dim=-1)


def not_quite_a_distribution(logits, key_mask):
    return masked_softmax(logits, key_mask) * (1 + 1e-5)


def tempered(logits, key_mask):
    return masked_softmax(logits * 1.001, key_mask)


def nan_without_keys(layer, output, s, r, mask):
    return output / mask.any(dim=-1)[:, None, None]


def refuses_empty_batches(layer, s, z, r, mask):
    if len(s) == 0:
        raise RuntimeError("empty")
    return s, z, r, mask


def leans_on_neighbours(layer, output, s, r, mask):
    return output + 1e-4 * s.roll(1, dims=-2)


def far_from_invariant(layer, output, s, r, mask):
    return output + 1e-3 * r.trans[..., :1] * (1.0 if mask.all() else 0.0)


def nan_gradient(layer, output, s, r, mask):
    return output + (s - s).sum(dim=-1, keepdim=True).abs().sqrt() * 0


class Forgetful(Plain):
    """Draws a tensor at construction that is no parameter and no buffer."""

    def __init__(self, **sizes) -> None:
        super().__init__(**sizes)
        self.drawn = float(torch.rand(()))

    def forward(self, s, z, r, mask):
        return super().forward(s, z, r, mask) * (1 + self.drawn)


HARD = preset("bounded", floor="hard")
FAULTS: dict[str, tuple[str, Subject]] = {
    "a ramp over residues": ("permutations", around(counting)),
    "a ramp over points": ("permutations", changed("geometry_logits", slanted)),
    "the mean of the batch": ("batch_independence", around(leaking)),
    "a mean that counts padding": ("mask_inertness", around(after=averaging)),
    "NaN through masked keys": ("mask_inertness", around(after=leans_on_neighbours)),
    "noise": ("determinism", around(after=noisy)),
    "a stale cache": ("determinism", around(after=stale)),
    "a cache by object": ("determinism", around(after=stale_by_object)),
    "inputs changed in place": ("determinism", around(in_place)),
    "bf16 coordinates under autocast": ("reduced_precision", around(short_coordinates)),
    "bf16 scores under autocast": ("reduced_precision", changed("gaussian_overlap", overlap_under_autocast)),
    "a detached gradient": ("gradient_values", around(detached)),
    "a gradient wrong by 1 %": ("gradient_values", around(after=gradient_one_percent_off)),
    "float32 in float64": ("gradient_values", around(after=float32_inside)),
    "a floor that passes gradients": (
        "gradient_values",
        replace(changed("point_gaussians", straight_through_floor), config=HARD),
    ),
    "dist_sq too steep": ("gradient_bounds", changed("gaussian_overlap", steep)),
    "log_det too steep by 5 %": ("gradient_bounds", changed("gaussian_overlap", steep_log_det)),
    "a gradient without a gradient": ("second_derivatives", around(after=right_once)),
    "softmax over queries": ("attention_weights", changed("masked_softmax", over_queries)),
    "an additive mask": ("attention_weights", changed("masked_softmax", additive_mask)),
    "a sum of 1 + 1e-5": ("attention_weights", changed("masked_softmax", not_quite_a_distribution)),
    "a temperature of its own": ("attention_weights", changed("masked_softmax", tempered)),
    "NaN without keys": ("small_sizes", around(after=nan_without_keys)),
    "no empty batches": ("small_sizes", around(refuses_empty_batches)),
    "a masked neighbour": ("small_sizes", around(after=leans_on_neighbours)),
    "state that is not saved": ("state_dict_round_trip", foreign(Forgetful)),
    "coordinates in the output": ("se3_invariance", around(after=far_from_invariant)),
    "a NaN gradient": ("gradient_finiteness", around(after=nan_gradient)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str) -> None:
    name, subject = FAULTS[fault]
    assert judged(name, subject).verdict == "broken", judged(name, subject)


def test_one_size_that_raises_does_not_hide_the_others() -> None:
    finding = judged("small_sizes", around(refuses_empty_batches))
    assert finding.note.startswith("broken in 2 of") and "empty" in finding.note and finding.examples > 100


# --- what is not finite, and what is trivial ------------------------------------------------------------------------


def filled(how: Callable) -> Subject:
    class Filled(Plain):
        def forward(self, s, z, r, mask):
            return how(s)

    return foreign(Filled)


TRIVIAL = {
    "NaN": (lambda s: s * torch.nan, {"broken"}),
    "Inf": (lambda s: s * 0 + torch.inf, {"broken"}),
    "zeros": (torch.zeros_like, {"vacuous", "broken"}),
    "ones": (torch.ones_like, {"vacuous", "broken"}),
    "a function of s alone": (torch.tanh, {"vacuous", "broken"}),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, kind) for name in BY_OUTPUT for kind in TRIVIAL), ("transforms", "NaN"), ("transforms", "ones")],
)
def test_trivial_outputs_never_hold(name: str, kind: str) -> None:
    how, verdicts = TRIVIAL[kind]
    assert judged(name, filled(how)).verdict in verdicts


def trace_filled(fill: float) -> Subject:
    class Filled(DenseAttention):
        def trace(self, *args, **kwargs) -> Trace:
            trace = super().trace(*args, **kwargs)
            values = {
                name: torch.full_like(getattr(trace, name), fill)
                for name in ("dist_sq", "log_det", "weights", "output")
            }
            return replace(trace, **values)

    return traced(Filled)


@pytest.mark.parametrize("fill", [torch.nan, torch.inf, 0.0, 1.0])
@pytest.mark.parametrize("name", BY_TRACE)
def test_trivial_traces_never_hold(name: str, fill: float) -> None:
    assert judged(name, trace_filled(fill)).verdict in ({"broken"} if fill != 0 else {"broken", "vacuous"})


# --- transforms: seconds each ---------------------------------------------------------------------------------------


def test_compile_export_and_vmap_agree_with_eager() -> None:
    finding = judged("transforms", foreign())
    assert finding.verdict == "holds" and finding.examples == 3 * 2 * 14 * 16, finding


def test_the_default_layer_compiles_exports_and_maps() -> None:
    """In a process of its own, where annotations are not checked."""
    code = (
        "import iga; from dataclasses import replace; from iga.testing.contract import PROFILES\n"
        "small = replace(PROFILES['ci'], synthetic=1, focus=1, focus_residues=16)\n"
        "report = iga.verify(profile=small, only=['transforms'])\n"
        "assert report.exit_code == 0, report.findings"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_transform_that_does_not_run_is_named() -> None:
    class Branching(Plain):
        def forward(self, s, z, r, mask):
            output = super().forward(s, z, r, mask)
            return output if bool((output > 0).any()) else output + 1

    finding = judged("transforms", foreign(Branching))
    assert finding.verdict == "broken"
    assert all(f"{name}: " in finding.note for name in ("torch.compile", "torch.export", "torch.func.vmap"))


def test_a_transform_that_gives_something_else_is_broken() -> None:
    class Different(Plain):
        def forward(self, s, z, r, mask):
            return super().forward(s, z, r, mask) * (1.0 + 1e-2 * torch.compiler.is_compiling())

    assert judged("transforms", foreign(Different)).verdict == "broken"
