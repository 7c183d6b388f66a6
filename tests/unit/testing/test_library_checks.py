"""Checks of this package's frames and diagnostics: they judge every function, and accept nothing trivial.

That they hold on what is right, and which faults they see, is for `iga faults` to prove.
"""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from iga.frame import Frame
from iga.testing.check import Check
from iga.testing.checks import LIBRARIES, checks_of
from iga.testing.result import Finding
from iga.testing.tally import Tally

FILLERS = {"NaN": torch.nan, "Inf": torch.inf, "-Inf": -torch.inf, "zeros": 0.0, "a constant": 0.5, "ones": 1.0}
CHECKS = [check for kind in LIBRARIES for check in checks_of(kind).values()]
each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
FRAMES, DIAGNOSTICS = LIBRARIES["frames"], LIBRARIES["diagnostics"]
FUNCTIONS = [(kind, field.name) for kind, library in LIBRARIES.items() for field in fields(library)]


def found(check: Check, library: Any, seed: int = 0) -> Finding:
    tally = Tally(check.name, check.unit)
    check(library, seed, tally)
    return tally.finding()


def broken(library: Any, kind: str) -> bool:
    return any(found(check, library).verdict == "broken" for check in checks_of(kind).values())


def filled(x: Any, value: float) -> Any:
    """`x` with every floating number in it the same."""
    if isinstance(x, torch.Tensor):
        return torch.full_like(x, value) if x.is_floating_point() else x
    if isinstance(x, dict):
        return dict.fromkeys(x, value)
    if isinstance(x, Frame):
        return Frame(torch.full_like(x.rot, value), torch.full_like(x.trans, value))
    assert isinstance(x, tuple)
    return tuple(filled(part, value) for part in x)


def fill(kind: str, value: float, *names: str) -> Any:
    """The library with functions that answer with one number."""
    clean = LIBRARIES[kind]
    rights = {name: getattr(clean, name) for name in names}
    return replace(clean, **{n: lambda *a, right=f, **o: filled(right(*a, **o), value) for n, f in rights.items()})


@each_check
def test_the_functions_of_this_package_hold_on_examples_that_could_have_failed(check: Check) -> None:
    finding = found(check, LIBRARIES[check.kind])
    assert finding.verdict == "holds", finding
    assert finding.examples > 300 and finding.vacuous < 0.1 * finding.examples


@each_check
def test_a_library_that_returns_one_number_breaks(check: Check) -> None:
    names = [name for kind, name in FUNCTIONS if kind == check.kind]
    for filler, value in FILLERS.items():
        assert found(check, fill(check.kind, value, *names)).verdict == "broken", filler


@pytest.mark.parametrize("kind", LIBRARIES)
def test_each_function_is_judged(kind: str) -> None:
    for _, name in (one for one in FUNCTIONS if one[0] == kind):
        assert broken(fill(kind, FILLERS["a constant"], name), kind), name


def test_a_result_of_another_dtype_or_shape_breaks() -> None:
    for wrong in (lambda v: FRAMES.exp(v).double(), lambda v: FRAMES.exp(v)[..., :2], lambda v: None):
        assert found(checks_of("frames")["frame_laws"], replace(FRAMES, exp=wrong)).verdict == "broken"


def test_a_refusal_of_a_valid_input_breaks() -> None:
    def refuse(q: torch.Tensor) -> torch.Tensor:
        raise ValueError("no quaternion pleases me")

    for check in checks_of("frames").values():
        finding = found(check, replace(FRAMES, from_quaternion=refuse))
        assert finding.verdict == "broken" and "pleases" in finding.note


def test_another_name_in_the_log_breaks() -> None:
    def renamed(trace, prefix=""):
        return {name.replace("geo_a", "geo_weight"): x for name, x in DIAGNOSTICS.layer_metrics(trace, prefix).items()}

    assert broken(replace(DIAGNOSTICS, layer_metrics=renamed), "diagnostics")
