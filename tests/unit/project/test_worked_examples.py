"""The worked examples of docs/architecture.md, run as they stand there."""

import re
from pathlib import Path
from typing import Any

import pytest

from iga.presets import PRESETS
from iga.testing.verify import verify

PAGE = Path(__file__).resolve().parents[3] / "docs/architecture.md"


def run(example: str) -> dict[str, Any]:
    found = re.search(rf"<!-- example: {example} -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None, example
    names: dict[str, Any] = {}
    exec(found.group(1), names)
    return names


def test_a_check_is_one_function_and_its_fault_another() -> None:
    names = run("check")
    assert names["row"].caught_by == ("contiguous_answers",) and names["finding"].verdict == "holds"


def test_a_format_is_one_function_of_a_document() -> None:
    report = verify("bounded", points=[1], only=["determinism", "calls_agree"])
    head, *rows = run("format")["as_csv"](report.document("iga verify")).splitlines()
    assert head.startswith("name,verdict,worst,budget") and [row.split(",")[:2] for row in rows] == [
        ["determinism", "holds"],
        ["calls_agree", "holds"],
    ]


def test_a_preset_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "mild", PRESETS["bounded"])  # what the example puts there goes again
    names = run("preset")
    assert names["report"].exit_code == 0 and names["report"].target == "mild"
