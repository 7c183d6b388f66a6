"""Folders of tests that hold what their names say."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]


def undrawn(path: Path) -> list[str]:
    """The test functions of a file that draw nothing: no @given, and in no rule-based machine."""
    return [
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test")
        # `breaking` is hypothesis.find, for a law that must not hold
        if not any("given(" in ast.unparse(x) for x in node.decorator_list) and "breaking(" not in ast.unparse(node)
    ]


def test_property_holds_tests_of_hypothesis_alone() -> None:
    files = sorted((TESTS / "property").rglob("*.py"))
    assert files and all(path.name.startswith("test_") for path in files)
    assert {path.name: names for path in files if (names := undrawn(path))} == {}


def test_a_test_that_draws_nothing_would_be_found(tmp_path: Path) -> None:
    file = tmp_path / "test_x.py"
    file.write_text("@given(x=y)\ndef test_a(x): ...\n\ndef test_b(): ...\n")
    assert undrawn(file) == ["test_b"]


def test_no_two_files_of_tests_have_one_name() -> None:
    """Without packages, pytest imports them by their names alone."""
    names = [path.name for path in TESTS.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_the_four_laws_have_a_file_each_by_name() -> None:
    names = {path.stem for path in (TESTS / "property").iterdir()}
    assert names >= {
        "test_attention_does_not_grow_with_points",
        "test_dist_sq_is_bounded",
        "test_log_det_keeps_its_floor",
        "test_logits_are_bounded",
    }


def test_every_module_opens_with_what_it_is_and_no_file_is_long() -> None:
    """A first sentence that begins with a question word makes the reader guess its object."""
    root, riddle = TESTS.parent, re.compile(r"(What|Who|Which|Whether|How|That|Why|Where|When|If)\b")
    files = [path for folder in ("iga", "tests", "benches", "tools") for path in sorted((root / folder).rglob("*.py"))]
    openings = {str(path.relative_to(root)): ast.get_docstring(ast.parse(path.read_text("utf-8"))) for path in files}
    assert len(files) > 300
    assert [name for name, opening in openings.items() if riddle.match(opening or "")] == []
    assert [name for name, opening in openings.items() if not opening and (root / name).stat().st_size] == []
    assert [path.name for path in files if len(path.read_text("utf-8").splitlines()) >= 400] == []
