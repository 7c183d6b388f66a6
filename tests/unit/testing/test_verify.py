"""Each invariant of the main job fails when it should: planted faults, and the presets whose failures are known.

A fault is a layer that is right but for one thing. The runs are small; what is judged is which invariants break.
"""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from helpers.layers import DenseAttention
from iga import functional
from iga.attention import InvariantGaussianAttention
from iga.functional import Trace
from iga.presets import PRESETS, preset
from iga.report.console import show
from iga.report.verify import blocks
from iga.testing.checks import INVARIANTS
from iga.testing.contract import PROFILES
from iga.testing.verify import Report, verify

SMALL = replace(
    PROFILES["fast"],
    synthetic=4,
    residues=24,
    degenerate=16,
    focus=1,
    focus_residues=32,
    seeds=2,
    digits_pairs=10,
    perturb_every=2,
    focus_perturb_every=4,
)
POINTS = (1, 4, 16)


def small_run(target="bounded", **options) -> Report:
    return verify(target, profile=SMALL, points=POINTS, **options)


def verdicts(report: Report) -> dict[str, str]:
    return {finding.name: finding.verdict for finding in report.findings}


@pytest.mark.parametrize("implementation", ["reference", "cpu"])
def test_the_default_holds_every_invariant(implementation: str) -> None:
    report = small_run(seed=0, implementation=implementation)
    assert set(verdicts(report)) == {name for name, one in INVARIANTS.items() if "fast" in one.profiles}
    assert set(report.not_applicable) == set(INVARIANTS) - set(verdicts(report))
    assert set(verdicts(report).values()) == {"holds"}, report.findings
    assert report.exit_code == 0


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("pre_fix", {"log_det_floor", "dist_sq_bound", "growth_with_points"}),
        ("logdet_clamp", {"log_det_floor", "dist_sq_bound", "growth_with_points"}),
        ("sigma_floor", {"log_det_floor", "growth_with_points"}),
        ("soft_start", {"log_det_floor", "growth_with_points"}),
    ],
)
def test_the_historical_presets_break_what_they_are_known_to_break(name: str, broken: set[str]) -> None:
    report = small_run(name, only=sorted(broken))
    assert verdicts(report) == dict.fromkeys(broken, "broken")
    assert report.exit_code == 1


def test_collapsed_scales_without_a_floor_reach_the_log_det_that_training_stuck_at() -> None:
    worst = small_run("pre_fix", only=["log_det_floor"])["log_det_floor"].worst
    expected = 3 * math.log(2 * (1e-6 + 1e-12))
    assert abs(worst - expected) <= 16 * 2**-24 * abs(expected)


@pytest.mark.parametrize(("name", "exponent"), [("pre_fix", 1.0), ("sigma_floor", 0.5), ("bounded", 0.0)])
def test_growth_is_reported_with_its_exponent(name: str, exponent: float) -> None:
    finding = small_run(name, only=["growth_with_points"])["growth_with_points"]
    assert f"equal points: max |geometry logit| grows as P^{exponent:.2f}" in finding.note


# --- faults -----------------------------------------------------------------------------------------------------


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


def changed(name: str, replacement) -> type[nn.Module]:
    return type("Faulty", (Changed,), {"step": (name, staticmethod(replacement))})


def silent_geometry(score, weight, config):
    raw, scaled = geometry_logits(score, weight, config)
    return raw, scaled * 0


geometry_logits = functional.geometry_logits
point_gaussians = functional.point_gaussians
student_t_score = functional.student_t_score
gaussian_overlap = functional.gaussian_overlap
masked_softmax = functional.masked_softmax


def half_log_det_in_the_score(dist_sq, log_det, *, dof, log_det_min):
    return student_t_score(dist_sq, 0.5 * log_det, dof=dof, log_det_min=log_det_min)


def half_log_det(*gaussians):
    dist_sq, log_det = gaussian_overlap(*gaussians)
    return dist_sq, 0.5 * log_det


def floor_in_the_mean_only(r, raw_offset, raw_scale, config):
    floored = point_gaussians(r, raw_offset, raw_scale, config)
    bare = point_gaussians(r, raw_offset, raw_scale, replace(config, sigma_min=1e-6))
    return replace(floored, sigma=bare.sigma)


def floor_in_the_covariance_only(r, raw_offset, raw_scale, config):
    floored = point_gaussians(r, raw_offset, raw_scale, config)
    bare = point_gaussians(r, raw_offset, raw_scale, replace(config, sigma_min=1e-6))
    return replace(floored, mean=bare.mean)


def without_the_mask(logits, key_mask):
    return logits.softmax(dim=-1)


def additive_mask(logits, key_mask):
    return (logits + torch.where(key_mask, 0.0, -20.0)).softmax(dim=-1)


def transposed_rotations(q_rot, q_mean, q_sigma, k_rot, k_mean, k_sigma):
    return gaussian_overlap(q_rot.mT, q_mean, q_sigma, k_rot.mT, k_mean, k_sigma)


def slightly_off(*gaussians):
    dist_sq, log_det = gaussian_overlap(*gaussians)
    return dist_sq * (1 + 1e-3), log_det


def ignored_scaling(score, weight, config):
    return geometry_logits(score, weight, replace(config, point_scaling="rsqrt"))


def nan_gradient(dist_sq, log_det, *, dof, log_det_min):
    score = student_t_score(dist_sq, log_det, dof=dof, log_det_min=log_det_min)
    zero = (dist_sq - dist_sq).sqrt() * 0  # the value is right; the gradient is 0/0
    return score + zero


FAULTS = {
    "a geometry logit times zero": (changed("geometry_logits", silent_geometry), "geometry_is_alive"),
    "half the log-det": (changed("gaussian_overlap", half_log_det), "accuracy"),
    "half the log-det in the score": (changed("student_t_score", half_log_det_in_the_score), "accuracy"),
    "the floor in the mean only": (changed("point_gaussians", floor_in_the_mean_only), "log_det_floor"),
    "the floor in the covariance only": (changed("point_gaussians", floor_in_the_covariance_only), "accuracy"),
    "no mask": (changed("masked_softmax", without_the_mask), "mask_inertness"),
    "an additive mask of −20": (changed("masked_softmax", additive_mask), "mask_inertness"),
    "transposed rotations": (changed("gaussian_overlap", transposed_rotations), "se3_invariance"),
    "dist_sq off by a thousandth": (changed("gaussian_overlap", slightly_off), "accuracy"),
    "1/√P where the mean was asked for": (changed("geometry_logits", ignored_scaling), "point_scaling_law"),
    "a NaN gradient": (changed("student_t_score", nan_gradient), "gradient_finiteness"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str) -> None:
    layer, invariant = FAULTS[fault]
    report = small_run(layer=layer, only=[invariant])
    assert report.exit_code == 1
    assert report[invariant].verdict == "broken", report[invariant]


def test_a_cap_of_a_thousandth_is_not_alive() -> None:
    report = small_run(preset("bounded", logit_cap=1e-3), only=["geometry_is_alive"])
    assert report["geometry_is_alive"].verdict == "broken"


class Constant(DenseAttention):
    """Bounded, invariant, inert, differentiable, and useless: its output is zero."""

    def trace(self, *args, **kwargs) -> Trace:
        trace = super().trace(*args, **kwargs)
        assert trace.output is not None
        return replace(trace, output=trace.output * 0)


@pytest.mark.parametrize("invariant", ["se3_invariance", "mask_inertness", "gradient_finiteness"])
def test_an_output_that_is_identically_zero_is_vacuous_not_green(invariant: str) -> None:
    report = small_run(layer=Constant, only=[invariant])
    assert report[invariant].verdict == "vacuous"
    assert report.exit_code == 1


class Dishonest(InvariantGaussianAttention):
    """Shows a trace that its forward does not follow."""

    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs) * 1.5


@pytest.mark.parametrize("invariant", ["accuracy", "geometry_is_alive"])
def test_a_forward_that_does_not_follow_its_trace_is_caught(invariant: str) -> None:
    assert small_run(layer=Dishonest, only=[invariant])[invariant].verdict == "broken"


class NotFinite(DenseAttention):
    def trace(self, *args, **kwargs) -> Trace:
        trace = super().trace(*args, **kwargs)
        fill = trace.score * torch.nan
        output = None if trace.output is None else trace.output * torch.nan
        return replace(
            trace,
            dist_sq=fill,
            log_det=fill,
            score=fill,
            geo_raw=trace.geo_raw * torch.nan,
            geo_scaled=trace.geo_scaled * torch.nan,
            output=output,
        )


@pytest.mark.parametrize("invariant", [name for name, one in INVARIANTS.items() if one.needs != "library"])
def test_no_invariant_accepts_nan(invariant: str) -> None:
    profile = replace(SMALL, name=INVARIANTS[invariant].profiles[0])
    report = verify("bounded", layer=NotFinite, only=[invariant], profile=profile, points=POINTS)
    assert report[invariant].verdict == "broken"


# --- the report ---------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_report() -> None:
    first, second = (small_run(only=["dist_sq_bound", "accuracy"]) for _ in range(2))
    assert first.findings == second.findings


@pytest.mark.parametrize("residues", [1])
def test_a_fragment_is_judged_and_synthetic_structures_stand_in_for_what_it_is_too_short_for(
    residues: int, structures_dir: Path, tmp_path: Path
) -> None:
    lines = (structures_dir / "1crn.pdb").read_text().splitlines()
    atoms = [line for line in lines if line.startswith("ATOM") and int(line[22:26]) <= residues]
    fragment = tmp_path / "fragment.pdb"
    fragment.write_text("\n".join(atoms) + "\nEND\n")
    report = small_run(structures=[fragment])
    assert report.exit_code == 0, report.findings
    assert [entry["residues"] for entry in report.structures] == [residues]
    assert "synthetic" in report["geometry_is_alive"].note
    assert "fragment.pdb" in report["log_det_floor"].worst_example


def test_sampled_structures_are_named() -> None:
    records = small_run(only=["log_det_floor"]).structures
    assert len(records) == SMALL.synthetic
    for record in records:
        assert record["status"] == "sampled" and "of" in str(record["reason"])


@pytest.mark.parametrize("width", [80, 200])
def test_a_narrow_terminal_loses_no_word_of_the_table(width: int) -> None:
    report = small_run("sigma_floor", only=["log_det_floor", "growth_with_points"])
    page = io.StringIO()
    show(blocks(report.document("iga verify")), Console(width=width, file=page))
    text = "".join(char for char in page.getvalue() if char not in "│ \n")
    for finding in report.findings:
        assert finding.verdict in text
        for part in (finding.name, finding.worst_example, finding.note, finding.unit):
            assert width != 80 or part.replace(" ", "") in text
            assert all(word in text for word in part.split()[:3])
    assert max(len(line) for line in page.getvalue().splitlines() if "┃" in line) <= width


def test_json_has_every_field_and_no_number_that_is_not_finite() -> None:
    report = small_run("pre_fix", only=["log_det_floor", "accuracy"])
    data = json.loads(json.dumps(report.document("iga verify"), allow_nan=False))
    assert data["schema"] == 1 and data["exit_code"] == 1 and data["target"] == "pre_fix"
    assert {"command", "seconds", "environment", "invariants", "structures"} <= set(data)
    assert {"torch", "python", "device", "seed"} <= set(data["environment"])
    for row in data["invariants"]:
        fields = "name verdict worst budget unit examples vacuous undecided worst_example note expected_broken"
        assert set(row) == set(fields.split())
    for row in data["structures"]:
        assert set(row) == {"path", "residues", "masked", "chain_breaks", "status", "reason"}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"target": "bounde"}, "preset"),
        ({"profile": "quick"}, "profile"),
        ({"only": ["no_such"]}, "invariant"),
        ({"points": (0,)}, "points"),
        ({"sigma_min": -1.0}, "sigma_min"),
        ({"structures": ["no/such/file.pdb"]}, "no/such/file.pdb"),
        ({"implementation": "numba"}, "must be one of 'auto', 'fused', 'cpu', 'reference'"),
        ({"implementation": "cpu", "target": "pre_fix"}, "runs on the reference only"),
        ({"implementation": "cpu", "layer": DenseAttention}, "is for iga's own layer"),
        ({"implementation": "cpu", "target": "iga.overlap:gaussian_overlap", "kind": "overlap"}, "is for a preset"),
    ],
)
def test_misuse_is_a_value_error_that_names_it(options: dict, word: str) -> None:
    with pytest.raises((ValueError, OSError), match=word):
        verify(**({"profile": SMALL} | options))


@pytest.mark.parametrize(
    ("asked", "profile", "judged"), [(None, "fast", "reference"), ("auto", "fast", "cpu"), (None, "ci", "cpu")]
)
def test_the_report_says_which_implementation_was_judged(asked: str | None, profile: str, judged: str) -> None:
    own = replace(SMALL, name=profile, implementation=PROFILES[profile].implementation)
    report = verify(profile=own, implementation=asked, points=(1,), only=["determinism"])
    assert report.implementation == judged
    document = report.document("iga verify")
    assert document["environment"]["implementation"] == judged
    console = Console(file=io.StringIO(), width=200)
    show(blocks(document), console)
    assert f"profile {profile}, implementation {judged}" in console.file.getvalue()


@pytest.mark.parametrize("name", PRESETS)
def test_sigma_min_moves_the_floor_of_the_presets_that_have_the_products_floor(name: str) -> None:
    report = small_run(name, sigma_min=0.05, only=["log_det_floor"])
    finding = report["log_det_floor"]
    if name in ("bounded", "pre_fix", "logdet_clamp"):
        assert finding.verdict == ("holds" if name == "bounded" else "broken")
    assert abs(finding.budget - 3 * math.log(2 * 0.05**2)) < 1e-4
