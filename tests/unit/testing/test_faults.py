"""The matrix fault × check: how a fault is looked for, what no check accepts, and when the command ends 1.

`iga faults` plants the whole catalogue; here is a sample of it.
"""

import io
import json
import math
import os
import signal
import time
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from iga.report.console import show
from iga.report.faults import blocks
from iga.structure.synthetic import synthetic_structures
from iga.testing.check import REFERENCE
from iga.testing.faults import FAULTS, SLIPS, Fault
from iga.testing.faults.clean import CLEAN
from iga.testing.faults.matrix import Matrix, Row, _deaf, _workers, examine, measure_matrix
from iga.testing.faults.patched import patched
from iga.testing.faults.sample import DRAWN, OWN, sampled
from iga.testing.faults.subjects import CHECKS, JUDGES, clean_subject, looks_at, run_checks
from iga.testing.layer.cases import make_case
from iga.testing.overlap.pairs import degenerate

SAMPLE = {
    "overlap": ("log sigma detached", "a mean over the batch leaks in", "numbers with gaps between are read without"),
    "layer": (
        "rotations transposed",
        "only how many are valid counts",
        "the last of four query points takes the weights of the one before",
    ),
    "frames": ("from_quaternion takes |w| for w",),
    "diagnostics": ("entropy off by a factor",),
}


@pytest.mark.parametrize(("bench", "name"), [(bench, name) for bench, names in SAMPLE.items() for name in names])
def test_a_fault_is_seen_by_every_check_that_has_to(bench: str, name: str) -> None:
    (fault,) = (fault for fault in FAULTS[bench] if fault.name == name)
    checks = [check for check in JUDGES[bench] if check.name in fault.expected]
    row = examine(fault, bench, checks)
    assert row.caught_by == tuple(check.name for check in checks) and not row.not_run
    assert all(row.smallest[check] <= fault.size for check in fault.expected if fault.sizes)


def filled(value: float):
    """A layer all of whose scores, weights and outputs are one number, with a path back to every input."""

    def after(trace):
        names = "dist_sq log_det score geo_raw geo_scaled scalar logits weights features output".split()
        return replace(trace, **{name: getattr(trace, name) * 0 + value for name in names})

    return patched(clean_subject("layer"), {}, after)


# The others look at outputs alone, and are fed garbage in test_layer_checks.py.
OF_TRACES = [
    one
    for one in JUDGES["layer"]
    if (one.needs and one.needs != REFERENCE) or one.name in ("se3_invariance", "mask_inertness", "reduced_precision")
]


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, 1.5], ids=["NaN", "infinity", "zeros", "a constant"])
def test_no_check_of_a_layer_that_shows_its_scores_accepts_garbage(value: float) -> None:
    found = {finding.name: finding.verdict for finding in run_checks("layer", filled(value), OF_TRACES, 0)}
    assert len(found) == 13
    assert set(found.values()) <= ({"broken"} if not math.isfinite(value) else {"broken", "vacuous"}), found
    if value == 0.0:
        assert found["se3_invariance"] == found["mask_inertness"] == "vacuous"


def test_every_check_has_a_fault_and_every_fault_a_check_that_looks_at_it() -> None:
    assert set(FAULTS) == set(CHECKS)
    for bench, faults in FAULTS.items():
        judges = {check.name: check for check in JUDGES[bench]}
        assert {name for fault in faults for name in fault.expected} == set(judges)
        assert len({fault.name for fault in faults}) == len(faults)
        for fault in faults:
            assert all(looks_at(judges[name], fault) for name in fault.expected)
            assert list(fault.sizes) == sorted(fault.sizes, reverse=True)
            assert bool(fault.expected) != bool(fault.missed)


def test_the_slips_say_where_they_are_wrong_and_are_of_every_kind() -> None:
    assert all(fault.region for faults in SLIPS.values() for fault in faults)
    assert sum(map(len, SLIPS.values())) > 70
    kinds = {"sizes", "shapes", "storage", "modes", "gradients", "memory", "threads", "transforms", "dtypes"}
    assert {fault.kind for fault in SLIPS["overlap"]} == kinds
    assert {fault.kind for fault in SLIPS["layer"]} == kinds | {"features", "masks", "geometry", "laws"}


def in_a_plain_call(fault: Fault) -> bool:
    """Whether the slip's region has a plain call without gradients in it; tests run under deterministic algorithms."""
    by_reference = "reference_agrees" in fault.missed or fault.expected == ("reference_agrees",)
    return (
        by_reference
        or fault.kind in ("geometry", "laws")
        or fault.region in ("no_grad", "grad mode off", "torch.use_deterministic_algorithms(True)")
    )


def test_a_slip_is_right_outside_of_its_region() -> None:
    """Of twelve pairs and of fourteen residues, called plainly, without gradients, nothing is wrong."""
    pair = degenerate(76, (0.1, 1.0), torch.float32, 0)
    pair = tuple(x[64:].clone() for x in pair)  # behind the spheres
    layer = clean_subject("layer")
    case = make_case(synthetic_structures(1, seed=0)[0], layer.profile, residues=14, seed=0)
    with torch.no_grad():
        right = {"overlap": clean_subject("overlap")(*pair), "layer": (layer.output(layer.random(2, 0), case),)}
        for bench, faults in SLIPS.items():
            for fault in faults:
                if not in_a_plain_call(fault):
                    one = fault.planted(clean_subject(bench))
                    answers = one(*pair) if bench == "overlap" else (one.output(one.random(2, 0), case),)
                    # a tenth of the smallest slip, 10⁻³; another order of float32 sums is a hundred times less
                    for found, expected in zip(answers, right[bench], strict=True):
                        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5), fault.name


def test_the_sample_has_every_checks_own_fault_and_follows_the_seed() -> None:
    one, other = sampled(0), sampled(1)
    assert one == sampled(0) and one != other
    for bench, faults in FAULTS.items():
        own = set(OWN.get(bench, {}).values())
        assert own <= {fault.name for fault in faults} and set(OWN.get(bench, {})) <= set(CHECKS[bench])
        assert all(own <= {fault.name for fault in some[bench]} for some in (one, other))
        assert len(one[bench]) <= len(faults) and (bench in DRAWN or one[bench] == list(faults))


def row(bench: str, name: str, caught: tuple[str, ...], expected: tuple[str, ...]) -> Row:
    return Row(bench, name, "layer", 1.0, caught, expected, dict.fromkeys(caught, 0.5))


def full() -> Matrix:
    """A matrix in which all is as it should be."""
    rows = [row(bench, name, (name,), (name,)) for bench, names in CHECKS.items() for name in names]
    return Matrix(rows, [], clean_runs=1)


def test_all_caught_no_check_idle_and_no_alarm_ends_0() -> None:
    assert full().exit_code == 0


@pytest.mark.parametrize("harm", ["missed", "idle", "alarm", "nothing clean was run", "seen by another check only"])
def test_each_way_of_failing_ends_1(harm: str) -> None:
    matrix = full()
    if harm == "missed":
        matrix.rows.append(row("layer", "unseen", (), ("accuracy",)))
    elif harm == "idle":
        matrix.rows = [r for r in matrix.rows if r.caught_by != ("permutations",)]
    elif harm == "alarm":
        matrix.false_alarms.append(("closed form", 3, "accuracy"))
    elif harm == "nothing clean was run":
        matrix = replace(matrix, clean_runs=0)
    else:
        matrix.rows.append(row("layer", "other", ("determinism",), ("accuracy",)))
    assert matrix.exit_code == 1
    page = io.StringIO()
    show(blocks(matrix.document("iga faults")), Console(file=page, width=200))
    assert "every check can fail" not in page.getvalue() and "to be mended" in page.getvalue()


def test_the_json_has_every_field_of_its_schema() -> None:
    data = json.loads(json.dumps(full().document("iga faults"), allow_nan=False))
    assert {"schema", "exit_code", "faults", "false_alarms", "invariants"} <= set(data)
    assert {"name", "kind", "size", "caught_by", "expected"} <= set(data["faults"][0])
    assert {"name", "smallest_detected"} <= set(data["invariants"][0])
    assert sum(len(names) for names in CHECKS.values()) == len(data["invariants"])


def test_the_clean_targets_are_of_three_algorithms() -> None:
    assert set(CLEAN) == {"closed form", "float64 reference", "QR of the 6×3 factor"}


def test_an_unknown_profile_is_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="profiles: fast, ci, nightly"):
        measure_matrix(profile="slow")


@pytest.mark.process
def test_an_interrupt_ends_the_matrix_and_its_workers_which_hear_of_none_themselves() -> None:
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), _workers(1) as pool:
        with _deaf():
            pool.submit(time.sleep, 60)
        (worker,) = (pool._processes or {}).values()
        os.kill(worker.pid, signal.SIGINT)  # of a terminal, to all
        worker.join(0.3)
        assert worker.is_alive()
        raise KeyboardInterrupt
    assert not worker.is_alive() and time.monotonic() - began < 10
