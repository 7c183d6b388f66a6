"""The run behind `iga verify`: what it judges, what it says of it, and what it refuses."""

import inspect
import io
import json
import math
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator
from rich.cells import cell_len
from rich.console import Console

import iga
from helpers.layers import DenseAttention
from iga.attention import InvariantGaussianAttention
from iga.presets import PRESETS, preset
from iga.report.console import show
from iga.report.documents import Invariant
from iga.report.meaning import meaning
from iga.report.schema import fields
from iga.report.verify import blocks, brief
from iga.structure.synthetic import synthetic_structures
from iga.testing.check import REFERENCE
from iga.testing.checks import checks_of
from iga.testing.contract import PROFILES, Contract
from iga.testing.faults.subjects import SMALL
from iga.testing.layer.cases import make_case
from iga.testing.layer.subject import Observation, Subject
from iga.testing.tally import Tally
from iga.testing.verify import Report, prepare, verify

FAST = replace(SMALL, name="fast", seeds=2)
POINTS = (1, 4)
SCHEMA = Path(iga.__file__).parent / "report" / "schemas" / "verify.json"


def small_run(target="bounded", **options) -> Report:
    return verify(target, **({"profile": FAST, "points": POINTS} | options))


@pytest.fixture(scope="module")
def broken() -> Report:
    return small_run("pre_fix", only=["log_det_floor", "accuracy", "growth_with_points"])


def test_every_invariant_of_a_layer_is_run_or_said_not_to_apply() -> None:
    plan, known = prepare(profile=FAST), checks_of("layer")
    asked = {name: one for name, one in known.items() if one.needs != REFERENCE}
    assert [one.name for one in plan.checks] == [name for name, one in asked.items() if "fast" in one.profiles]
    assert {check.name for check in plan.checks} | set(plan.skipped) == set(known)
    reasons = [reason for name, reason in plan.skipped.items() if name in asked]
    assert all("runs with --profile ci or nightly" in reason for reason in reasons)


def test_a_preset_that_holds_ends_0_and_its_sampled_structures_are_named() -> None:
    report = small_run(only=["log_det_floor", "determinism"])
    assert [finding.verdict for finding in report.findings] == ["holds", "holds"] and report.exit_code == 0
    assert len(report.structures) == FAST.synthetic
    for record in report.structures:
        assert record["status"] == "sampled" and "of" in str(record["reason"])


@pytest.mark.parametrize(("name", "exponent"), [("pre_fix", 1.0), ("sigma_floor", 0.5), ("bounded", 0.0)])
def test_growth_is_reported_with_its_exponent(name: str, exponent: float) -> None:
    finding = small_run(name, only=["growth_with_points"])["growth_with_points"]
    assert f"equal points: max |geometry logit| grows as P^{exponent:.2f}" in finding.note


def test_a_forward_that_does_not_follow_its_trace_is_caught() -> None:
    class Dishonest(InvariantGaussianAttention):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs) * 1.5

    report = small_run(layer=Dishonest, points=(1,), only=["geometry_is_alive", "attention_weights"])
    assert {finding.verdict for finding in report.findings} == {"broken"}
    case = make_case(synthetic_structures(1, seed=0)[0], FAST, residues=8, seed=0)
    subject, tally = Subject("dishonest", preset("bounded"), FAST, Dishonest), Tally("accuracy", "")
    layer = subject.random(2, 0)
    of_a_trace = checks_of("layer")["accuracy"].each_trace
    assert of_a_trace is not None
    with torch.no_grad():
        of_a_trace(Observation(subject, layer, case, subject.trace(layer, case), Contract(), "here"), tally)
    assert tally.finding().verdict == "broken" and "forward does not return" in tally.finding().note


# --- the report ---------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_report() -> None:
    first, second = (small_run(only=["dist_sq_bound", "accuracy"], points=(2,)) for _ in range(2))
    assert first.findings == second.findings


def test_a_fragment_is_judged_and_synthetic_structures_stand_in_for_what_it_is_too_short_for(
    structures_dir: Path, tmp_path: Path
) -> None:
    lines = (structures_dir / "1crn.pdb").read_text().splitlines()
    atoms = [line for line in lines if line.startswith("ATOM") and int(line[22:26]) <= 1]
    fragment = tmp_path / "fragment.pdb"
    fragment.write_text("\n".join(atoms) + "\nEND\n")
    report = small_run(structures=[fragment], only=["log_det_floor", "geometry_is_alive"])
    assert report.exit_code == 0, report.findings
    assert [entry["residues"] for entry in report.structures] == [1]
    assert "synthetic" in report["geometry_is_alive"].note
    assert "fragment.pdb" in report["log_det_floor"].worst_example


@pytest.mark.parametrize("width", [80, 200])
def test_a_narrow_terminal_loses_no_word_of_the_table(width: int, broken: Report) -> None:
    page = io.StringIO()
    show(blocks(broken.document("iga verify")), Console(width=width, file=page))
    text = "".join(char for char in page.getvalue() if char not in "│ \n")
    for finding in broken.findings:
        assert finding.verdict in text
        for part in (finding.name, finding.worst_example, finding.note, finding.unit):
            assert width != 80 or part.replace(" ", "") in text
            assert all(word in text for word in part.split()[:3])
    assert max(len(line) for line in page.getvalue().splitlines() if "┃" in line) <= width


@pytest.mark.parametrize("terminal", [True, False])
def test_in_brief_each_check_is_a_line_and_a_broken_one_has_its_example_and_command_below(
    terminal: bool, broken: Report
) -> None:
    """80 columns hold the table; a terminal folds sentences between words, a log has a line a sentence."""
    document = broken.document("iga verify")
    command = f"iga verify --preset pre_fix --structures {'long/' * 30}a.pdb"
    for row in document["invariants"]:
        row["reproduce"] = f"{command} --only {row['name']}"
    page = io.StringIO()
    show(brief(document), Console(width=80, file=page, force_terminal=terminal, color_system=None))
    lines = page.getvalue().splitlines()
    assert all(cell_len(line) <= 80 or command in line for line in lines) == terminal
    for row in document["invariants"]:
        (line,) = (line for line in lines if line.split()[:2] == [row["name"], row["verdict"]])
        assert cell_len(line) <= 80
        red = row["verdict"] == "broken"
        assert lines.count(row["reproduce"]) == red  # on one line, to be copied
        text = " ".join(page.getvalue().split())
        for part in (row["worst_example"], row["note"], meaning(row["name"])):
            assert not red or " ".join(part.split()) in text, part


def test_json_has_every_field_and_no_number_that_is_not_finite(broken: Report) -> None:
    data = json.loads(json.dumps(broken.document("iga verify"), allow_nan=False))
    assert data["schema"] == 1 and data["exit_code"] == 1 and data["target"] == "pre_fix"
    assert {"command", "seconds", "environment", "invariants", "structures"} <= set(data)
    assert {"torch", "python", "device", "seed"} <= set(data["environment"])
    # Every key is one that the schema documents; those that came later, as curves, stand beside the required ones.
    Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(data)
    for row in data["invariants"]:
        assert Invariant.__required_keys__ <= set(row) <= set(fields(Invariant)), row["name"]
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
        ({"kind": "layer"}, "is for a target of yours"),
        ({"implementation": "numba"}, "must be one of 'auto', 'fused', 'cpu', 'reference'"),
        ({"implementation": "cpu", "target": "pre_fix"}, "runs on the reference only"),
        ({"implementation": "cpu", "layer": DenseAttention}, "is for iga's own layer"),
        ({"implementation": "cpu", "target": "iga.overlap:gaussian_overlap", "kind": "overlap"}, "is for a preset"),
        ({"layer": lambda *sizes, config: torch.nn.Linear(sizes[0], sizes[0])}, "lacks .* trace, a method"),
    ],
)
def test_misuse_is_a_value_error_that_names_it(options: dict, word: str) -> None:
    with pytest.raises((ValueError, OSError), match=word):
        verify(**({"profile": FAST} | options))


def test_what_takes_the_options_of_a_run_says_so_and_refuses_others() -> None:
    asked = inspect.signature(prepare).parameters
    for function in (iga.verify, iga.testing.parametrize_with_invariants):
        assert inspect.signature(function).parameters == asked
        with pytest.raises(TypeError, match="unexpected keyword argument 'sigma'"):
            function("bounded", sigma=0.05)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("asked", "profile", "judged"), [(None, "fast", "reference"), ("auto", "fast", "cpu"), (None, "ci", "cpu")]
)
def test_the_report_says_which_implementation_was_judged(asked: str | None, profile: str, judged: str) -> None:
    own = replace(FAST, name=profile, implementation=PROFILES[profile].implementation)
    report = verify(profile=own, implementation=asked, points=(1,), only=["determinism"])
    assert report.implementation == judged
    document = report.document("iga verify")
    assert document["environment"]["implementation"] == judged
    console = Console(file=io.StringIO(), width=200)
    show(blocks(document), console)
    assert f"profile {profile}, implementation {judged}" in console.file.getvalue()


def test_sigma_min_moves_the_floor_of_the_presets_that_have_the_products_floor() -> None:
    for name in PRESETS:
        finding = small_run(name, points=(2,), sigma_min=0.05, only=["log_det_floor"])["log_det_floor"]
        if name in ("bounded", "pre_fix", "logdet_clamp"):
            assert finding.verdict == ("holds" if name == "bounded" else "broken")
        assert abs(finding.budget - 3 * math.log(2 * 0.05**2)) < 1e-4


def test_a_function_that_calls_exit_is_broken_and_the_user_s_interrupt_is_not() -> None:
    acts: list[Callable[[], object]] = []

    def leaving(*pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if pair[0].shape[0] == 15_000:  # a batch of score_laws
            acts[0]()
        return iga.gaussian_overlap(*pair)

    def interrupted() -> None:
        raise KeyboardInterrupt

    for act, words in ((sys.exit, "SystemExit"), (interrupted, "KeyboardInterrupt")):
        acts[:] = [act]
        report = iga.verify(leaving, kind="overlap", only=["coincident_means", "score_laws"])
        assert report["coincident_means"].verdict == "holds" and report.exit_code == 1
        assert words in report["score_laws"].note
    acts[:] = [partial(signal.raise_signal, signal.SIGINT)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a script in the background is deaf to it
    try:
        with pytest.raises(KeyboardInterrupt):
            iga.verify(leaving, kind="overlap", only=["score_laws"])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_function_that_calls_exit_at_once_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="calling .*: it raised SystemExit: 0"):
        iga.verify(lambda *pair: sys.exit(0), kind="overlap")
