"""The matrix fault × check: every fault is seen by the checks that have to, in itself and as the command reports it."""

import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from iga.report.console import show
from iga.report.faults import blocks
from iga.testing.faults import FAULTS
from iga.testing.faults.clean import CLEAN
from iga.testing.faults.matrix import Matrix, Row, measure_matrix
from iga.testing.faults.patched import patched
from iga.testing.faults.subjects import CHECKS, check, clean_subject, looks_at

LAYER = [fault for fault in FAULTS["layer"] if "transforms" not in fault.expected]


@pytest.mark.parametrize("fault", LAYER, ids=lambda fault: fault.name)
def test_a_fault_of_a_layer_is_seen_by_every_check_that_has_to(fault) -> None:
    findings = check("layer", fault.planted(clean_subject("layer")), fault.expected, 0)
    assert [finding.name for finding in findings] == list(fault.expected)
    assert all(finding.verdict != "holds" for finding in findings)


def filled(value: float):
    """A layer all of whose scores, weights and outputs are one number, with a path back to every input."""

    def after(trace):
        names = "dist_sq log_det score geo_raw geo_scaled scalar logits weights features output".split()
        return replace(trace, **{name: getattr(trace, name) * 0 + value for name in names})

    return patched(clean_subject("layer"), {}, after)


@pytest.mark.parametrize("value", [math.inf, 0.0, 1.5], ids=["infinity", "zeros", "a constant"])
def test_no_check_of_a_layer_accepts_garbage(value: float) -> None:
    # NaN: test_verify.py
    names = [name for name in CHECKS["layer"] if name != "transforms"]
    assert [f.name for f in check("layer", filled(value), names, 0) if f.verdict == "holds"] == []


@pytest.mark.parametrize("bench", CHECKS)
def test_every_check_is_expected_to_catch_something(bench: str) -> None:
    expected = {name for fault in FAULTS[bench] for name in fault.expected}
    assert expected == set(CHECKS[bench])


def test_faults_have_names_of_their_own_and_checks_that_exist() -> None:
    for bench, faults in FAULTS.items():
        names = [fault.name for fault in faults]
        assert len(set(names)) == len(names)
        for fault in faults:
            assert set(fault.expected) <= set(CHECKS[bench])
            assert all(looks_at(bench, name, fault) for name in fault.expected)
            assert list(fault.sizes) == sorted(fault.sizes, reverse=True)


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
