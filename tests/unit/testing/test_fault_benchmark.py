"""The benchmark of slips: what counts as caught, and the tables of its page."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def slips() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fault_benchmark", ROOT / "benches" / "fault_benchmark.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(name: str, **found: str) -> dict[str, Any]:
    results = {approach: {"finds": finds, "seconds": 1.0} for approach, finds in found.items()}
    return {"bench": "overlap", "name": name, "kind": "sizes", "region": "n > 1 | 2", "found": results}


def test_what_fast_catches_counts_for_ci_and_what_was_not_run_counts_for_nothing(slips: Any) -> None:
    assert slips.caught(row("a", fast="accuracy"), "ci") is True
    assert slips.caught(row("a", fast=""), "ci") is None
    assert slips.caught(row("a", fast="", ci="accuracy"), "ci") is True
    assert slips.caught(row("a", gradcheck=""), "gradcheck") is False


def test_the_page_has_a_row_a_slip_and_the_shares_of_each_approach(slips: Any, tmp_path: Path) -> None:
    page = tmp_path / "faults.md"
    page.write_text((ROOT / "docs" / "faults.md").read_text())
    result = {
        "environment": {
            "date": "2026-01-01",
            "platform": "Linux",
            "iga": "1",
            "torch": "2",
            "numpy": "2",
            "python": "3",
        },
        "calls": {"fast": "verify"},
        "rows": [row("caught", fast="accuracy", allclose=""), row("passed", fast="", allclose="")],
    }
    slips.write_page(page, result)
    text = page.read_text()
    assert "| overlap | sizes | 2 | 0 of 2 | not run | not run | 1 of 2 | 1 of 1 |" in text
    assert "| caught | n > 1 \\| 2 | sizes |  | – | – | ● | ● |" in text
    slips.write_page(page, result)
    assert page.read_text() == text


@pytest.mark.parametrize(
    ("name", "approach"),
    [
        ("numbers with gaps between are read without", "fast"),
        ("half the gradient when compiled", "allclose"),
        ("a pair without further dimensions takes the query's shape for the key's", "gradcheck"),
    ],
)
def test_an_approach_finds_what_it_looks_at_and_nothing_else(slips: Any, name: str, approach: str) -> None:
    found = slips.measure("overlap", name, [approach], {})[approach]
    assert bool(found["finds"]) == (approach == "fast")
