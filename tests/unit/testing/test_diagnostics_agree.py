"""`diagnostics_agree`: iga's diagnostics hold, and nothing that is wrong does."""

from dataclasses import fields, replace

import pytest
import torch

from iga.testing.faults.diagnostics import FAULTS
from iga.testing.faults.fault import Fault
from iga.testing.library.diagnostics import DIAGNOSTICS, DiagnosticsLibrary, diagnostics_agree
from iga.testing.result import Finding
from iga.testing.tally import Tally

NAMES = [field.name for field in fields(DiagnosticsLibrary)]
FILLERS = {"NaN": torch.nan, "Inf": torch.inf, "-Inf": -torch.inf, "zeros": 0.0, "a constant": 0.5, "ones": 1.0}


def finding(library: DiagnosticsLibrary, seed: int = 0) -> Finding:
    tally = Tally("diagnostics_agree", "of the budget")
    diagnostics_agree(library, seed, tally)
    return tally.finding()


def fill(library: DiagnosticsLibrary, name: str, value: float) -> DiagnosticsLibrary:
    clean = getattr(DIAGNOSTICS, name)

    def same(*args, **options):
        found = clean(*args, **options)
        return dict.fromkeys(found, value) if isinstance(found, dict) else torch.full_like(found, value)

    return replace(library, **{name: same})


def test_the_diagnostics_of_this_package_hold() -> None:
    for seed in range(20):
        found = finding(DIAGNOSTICS, seed)
        assert found.verdict == "holds", found
        assert found.examples > 300 and found.vacuous < 0.1 * found.examples


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_is_caught(fault: Fault) -> None:
    assert fault.expected == ("diagnostics_agree",)
    assert list(fault.sizes) == sorted(fault.sizes, reverse=True)
    assert finding(fault.planted(DIAGNOSTICS)).verdict == "broken"


@pytest.mark.parametrize("filler", FILLERS)
def test_a_library_that_returns_one_number_breaks(filler: str) -> None:
    library = DIAGNOSTICS
    for name in NAMES:
        library = fill(library, name, FILLERS[filler])
    assert finding(library).verdict == "broken"


@pytest.mark.parametrize("filler", ["NaN", "zeros", "a constant"])
@pytest.mark.parametrize("name", NAMES)
def test_each_function_is_judged(name: str, filler: str) -> None:
    assert finding(fill(DIAGNOSTICS, name, FILLERS[filler])).verdict == "broken"


def test_another_name_in_the_log_breaks() -> None:
    def renamed(trace, prefix=""):
        return {name.replace("geo_a", "geo_weight"): x for name, x in DIAGNOSTICS.layer_metrics(trace, prefix).items()}

    assert finding(replace(DIAGNOSTICS, layer_metrics=renamed)).verdict == "broken"
